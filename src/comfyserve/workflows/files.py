"""Reading workflow files from a disk: the one place in this room that does."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from comfyserve.errors import WorkflowUnreadable, did_you_mean
from comfyserve.workflows.embedded import Embedded, find_embedded
from comfyserve.workflows.graph import MAX_BYTES
from comfyserve.workflows.sidecar import Sidecar, read_sidecar


def read_file(file: Path) -> Embedded | bytes:
    """What a workflow file holds: its bytes, or what a media file carries."""
    if file.is_dir():
        raise WorkflowUnreadable(str(file), "is a folder, not a workflow file", _inside(file))
    if file.suffix.lower() == ".toml" and file.exists():
        beside = [name for name in _names_in(file.parent) if Path(name).stem == file.stem]
        others = [name for name in beside if name != file.name]
        advice = f"Give the workflow it describes: {' or '.join(others[:3])}" if others else ""
        raise WorkflowUnreadable(str(file), "is a sidecar, not a workflow file", advice)
    try:
        with file.open("rb") as opened:
            # A film is too large to be read whole; a pipe can only be read so.
            if opened.seekable():
                if embedded := find_embedded(opened, str(file)):
                    return embedded
                opened.seek(0)
            return opened.read(MAX_BYTES + 1)
    except FileNotFoundError:
        near = did_you_mean(file.name, _names_in(file.parent), at_most=2)
        raise WorkflowUnreadable(str(file), "does not exist", near.strip()) from None
    except OSError as error:
        raise WorkflowUnreadable(str(file), f"cannot be read: {error.strerror}") from None
    except ValueError as error:  # a name that no file system takes
        raise WorkflowUnreadable(repr(str(file)), f"cannot be read: {error}") from None


def read_sidecar_beside(file: Path) -> Sidecar | None:
    """The sidecar of a workflow file: the TOML file of the same name, if there is one."""
    beside = file.with_suffix(".toml")
    try:
        return read_sidecar(beside.read_text(encoding="utf-8"), str(beside))
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        raise WorkflowUnreadable(str(beside), "is not UTF-8 text") from None
    except OSError as error:
        raise WorkflowUnreadable(str(beside), f"cannot be read: {error.strerror}") from None


def _inside(folder: Path) -> str:
    names = [name for name in _names_in(folder) if name.lower().endswith(".json")]
    return f"It has {', '.join(names[:5])}" if names else ""


def _names_in(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in islice(folder.iterdir(), 1000))
    except OSError:
        return []
