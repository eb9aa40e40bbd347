"""Everything one server process holds open, opened and closed in order.

async with open_host(settings) as host:
    await host.job_queue.submit(graph)
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

from comfyserve.access import Access
from comfyserve.asset_library import AssetLibrary
from comfyserve.blobs import Blobs
from comfyserve.catalog import Catalog, Publishing, published_in
from comfyserve.comfy.backend import Backend
from comfyserve.dispatcher import Dispatcher
from comfyserve.errors import ComfyServeError
from comfyserve.events import NumberedEvent
from comfyserve.feed import LocalFeed
from comfyserve.fleet import Fleet, Roster, Wanted, refusal
from comfyserve.intake import Intake
from comfyserve.job_queue import JobQueue
from comfyserve.learned_times import LearnedTimes, subject_of
from comfyserve.refusals import JobUnfinished, NotFound
from comfyserve.settings import BackendSettings, Settings
from comfyserve.store import Store
from comfyserve.url_inputs import UrlInputs
from comfyserve.workflows.graph import Graph
from comfyserve.workflows.graph_check import NodeProblem
from comfyserve.workflows.needs import Needs, model_of, needs_of

log = logging.getLogger(__name__)

DEFAULT_BACKEND: Final = "http://127.0.0.1:8188"
"""Where a ComfyUI listens that was told nothing else."""

_QUICKLY_CHECKED: Final = 200
"""Nodes of a graph that is checked in passing; a larger one is checked beside the event loop."""

_FRESH_WITHIN: Final = 5.0
"""Seconds that who hands in a graph waits for what the backends can do now."""

_SWEEP_PAUSE: Final = 60.0
"""Seconds between two rounds of forgetting what is past its time."""

Watch = Callable[[NumberedEvent], None]


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether jobs that are handed in now would run, and every reason why they would not."""

    is_ready: bool
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Placement:
    """What a graph asks of a backend (*needs*), and the models that it loads."""

    needs: Needs
    model: str


@dataclass(slots=True)
class Host:
    """What one process holds open; see `open_host`."""

    settings: Settings
    access: Access
    catalog: Catalog
    publishing: Publishing
    job_queue: JobQueue
    asset_library: AssetLibrary
    roster: Roster
    dispatcher: Dispatcher
    times: LearnedTimes
    is_stopping: bool = field(default=False, init=False)
    intake: Intake = field(init=False)
    url_inputs: UrlInputs = field(init=False)

    def __post_init__(self) -> None:
        self.intake = Intake(
            self.job_queue,
            self.asset_library,
            self.access,
            check=self.check_graph,
            place=self.placement,
            estimate=self.estimate,
            is_stopping=lambda: self.is_stopping,
        )
        self.url_inputs = UrlInputs(
            is_on=self.settings.url_inputs,
            hosts=self.settings.url_hosts,
            seconds=self.settings.url_timeout,
            most=self.settings.upload_cap,
        )

    @property
    def fleet(self) -> Fleet:
        """The backends that jobs can go to."""
        return self.roster.fleet

    async def is_ready(self) -> Readiness:
        """Ask the store and the backends; one backend that answers is enough."""
        reasons = []
        if self.is_stopping:
            reasons.append("The server is about to stop.")
        try:
            await self.job_queue.waiting()
        except ComfyServeError as error:
            log.warning("Not ready: %s", error)
            reasons.append("The database cannot be used; the log says why.")
        reasons += await self.fleet.reasons_against()
        return Readiness(not reasons, tuple(reasons))

    async def check_graph(self, graph: Graph) -> Mapping[str, Sequence[NodeProblem]]:
        """Why no backend would run the graph, by node id; empty where one would, or nobody knows.

        Of a backend that is down counts what was known last: its jobs wait. What the known node
        catalogues do not take is held against fresh ones before it is told.
        """
        if self.fleet.catalogs() and not await self._problems(graph):
            return {}
        with suppress(TimeoutError):
            async with asyncio.timeout(_FRESH_WITHIN):
                await self.fleet.refresh()
        return await self._problems(graph)

    def placement(self, graph: Graph) -> Placement:
        """What the graph asks of a backend, as far as the known node catalogues tell."""
        catalogs = [*self.fleet.catalogs().values()]
        return Placement(needs_of(graph, catalogs), model_of(graph, catalogs))

    def estimate(self, workflow: str | None, graph: Graph) -> float:
        """The seconds that a job of this workflow, or of this graph without a name, may take."""
        return self.times.estimate(subject_of(workflow, graph))

    async def object_info(self) -> bytes:
        """The node catalogues of all backends as one JSON document, the last that are known.

        Raises `BackendError` where none is known and no backend answers.
        """
        return await self.fleet.object_info()

    async def stop(self) -> None:
        """Claim nothing more, let running jobs end for the grace period, then end all streams.

        What does not end in time is taken up by the next process. May be called again.
        """
        self.is_stopping = True
        await self.dispatcher.stop()
        self.job_queue.close()

    async def _problems(self, graph: Graph) -> Mapping[str, Sequence[NodeProblem]]:
        members = self.fleet.members
        if len(graph) <= _QUICKLY_CHECKED:
            return refusal(graph, members)
        return await asyncio.to_thread(refusal, graph, members)


@asynccontextmanager
async def open_host(settings: Settings, *, watch: Watch | None = None) -> AsyncIterator[Host]:
    """Open everything that *settings* ask for, for the time of the block, and begin to run jobs.

    *watch* is called with every numbered event once it is kept. Leaving the block stops like
    `Host.stop`. Raises `DataFolderLocked`, `SchemaTooNew`, `StoreUnavailable`, `OutputUnwritable`
    and `InvalidAddress`.
    """
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(
            Store.open(settings.data, busy_timeout=settings.busy_timeout)
        )
        blobs = await Blobs.open(settings.data, grace=settings.blob_grace)
        job_queue = JobQueue(
            store.jobs,
            LocalFeed(),
            most_waiting=settings.queue_size,
            retention=settings.retention,
            queue_timeout=settings.queue_timeout,
            watch=watch,
            bonus=settings.warm_bonus,
            expect=lambda record, place: dispatcher.expected_wait(record, place),
        )
        asset_library = AssetLibrary(
            store.assets,
            blobs,
            store.idempotency,
            retention=settings.asset_retention,
            upload_cap=settings.upload_cap,
            disk_cap=settings.disk_cap,
        )
        access = await Access.open(store)
        identity = await store.identity()
        configured = settings.backends or (BackendSettings(DEFAULT_BACKEND),)
        roster = await stack.enter_async_context(
            Roster.open(
                store.backends,
                lambda wanted: _backend(wanted, identity),
                [Wanted(one.url, one.headers, one.token, one.verify_tls) for one in configured],
            )
        )
        catalog = await stack.enter_async_context(
            Catalog.open(
                settings.workflows,
                published=published_in(await store.published.list()),
                catalogs=roster.fleet.catalogs(),
                in_background=True,
            )
        )
        times = await stack.enter_async_context(LearnedTimes.open(store.times))
        dispatcher = Dispatcher(
            job_queue,
            roster.fleet,
            blobs,
            times,
            holder=f"{identity}/{uuid.uuid4().hex}",
            attempts=settings.attempts,
            timeout=settings.timeout,
            lease=settings.lease,
            grace=settings.grace,
            keep_temp=settings.keep_temp,
        )
        publishing = Publishing(catalog, store.published)
        host = Host(
            settings,
            access,
            catalog,
            publishing,
            job_queue,
            asset_library,
            roster,
            dispatcher,
            times,
        )
        sweeper = _Sweeper(store, job_queue, asset_library)
        async with _working(host, sweeper):
            yield host


@asynccontextmanager
async def _working(host: Host, sweeper: _Sweeper) -> AsyncIterator[None]:
    """Run what runs beside the requests; what the block raises goes out as it is."""
    failure: Exception | None = None
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(host.dispatcher.run(), name="dispatcher")
        beside = [
            tasks.create_task(sweeper.run(), name="sweeper"),
            tasks.create_task(_teach(host.catalog, host.fleet), name="nodes for the workflows"),
        ]
        try:
            yield
        except Exception as error:
            failure = error
        finally:
            for task in beside:
                task.cancel()
            await host.stop()
    if failure is not None:
        raise failure


async def _teach(catalog: Catalog, fleet: Fleet) -> None:
    """Hold the workflows against what the backends have whenever that changed; ends only by being
    canceled."""
    version = -1
    while True:
        version = await fleet.wait_for_change(version)
        try:
            await catalog.learn(fleet.catalogs())
        except Exception:
            log.exception("The workflows could not be held against the backends' nodes")


def _backend(wanted: Wanted, identity: str) -> Backend:
    """The backend under a client id that outlives us, so that after a restart its messages about
    jobs that still run come to us."""
    name = uuid.uuid5(uuid.UUID(identity), wanted.url)
    return Backend(
        wanted.url,
        headers=wanted.headers,
        token=wanted.token,
        verify_tls=wanted.verify_tls,
        client_id=name.hex,
    )


class _Sweeper:
    """Forgets what is past its time: jobs with their outputs, assets, keys, unused bytes."""

    def __init__(self, store: Store, job_queue: JobQueue, asset_library: AssetLibrary) -> None:
        self._store = store
        self._job_queue = job_queue
        self._asset_library = asset_library

    async def run(self) -> None:
        """Sweep at once and then every minute; ends only by being canceled."""
        while True:
            for sweep in (
                self._jobs,
                self._keys,
                self._store.forget_unneeded,
                self._asset_library.sweep,
            ):
                try:
                    await sweep()
                except ComfyServeError as error:
                    log.warning("What is past its time stays for now: %s", error)
                except Exception:
                    log.exception("What is past its time stays for now")
            await asyncio.sleep(_SWEEP_PAUSE)

    async def _jobs(self) -> None:
        while ids := await self._store.jobs.expired(time.time()):
            for job_id in ids:
                try:
                    await self._job_queue.delete(job_id)
                except (NotFound, JobUnfinished):
                    # Somebody deleted it meanwhile.
                    continue

    async def _keys(self) -> None:
        await self._store.idempotency.delete_expired(time.time())
