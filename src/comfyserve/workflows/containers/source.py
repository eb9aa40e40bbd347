"""A file that is read with care: never past its end, and never more than a fixed amount."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import BinaryIO

Texts = Iterator[tuple[str, str]]
"""What a file says of itself: the lower-case name of a text, and the text."""

WANTED = frozenset({"prompt", "workflow", "comment"})
"""The names of texts worth reading; a comment may hold both of the others."""

MAX_TEXT = 64 * 2**20
"""The most bytes of one text, decompressed. Larger than any workflow."""

_MAX_BYTES = 3 * MAX_TEXT
_MAX_STEPS = 200_000


class Broken(Exception):
    """The file is not what it begins as: cut off, damaged, or made to harm."""


class Source:
    """A seekable file of known size, which gives out a bounded amount of bytes.

    Its methods raise `Broken` where the file has less than it promises, or where reading it
    would take longer than any honest file does.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = file.seek(0, 2)
        self._bytes_left = _MAX_BYTES
        self._steps_left = _MAX_STEPS

    def peek(self, at: int, size: int) -> bytes:
        """The *size* bytes from position *at* on, fewer where the file ends before."""
        self.count(size)
        self._file.seek(at)
        return self._file.read(size)

    def read(self, at: int, size: int) -> bytes:
        """Exactly the *size* bytes from position *at* on."""
        if size > MAX_TEXT:
            raise Broken(f"one of its parts claims {size} bytes of text")
        if at + size > self.size:
            raise Broken("it ends too early")
        self.count(size)
        self._file.seek(at)
        content = self._file.read(size)
        if len(content) < size:
            raise Broken("it ends too early")
        return content

    def number(self, at: int, size: int) -> int:
        """The unsigned number in the *size* bytes from position *at* on, largest byte first."""
        return int.from_bytes(self.read(at, size), "big")

    def inflate(self, data: bytes) -> bytes:
        """What zlib packed into *data*; a packed bomb is `Broken`."""
        opened = zlib.decompressobj()
        try:
            content = opened.decompress(data, MAX_TEXT)
        except zlib.error as error:
            raise Broken(f"a packed text is damaged: {error}") from None
        self.count(len(content))
        if opened.unconsumed_tail:
            raise Broken(f"a packed text holds more than {MAX_TEXT // 2**20} MiB")
        if not opened.eof:
            raise Broken("a packed text ends too early")
        return content

    def count(self, size: int = 0) -> None:
        """Note one more step and *size* more bytes; `Broken` once there were too many."""
        self._steps_left -= 1
        self._bytes_left -= size
        if self._steps_left < 0:
            raise Broken(f"it has more than {_MAX_STEPS} parts")
        if self._bytes_left < 0:
            raise Broken(f"it has more than {_MAX_BYTES // 2**20} MiB of texts")


def text(data: bytes) -> str:
    """*data* as text, whatever wrote it: UTF-8, or Latin-1 where that fails."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")
