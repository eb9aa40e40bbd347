"""Handing in a job exactly once, however often it has to be tried."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from comfyserve.client.api import Api, Later
from comfyserve.client.outage import Outage
from comfyserve.errors import BackendUnreachable
from comfyserve.refusals import IdempotencyKeyReused, NotFound
from comfyserve.workflows.graph import Graph

PATIENCE: Final = 60.0
"""Seconds, in all, that a server may say it takes no jobs just now."""

_SHORTEST_WAIT: Final = 1.0

_ANSWERED_WITHIN: Final = 10.0
"""Seconds in which a server has to be back whose answer was lost."""


class Submission:
    """One job on its way into a server's queue.

    Its id is also its idempotency key: a job that was taken although the answer got lost is found
    by it, and never taken twice.
    """

    def __init__(self, api: Api, job_id: str, graph: Graph, extra_data: Mapping[str, Any]) -> None:
        self._api = api
        self._id = job_id
        self._body: dict[str, Any] = {"workflow": graph}
        if extra_data:
            self._body["extra_data"] = dict(extra_data)
        if not api.is_official:
            self._body["id"] = job_id
        self._waited = 0.0

    async def handed_in(self) -> Mapping[str, Any]:
        """The job's document, once the server has taken it.

        Raises `Later` where it takes none just now; `wait` then tells whether to try again.
        """
        try:
            return await self._api.submit(self._body, self._id)
        except BackendUnreachable as error:
            if error.refused:
                raise
            return await self._found_out(error)

    async def wait(self, later: Later, until: asyncio.Event) -> None:
        """Wait as long as the server asks, or until something else is wanted.

        Raises the server's reason once it was waited for long enough.
        """
        pause = self.pause(later)
        if self._waited + pause > PATIENCE:
            raise later.error
        self._waited += pause
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await until.wait()

    def pause(self, later: Later) -> float:
        """Seconds before the next attempt."""
        return max(_SHORTEST_WAIT, later.seconds)

    async def _found_out(self, error: BackendUnreachable) -> Mapping[str, Any]:
        """The job's document where its answer was lost: the key makes it safe to ask again."""
        outage = Outage(self._api.url, _ANSWERED_WITHIN)
        while True:
            await outage.wait(error)
            try:
                return await self._api.submit(self._body, self._id)
            except IdempotencyKeyReused:
                if self._api.is_official:  # it has an id that nobody told us
                    raise
                with suppress(NotFound, BackendUnreachable):
                    return await self._api.job(self._id)
            except BackendUnreachable as another:
                error = another
