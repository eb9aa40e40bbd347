"""Workflows that are handed in: kept first, and offered then, so that none is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from comfyserve.catalog.catalog import Catalog
from comfyserve.catalog.entry import Published


class Row(Protocol):
    """A published workflow as it is kept."""

    @property
    def name(self) -> str: ...
    @property
    def content(self) -> bytes: ...
    @property
    def sidecar(self) -> str | None: ...
    @property
    def changed_at(self) -> float: ...


class Shelf(Protocol):
    """Where published workflows are kept."""

    async def list(self) -> Sequence[Row]: ...
    async def put(
        self, name: str, content: bytes, sidecar: str | None = None, *, changed_at: float
    ) -> object: ...
    async def delete(self, name: str) -> object: ...


class Publishing:
    """Puts workflows into the *catalog* and takes them out; what lasts of it is on the *shelf*."""

    def __init__(
        self, catalog: Catalog, shelf: Shelf, clock: Callable[[], float] = time.time
    ) -> None:
        self._catalog = catalog
        self._shelf = shelf
        self._clock = clock
        self._turn = asyncio.Lock()

    def refuse_name(self, name: str) -> None:
        """Raise `WorkflowNameRefused` unless something can be published under this name."""
        self._catalog.refuse_name(name)

    async def publish(self, name: str, content: bytes, sidecar: str = "") -> bool:
        """Offer the workflow in a file's bytes under this name; whether none was published so.

        Raises `WorkflowNameRefused`, why it is no workflow, and `StoreUnavailable`; then nothing
        changed.
        """
        published = Published(name, content, sidecar, self._clock())
        async with self._turn:
            is_new = self._catalog.published(name) is None
            await self._catalog.publish(published, self._put)
        return is_new

    async def withdraw(self, name: str) -> None:
        """Offer it no longer. Raises `WorkflowNotFound`, `WorkflowInFolder`, `StoreUnavailable`."""

        async def delete() -> None:
            await self._shelf.delete(name)

        async with self._turn:
            await self._catalog.withdraw(name, delete)

    async def reload(self) -> None:
        """Offer what is kept now, whoever put it there. Raises `StoreUnavailable`."""
        async with self._turn:
            await self._catalog.set_published(published_in(await self._shelf.list()))

    async def _put(self, published: Published) -> None:
        await self._shelf.put(
            published.name,
            published.content,
            sidecar=published.sidecar,
            changed_at=published.changed_at,
        )


def published_in(rows: Sequence[Row]) -> list[Published]:
    """What was kept, as the catalogue takes it."""
    return [Published(row.name, row.content, row.sidecar or "", row.changed_at) for row in rows]
