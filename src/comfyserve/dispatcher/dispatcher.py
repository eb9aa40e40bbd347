"""The loop: the next job to the next free backend, and what an earlier process left to its end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Final

from comfyserve.blobs import Blobs
from comfyserve.dispatcher.desk import Desk
from comfyserve.dispatcher.job_run import JobRun
from comfyserve.events import StatusChanged
from comfyserve.fleet import Fleet, Member
from comfyserve.job_queue import JobQueue
from comfyserve.jobs import Claim, JobStatus, Lease
from comfyserve.refusals import LeaseLost, StoreUnavailable

log = logging.getLogger(__name__)

MOST_INSIDE: Final = 2
"""Jobs inside one backend: one that runs and one that waits, so that it never idles."""

QUICK: Final = 0.25
"""Where jobs take fewer seconds than that, one more is claimed before there is a place for it."""

MOST_LEAVING: Final = 8
"""Jobs that a backend is done with and whose outputs are on their way; more are not begun then."""

_NO_DEADLINE: Final = 3600.0
"""Seconds between two looks for deadlines that a process with other settings gave."""

_STORE_PAUSE: Final = 1.0
"""Seconds before the store is asked again that has just failed."""


class Dispatcher:
    """Runs the jobs of *queue* on the backends of *fleet*, their outputs going into *blobs*.

    *holder* names this process in the store. A job whose backend is lost is tried *attempts*
    times, one that runs for longer than *timeout* seconds fails. What it holds it holds for
    *lease* seconds from each sign of life. `stop` gives running jobs *grace* seconds to end. With
    *keep_temp* temporary outputs are kept beside others.
    """

    def __init__(
        self,
        queue: JobQueue,
        fleet: Fleet,
        blobs: Blobs,
        *,
        holder: str,
        attempts: int = 3,
        timeout: float | None = None,
        lease: float = 30.0,
        grace: float = 30.0,
        keep_temp: bool = False,
    ) -> None:
        self._queue = queue
        self._fleet = fleet
        self._desk = Desk(queue, blobs, holder, attempts, timeout, lease, keep_temp)
        self._grace = grace
        self._runs: dict[str, JobRun] = {}
        self._tasks: dict[JobRun, asyncio.Task[None]] = {}
        self._left: set[str] = set()
        self._lanes = {member.name: _Lane(member) for member in fleet.members}
        self._stopping = asyncio.Event()
        self._stopped = asyncio.Event()
        self._stopped.set()

    async def run(self) -> None:
        """Take up what an earlier process left, then claim and run jobs until `stop`."""
        if self._stopping.is_set():
            return
        self._stopped.clear()
        self._queue.heed_cancels(self._heed)
        try:
            async with asyncio.TaskGroup() as self._group:
                beating = self._group.create_task(self._beat(), name="heartbeat")
                working = [self._group.create_task(self._work(), name="dispatching")]
                working += [self._group.create_task(self._expire(), name="queue deadlines")]
                await self._stopping.wait()
                await _end(working)
                await self._let_end()
                await _end([beating])
        finally:
            self._stopped.set()

    async def stop(self) -> None:
        """Claim nothing more and let running jobs end, but not for long; returns once `run` did.

        What has not ended then goes on in its backend, for the next process to take up.
        """
        self._stopping.set()
        await self._stopped.wait()

    async def _work(self) -> None:
        """First what is there, then what comes."""
        await self._take_up(await self._held())
        async with asyncio.TaskGroup() as lanes:
            for lane in self._lanes.values():
                lanes.create_task(self._serve(lane), name=f"jobs for {lane.member.name}")

    # New jobs

    async def _serve(self, lane: _Lane) -> None:
        """Bring job after job to one backend; ends only by being canceled."""
        while True:
            await lane.room()
            await lane.member.wait_until_up()
            try:
                claim = await self._claim(lane.member)
            except Exception as error:
                is_known = isinstance(error, StoreUnavailable)
                log.warning("No job can be claimed: %s", error, exc_info=not is_known)
                await asyncio.sleep(_STORE_PAUSE)
                continue
            if claim is not None:
                self._start(claim, lane, is_taken_up=False)
            await self._queue.wait_for_work()

    async def _claim(self, member: Member) -> Claim | None:
        """The next job; one that is claimed while we are told to stop goes back at once."""
        claiming = asyncio.ensure_future(
            self._queue.claim(self._desk.holder, member.name, lease=self._desk.lease)
        )
        try:
            return await asyncio.shield(claiming)
        except asyncio.CancelledError:
            with suppress(StoreUnavailable, LeaseLost):
                if (claim := await claiming) is not None:
                    await self._queue.requeue(claim.lease, counts=False)
            raise

    def _start(self, claim: Claim, lane: _Lane, *, is_taken_up: bool) -> None:
        run = JobRun(
            self._desk,
            claim,
            lane.member,
            is_taken_up=is_taken_up,
            ahead=lane.inside,
            moved=lane.look,
            lost=lane.look_around,
        )
        self._runs[run.id] = run
        lane.enter(run)
        self._tasks[run] = self._group.create_task(self._go(run, lane), name=f"job {run.id}")

    async def _go(self, run: JobRun, lane: _Lane) -> None:
        try:
            await run.go()
        finally:
            lane.leave(run)
            del self._tasks[run]
            if self._runs.get(run.id) is run:
                del self._runs[run.id]
            if run.was_left:
                self._left.add(run.id)

    # Jobs of earlier processes, and those that had to be left

    async def _held(self) -> tuple[Claim, ...]:
        while True:
            try:
                return await self._queue.held()
            except StoreUnavailable as error:
                log.warning("What an earlier process left cannot be read: %s", error)
            await asyncio.sleep(_STORE_PAUSE)

    async def _take_up(self, claims: tuple[Claim, ...]) -> None:
        """Go on with jobs that nobody works on, where they are; or, if that is not one of our
        backends any more, look for them at the first."""
        for claim in claims:
            record = claim.record
            if record.id in self._runs:
                continue
            lane = self._lanes.get(record.backend or "") or next(iter(self._lanes.values()))
            try:
                lease = await self._adopt(claim)
            except (LeaseLost, StoreUnavailable) as error:
                log.warning("A job is not taken up yet: %s", error, extra=_named(claim))
                self._left.add(record.id)
                continue
            log.info("A job that nobody worked on is taken up", extra=_named(claim))
            self._left.discard(record.id)
            self._start(replace(claim, lease=lease), lane, is_taken_up=True)

    async def _adopt(self, claim: Claim) -> Lease:
        desk = self._desk
        return await self._queue.adopt(claim.lease, desk.holder, seconds=desk.lease)

    # What runs beside

    def _heed(self, event: StatusChanged) -> None:
        run = self._runs.get(event.job_id)
        if run is not None and not run.is_ending:
            run.heed(event.status)

    async def _beat(self) -> None:
        """Hold what is held; what the store says of it is the truth, whatever was heard."""
        while True:
            await asyncio.sleep(self._desk.lease / 3)
            before = dict(self._runs)
            try:
                held = await self._queue.heartbeat(self._desk.holder, lease=self._desk.lease)
                self._compare(before, held)
                if self._left and not self._stopping.is_set():
                    await self._take_up(
                        tuple(c for c in await self._queue.held() if c.record.id in self._left)
                    )
            except StoreUnavailable as error:
                log.warning("No sign of life can be given: %s", error)
            except Exception:
                log.exception("No sign of life can be given")

    def _compare(self, before: Mapping[str, JobRun], held: Mapping[str, JobStatus]) -> None:
        for job_id, run in before.items():
            if run.is_ending or self._runs.get(job_id) is not run:
                continue
            if job_id not in held:
                run.lose()
            elif held[job_id] is JobStatus.CANCELING:
                run.heed(JobStatus.CANCELING)

    async def _expire(self) -> None:
        """End jobs that waited for too long, each when its time has come."""
        while True:
            try:
                due = await self._queue.expire_waiting(self._desk.holder)
            except Exception as error:
                is_known = isinstance(error, StoreUnavailable)
                log.warning(
                    "Jobs that waited too long stay for now: %s", error, exc_info=not is_known
                )
                await asyncio.sleep(_STORE_PAUSE)
                continue
            # Who comes later may wait for as long, so looking again by then is soon enough.
            most = self._queue.queue_timeout or _NO_DEADLINE
            await asyncio.sleep(most if due is None else min(max(0.0, due - time.time()), most))

    # The end

    async def _let_end(self) -> None:
        """Give what runs its time, and leave the rest as it is."""
        for run in self._tasks:
            run.give_up_unless_sent()
        for run, task in self._tasks.items():
            if run.waits_for_backend:
                task.cancel()
        if self._tasks and self._grace > 0:
            await asyncio.wait(self._tasks.values(), timeout=self._grace)
        if self._tasks:
            log.warning("%d jobs go on without us", len(self._tasks))
        await _end([*self._tasks.values()])


class _Lane:
    """The places that one backend has for jobs.

    It claims late, so that the queue keeps the say over who is next; only where jobs are so quick
    that claiming would hold the backend up is one more kept at hand.
    """

    def __init__(self, member: Member) -> None:
        self.member = member
        self._runs: dict[JobRun, None] = {}
        self._is_quick = False
        self._room = asyncio.Event()
        self._room.set()

    @property
    def inside(self) -> tuple[JobRun, ...]:
        """The jobs that the backend has or is about to get, in their order."""
        return tuple(run for run in self._runs if run.is_inside)

    def enter(self, run: JobRun) -> None:
        """A job was claimed for this backend."""
        self._runs[run] = None
        self.look()

    def leave(self, run: JobRun) -> None:
        """A job is over, or given back."""
        self._runs.pop(run, None)
        self.look()

    def look(self) -> None:
        """See who has a place now, and whether there is room for one more."""
        inside = self.inside
        for run in self._runs:
            if run.seconds_inside is not None:
                self._is_quick = run.seconds_inside < QUICK
        self._begin_next(inside)
        most = MOST_INSIDE + self._is_quick
        has_room = len(inside) < most and len(self._runs) - len(inside) < MOST_LEAVING
        if has_room and not self._is_submitting():
            self._room.set()
        else:
            self._room.clear()

    def _begin_next(self, inside: tuple[JobRun, ...]) -> None:
        """One after the other, so that they arrive there in their order."""
        begun = sum(run.has_begun for run in inside)
        for run in inside:
            if begun >= MOST_INSIDE or self._is_submitting():
                return
            if not run.has_begun:
                run.begin()
                begun += 1

    def _is_submitting(self) -> bool:
        return any(run.is_submitting for run in self._runs)

    def look_around(self) -> None:
        """One job was lost, so the others may be too; together they keep their order."""
        for run in self._runs:
            run.look_around()

    async def room(self) -> None:
        """Return once there is room for one more."""
        await self._room.wait()


async def _end(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks and wait until they are gone."""
    ending = list(tasks)
    for task in ending:
        task.cancel()
    await asyncio.gather(*ending, return_exceptions=True)


def _named(claim: Claim) -> Mapping[str, str]:
    return {"job_id": claim.record.id, "backend": claim.record.backend or ""}
