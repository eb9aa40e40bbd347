"""What the catalogue holds of one name, and what is handed to it besides the folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from comfyserve.workflows.workflow import Workflow


@dataclass(frozen=True, slots=True)
class Entry:
    """One name on offer.

    *workflow* is the last good version, or None where there never was one; it has no limits and
    choices yet, see `Catalog.described`. *problem* says in whole sentences why the latest version
    is not that one. *version* is a hash of the bytes that *workflow* was read from, the sidecar's
    among them; *changed_at* is when they were written, in seconds since the epoch. *warnings* are
    sentences about what stands in its way without harming it, such as a second file of that name.
    *file* is the file's name in the folder, as it can be shown. *thumbnail* is the picture's file
    there, empty for a published picture, and None where there is none.
    """

    name: str
    source: Literal["folder", "published"]
    workflow: Workflow | None = field(compare=False)
    version: str = ""
    changed_at: float = 0.0
    problem: str | None = None
    warnings: tuple[str, ...] = ()
    file: str = ""
    thumbnail: str | None = None
    thumbnail_version: str = ""


@dataclass(frozen=True, slots=True)
class Published:
    """A workflow that was handed in: the bytes of a file, and the text of a sidecar if any."""

    name: str
    content: bytes = field(repr=False)
    sidecar: str = field(default="", repr=False)
    changed_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Picture:
    """What a workflow looks like: a PNG, JPEG, WebP or AVIF picture."""

    content: bytes = field(repr=False)
    content_type: str
