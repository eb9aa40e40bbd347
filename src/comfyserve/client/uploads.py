"""What a caller may give for an image, mask, video or sound, turned into an upload."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol, runtime_checkable

from comfyserve.assets import Upload
from comfyserve.client.output_files import OutputFile
from comfyserve.errors import InputProblem, InvalidInputs, did_you_mean


@runtime_checkable
class Readable(Protocol):
    """A file object that was opened to read bytes."""

    def read(self) -> bytes: ...


def as_upload(name: str, value: object) -> Upload:
    """The upload that *value* means for the input *name*.

    It may be a path, the content itself, an open file, or an output of an earlier job. Raises
    `InvalidInputs` where it is none of these, or where there is no such file.
    """
    match value:
        case Upload():
            return value
        case OutputFile():
            return Upload(value.name, path=_existing_file(name, value.path))
        case bytes() | bytearray() | memoryview():
            return Upload(name, content=bytes(value))
        case str() | os.PathLike():
            path = _existing_file(name, Path(value).expanduser())
            return Upload(path.name, path=path)
        case Readable():
            return _read(name, value)
        case _:
            kind = type(value).__name__
            raise _problem(name, f"takes a path, bytes, an open file or an output, not {kind}.")


def _existing_file(name: str, path: Path) -> Path:
    if path.is_file():
        return path
    if path.is_dir():
        raise _problem(name, f"cannot be {path}, which is a folder.")
    raise _problem(name, f"cannot be {path}: there is no such file.{_nearest_file(path)}")


def _nearest_file(path: Path) -> str:
    try:
        names = [entry.name for entry in os.scandir(path.parent) if entry.is_file()]
    except OSError:
        return f" There is no folder {path.parent} either."
    return did_you_mean(path.name, names)


def _read(name: str, file: Readable) -> Upload:
    content = file.read()
    if not isinstance(content, bytes):
        raise _problem(name, "takes bytes, and the file was opened as text; use mode 'rb'.")
    label = getattr(file, "name", None)
    return Upload(Path(label).name if isinstance(label, str) else name, content=content)


def _problem(name: str, why: str) -> InvalidInputs:
    return InvalidInputs([InputProblem(name, f"{name} {why}")])
