"""What a file needs before it goes to a server: its hash, its type, a safe name."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePath
from typing import BinaryIO, Final

import blake3

from comfyserve.assets import HEAD_SIZE, Upload, content_type
from comfyserve.errors import InputProblem, InvalidInputs

_ENDINGS = {
    "image/png": ".png",
    "image/jpeg": ".jpg",
    "image/webp": ".webp",
    "image/gif": ".gif",
    "image/avif": ".avif",
    "image/tiff": ".tiff",
    "video/mp4": ".mp4",
    "video/webm": ".webm",
    "video/quicktime": ".mov",
    "video/x-matroska": ".mkv",
    "audio/flac": ".flac",
    "audio/mpeg": ".mp3",
    "audio/ogg": ".ogg",
    "audio/wav": ".wav",
    "audio/mp4": ".m4a",
    "model/gltf-binary": ".glb",
}


UPLOAD_FOLDER: Final = "comfyserve"
"""The folder below a server's input folder that all uploads go to."""


def prepare(upload: Upload) -> tuple[str, str]:
    """Read a file once, in pieces; its blake3 digest in hex and its MIME type.

    Of one whose hash is known, only the beginning is read.
    """
    digest = blake3.blake3()
    with opened(upload) as content:
        head = content.read(HEAD_SIZE)
        if upload.hash is not None:
            return upload.hash.removeprefix("blake3:"), content_type(head, upload.name)
        digest.update(head)
        while chunk := content.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest(), content_type(head, upload.name)


def server_name(upload: Upload, digest: str, mime: str, mask_of: str | None = None) -> str:
    """What a node on the server takes for a file that was uploaded; see `file_name`."""
    return f"{UPLOAD_FOLDER}/{file_name(upload, digest, mime, mask_of)}"


def file_name(upload: Upload, digest: str, mime: str, mask_of: str | None) -> str:
    """A name that is the same for the same bytes, and plain ASCII on every server.

    Nodes tell media by the ending, so a known type decides it; else the caller's own is kept.
    """
    own = PurePath(upload.name).suffix.lower()
    kept = own if own[1:].isascii() and own[1:].isalnum() and len(own) <= 10 else ""
    if mask_of is None:
        return f"{digest[:32]}{_ENDINGS.get(mime, kept)}"
    pair = blake3.blake3(f"{digest} over {mask_of}".encode()).hexdigest()
    return f"{pair[:32]}.png"


@contextmanager
def opened(upload: Upload) -> Iterator[BinaryIO]:
    """The bytes of an upload as a file; one that cannot be read is the caller's problem."""
    if upload.path is None:
        yield io.BytesIO(upload.content or b"")
        return
    try:
        file = upload.path.open("rb")
    except OSError as error:
        reason = error.strerror or str(error)
        problem = InputProblem(upload.name, f"The file {upload.path} cannot be read: {reason}.")
        raise InvalidInputs([problem]) from error
    with file:
        yield file
