"""Every job to a backend: those that wait, and what an earlier process left to its end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from comfyserve.blobs import Blobs
from comfyserve.dispatcher.desk import Desk
from comfyserve.dispatcher.job_run import JobRun
from comfyserve.dispatcher.lane import Lane
from comfyserve.dispatcher.matching import STORE_PAUSE, Matching
from comfyserve.dispatcher.outlook import Outlook
from comfyserve.events import StatusChanged
from comfyserve.fleet import Fleet, Member
from comfyserve.job_queue import JobQueue
from comfyserve.jobs import Claim, JobRecord, JobStatus, Lease
from comfyserve.learned_times import LearnedTimes
from comfyserve.refusals import LeaseLost, StoreUnavailable

log = logging.getLogger(__name__)

_NO_DEADLINE: Final = 3600.0
"""Seconds between two looks for deadlines that a process with other settings gave."""


class Dispatcher:
    """Runs the jobs of *queue* on the backends of *fleet*, their outputs going into *blobs*.

    What they take goes into *times*, and tells how long others will.

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
        times: LearnedTimes,
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
        self._desk = Desk(queue, fleet, blobs, times, holder, attempts, timeout, lease, keep_temp)
        self._grace = grace
        self._runs: dict[str, JobRun] = {}
        self._tasks: dict[JobRun, asyncio.Task[None]] = {}
        self._left: set[str] = set()
        self._lanes: dict[str, Lane] = {}
        self._matching = Matching(self._desk, self._lanes, self._start, self._left.add)
        self._outlook = Outlook(queue, fleet, times, self._lanes)
        self._arrange_lanes()
        self._stopping = asyncio.Event()
        self._stopped = asyncio.Event()
        self._stopped.set()

    async def run(self) -> None:
        """Take up what an earlier process left, then claim and run jobs until `stop`."""
        if self._stopping.is_set():
            return
        self._stopped.clear()
        self._queue.heed_cancels(self._heed)
        self._fleet.before_leaving(self._let_go)
        try:
            async with asyncio.TaskGroup() as self._group:
                beating = self._group.create_task(self._beat(), name="heartbeat")
                working = [self._group.create_task(self._work(), name="dispatching")]
                working += [self._group.create_task(self._expire(), name="queue deadlines")]
                working += [self._group.create_task(self._heed_fleet(), name="fleet")]
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

    def expected_wait(self, record: JobRecord, place: int | None) -> tuple[float, float] | None:
        """The least and the most seconds until a job begins that is queued in that place of its
        pool; None where nothing can be said."""
        return self._outlook.expected_wait(record, place)

    async def _work(self) -> None:
        """First what is there, then what comes."""
        await self._take_up(await self._held())
        await self._matching.run()

    # The backends

    async def _heed_fleet(self) -> None:
        """Have a lane for each backend, and see what each can do, whenever something changed."""
        version = -1
        while True:
            version = await self._fleet.wait_for_change(version)
            self._arrange_lanes()

    def _arrange_lanes(self) -> None:
        there = {member.name: member for member in self._fleet.members}
        for name in self._lanes.keys() - there.keys():
            del self._lanes[name]
        for name, member in there.items():
            lane = self._lanes.get(name)
            if lane is None or lane.member is not member:
                self._lanes[name] = lane = Lane(self._fleet, member, self._matching.stir)
            lane.reconsider()
        # Where no place is free, jobs may still be that nobody can run any more.
        self._matching.stir()

    async def _let_go(self, member: Member) -> None:
        """Give back the jobs of a backend that is removed; returns once it has none."""
        tasks = {self._tasks[run]: run for run in self._tasks if run.member is member}
        for run in tasks.values():
            run.give_back()
        if tasks:
            await asyncio.wait(tasks)

    # New jobs

    def _start(self, claim: Claim, lane: Lane, *, is_taken_up: bool = False) -> None:
        run = JobRun(
            self._desk,
            claim,
            lane.member,
            is_taken_up=is_taken_up,
            ahead=lane.inside,
            moved=lane.look,
            lost=lane.lost,
        )
        self._runs[run.id] = run
        lane.enter(run)
        self._tasks[run] = self._group.create_task(self._go(run, lane), name=f"job {run.id}")

    async def _go(self, run: JobRun, lane: Lane) -> None:
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
            await asyncio.sleep(STORE_PAUSE)

    async def _take_up(self, claims: tuple[Claim, ...]) -> None:
        """Go on with jobs that nobody works on, where they are; or, if that is not one of our
        backends any more, look for them at another."""
        for claim in claims:
            record = claim.record
            if record.id in self._runs:
                continue
            lane = self._lanes.get(record.backend or "") or self._any_lane()
            if lane is None:
                self._left.add(record.id)
                continue
            try:
                lease = await self._adopt(claim)
            except (LeaseLost, StoreUnavailable) as error:
                log.warning("A job is not taken up yet: %s", error, extra=_named(claim))
                self._left.add(record.id)
                continue
            log.info("A job that nobody worked on is taken up", extra=_named(claim))
            self._left.discard(record.id)
            self._start(replace(claim, lease=lease), lane, is_taken_up=True)

    def _any_lane(self) -> Lane | None:
        """Its address may only be spelled differently now; one that answers tells that soonest."""
        return min(self._lanes.values(), key=lambda lane: not lane.member.is_up, default=None)

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
                await asyncio.sleep(STORE_PAUSE)
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


async def _end(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks and wait until they are gone."""
    ending = list(tasks)
    for task in ending:
        task.cancel()
    await asyncio.gather(*ending, return_exceptions=True)


def _named(claim: Claim) -> Mapping[str, str]:
    return {"job_id": claim.record.id, "backend": claim.record.backend or ""}
