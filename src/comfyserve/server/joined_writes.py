"""An answer's head goes out with what follows it: one call of the system, and one packet to read.

Web servers write the two apart. What comes after, such as the frames of a stream, never waits.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from comfyserve.server.passing_on import PassingOn

_HEAD: Final = b"HTTP/1."


class JoinedWrites(PassingOn):
    """The *transport* of a connection, with each head held until the next write, and no longer
    than until the event loop's next turn."""

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__(transport)
        self._head = b""

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if self._head:
            data, self._head = self._head + data, b""
        elif data[: len(_HEAD)] == _HEAD:
            self._head = bytes(data)
            self._loop.call_soon(self._flush)
            return
        super().write(data)

    def close(self) -> None:
        self._flush()
        super().close()

    def abort(self) -> None:
        self._head = b""
        super().abort()

    def _flush(self) -> None:
        if self._head:
            head, self._head = self._head, b""
            if not self.is_closing():
                super().write(head)
