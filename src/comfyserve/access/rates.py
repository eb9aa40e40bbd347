"""How often a caller may come, counted over a sliding window.

The count is that of the library ``limits``: two numbers for each key, so that a rate of a million
costs no more than one of one. The past window counts by the share of it that still lies within
reach, as if its requests had come evenly; so a rate is kept on average, and to within one request
at any moment.
"""

from __future__ import annotations

from math import floor

from limits import RateLimitItemPerSecond
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from comfyserve.denials import RateLimited
from comfyserve.store import Rate


class Rates:
    """The counts of all callers of one process, in memory."""

    def __init__(self) -> None:
        self._storage = MemoryStorage()
        self._limiter = SlidingWindowCounterRateLimiter(self._storage)

    async def spend(self, owner: str, rate: Rate) -> None:
        """Count one request of the owner. Raises `RateLimited` where the rate is used up."""
        item = RateLimitItemPerSecond(rate.amount, rate.seconds, namespace="comfyserve")
        if await self._limiter.hit(item, owner):
            return
        window = await self._storage.get_sliding_window(item.key_for(owner), rate.seconds)
        raise RateLimited(str(rate), seconds_until_free(rate, *window))


def seconds_until_free(
    rate: Rate, before: int, before_left: float, current: int, current_left: float
) -> int:
    """After how many whole seconds, from 1, there is room again where nobody comes meanwhile.

    *before* requests came in the past window, which counts for *before_left* seconds more;
    *current* in this one, which is kept for *current_left*: to its end, and another window.
    """
    to_the_end = max(0.0, current_left - rate.seconds) if current else before_left
    if current < rate.amount:
        room = rate.amount - current
        wait = before_left - room * rate.seconds / before if before else 0.0
    else:
        wait = to_the_end + rate.seconds * (1 - rate.amount / current)
    return max(0, floor(wait)) + 1
