"""Handing in a job exactly once, however often it has to be tried."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol

from comfyserve.assets import Upload
from comfyserve.client.api import Api, Later
from comfyserve.client.asset_uploads import AssetUploads
from comfyserve.client.outage import Outage
from comfyserve.errors import BackendUnreachable
from comfyserve.jobs import Job
from comfyserve.refusals import IdempotencyKeyReused, NotFound

PATIENCE: Final = 60.0
"""Seconds, in all, that a server may say it takes no jobs just now."""

_SHORTEST_WAIT: Final = 1.0

_ANSWERED_WITHIN: Final = 10.0
"""Seconds in which a server has to be back whose answer was lost."""


class Wish(Protocol):
    """A job as a client wants it, under the *id* that it is to have.

    A *workflow* is the name of one that the server hosts; without, the body has the graph.
    """

    @property
    def id(self) -> str: ...

    @property
    def workflow(self) -> str | None: ...

    async def body(self, uploads: AssetUploads) -> dict[str, Any]:
        """What is asked for, once the files that it needs are on the server."""


@dataclass(frozen=True, slots=True)
class GraphWish:
    """A job that brings its graph."""

    job: Job

    @property
    def id(self) -> str:
        return self.job.id

    @property
    def workflow(self) -> None:
        return None

    async def body(self, uploads: AssetUploads) -> dict[str, Any]:
        """The graph, with references where files are needed."""
        body: dict[str, Any] = {"workflow": await uploads.referred_to(self.job)}
        if self.job.extra_data:
            body["extra_data"] = dict(self.job.extra_data)
        return body


@dataclass(frozen=True, slots=True)
class CallWish:
    """A job of a workflow that the server hosts; of its *inputs*, those that are files are
    uploads. *besides* is what else the body says."""

    id: str
    workflow: str
    inputs: Mapping[str, Any]
    besides: Mapping[str, Any]

    async def body(self, uploads: AssetUploads) -> dict[str, Any]:
        """The inputs by name, files by their assets."""
        inputs = dict(self.inputs)
        for name, value in self.inputs.items():
            if isinstance(value, Upload):
                inputs[name] = await uploads.asset_id(value)
        return {"inputs": inputs, **self.besides}


class Submission:
    """One job on its way into a server's queue.

    Its id is also its idempotency key: a job that was taken although the answer got lost is found
    by it, and never taken twice.
    """

    def __init__(self, api: Api, wish: Wish, body: Mapping[str, Any]) -> None:
        self._api = api
        self._id = wish.id
        self._workflow = wish.workflow
        self._body = dict(body)
        if not api.is_official:
            self._body["id"] = wish.id
        self._waited = 0.0

    async def handed_in(self) -> Mapping[str, Any]:
        """The job's document, once the server has taken it.

        Raises `Later` where it takes none just now; `wait` then tells whether to try again.
        """
        try:
            return await self._api.submit(self._body, self._id, self._workflow)
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
                return await self._api.submit(self._body, self._id, self._workflow)
            except IdempotencyKeyReused:
                if self._api.is_official:  # it has an id that nobody told us
                    raise
                with suppress(NotFound, BackendUnreachable):
                    return await self._api.job(self._id)
            except BackendUnreachable as another:
                error = another
