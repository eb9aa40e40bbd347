"""What a caller may give where a workflow takes a file, told apart and read.

>>> from comfyserve.workflows.parameters import Image
>>> picture = Image(name="image", targets=(("1", "image"),))
>>> read_media(picture, {"job_id": "0b5e6e5c-6a0e-4d3f-8f43-0f4f2f5b0c11", "index": 1})
OutputOf(job_id='0b5e6e5c-6a0e-4d3f-8f43-0f4f2f5b0c11', node_id=None, index=1)
>>> read_media(picture, "data:image/png;base64,iVBORw0KGgo=").content_type
'image/png'
>>> try:
...     read_media(picture, "photo.png")
... except ValueError as error:
...     str(error).partition("not ")[2]
"'photo.png'. A file itself comes in a form (with curl: -F NAME=@FILE)."
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote_to_bytes
from uuid import UUID

from comfyserve.assets import Asset
from comfyserve.errors import did_you_mean
from comfyserve.workflows.asset_references import TYPE
from comfyserve.workflows.graph import shown
from comfyserve.workflows.parameters import Media


@dataclass(frozen=True, slots=True)
class Kept:
    """A file that came with the call and is an asset by now."""

    asset: Asset


@dataclass(frozen=True, slots=True)
class ToCome:
    """A file that would come with a call which is only asked about."""


@dataclass(frozen=True, slots=True)
class AssetNamed:
    """An asset of the caller's."""

    id: str


@dataclass(frozen=True, slots=True)
class OutputOf:
    """An output of a job of the caller's.

    Of those that are of the wanted kind, and of the node where one is named, it is the one at
    *index*, counted from 0.
    """

    job_id: str
    node_id: str | None = None
    index: int = 0


@dataclass(frozen=True, slots=True)
class Inline:
    """Bytes that stand in the call itself; *content_type* is what the caller says they are."""

    content: bytes = field(repr=False)
    content_type: str = ""


@dataclass(frozen=True, slots=True)
class At:
    """What there is at an address."""

    url: str


MediaValue = Kept | ToCome | AssetNamed | OutputOf | Inline | At


def read_media(parameter: Media, value: object) -> MediaValue:
    """Which file is meant. Raises ValueError, with one sentence, where none can be."""
    match value:
        case Kept() | ToCome():
            return value
        case str() if value[:5].lower() == "data:":
            return _inline(parameter, value)
        case str() if _ADDRESS.match(value):
            return At(value)
        case str() if _is_id(value):
            return AssetNamed(value)
        case {"asset_id": str() as id, **others} if _is_id(id):
            _refuse_others(parameter, others, ())
            return AssetNamed(id)
        case {"__type": kind, "info": {"id": str() as id}} if kind == TYPE and _is_id(id):
            return AssetNamed(id)
        case {"job_id": str() as id, **others}:
            return _output(parameter, id, others)
        case _:
            raise ValueError(f"{parameter.name} takes {TAKES}, not {shown(value)}.{_hint(value)}")


def _hint(value: object) -> str:
    """How a file is sent, to who gave what looks like the name of one."""
    is_name = isinstance(value, str) and re.search(r"\.\w{2,5}$", value)
    return " A file itself comes in a form (with curl: -F NAME=@FILE)." if is_name else ""


TAKES: Final = (
    'a file, an asset\'s id, an output of a job as {"job_id": ..}, a data: URI or an http(s) '
    "address"
)

_ADDRESS: Final = re.compile(r"https?:", re.IGNORECASE)
_LONGEST_MIME: Final = 200

_MOST_ESCAPES: Final = 200_000
"""Percent signs in a data: URI, each of which takes a hundred times its size to be read."""


def _inline(parameter: Media, uri: str) -> Inline:
    head, comma, body = uri[5:].partition(",")
    if not comma or len(head) > _LONGEST_MIME:
        raise ValueError(
            f"{parameter.name} is a data: URI without content; it looks like "
            "data:image/png;base64,iVBORw0K.."
        )
    kind, *options = (part.strip() for part in head.split(";"))
    if not options or options[-1].lower() != "base64":
        if body.count("%") > _MOST_ESCAPES:
            raise ValueError(f"{parameter.name} is a long data: URI that is not base64. Use that.")
        return Inline(unquote_to_bytes(body), kind)
    try:
        # Some encoders break lines, and those of addresses leave the padding out.
        text = "".join(body.split()).rstrip("=").replace("-", "+").replace("_", "/")
        content = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"{parameter.name} is a data: URI whose base64 is broken.") from None
    if not content:
        raise ValueError(f"{parameter.name} is a data: URI that holds nothing.")
    return Inline(content, kind)


def _output(parameter: Media, job_id: str, others: Mapping[object, object]) -> OutputOf:
    _refuse_others(parameter, others, ("node_id", "index"))
    node_id, index = others.get("node_id"), others.get("index", 0)
    if not _is_id(job_id):
        raise ValueError(f"{parameter.name} names the job {shown(job_id)}, which is no job's id.")
    if isinstance(node_id, int) and not isinstance(node_id, bool):
        node_id = str(node_id)
    if node_id is not None and not isinstance(node_id, str):
        raise ValueError(f"{parameter.name} needs a node's id as its 'node_id'.")
    if not isinstance(index, int) or isinstance(index, bool) or index < 0:
        raise ValueError(f"{parameter.name} needs a whole number from 0 as its 'index'.")
    return OutputOf(job_id, node_id, index)


def _refuse_others(
    parameter: Media, others: Mapping[object, object], known: tuple[str, ...]
) -> None:
    for name in others:
        if name not in known:
            hint = did_you_mean(str(name)[:60], known)
            raise ValueError(f"{parameter.name} has {shown(name)}, unknown there.{hint}")


def _is_id(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False
