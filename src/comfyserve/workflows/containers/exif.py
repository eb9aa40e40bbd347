"""The EXIF block of a picture, in which ComfyUI hides texts as ``prompt:{..}``.

It uses the tags that name a camera's model and maker, and counts down from there for more.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from comfyserve.workflows.containers.source import WANTED, Broken, Source, Texts, text

_EXIF_FOLDER = 0x8769
_USER_COMMENT = 0x9286
_BYTES, _ASCII, _UNDEFINED, _UTF8 = 1, 2, 7, 129
_LONGEST_NAME = max(map(len, WANTED))


def exif_texts(source: Source, data: bytes) -> Texts:
    """The texts in an EXIF block: those named in front (``prompt:``), and the user's comment."""
    block = _Block(source, data.removeprefix(b"Exif\x00\x00"))
    folders = [block.first_folder()]
    for folder in folders:
        for tag, kind, count, at in block.entries(folder):
            if tag == _EXIF_FOLDER and len(folders) == 1:
                folders.append(block.number("I", at))
            elif tag == _USER_COMMENT:
                yield from _named(_user_comment(block.value(count, at), block.order))
            elif kind in (_BYTES, _ASCII, _UNDEFINED, _UTF8) and block.is_named(count, at):
                yield from _named(text(block.value(count, at)))


class _Block:
    """A TIFF structure: numbered entries in folders, each with a value or where it lies."""

    def __init__(self, source: Source, data: bytes) -> None:
        self._source = source
        self._data = data
        orders = {b"II*\x00": "<", b"MM\x00*": ">"}
        if data[:4] not in orders:
            raise Broken("its EXIF block is damaged")
        self.order = orders[data[:4]]

    def first_folder(self) -> int:
        return self.number("I", 4)

    def entries(self, folder: int) -> Iterator[tuple[int, int, int, int]]:
        """The tag, type and size in bytes of every entry, and where its value lies."""
        for index in range(self.number("H", folder)):
            self._source.count()
            at = folder + 2 + 12 * index
            tag, kind = self.number("H", at), self.number("H", at + 2)
            count = self.number("I", at + 4)
            yield tag, kind, count, at + 8 if count <= 4 else self.number("I", at + 8)

    def is_named(self, count: int, at: int) -> bool:
        name, colon, _ = self._data[at : at + min(count, _LONGEST_NAME + 1)].partition(b":")
        return bool(colon) and name.decode("latin-1").lower() in WANTED

    def value(self, count: int, at: int) -> bytes:
        if at + count > len(self._data):
            raise Broken("its EXIF block ends too early")
        self._source.count(count)
        return self._data[at : at + count]

    def number(self, layout: str, at: int) -> int:
        try:
            (number,) = struct.unpack_from(f"{self.order}{layout}", self._data, at)
        except struct.error:
            raise Broken("its EXIF block ends too early") from None
        return int(number)


def _user_comment(value: bytes, order: str) -> str:
    # Eight bytes tell the encoding; some writers leave them out.
    if value.startswith(b"UNICODE\x00"):
        return value[8:].decode("utf-16-le" if order == "<" else "utf-16-be", "replace")
    if value[:8] in (b"ASCII\x00\x00\x00", b"\x00" * 8):
        return text(value[8:])
    return text(value)


def _named(value: str) -> Texts:
    name, colon, rest = value.partition(":")
    if colon and name.lower() in WANTED:
        yield name.lower(), rest
    else:
        yield "comment", value
