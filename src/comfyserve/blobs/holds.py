"""Who needs which blob right now, before anything that lasts says so."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager


class Holds:
    """Keeps those who need a blob and those who would collect it apart.

    A hash is either held by any number of people, or being collected, never both. Who wants to
    hold what is being collected waits until that is over, and then finds it gone.
    """

    def __init__(self) -> None:
        self._held: Counter[str] = Counter()
        self._collected: dict[str, asyncio.Event] = {}

    async def take(self, hash: str) -> None:
        """Hold a hash until as many `release`."""
        while (collected := self._collected.get(hash)) is not None:
            await collected.wait()
        self._held[hash] += 1

    def release(self, hash: str) -> None:
        """Let go of a hash that was taken."""
        self._held[hash] -= 1
        if not self._held[hash]:
            del self._held[hash]

    @asynccontextmanager
    async def collecting(self, hashes: Iterable[str]) -> AsyncIterator[tuple[str, ...]]:
        """Those of the hashes that nobody holds, and that nobody can for the time of the block."""
        free = tuple(
            hash for hash in hashes if hash not in self._held and hash not in self._collected
        )
        over = asyncio.Event()
        self._collected.update(dict.fromkeys(free, over))
        try:
            yield free
        finally:
            for hash in free:
                del self._collected[hash]
            over.set()
