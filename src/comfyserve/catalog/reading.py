"""From the files that share a name to an entry of the catalogue."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from comfyserve.assets import HEAD_SIZE, content_type
from comfyserve.catalog.entry import Entry, Picture, Published
from comfyserve.catalog.names import name_of
from comfyserve.errors import WorkflowUnreadable
from comfyserve.workflows.embedded import Embedded, find_embedded
from comfyserve.workflows.graph import MAX_BYTES
from comfyserve.workflows.sidecar import MOST_TEXT, read_sidecar
from comfyserve.workflows.workflow import Workflow

SIDECAR: Final = ".toml"

_PICTURES: Final = (".png", ".webp", ".jpg", ".jpeg")
_ENDINGS: Final = (
    ".json",
    *(".mp4", ".m4v", ".mov", ".webm", ".mkv"),
    *(".flac", ".mp3", ".m4a", ".ogg", ".oga", ".opus"),
    *(".glb", ".latent", ".svg", ".avif", ".heic", ".heif"),
    *_PICTURES,
)
"""The endings of workflow files; of several files of one name the first counts. Pictures come
last: beside another file they are what it looks like."""

WATCHED: Final = frozenset({*_ENDINGS, SIDECAR})

MOST_PICTURE: Final = 32 * 2**20
"""The most bytes of a thumbnail."""

_SHOWN_TYPES: Final = frozenset({"image/png", "image/jpeg", "image/webp", "image/avif"})
_SHOWN_ENDINGS: Final = frozenset({*_PICTURES, ".avif"})


@dataclass(frozen=True, slots=True)
class Seen:
    """A file as a look at the folder found it.

    *stamp* differs whenever the file may have changed. *refusal* says why it may not be read.
    """

    name: str
    stamp: tuple[int, ...]
    written_at: float
    refusal: str = ""

    @property
    def said(self) -> str:
        """Its name for messages and logs, without what could play tricks there."""
        return "".join(letter if letter.isprintable() else "?" for letter in self.name)

    @property
    def stem(self) -> str:
        return os.path.splitext(self.name)[0]

    @property
    def ending(self) -> str:
        return os.path.splitext(self.name)[1].lower()


@dataclass(frozen=True, slots=True)
class Group:
    """The files of one name: the one that counts, what belongs to it, and the others."""

    file: Seen
    sidecar: Seen | None
    picture: Seen | None
    others: tuple[Seen, ...]

    @classmethod
    def of(cls, files: Sequence[Seen]) -> Group:
        """Who is what among *files*, of which one at least is no sidecar."""
        ranked = sorted(
            (file for file in files if file.ending in _ENDINGS),
            key=lambda file: (_ENDINGS.index(file.ending), file.name),
        )
        first, *others = ranked
        sidecars = (file for file in files if file.ending == SIDECAR)
        shows_itself = first.ending in _SHOWN_ENDINGS
        beside = [file for file in others if file.stem == first.stem and file.ending in _PICTURES]
        pictures = [first] if shows_itself else beside
        return cls(
            first,
            next((file for file in sidecars if file.stem == first.stem), None),
            next((file for file in pictures if not file.refusal), None),
            tuple(file for file in others if shows_itself or file not in beside),
        )

    @property
    def name(self) -> str:
        return name_of(self.file.stem)

    @property
    def written_at(self) -> float:
        return max(file.written_at for file in (self.file, self.sidecar) if file)

    def warnings(self) -> tuple[str, ...]:
        return tuple(
            f"{other.said} would have the same name as {self.file.said}, so it is not offered."
            " Rename it."
            for other in self.others
        )


def read_group(folder: Path, group: Group) -> Entry:
    """Read the files of one name.

    Raises `ComfyServeError` for what is no workflow, and `OSError` for what cannot be read.
    """
    content = _content(folder, group.file)
    sidecar = "" if group.sidecar is None else _sidecar_text(folder, group.sidecar)
    workflow = _workflow(group.name, content, group.file.said, sidecar, group.sidecar)
    picture = group.picture
    return Entry(
        group.name,
        "folder",
        workflow,
        version_of(content, sidecar),
        group.written_at,
        warnings=group.warnings(),
        file=group.file.said,
        thumbnail=picture.name if picture else None,
        thumbnail_version=_hashed(repr(picture).encode()) if picture else "",
    )


def read_published(published: Published) -> Entry:
    """Read what was handed in. Raises `ComfyServeError` for what is no workflow."""
    name = published.name
    content = find_embedded(published.content, name) or published.content
    workflow = _workflow(name, content, name, published.sidecar, None)
    is_picture = published_picture(published) is not None
    return Entry(
        name,
        "published",
        workflow,
        version_of(content, published.sidecar),
        published.changed_at,
        thumbnail="" if is_picture else None,
        thumbnail_version=_hashed(published.content) if is_picture else "",
    )


def published_picture(published: Published) -> Picture | None:
    """What was handed in, if it is itself a picture that can be shown."""
    return _picture(published.content)


def read_picture(folder: Path, name: str) -> Picture | None:
    """A picture of the folder; None where it is gone, too large, or not what it is called."""
    file = folder / name
    # The link may be newer than the last look.
    if not file.resolve().is_relative_to(folder.resolve()):
        return None
    try:
        with file.open("rb") as opened:
            return _picture(opened.read(MOST_PICTURE + 1))
    except OSError:
        return None


def version_of(content: Embedded | bytes, sidecar: str) -> str:
    """A hash of all that decides what a workflow is."""
    if isinstance(content, Embedded):
        content = f"{content.prompt}\0{content.workflow}".encode(errors="surrogatepass")
    return _hashed(content, sidecar.encode(errors="surrogatepass"))


def _content(folder: Path, seen: Seen) -> Embedded | bytes:
    _check(seen)
    with (folder / seen.name).open("rb") as opened:
        # A film is too large to be read whole.
        if embedded := find_embedded(opened, seen.said):
            return embedded
        opened.seek(0)
        return opened.read(MAX_BYTES + 1)


def _sidecar_text(folder: Path, seen: Seen) -> str:
    _check(seen)
    with (folder / seen.name).open("rb") as opened:
        content = opened.read(4 * MOST_TEXT + 1)
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise WorkflowUnreadable(seen.said, "is not UTF-8 text") from None


def _check(seen: Seen) -> None:
    if seen.refusal:
        raise WorkflowUnreadable(seen.said, seen.refusal)


def _workflow(
    name: str, content: Embedded | bytes, source: str, sidecar: str, beside: Seen | None
) -> Workflow:
    called = beside.said if beside else f"The sidecar of {name}"
    described = read_sidecar(sidecar, called) if beside or sidecar else None
    return Workflow.from_bytes(content, name, source=source, sidecar=described)


def _picture(content: bytes) -> Picture | None:
    kind = content_type(content[:HEAD_SIZE])
    if kind not in _SHOWN_TYPES or len(content) > MOST_PICTURE:
        return None
    return Picture(content, kind)


def _hashed(*parts: bytes) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()
