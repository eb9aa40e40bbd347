"""The body of ``POST /api/v2/jobs``, read and checked: what a caller may ask for and note."""

from __future__ import annotations

import re
import unicodedata
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from comfyserve.denials import EditorFormatRefused, GraphRefused, InvalidRequest, MetadataInvalid
from comfyserve.errors import GraphInvalid, WorkflowUnreadable, did_you_mean
from comfyserve.jobs import Metadata
from comfyserve.workflows.graph import Graph, is_editor_format, read_graph, shown

FIELDS: Final = frozenset(
    {"workflow", "extra_data", "metadata", "priority", "id", *("webhook_url", "inputs")}
)
"""The fields that the body may have; the last two are reserved and may only be null, and ``id`` is
ours: a caller that names the job itself finds it again though the answer was lost."""

MOST_PRIORITY: Final = 1_000_000
MOST_NOTE_BYTES: Final = 1024
MOST_LABELS: Final = 16
MOST_LABEL_BYTES: Final = 256

_RESERVED: Final = ("webhook_url", "inputs")
_SECRETS: Final = ("api_key_comfy_org",)
_LONGEST_SECRET: Final = 4096
_LABEL: Final = re.compile(r"[A-Za-z0-9_.-]{1,40}")


@dataclass(frozen=True, slots=True)
class JobRequest:
    """What a caller wants to be run; *extra_data* is secret and shows up nowhere."""

    graph: Graph
    extra_data: Mapping[str, str] = field(repr=False)
    metadata: Metadata | None
    priority: int
    id: str | None = None


def read_job_request(body: Mapping[str, Any]) -> JobRequest:
    """The request that *body*, with `FIELDS` alone, makes.

    Raises `InvalidRequest`, `MetadataInvalid`, `EditorFormatRefused`, `GraphInvalid` and
    `GraphRefused`.
    """
    for name in _RESERVED:
        if body.get(name) is not None:
            raise GraphInvalid(f"{name!r} is reserved and cannot be used yet")
    return JobRequest(
        _graph(body.get("workflow")),
        read_extra_data(body.get("extra_data")),
        read_metadata(body.get("metadata")),
        read_priority(body.get("priority")),
        read_id(body.get("id")),
    )


def read_metadata(given: object) -> Metadata | None:
    """What a caller notes on a job: a text, or labels by name. Raises `MetadataInvalid`."""
    match given:
        case None:
            return None
        case str():
            if (size := len(given.encode())) > MOST_NOTE_BYTES:
                raise MetadataInvalid(
                    f"The metadata have {size:,} bytes; a text may have {MOST_NOTE_BYTES:,}."
                )
            return given
        case dict():
            if len(given) > MOST_LABELS:
                raise MetadataInvalid(
                    f"The metadata have {len(given)} labels; there may be {MOST_LABELS}."
                )
            return {name: _label(name, value) for name, value in given.items()}
        case _:
            raise MetadataInvalid("The metadata have to be a text, or texts by name.")


def _label(name: str, value: object) -> str:
    if not _LABEL.fullmatch(name):
        raise MetadataInvalid(
            f"The label {shown(name)} needs a name of 1 to 40 letters, digits, '_', '.' or '-'."
        )
    if not isinstance(value, str):
        raise MetadataInvalid(f"The label {name!r} has to be a text.")
    if len(value.encode()) > MOST_LABEL_BYTES:
        raise MetadataInvalid(f"The label {name!r} may have {MOST_LABEL_BYTES} bytes.")
    if any(_is_invisible(character) for character in value):
        raise MetadataInvalid(f"The label {name!r} holds a control character.")
    return value


def _is_invisible(character: str) -> bool:
    """A control character, or one that changes the direction of what follows it."""
    is_control = unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
    return is_control or unicodedata.bidirectional(character) in _DIRECTIONS or character in _MARKS


_DIRECTIONS: Final = frozenset({"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})
_MARKS: Final = frozenset("\u061c\u200e\u200f")


def _graph(given: object) -> Graph:
    if given is None:
        raise InvalidRequest("The body needs 'workflow': the graph to run, in API format.")
    if not isinstance(given, dict):
        raise GraphInvalid("'workflow' has to be a graph: an object of nodes by id")
    if is_editor_format(given):
        raise EditorFormatRefused
    try:
        return read_graph(given)
    except WorkflowUnreadable as error:
        raise GraphInvalid(str(error)) from None
    except GraphInvalid as error:
        if error.node_id is None:
            raise
        problem = {"field": "", "reason": "invalid_node", "message": str(error)}
        raise GraphRefused({error.node_id: [problem]}) from None


def read_extra_data(given: object) -> Mapping[str, str]:
    """The secrets that a job is run with. Raises `InvalidRequest`."""
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise InvalidRequest("'extra_data' has to be an object.")
    for name, value in given.items():
        if name not in _SECRETS:
            hint = did_you_mean(name[:60], _SECRETS)
            known = hint if hint else f" It may only have {_SECRETS[0]!r}."
            raise InvalidRequest(f"'extra_data' has {shown(name)}, which it may not.{known}")
        if value is not None and not isinstance(value, str):
            raise InvalidRequest(f"'extra_data' needs a text for {name!r}.")
        if value is not None and len(value) > _LONGEST_SECRET:
            raise InvalidRequest(f"'extra_data' has more than {_LONGEST_SECRET} characters.")
    return {name: value for name, value in given.items() if value is not None}


def read_priority(given: object) -> int:
    """How urgent a caller says a job is. Raises `InvalidRequest`."""
    if given is None:
        return 0
    if not isinstance(given, int) or isinstance(given, bool) or abs(given) > MOST_PRIORITY:
        raise InvalidRequest(
            f"'priority' has to be a whole number of {-MOST_PRIORITY:,} to {MOST_PRIORITY:,}."
        )
    return given


def read_id(given: object) -> str | None:
    """The id that a caller gives his job. Raises `InvalidRequest`."""
    if given is None:
        return None
    try:
        id = str(uuid.UUID(given)) if isinstance(given, str) else None
    except ValueError:
        id = None
    if id is None or id != given:
        raise InvalidRequest("'id' has to be a UUID in lower case, with its four hyphens.")
    return id
