"""A command's two streams, either of which may go away before the work is done."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}


def prepare_streams() -> None:
    """Make sure that no word stops a command.

    A character that the console cannot show becomes its number. What is told to nobody (a pipe
    whose reader has seen enough, a stream closed from the start, a disk that is full) is dropped.
    """
    sys.stdout = _prepared(sys.stdout)
    sys.stderr = _prepared(sys.stderr)


def lost_words() -> str | None:
    """Why some of stdout was lost to someone who wanted it; None for a reader who left."""
    buffer = getattr(sys.stdout, "buffer", None)
    error = buffer.error if isinstance(buffer, _Forgiving) else None
    if error is None or error.errno not in _FULL:
        return None
    return f"Not all could be written to stdout: {error.strerror}."


def _prepared(stream: TextIO | None) -> TextIO:
    if stream is None:  # closed by whoever started us
        return open(os.devnull, "w", encoding="utf-8")
    buffer = getattr(stream, "buffer", None)
    raw = getattr(buffer, "raw", buffer)  # with PYTHONUNBUFFERED there is nothing between
    if not isinstance(stream, io.TextIOWrapper) or not isinstance(raw, io.RawIOBase):
        return stream
    stream.flush()
    return io.TextIOWrapper(
        _Forgiving(raw),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering or stream.write_through,
    )


class _Forgiving(io.BufferedIOBase):
    """Passes bytes on until that fails, and drops the rest; *error* says why.

    It keeps nothing back, so that an interruption in the middle makes no word come twice.
    """

    def __init__(self, target: io.RawIOBase) -> None:
        self.error: OSError | None = None
        self._target = target

    def write(self, data: ReadableBuffer, /) -> int:
        view = memoryview(data)
        size = len(view)
        while view and self.error is None:
            try:
                written = self._target.write(view)
                if written is None:
                    raise BlockingIOError(errno.EAGAIN, "it takes no more for now")
                view = view[written:]
            except OSError as error:
                self.error = error
        return size

    @property
    def name(self) -> int:
        """How a stream of the system is called."""
        return self.fileno()

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._target.fileno()

    def isatty(self) -> bool:
        return self._target.isatty()
