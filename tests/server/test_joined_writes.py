"""Heads and bodies in one write, and nothing held for long or lost."""

from __future__ import annotations

import asyncio
from typing import Any

from comfyserve.server.joined_writes import JoinedWrites

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


class Written(asyncio.Transport):
    """A transport that remembers what was written, piece by piece."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        self.pieces.append(bytes(data))

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True


async def test_a_head_goes_out_with_its_body() -> None:
    """One piece for both; what follows goes out at once."""
    written = Written()
    joined = JoinedWrites(written)

    joined.write(HEAD)
    joined.write(b"body")
    joined.write(b"more")

    assert written.pieces == [HEAD + b"body", b"more"]


async def test_a_head_alone_goes_out_in_the_next_turn() -> None:
    """Who waits long for the first bytes knows that he is heard."""
    written = Written()
    joined = JoinedWrites(written)

    joined.write(HEAD)
    await asyncio.sleep(0)

    assert written.pieces == [HEAD]


async def test_a_head_is_not_lost_when_the_connection_closes() -> None:
    """An answer without a body is whole although the server hangs up after it."""
    written = Written()
    joined = JoinedWrites(written)

    joined.write(HEAD)
    joined.close()

    assert (written.pieces, written.is_closed) == ([HEAD], True)
