"""Which file a request means, and how `/view` shows a picture differently."""

from __future__ import annotations

import io
import mimetypes
from dataclasses import dataclass
from pathlib import Path

from comfyserve.engine.folders import FOLDER_TYPES, Folders

# Without the machine's own table, which may say anything, so that answers are the same everywhere.
_TYPES = mimetypes.MimeTypes()
_TYPES.add_type("image/webp", ".webp")
_TYPES.add_type("image/avif", ".avif")
_TYPES.add_type("audio/flac", ".flac")
_TYPES.add_type("audio/ogg", ".opus")
_TYPES.add_type("model/gltf-binary", ".glb")

# A browser would run these as pages of this server.
_ACTIVE_TYPES = frozenset(
    {
        "text/html",
        "text/html-sandboxed",
        "application/xhtml+xml",
        "text/javascript",
        "application/javascript",
        "text/css",
        "image/svg+xml",
    }
)


class BadName(Exception):
    """A file name or folder that no request may use; *status* is the answer."""

    def __init__(self, status: int, sentence: str) -> None:
        self.status = status
        super().__init__(sentence)


@dataclass(frozen=True, slots=True)
class FileName:
    """A file as ComfyUI names it: folder type, subfolder, name."""

    name: str
    subfolder: str = ""
    kind: str = "output"

    @classmethod
    def annotated(cls, name: str, subfolder: str, kind: str) -> FileName:
        """The same, where *name* may say its folder itself: ``a.png [input]``."""
        for each in FOLDER_TYPES:
            if name.endswith(f"[{each}]"):
                return cls(name.removesuffix(f"[{each}]").rstrip(), subfolder, each)
        return cls(name, subfolder, kind)

    def folder(self, folders: Folders) -> Path:
        """The folder the file is in. Raises `BadName` (400, or 403 when it leaves its root)."""
        if self.kind not in FOLDER_TYPES:
            raise BadName(400, f"type {self.kind!r} is not one of {', '.join(FOLDER_TYPES)}")
        root = folders.path(self.kind).resolve()
        try:
            folder = (root / self.subfolder.replace("\\", "/")).resolve()
        except (OSError, ValueError):
            raise BadName(403, f"{self.subfolder!r} is no folder") from None
        if not folder.is_relative_to(root):
            raise BadName(403, f"subfolder {self.subfolder!r} leads out of the {self.kind} folder")
        return folder

    def existing(self, folders: Folders) -> Path:
        """The file, for reading; of a name with folders in it only the last part counts.

        Raises `BadName`: 400 for a name that tries to leave, 404 where there is no such file.
        """
        plain = self.name.replace("\\", "/")
        if not plain or plain.startswith("/") or ".." in plain:
            raise BadName(400, f"{self.name!r} is no file name")
        folder = self.folder(folders)
        try:
            path = (folder / plain.rpartition("/")[2]).resolve()
            there = path.is_file() and path.is_relative_to(folder)
        except (OSError, ValueError):  # a name that no file can have
            there = False
        if not there:
            raise BadName(404, f"the {self.kind} folder has no file {self.name!r}")
        return path

    def writable(self, folders: Folders) -> Path:
        """Where a file of that name is put; its folder is there when this returns.

        Raises `BadName` (400) for a name with folders in it, or one that no file can have.
        """
        refused = any(character in self.name for character in "/\\:") or not self.name.isprintable()
        if refused or self.name in ("", ".", "..") or len(self.name.encode()) > 240:
            raise BadName(400, f"{self.name!r} is no file name; folders go into subfolder")
        try:
            folder = self.folder(folders)
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadName(400, f"subfolder {self.subfolder!r}: {error.strerror}") from None
        except BadName as error:
            raise BadName(400, str(error)) from None
        return folder / self.name


def content_type(path: Path) -> str:
    """The MIME type a file is served with; what a browser would run is only bytes."""
    guessed = _TYPES.guess_type(path.name)[0] or "application/octet-stream"
    return "application/octet-stream" if guessed in _ACTIVE_TYPES else guessed


def smaller(path: Path, wanted: str) -> tuple[bytes, str]:
    """A picture as WebP or JPEG for showing, *wanted* being ``webp;90``; and its MIME type.

    Raises ValueError or OSError for a file that is no picture.
    """
    from PIL import Image

    parts = wanted.split(";")
    kind = parts[0] if parts[0] in ("webp", "jpeg") else "webp"
    quality = int(parts[-1]) if parts[-1].isdecimal() else 90
    encoded = io.BytesIO()
    with Image.open(path) as picture:
        shown = picture.convert("RGB") if kind == "jpeg" else picture
        shown.save(encoded, kind, quality=max(1, min(quality, 100)))
    return encoded.getvalue(), f"image/{kind}"


def without_alpha(path: Path) -> bytes:
    """A picture's colours as PNG."""
    from PIL import Image

    encoded = io.BytesIO()
    with Image.open(path) as picture:
        picture.convert("RGB").save(encoded, "PNG")
    return encoded.getvalue()


def only_alpha(path: Path) -> bytes:
    """A picture's transparency as PNG: black, with that alpha."""
    from PIL import Image

    encoded = io.BytesIO()
    with Image.open(path) as picture:
        alpha = picture.convert("RGBA").getchannel("A")
        blank = Image.new("RGBA", picture.size)
        blank.putalpha(alpha)
        blank.save(encoded, "PNG")
    return encoded.getvalue()


def with_alpha_of(original: Path, mask: Path) -> bytes:
    """*original* as PNG with the transparency of *mask*, and the texts that were inside."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    encoded = io.BytesIO()
    with Image.open(original) as picture, Image.open(mask) as masking:
        texts = PngInfo()
        for name, value in getattr(picture, "text", {}).items():
            texts.add_text(name, value)
        masked = picture.convert("RGBA")
        masked.putalpha(masking.convert("RGBA").getchannel("A").resize(masked.size))
        masked.save(encoded, "PNG", pnginfo=texts, compress_level=4)
    return encoded.getvalue()
