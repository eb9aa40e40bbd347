"""The desk itself: callers on one side, dispatchers on the other, the store behind it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from typing import Any, Final
from uuid import uuid4

from comfyserve.events import Event, NumberedEvent, PreviewDrawn, ProgressMade, StatusChanged
from comfyserve.feed import LocalFeed
from comfyserve.job_queue.follower import follow, follow_together
from comfyserve.job_queue.queue_moves import QueueMoves
from comfyserve.job_queue.standings import Expect, Standings
from comfyserve.jobs import (
    Attempt,
    Claim,
    JobFile,
    JobStatus,
    Lease,
    Metadata,
    Offer,
    Progress,
    Standing,
    Submission,
)
from comfyserve.store import Jobs, Page, UsedKey
from comfyserve.workflows.graph import Graph
from comfyserve.workflows.needs import NOTHING, Needs

_HEEDED: Final = (JobStatus.CANCELING, JobStatus.CANCELED, JobStatus.EXPIRED)
"""What who runs a job has to hear of it, and does not cause himself."""


class JobQueue:
    """All jobs of this process, from when they are handed in until they are forgotten.

    Whatever happens is kept first and then told live, in the order of the numbers, also where who
    asked for it was canceled meanwhile. At most *most_waiting* jobs wait; a job may be forgotten
    *retention* seconds after its end, and is not begun any more *queue_timeout* seconds after it
    began to wait. *clock* gives seconds since the epoch; *watch* hears every event that lasts.
    *bonus* is by how many seconds of share a job may go ahead where its model is warm. *expect*
    says how long a job that is in that place of the queue will wait.
    Where an *owner* is given, jobs of others are not there. All raise `StoreUnavailable` where
    the database fails. `close` it before its store is closed.
    """

    def __init__(
        self,
        jobs: Jobs,
        feed: LocalFeed,
        *,
        most_waiting: int,
        retention: float,
        queue_timeout: float | None = None,
        clock: Callable[[], float] = time.time,
        watch: Callable[[NumberedEvent], None] | None = None,
        bonus: float = 0.0,
        expect: Expect | None = None,
    ) -> None:
        self._jobs = jobs
        self._feed = feed
        self._most_waiting = most_waiting
        self._retention = retention
        self._queue_timeout = queue_timeout
        self._clock = clock
        self._watch = watch
        self._bonus = bonus
        self._standings = Standings(jobs, feed, expect)
        self._moves = QueueMoves(jobs, feed)
        self._extra_data: dict[str, Mapping[str, Any]] = {}
        self._here: set[str] = set()
        self._last_progress: dict[str, Progress] = {}
        self._heed: Callable[[StatusChanged], None] | None = None
        self._heed_work: Callable[[], None] | None = None
        self._work = asyncio.Event()
        self._work.set()  # jobs may wait since an earlier process
        jobs.tell_to(self._told, self._stir)

    # For callers

    async def submit(
        self,
        graph: Graph,
        *,
        owner: str = "",
        files: tuple[JobFile, ...] = (),
        seeds: Mapping[str, int] | None = None,
        inputs: Mapping[str, Any] | None = None,
        workflow: str | None = None,
        metadata: Metadata | None = None,
        priority: int = 0,
        extra_data: Mapping[str, Any] | None = None,
        key: UsedKey | None = None,
        job_id: str | None = None,
        needs: Needs = NOTHING,
        model: str = "",
        estimate: float = 1.0,
        timeout: float | None = None,  # noqa: ASYNC109 - how long the job may run
    ) -> Standing:
        """Put a job into the queue; *key* is used up together with it.

        Only backends that have what it *needs* get it, if possible one that has its *model*
        loaded. It counts for *estimate* seconds of its owner's share, and may run for *timeout*
        seconds. *extra_data* is kept in memory alone, for the job's life. Where *key* replays and
        was used for the same, no job is made: the one of then is told, as it stands now.

        Raises `QueueFull`, `IdempotencyKeyReused`, and `BlobNotFound` where bytes it needs are
        not kept.
        """
        now = self._clock()
        job = Submission(
            id=job_id or str(uuid4()),
            graph=graph,
            expires_at=now + self._retention,
            owner=owner,
            workflow=workflow,
            files=files,
            seeds=seeds or {},
            inputs=inputs or {},
            metadata=metadata,
            priority=priority,
            queue_deadline=self._deadline(now),
            has_extra_data=bool(extra_data),
            pool=needs.pool,
            needs=needs,
            model=model,
            estimate=estimate,
            timeout=timeout,
        )
        if extra_data:
            self._extra_data[job.id] = dict(extra_data)
        try:
            # Told before it is done: who claims then gets the job in the same transaction.
            record, place = await self._jobs.submit(
                job, most_waiting=self._most_waiting, key=key, asked=self._stir
            )
        except Exception:
            self._extra_data.pop(job.id, None)
            raise
        if record.id == job.id:
            return self._standings.of(record, None, place)
        self._extra_data.pop(job.id, None)
        return self._standings.of(record, (await self._feed.latest(record.id)).progress, place)

    async def replayed(self, key: UsedKey) -> Standing | None:
        """How the job stands that *key* was used for; None where the key is still good.

        Raises `IdempotencyKeyReused` where it was used for something else.
        """
        found = await self._jobs.replayed(key)
        if found is None:
            return None
        record, place = found
        return self._standings.of(record, (await self._feed.latest(record.id)).progress, place)

    async def get(self, job_id: str, owner: str | None = None) -> Standing:
        """How the job stands right now. Raises `NotFound`."""
        return await self._standings.get(job_id, owner)

    async def list(
        self,
        owner: str | None = None,
        *,
        statuses: Iterable[JobStatus] = (),
        workflow: str | None = None,
        labels: Mapping[str, str] | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page[Standing]:
        """The jobs that fit all that is given, newest first. Raises `InvalidCursor`."""
        return await self._standings.list(
            owner, statuses=statuses, workflow=workflow, labels=labels, cursor=cursor, limit=limit
        )

    async def graph(self, job_id: str, owner: str | None = None) -> Graph:
        """The graph that the job runs. Raises `NotFound`."""
        return await self._jobs.graph(job_id, owner)

    async def cancel(self, job_id: str, owner: str | None = None) -> Standing:
        """End a waiting job, have a running one stopped, leave one that is over as it is."""
        await self._jobs.cancel(job_id, owner, expires_at=self._clock() + self._retention)
        return await self.get(job_id, owner)

    async def delete(self, job_id: str, owner: str | None = None) -> None:
        """Forget a job that is over, with its outputs. Raises `NotFound`, `JobUnfinished`."""
        await self._jobs.delete(job_id, owner)

    def follow(
        self,
        job_id: str,
        after: int = 0,
        *,
        owner: str | None = None,
        since: Standing | None = None,
    ) -> AsyncGenerator[Event]:
        """What happened to the job after event number *after*, and then what happens, to its end.

        No gap and no repeat. A job that runs tells its latest progress and preview once the past
        is told; one that is over tells its last progress just before the end. Moves of a waiting
        job in the queue come as ``StatusChanged`` with a *queue_position* and no number. Raises
        `NotFound` before the first event, and `ListenerTooSlow` where the caller does not keep
        up. After `close` it ends without a terminal event. Who has just asked how the job stands
        says so with *since*, and it is not asked again.
        """
        return follow(self._jobs, self._feed, self._moves, job_id, after, owner, since=since)

    def follow_together(
        self,
        job_id: str,
        after: int = 0,
        *,
        owner: str | None = None,
        since: Standing | None = None,
    ) -> AsyncGenerator[Sequence[Event]]:
        """Like `follow`, with all events at once that are there at the same time.

        Who tells many others saves a turn for each event.
        """
        return follow_together(
            self._jobs, self._feed, self._moves, job_id, after, owner, since=since
        )

    def close(self) -> None:
        """The process is about to stop: every `follow` ends. Jobs can still be told about."""
        self._moves.close()
        self._feed.close()

    # For dispatchers

    def waiting_pools(self) -> Mapping[str, Needs]:
        """Every pool in which jobs may wait, and what they need; it changes with the queue."""
        return self._jobs.waiting_pools

    async def claim(self, holder: str, offers: Sequence[Offer], *, lease: float) -> Claim | None:
        """Take the next job for *lease* seconds, or None where none waits for these backends.

        Of all *offers* it goes to the one that suits it best.
        """
        # Cleared before looking, so that a job that comes meanwhile is not slept through.
        self._work.clear()
        try:
            claim = await self._jobs.claim(holder, offers, lease=lease, bonus=self._bonus)
        except BaseException:
            self._work.set()
            raise
        if claim is not None:
            self._here.add(claim.record.id)
            if claim.more_wait:
                self._work.set()
        return claim

    async def wait_for_work(self) -> None:
        """Return once a job may wait to be claimed; `claim` says whether one does."""
        await self._work.wait()

    async def record(
        self, lease: Lease, events: Iterable[NumberedEvent]
    ) -> tuple[NumberedEvent, ...]:
        """Keep and tell what happened to a held job; the events as they were numbered.

        Raises `LeaseLost`, and `IllegalMove` for a status that the job cannot take.
        """
        return await self._jobs.record(lease, events)

    async def finish(
        self,
        lease: Lease,
        end: StatusChanged,
        *,
        events: Iterable[NumberedEvent] = (),
        progress: Progress | None = None,
    ) -> tuple[NumberedEvent, ...]:
        """Keep and tell the last *events* of a held job, then its *end*, and let go of it.

        Its last progress is *progress*, else what was told last. Raises like `record`.
        """
        latest = (await self._feed.latest(lease.job_id)).progress
        if progress is not None and progress != latest:
            self._last_progress[lease.job_id] = progress
        return await self._jobs.finish(
            lease,
            end,
            events=events,
            progress=progress or latest,
            expires_at=self._clock() + self._retention,
        )

    async def requeue(
        self,
        lease: Lease,
        *,
        counts: bool = True,
        note: str | None = None,
        needs: Needs | None = None,
    ) -> tuple[NumberedEvent, ...]:
        """Give a held job back to the queue, in its old place; one to be canceled is canceled.

        With *counts* false the attempt never was. One that had begun gets a new deadline to
        begin again. It waits for what it *needs*, where that is not what it was taken for. Raises
        `LeaseLost`.
        """
        now = self._clock()
        try:
            return await self._jobs.requeue(
                lease,
                counts=counts,
                note=note,
                needs=needs,
                queue_deadline=self._deadline(now),
                expires_at=now + self._retention,
            )
        finally:
            self._here.discard(lease.job_id)

    def tell(self, event: ProgressMade | PreviewDrawn) -> None:
        """Tell something live that is not kept. What comes of a job not held here is dropped."""
        if event.job_id in self._here:
            self._feed.publish(event)

    def listeners(self, job_id: str) -> int:
        """How many follow the job live right now."""
        return self._feed.listeners(job_id)

    async def heartbeat(self, holder: str, *, lease: float) -> Mapping[str, JobStatus]:
        """Hold all that *holder* holds for *lease* seconds from now; how each job of it stands."""
        return await self._jobs.heartbeat(holder, lease=lease)

    async def held(self) -> tuple[Claim, ...]:
        """The jobs that somebody holds, as an earlier process may have left them."""
        return await self._jobs.held()

    async def adopt(self, lease: Lease, holder: str, *, seconds: float) -> Lease:
        """Take over a job from who held it, in the same attempt. Raises `LeaseLost`."""
        taken = await self._jobs.adopt(lease, holder, seconds=seconds)
        self._here.add(lease.job_id)
        return taken

    async def attempts(self, job_id: str) -> tuple[Attempt, ...]:
        """Every time the job was brought to a backend, the first one first."""
        return await self._jobs.attempts(job_id)

    def heed_work(self, heed: Callable[[], None]) -> None:
        """Have *heed* called at once whenever a job may have come to wait; see `wait_for_work`."""
        self._heed_work = heed

    def heed_cancels(self, heed: Callable[[StatusChanged], None]) -> None:
        """Have *heed* hear at once of every job that is to be canceled, or was, or expired."""
        self._heed = heed

    async def expire_waiting(self, holder: str | None = None) -> float | None:
        """End the jobs that waited too long, also those that *holder* has and that did not begin;
        when the next one is due, in epoch seconds."""
        while await self._jobs.expire_waiting(
            holder=holder, expires_at=self._clock() + self._retention
        ):
            pass
        return await self._jobs.next_queue_deadline(holder)

    @property
    def queue_timeout(self) -> float | None:
        """How many seconds a job may wait that is handed in now."""
        return self._queue_timeout

    async def waiting(self) -> int:
        """How many jobs wait to be claimed."""
        return await self._jobs.waiting()

    def extra_data(self, job_id: str) -> Mapping[str, Any] | None:
        """The secrets that came with the job; None where none did or the process is another."""
        return self._extra_data.get(job_id)

    def _deadline(self, now: float) -> float | None:
        return None if self._queue_timeout is None else now + self._queue_timeout

    def _stir(self) -> None:
        """Who looks for work is to look again."""
        self._work.set()
        if self._heed_work is not None:
            self._heed_work()

    def _told(self, events: tuple[NumberedEvent, ...]) -> None:
        """Tell live what was just kept; the store calls this in the order of the numbers."""
        for event in events:
            if event.is_last and (last := self._last_progress.pop(event.job_id, None)) is not None:
                self.tell(ProgressMade(event.job_id, last))
            self._feed.publish(event)
            if isinstance(event, StatusChanged):
                self._turn(event)
            if self._watch is not None:
                self._watch(event)

    def _turn(self, event: StatusChanged) -> None:
        self._moves.stir()
        if self._heed is not None and event.status in _HEEDED:
            self._heed(event)
        if event.is_last or event.status is JobStatus.QUEUED:
            self._here.discard(event.job_id)
        if event.is_last:
            self._extra_data.pop(event.job_id, None)
            self._feed.forget(event.job_id)
