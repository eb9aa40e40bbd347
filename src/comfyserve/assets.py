"""What is known of bytes: their hash, their type, and a name that is safe to give them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

MediaKind = Literal["image", "video", "audio", "text", "file", "latent"]
"""The kinds of output the official contract knows; anything else is a ``file``."""

InputPath = tuple[str | int, ...]
"""Where a value stands in a graph: node id, input name, then keys and positions further down."""

HEAD_SIZE = 8192
"""How many bytes of a file's beginning are enough to tell its type."""


@dataclass(frozen=True, slots=True)
class Upload:
    """Bytes a caller brings as an input: either a file or the content itself.

    *name* is only a hint for its ending; the server gets a name made of the hash. Where the
    *hash* is known (``blake3:<hex>``), the bytes are not read once more to tell it.
    """

    name: str
    path: Path | None = None
    content: bytes | None = None
    hash: str | None = None

    def __post_init__(self) -> None:
        if (self.path is None) == (self.content is None):
            raise ValueError("an upload has either a path or content")


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file that the graph needs on the backend before it can run.

    *targets* are the places in the graph that get its name there. For a mask that is laid over
    an image, *mask_of* is the target of that image.
    """

    targets: tuple[InputPath, ...]
    upload: Upload
    mask_of: InputPath | None = None


@dataclass(frozen=True, slots=True)
class Saved:
    """Bytes that were kept: where, and what they turned out to be.

    *location* is for the sink that kept them: a path, or a blob's key.
    """

    location: str
    size_bytes: int
    hash: str
    content_type: str


@dataclass(frozen=True, slots=True)
class Asset:
    """A record over kept bytes; several may stand over the same ones.

    *file_path* is the name its owner gave it, *job_id* the job that made it. Times are seconds
    since the epoch; one without *expires_at* is kept until it is deleted.
    """

    id: str
    owner: str
    hash: str
    size_bytes: int
    content_type: str
    created_at: float
    file_path: str | None = None
    tags: tuple[str, ...] = ()
    expires_at: float | None = None
    job_id: str | None = None


def content_type(head: bytes, name: str = "") -> str:
    """The MIME type of bytes that begin with *head*, told from the content.

    *name* only breaks a tie where the content allows several answers (JSON is also text).
    """
    for signature in _SIGNATURES:
        if signature.matches(head):
            return signature.content_type
    return _textual(head, name) or "application/octet-stream"


def media_kind(mime: str) -> MediaKind:
    """Which of the contract's output types a MIME type is; 3D and unknown types are ``file``."""
    if mime == "application/x-comfyui-latent":
        return "latent"
    family = mime.partition("/")[0]
    match family:
        case "image" | "video" | "audio" | "text":
            return family
        case _:
            return "text" if mime in ("application/json",) else "file"


def content_hash(hexdigest: str) -> str:
    """How a blake3 digest is written everywhere: ``blake3:<hex>``."""
    return f"blake3:{hexdigest}"


def safe_name(name: str) -> str:
    """The last part of *name*, without anything a file system would take for more than a name.

    >>> safe_name("../../etc/pass:wd")
    'pass_wd'
    """
    last = re.split(r"[\\/]", name)[-1]
    clean = _shortened(re.sub(_UNSAFE, "_", last).rstrip(" ."))
    stem, dot, ending = clean.partition(".")
    if not stem.strip() and not ending:
        return "file"
    if stem.rstrip().upper() in _RESERVED:
        return _shortened(f"{stem.rstrip()}_{dot}{ending}")
    return clean


def safe_folder(folder: str) -> PurePosixPath:
    """*folder* as a relative path that stays below where it is put."""
    parts = [part for part in re.split(r"[\\/]", folder) if part not in ("", ".", "..")]
    return PurePosixPath(*(safe_name(part) for part in parts))


# Lone surrogates can arrive inside JSON, but no file system takes them.
_UNSAFE = r'[\x00-\x1f\x7f<>:"|?*\ud800-\udfff]'

# Windows takes these for devices, whatever ending follows.
_RESERVED = {
    *("CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"),
    *(f"{device}{number}" for device in ("COM", "LPT") for number in "123456789¹²³"),
}


def _shortened(name: str, most: int = 200) -> str:
    if len(name.encode()) <= most:
        return name
    ending = PurePosixPath(name).suffix[:20]
    room = most - len(ending.encode())
    return (name.encode()[:room].decode(errors="ignore") + ending).rstrip(" .")


@dataclass(frozen=True, slots=True)
class _Signature:
    content_type: str
    pattern: re.Pattern[bytes]

    def matches(self, head: bytes) -> bool:
        return self.pattern.match(head) is not None


# The formats ComfyUI's nodes write. docs/decisions says why this is not a catalogue of all formats.
_SIGNATURES = tuple(
    _Signature(mime, re.compile(pattern, re.DOTALL))
    for mime, pattern in {
        "image/png": rb"\x89PNG\r\n\x1a\n",
        "image/jpeg": rb"\xff\xd8\xff",
        "image/gif": rb"GIF8[79]a",
        "image/webp": rb"RIFF....WEBP",
        "audio/wav": rb"RIFF....WAVE",
        "video/x-msvideo": rb"RIFF....AVI ",
        "image/avif": rb"....ftyp(avif|avis)",
        "image/heic": rb"....ftyp(heic|heix|mif1|msf1)",
        "video/quicktime": rb"....ftypqt  ",
        "audio/mp4": rb"....ftyp(M4A |M4B )",
        "video/mp4": rb"....ftyp",
        "video/webm": rb"\x1aE\xdf\xa3.{0,64}\x42\x82.{0,4}webm",
        "video/x-matroska": rb"\x1aE\xdf\xa3",
        "audio/flac": rb"fLaC",
        "audio/ogg": rb"OggS",
        "audio/mpeg": rb"ID3|\xff[\xfb\xf3\xf2\xfa]",
        "model/gltf-binary": rb"glTF",
        "image/tiff": rb"II\*\x00|MM\x00\*",
        "image/x-exr": rb"v/1\x01",
        "image/svg+xml": rb"(\xef\xbb\xbf)?\s*(?:(?:<\?xml.{0,400}?\?>|<!--.{0,800}?-->"
        rb"|<!DOCTYPE svg[^>]{0,400}>)\s*){0,6}+<svg\b",
        "application/pdf": rb"%PDF-",
        "application/zip": rb"PK\x03\x04",
        "model/x-ply": rb"ply\r?\n",
        # A safetensors file: eight bytes of length, then the header's JSON.
        "application/x-comfyui-latent": rb".{8}\{.{0,4096}\"latent_tensor\"",
        "application/x-safetensors": rb".{6}\x00\x00\{\s*\"",
    }.items()
)


def _textual(head: bytes, name: str) -> str | None:
    if b"\x00" in head or not _is_utf8(head):
        return None
    return _TEXT_TYPES.get(PurePosixPath(name.lower()).suffix, "text/plain")


# Where only the name tells one text from another.
_TEXT_TYPES = {
    ".json": "application/json",
    ".csv": "text/csv",
    ".md": "text/markdown",
    ".srt": "application/x-subrip",
    ".vtt": "text/vtt",
    ".obj": "model/obj",
    ".gltf": "model/gltf+json",
}


def _is_utf8(head: bytes) -> bool:
    try:
        head.decode()
    except UnicodeDecodeError as error:
        # The head may end inside a character.
        return len(head) >= HEAD_SIZE and error.start >= len(head) - 4
    return True
