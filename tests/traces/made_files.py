"""Small valid files, made the same every time, for pictures which a recording cut off."""

from __future__ import annotations

import base64
import hashlib
import struct
import zlib

_JPEG = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAFA3PEY8MlBGQUZaVVBfeMiCeG5uePWvuZHI////////////////////"
    "////////////////////////////////wAALCAAIAAgBAREA/8QAFAABAAAAAAAAAAAAAAAAAAAAAP/EABQQAQAA"
    "AAAAAAAAAAAAAAAAAAD/2gAIAQEAAD8AP//Z"
)


def picture(kind: str, seed: bytes) -> bytes:
    """A picture of the MIME type *kind* (`image/png`, else JPEG) that differs with *seed*."""
    if kind == "image/png":
        return _png(seed)
    comment = hashlib.sha256(seed).hexdigest().encode()
    # a comment segment right after the start marker makes the bytes differ and the image stay
    return _JPEG[:2] + b"\xff\xfe" + struct.pack(">H", len(comment) + 2) + comment + _JPEG[2:]


def file(name: str) -> bytes:
    """A file that looks like what its name promises; the same name gives the same bytes."""
    seed = name.encode()
    suffix = name.rpartition(".")[2].lower()
    if suffix in ("png", "jpg", "jpeg"):
        return picture("image/png" if suffix == "png" else "image/jpeg", seed)
    body = hashlib.sha256(seed).digest() * 4
    return _HEADS.get(suffix, b"") + body


_HEADS = {
    "webp": b"RIFF" + struct.pack("<I", 132) + b"WEBP",
    "gif": b"GIF89a",
    "flac": b"fLaC",
    "mp3": b"ID3\x04\0\0\0\0\0\0",
    "opus": b"OggS\0\2",
    "webm": b"\x1aE\xdf\xa3",
    "mp4": b"\0\0\0\x18ftypisom\0\0\2\0isomiso2",
    "glb": b"glTF\2\0\0\0",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
}


def _png(seed: bytes) -> bytes:
    colour = hashlib.sha256(seed).digest()[:3]
    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" + colour)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    )
