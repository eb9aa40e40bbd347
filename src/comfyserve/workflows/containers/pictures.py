"""PNG, WebP and JPEG pictures."""

from __future__ import annotations

from collections.abc import Iterator

from comfyserve.workflows.containers.exif import exif_texts
from comfyserve.workflows.containers.source import WANTED, Broken, Source, Texts, text


def png_texts(source: Source) -> Texts:
    """The text chunks of a PNG picture, then its EXIF block.

    ``comf`` is ComfyUI's own chunk: animations carry their texts there, behind the frames.
    """
    exif = b""
    for kind, at, size in _png_chunks(source):
        if reader := _PNG_READERS.get(kind):
            yield from reader(source, at, size)
        elif kind == b"eXIf":
            exif = source.read(at, size)
    if exif:
        yield from exif_texts(source, exif)


def webp_texts(source: Source) -> Texts:
    """The EXIF block of a WebP picture."""
    at = 12
    while at < source.size:
        head = source.read(at, 8)
        size = int.from_bytes(head[4:], "little")
        if head[:4] == b"EXIF":
            yield from exif_texts(source, source.read(at + 8, size))
        at += 8 + size
        if at > source.size:
            raise Broken("it ends too early")
        at += size % 2


def jpeg_texts(source: Source) -> Texts:
    """The EXIF blocks of a JPEG picture; they stand before the picture itself."""
    at = 2
    while True:
        marker, kind = source.read(at, 2)
        if marker != 0xFF:
            raise Broken("its segments are damaged")
        if kind == 0xFF:  # padding
            at += 1
            continue
        if kind in (0xD9, 0xDA):  # the end, or the picture
            return
        size = max(source.number(at + 2, 2), 2)
        if kind == 0xE1 and size >= 8 and source.read(at + 4, 6) == b"Exif\x00\x00":
            yield from exif_texts(source, source.read(at + 4, size - 2))
        at += 2 + size


def _png_chunks(source: Source) -> Iterator[tuple[bytes, int, int]]:
    """The kind of every chunk, where its content lies, and how long that is."""
    at, kind = 8, b""
    while kind != b"IEND":
        head = source.read(at, 8)
        kind, size = head[4:], int.from_bytes(head[:4], "big")
        yield kind, at + 8, size
        at += 12 + size


def _plain(source: Source, at: int, size: int) -> Texts:
    if name := _name(source, at, size):
        start = len(name) + 1
        yield name, text(source.read(at + start, size - start))


def _packed(source: Source, at: int, size: int) -> Texts:
    if name := _name(source, at, size):
        start = len(name) + 2
        if size < start:
            raise Broken("one of its texts ends too early")
        yield name, text(source.inflate(source.read(at + start, size - start)))


def _international(source: Source, at: int, size: int) -> Texts:
    if name := _name(source, at, size):
        content = source.read(at, size)[len(name) + 1 :]
        # Two bytes say whether and how it is packed, then come a language and a translated name.
        _language, _, rest = content[2:].partition(b"\x00")
        _translated, _, value = rest.partition(b"\x00")
        yield name, text(source.inflate(value) if content[:1] == b"\x01" else value)


def _name(source: Source, at: int, size: int) -> str:
    """The name that a text chunk begins with, if the text is worth reading."""
    start, end, _ = source.read(at, min(size, 80)).partition(b"\x00")
    name = start.decode("latin-1").lower()
    return name if end and name in WANTED else ""


_PNG_READERS = {b"tEXt": _plain, b"comf": _plain, b"zTXt": _packed, b"iTXt": _international}
