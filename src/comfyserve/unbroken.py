"""Work that cannot be broken off halfway, as where a thread or a disk is at it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

Done = TypeVar("Done")


async def unbroken(work: Awaitable[Done]) -> Done:
    """What *work* gives; who is canceled meanwhile goes all the same, but only once it is over.

    So what it needs may be taken down behind it. It should take no longer than one can wait.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # seen, and less of news than the cancellation
        raise
