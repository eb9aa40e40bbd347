"""An event loop on a thread of its own, so that blocking code can use what is async."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

T = TypeVar("T")

LOOK_UP_EVERY = 0.2
"""Seconds between two looks for Ctrl-C, which Windows does not deliver to a blocked thread."""


class LoopThread:
    """Keeps one async resource open on a thread, and runs coroutines there.

    The resource is entered and left by one and the same task, as task groups need it.
    """

    def __init__(self, resource: AbstractAsyncContextManager[object], name: str) -> None:
        self._resource = resource
        self._opened: concurrent.futures.Future[asyncio.AbstractEventLoop]
        self._opened = concurrent.futures.Future()
        self._thread = threading.Thread(target=self._live, name=name, daemon=True)
        self._thread.start()
        self._loop = self._opened.result()

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run *coroutine* on the loop and return what it returns.

        An interruption, such as Ctrl-C, cancels the coroutine.
        """
        if not self._thread.is_alive():
            coroutine.close()
            raise RuntimeError("the client is closed")
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            while not concurrent.futures.wait([future], LOOK_UP_EVERY).done:
                if not self._thread.is_alive():
                    raise RuntimeError("the client was closed meanwhile")
            return future.result()
        except concurrent.futures.CancelledError as error:
            raise RuntimeError("the client was closed meanwhile") from error
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Leave the resource and end the thread. May be called again."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    def _live(self) -> None:
        try:
            asyncio.run(self._hold_open())
        except BaseException as error:
            if self._opened.done():
                raise
            self._opened.set_exception(error)

    async def _hold_open(self) -> None:
        self._stop = asyncio.Event()
        async with self._resource:
            self._opened.set_result(asyncio.get_running_loop())
            await self._stop.wait()
