"""The files behind blobs: one that arrives, and one that is read. All of it may take a while."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

from blake3 import blake3

READ_SIZE: Final = 1 << 18
"""Bytes that are read at a time."""


class Arriving:
    """Bytes on their way to *path*, where they have no name yet that anybody looks for.

    Until `write_down` they are only gathered, so that a few of them need no file before they
    `become` one. `drop` it at the end, whatever happened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size_bytes = 0
        self.gathered_bytes = 0
        self._gathered: list[bytes] = []
        self._hasher = blake3()
        self._file: BinaryIO | None = None

    def take(self, chunk: bytes) -> None:
        """Gather the next bytes; quick."""
        self._hasher.update(chunk)
        self._gathered.append(chunk)
        self.size_bytes += len(chunk)
        self.gathered_bytes += len(chunk)

    def digest(self) -> str:
        """The hash of what came so far, as hex."""
        return self._hasher.hexdigest()

    def write_down(self) -> None:
        """Bring what was gathered to the disk."""
        gathered, self._gathered, self.gathered_bytes = self._gathered, [], 0
        if self._file is None:
            self._file = self.path.open("xb", buffering=0)
        for chunk in gathered:
            _write(self._file, chunk)

    def become(self, target: Path) -> None:
        """Give all bytes their name, under which they then outlast a power cut if the name does."""
        self.write_down()
        assert self._file is not None
        os.fsync(self._file.fileno())
        self._file.close()  # Windows renames nothing that is open
        try:
            os.replace(self.path, target)
        except FileNotFoundError:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(self.path, target)

    def drop(self) -> None:
        """Leave nothing behind under the old name."""
        if self._file is not None:
            # What is left all the same goes when the blobs are opened the next time.
            with suppress(OSError):
                self._file.close()
                self.path.unlink(missing_ok=True)


class Reading:
    """A file's bytes from *start* up to before *end*, piece by piece. `close` it at the end."""

    def __init__(self, path: Path, start: int, end: int | None) -> None:
        self._path = path
        self._start = start
        self._end = end
        self._left = 0
        self._first = b""
        self._file: BinaryIO | None = None

    def begin(self) -> None:
        """Open the file and read the first piece. Raises OSError."""
        self._file = self._path.open("rb", buffering=0)
        size = os.fstat(self._file.fileno()).st_size
        end = size if self._end is None else min(self._end, size)
        self._left = max(0, end - self._start) if self._start >= 0 else 0
        if self._left:
            self._file.seek(self._start)
            self._first = self.more()

    def take(self) -> bytes:
        """The first piece, once; without waiting."""
        first, self._first = self._first, b""
        return first

    def more(self) -> bytes:
        """The next piece; empty where there is none. Raises OSError."""
        if self._file is None or not self._left:
            return b""
        piece = self._file.read(min(self._left, READ_SIZE))
        self._left -= len(piece)
        return piece

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()


def _write(file: BinaryIO, chunk: bytes) -> None:
    """All of it, where a disk takes only some at a time."""
    rest = memoryview(chunk)
    while rest:
        rest = rest[file.write(rest) :]
