"""All sockets of one server: how many are open, and how they end when it stops."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Final, Protocol

from comfyserve.server.places import Places

CLOSED_WITHIN: Final = 5.0
"""Seconds that open sockets may take to end once the server stops."""


class Stoppable(Protocol):
    """A conversation that can be told to come to its end."""

    def stop(self) -> None:
        """Say what there is to say, then close."""


class Sockets:
    """The open sockets; *most* is how many an owner may have."""

    def __init__(self, most: int) -> None:
        self.is_stopping = False
        self._places = Places(most)
        self._open: set[Stoppable] = set()
        self._all_gone = asyncio.Event()
        self._all_gone.set()

    @property
    def open(self) -> int:
        """How many sockets are open right now."""
        return len(self._open)

    @contextmanager
    def listed(self, session: Stoppable) -> Iterator[None]:
        """Have the conversation end when the server stops, for the time of the block."""
        self._open.add(session)
        self._all_gone.clear()
        try:
            yield
        finally:
            self._open.discard(session)
            if not self._open:
                self._all_gone.set()

    def place(self, owner: str | None) -> AbstractContextManager[None]:
        """A place for one socket of the *owner*, who is None until it is known.

        Raises `TooManyStreams`.
        """
        return self._places.place(owner)

    async def stop(self) -> None:
        """End all sockets, which are told why; return once they have, or soon."""
        self.is_stopping = True
        for session in tuple(self._open):
            session.stop()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSED_WITHIN):
                await self._all_gone.wait()
