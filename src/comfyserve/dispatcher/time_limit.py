"""How long a job may run, and what happens once it did."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

OBEYS_WITHIN: Final = 10.0
"""Seconds a backend has to stop a job that ran for too long, before the job ends without it."""


class TimeLimit:
    """Stops a job once it ran for *seconds*; None is no limit.

    *stop* is called then, and *give_up* where the backend has not obeyed some time later.
    *is_past* tells that it came to that.
    """

    def __init__(
        self, seconds: float | None, *, stop: Callable[[], None], give_up: Callable[[], None]
    ) -> None:
        self.seconds = seconds
        self.is_past = False
        self._stop = stop
        self._give_up = give_up
        self._alarm: asyncio.TimerHandle | None = None

    def begin(self, since: float | None) -> None:
        """The job runs, now or *since* a time in epoch seconds; further calls change nothing."""
        if self._alarm is not None or self.seconds is None:
            return
        spent = 0.0 if since is None else time.time() - since
        loop = asyncio.get_running_loop()
        self._alarm = loop.call_later(max(0.0, self.seconds - spent), self._pass)

    def end(self) -> None:
        """The job is over."""
        if self._alarm is not None:
            self._alarm.cancel()

    def _pass(self) -> None:
        self.is_past = True
        self._stop()
        self._alarm = asyncio.get_running_loop().call_later(OBEYS_WITHIN, self._give_up)


def shorter(one: float | None, other: float | None) -> float | None:
    """The shorter of two limits, each of which may not be there."""
    return min((limit for limit in (one, other) if limit is not None), default=None)
