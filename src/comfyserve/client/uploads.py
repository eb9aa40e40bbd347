"""What a caller may give for an image, mask, video or sound, turned into an upload."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Protocol, runtime_checkable

from comfyserve.assets import HEAD_SIZE, Upload, content_type
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
            return Upload(value.name, path=_existing_file(name, _kept(name, value)))
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


def check_content(name: str, kind: str, upload: Upload) -> None:
    """Raise `InvalidInputs` where *upload* is plainly not what an input of that *kind* takes.

    Only its beginning is looked at. What is not known for certain is left to the server.
    """
    if kind not in _MEDIA:
        return
    head = _head(name, upload)
    if not head:
        raise _problem(name, f"cannot be {_called(upload)}, which is empty.")
    found = content_type(head, upload.name)
    if _is_no_media(found) and not _TEXTUAL_PICTURE.match(head):
        raise _problem(name, f"takes {_MEDIA[kind]}, and {_called(upload)} is none: it is {found}.")


_MEDIA = {"image": "a picture", "mask": "a picture", "video": "a video", "audio": "a sound"}

_TEXTUAL_PICTURE = re.compile(rb"P[1-7Ff]\s|/\* XPM|#define |%!PS|#\?")
"""Formats of pictures, all rare, that begin like a text or are one."""


def _is_no_media(mime: str) -> bool:
    return mime.startswith("text/") or mime in (
        "application/json",
        "application/pdf",
        "application/x-subrip",
        "application/zip",
    )


def _head(name: str, upload: Upload) -> bytes:
    if upload.path is None:
        return (upload.content or b"")[:HEAD_SIZE]
    try:
        with upload.path.open("rb") as file:
            return file.read(HEAD_SIZE)
    except OSError as error:
        reason = error.strerror or str(error)
        raise _problem(name, f"cannot be {upload.path}: {reason}.") from error


def _called(upload: Upload) -> str:
    return str(upload.path) if upload.path is not None else "what was given"


def _kept(name: str, output: OutputFile) -> Path:
    try:
        return output.path
    except FileNotFoundError as error:
        raise _problem(name, f"cannot be sent: {error}") from None


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
