"""The way into the queue: everything between a wish and the job that was made of it.

One door for all who hand in jobs, whatever they speak: the official API, calls of workflows, the
socket. What it refuses leaves nothing behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol

from comfyserve.access import Access, Caller
from comfyserve.asset_library import AssetLibrary
from comfyserve.denials import GraphRefused, ServerStopping, TooManyJobs
from comfyserve.job_queue import JobQueue, UsedKey
from comfyserve.jobs import JobFile, Metadata, Standing
from comfyserve.refusals import (
    BlobNotFound,
    IdempotencyKeyReused,
    MissingAsset,
    NotFound,
    StoreUnavailable,
)
from comfyserve.workflows.graph import Graph
from comfyserve.workflows.graph_check import NodeProblem
from comfyserve.workflows.needs import Needs

_QUICKLY_DONE: Final = 200
"""Nodes of a graph that is looked through in passing; a larger one is beside the event loop."""


class Placing(Protocol):
    """What a graph asks of a backend, and the models that it loads."""

    @property
    def needs(self) -> Needs:
        """What a backend must have."""

    @property
    def model(self) -> str:
        """The models, one text; empty without."""


CheckGraph = Callable[[Graph], Awaitable[Mapping[str, Sequence[NodeProblem]]]]
"""Why no backend would run a graph, by node id; empty where one would, or nobody knows."""

Place = Callable[[Graph], Placing]
"""What a graph asks of a backend."""

Estimate = Callable[[str | None, Graph], float]
"""The seconds that a job of this workflow, or of this graph without a name, may well take."""


@dataclass(frozen=True, slots=True)
class _Placed:
    """Where a job may go, and the seconds that it may take."""

    needs: Needs
    model: str
    estimate: float


class Intake:
    """Takes jobs in for all who ask; see `submit`.

    *check*, *place* and *estimate* are asked about every graph, *is_stopping* before anything.
    """

    def __init__(
        self,
        job_queue: JobQueue,
        asset_library: AssetLibrary,
        access: Access,
        *,
        check: CheckGraph,
        place: Place,
        estimate: Estimate,
        is_stopping: Callable[[], bool],
    ) -> None:
        self._job_queue = job_queue
        self._asset_library = asset_library
        self._access = access
        self._check = check
        self._place = place
        self._estimate = estimate
        self._is_stopping = is_stopping

    async def refuse_early(self) -> None:
        """Raise what would be raised whatever came: for who has much to do before he submits.

        That is `ServerStopping` and `DiskCapReached`.
        """
        if self._is_stopping():
            raise ServerStopping
        await self._asset_library.refuse_when_full()

    async def replayed(self, key: UsedKey) -> Standing | None:
        """The job that *key* gives again, None where it is good for a new one.

        It takes no place of the queue or of the caller. Raises `IdempotencyKeyReused` where the
        key was used for something else.
        """
        return await self._job_queue.replayed(key) if key.replays else None

    async def submit(
        self,
        graph: Graph,
        *,
        caller: Caller,
        workflow: str | None = None,
        inputs: Mapping[str, Any] | None = None,
        seeds: Mapping[str, int] | None = None,
        files: tuple[JobFile, ...] = (),
        metadata: Metadata | None = None,
        priority: int = 0,
        extra_data: Mapping[str, Any] | None = None,
        key: UsedKey | None = None,
        job_id: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - how long the job may run
        checked: bool = False,
    ) -> Standing:
        """Put a job into the queue: the references in its graph resolved, its place found.

        *files* are such as the graph needs besides those it refers to. With *checked* true the
        graph is known to run on a backend. Where *key* replays, the job that it made before is
        given again, under its own id. Raises `ServerStopping`, `DiskCapReached`,
        `MissingAsset`, `GraphRefused`, `TooManyJobs`, `QueueFull` and `IdempotencyKeyReused`, the
        last also for a *job_id* that was used.
        """
        await self.refuse_early()
        if key is not None and (known := await self.replayed(key)) is not None:
            return known
        resolved = await self._asset_library.resolve(graph, caller.owner)
        if not checked and (problems := await self._check(resolved.graph)):
            raise GraphRefused(node_errors(problems))
        placed = await self._placed(workflow, resolved.graph)
        all_files = (*resolved.files, *files)
        try:
            if job_id is not None:
                await self._refuse_used(job_id)
            async with self._access.place(caller):
                return await self._job_queue.submit(
                    resolved.graph,
                    owner=caller.owner,
                    files=all_files,
                    seeds=seeds,
                    inputs=inputs,
                    workflow=workflow,
                    metadata=metadata,
                    priority=caller.capped(priority),
                    extra_data=extra_data or None,
                    key=key,
                    job_id=job_id,
                    needs=placed.needs,
                    model=placed.model,
                    estimate=placed.estimate,
                    timeout=timeout,
                )
        except (IdempotencyKeyReused, TooManyJobs):
            # The same request may have come twice at once, and the other was quicker.
            if key is not None and (known := await self.replayed(key)) is not None:
                return known
            raise
        except BlobNotFound as error:
            raise _deleted_meanwhile(all_files, error) from None
        except StoreUnavailable:
            if job_id is not None:
                await self._refuse_used(job_id)  # somebody else got it in this moment
            raise

    async def _placed(self, workflow: str | None, graph: Graph) -> _Placed:
        def place() -> _Placed:
            found = self._place(graph)
            return _Placed(found.needs, found.model, self._estimate(workflow, graph))

        return place() if len(graph) <= _QUICKLY_DONE else await asyncio.to_thread(place)

    async def _refuse_used(self, id: str) -> None:
        """An id is good for one job, as a key is."""
        with suppress(NotFound):
            await self._job_queue.get(id)
            raise IdempotencyKeyReused(id)


def node_errors(
    problems: Mapping[str, Sequence[NodeProblem]],
) -> dict[str, list[dict[str, str]]]:
    """The problems of a graph, by node id, as `GraphRefused` tells them."""
    return {
        node_id: [
            {"field": each.field or "", "reason": each.reason, "message": each.message}
            for each in found
        ]
        for node_id, found in problems.items()
    }


def _deleted_meanwhile(files: tuple[JobFile, ...], error: BlobNotFound) -> MissingAsset:
    gone = [file.asset_id or file.hash for file in files if file.hash in error.hashes]
    return MissingAsset(dict.fromkeys(gone))
