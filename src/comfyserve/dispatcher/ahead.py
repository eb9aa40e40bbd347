"""The jobs that a backend was given before another one, which nobody is to overtake."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, Protocol

_WITHIN: Final = 2.0
"""Seconds that a lost job lets those ahead of it go back to the queue first."""


class Before(Protocol):
    """One job that is ahead of another: whether the backend lost it, whether it still takes a
    place there, and its end."""

    was_lost: bool
    over: asyncio.Event

    @property
    def is_inside(self) -> bool: ...


class Ahead:
    """Those *runs* that are ahead of one."""

    def __init__(self, runs: Sequence[Before]) -> None:
        self._runs = tuple(runs)

    @property
    def is_lost(self) -> bool:
        """Some were lost with the backend, or are about to notice."""
        return bool(self._lost())

    async def go_first(self) -> None:
        """Return once they are back in the queue, or something else, but before long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_WITHIN):
                for run in self._lost():
                    await run.over.wait()

    def forget(self) -> None:
        """They are of no interest any more, and need not be kept."""
        self._runs = ()

    def _lost(self) -> Sequence[Before]:
        return [run for run in self._runs if run.was_lost or run.is_inside]
