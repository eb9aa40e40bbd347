"""How much room there is for the bytes of assets and outputs together."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Final

from comfyserve.refusals import DiskCapReached
from comfyserve.store import Assets

_KNOWN_FOR: Final = 1.0
"""For how many seconds the size of all bytes, or that nothing can go, is believed."""


class Room:
    """How much all kept bytes take, and how much more may come: *cap* at most, None for any.

    *sweep* deletes what nobody needs.
    """

    def __init__(
        self, assets: Assets, cap: int | None, sweep: Callable[..., Coroutine[Any, Any, None]]
    ) -> None:
        self._assets = assets
        self._cap = cap
        self._sweep = sweep
        self._kept = 0
        self._noted = 0
        self._known_until = 0.0
        self._swept_until = 0.0
        self._arriving = 0

    async def refuse_when_full(self) -> None:
        """Raise `DiskCapReached` while there is no room for anything."""
        if self._cap is None:
            return
        now = time.monotonic()
        if now >= self._known_until:
            await self._count()
        if self._kept >= self._cap and now >= self._swept_until:
            await self._make_room()
            self._swept_until = time.monotonic() + _KNOWN_FOR
        if self._kept >= self._cap:
            raise DiskCapReached(self._cap)

    @contextmanager
    def arriving(self) -> Iterator[Arrival]:
        """Bytes that come in the block, and are noted as kept at its end if they are."""
        arrival = Arrival(self)
        try:
            yield arrival
        finally:
            self._arriving -= arrival.size

    async def grow(self, size: int) -> None:
        """Raise `DiskCapReached` when there is no room for *size* bytes more."""
        self._arriving += size
        if self._cap is None or not self._is_over(self._cap):
            return
        await self._count()
        if self._is_over(self._cap):
            await self._make_room()
        if self._is_over(self._cap):
            raise DiskCapReached(self._cap)

    def note(self, size: int) -> None:
        """So many bytes were kept just now."""
        self._kept += size
        self._noted += size

    def forget_size(self) -> None:
        """Something may have gone, so count again."""
        self._known_until = self._swept_until = 0.0

    def _is_over(self, cap: int) -> bool:
        return self._kept + self._arriving > cap

    async def _make_room(self) -> None:
        # What nobody refers to and nobody holds would go later anyway.
        await self._sweep(grace=0.0)
        await self._count()

    async def _count(self) -> None:
        # What comes to be kept while the store counts may be missing in what it says.
        noted = self._noted
        counted = await self._assets.total_bytes()
        self._kept = counted + self._noted - noted
        self._known_until = time.monotonic() + _KNOWN_FOR


class Arrival:
    """Bytes that are on their way in."""

    def __init__(self, room: Room) -> None:
        self.size = 0
        self._room = room

    async def grow(self, size: int) -> None:
        """Have *size* bytes more. Raises `DiskCapReached`."""
        self.size += size
        await self._room.grow(size)
