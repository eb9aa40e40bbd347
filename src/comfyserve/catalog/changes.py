"""Who wants to hear of changes in the catalogue, and what they have not heard yet."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

from comfyserve.catalog.drift import Drift
from comfyserve.catalog.entry import Entry


@dataclass(frozen=True, slots=True)
class Change:
    """A name is not what it was: its *entry* now, None if it is gone, and how it drifted."""

    name: str
    entry: Entry | None
    drift: tuple[Drift, ...] = ()


class Changes:
    """The changes that one listener has not heard yet; of each name only the latest."""

    def __init__(self) -> None:
        self._unheard: dict[str, Change] = {}
        self._news = asyncio.Event()
        self._closed = False

    def put(self, change: Change) -> None:
        self._unheard.pop(change.name, None)
        self._unheard[change.name] = change
        self._news.set()

    def close(self) -> None:
        """End the listening once everything was heard."""
        self._closed = True
        self._news.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Change:
        while not self._unheard:
            if self._closed:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        return self._unheard.pop(next(iter(self._unheard)))


class Listeners:
    """Everybody who listens."""

    def __init__(self) -> None:
        self._all: set[Changes] = set()
        self._closed = False

    @contextmanager
    def listening(self) -> Iterator[Changes]:
        changes = Changes()
        if self._closed:
            changes.close()
        self._all.add(changes)
        try:
            yield changes
        finally:
            self._all.discard(changes)
            changes.close()

    def tell(self, changes: Iterable[Change]) -> None:
        for change in changes:
            for listener in self._all:
                listener.put(change)

    def close(self) -> None:
        self._closed = True
        for listener in self._all:
            listener.close()
