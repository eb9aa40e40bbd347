"""The jobs that are kept: handed in, claimed, told about, ended, listed, forgotten."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from sqlalchemy import func, select, text

from comfyserve.events import NumberedEvent, StatusChanged
from comfyserve.jobs import (
    Attempt,
    Claim,
    JobRecord,
    JobStatus,
    Lease,
    Offer,
    Progress,
    Submission,
)
from comfyserve.store import (
    claims,
    job_lists,
    job_reads,
    job_writes,
    queue_places,
    submissions,
    tables,
    turns,
    waiting_pools,
)
from comfyserve.store.database import Database
from comfyserve.store.dialects import Sql
from comfyserve.store.job_writes import Cancellation
from comfyserve.store.rivals import Field, Rivals
from comfyserve.store.rows import Page
from comfyserve.store.submissions import UsedKey
from comfyserve.store.waiting_pools import WaitingPools
from comfyserve.workflows.graph import Graph
from comfyserve.workflows.needs import Needs

_JOBS: Final = tables.jobs.c
_MOST_AT_ONCE: Final = 200


class Jobs:
    """Everything that can be done with kept jobs.

    What writes to a held job says what it told: the events as they were numbered and kept, for
    those who follow live; `tell_to` has them all. Where an *owner* is given, jobs of others are not
    there. A job that is over is not there either once its ``expires_at`` is past. All raise
    `StoreUnavailable` where the database fails.
    """

    def __init__(self, database: Database, pools: Mapping[str, Needs] | None = None) -> None:
        """*pools* are those in which jobs wait already."""
        self._database = database
        self._pools = WaitingPools(pools or {})
        self._rivals = Rivals()
        self._told: Callable[[tuple[NumberedEvent, ...]], None] | None = None
        self._came_back: Callable[[], None] | None = None

    def tell_to(
        self,
        told: Callable[[tuple[NumberedEvent, ...]], None],
        came_back: Callable[[], None] | None = None,
    ) -> None:
        """From now on call *told* with all events that are kept, in the order of their numbers,
        and *came_back* after a job was given back to the queue.

        They are called before who wrote it goes on, and also where that one was canceled.
        """
        self._told = told
        self._came_back = came_back

    @property
    def waiting_pools(self) -> Mapping[str, Needs]:
        """Every pool in which jobs may wait, and what they need; it changes with the queue."""
        return self._pools.known

    async def submit(
        self,
        job: Submission,
        *,
        most_waiting: int | None = None,
        key: UsedKey | None = None,
        asked: Callable[[], None] | None = None,
    ) -> tuple[JobRecord, int | None]:
        """Put a job into the queue, together with its first event and the *key* it uses up.

        Says how it stands then, and its place in the queue; where the key replays, that may be an
        earlier job, wherever that stands. *asked* is called before: a claim that is made from
        then on may have the job.

        Raises `QueueFull` where *most_waiting* wait, `IdempotencyKeyReused`, and `BlobNotFound`
        where bytes that it needs are not kept; the key is then still good.
        """
        now, is_new = self._database.now(), job.pool not in self._pools.known
        moment = 0

        def enter() -> None:
            nonlocal moment
            self._pools.enter(job.pool, job.needs)
            moment = self._pools.moment
            if asked is not None:
                asked()

        try:
            entered = await self._database.do(
                lambda sql: submissions.submit(sql, job, now, most_waiting, key, self._field_of),
                lambda entered: self._tell(entered.events),
                asked=enter,
            )
        except Exception:
            if is_new:
                self._pools.leave((job.pool,), moment)
            raise
        return entered.record, entered.place

    async def replayed(self, key: UsedKey) -> tuple[JobRecord, int | None] | None:
        """The job that *key* was used for, and its place in the queue; None where it is good.

        Raises `IdempotencyKeyReused` where it was used for something else.
        """
        now = self._database.now()
        found = await self._database.do(lambda sql: submissions.replayed(sql, key, now))
        return None if found is None else (found.record, found.place)

    async def claim(
        self, holder: str, offers: Sequence[Offer], *, lease: float, bonus: float = 0.0
    ) -> Claim | None:
        """Take the next job for *lease* seconds, or None where none waits for these backends.

        It goes to the backend whose offer suits it best. A job for a warm model may go ahead of
        others by *bonus* seconds of its owner's share, and it is worth as many seconds of waiting
        to be brought where its model is warm.
        """
        now, looked = self._database.now(), 0

        def look() -> None:
            nonlocal looked
            looked = self._pools.moment

        self._rivals.learn(offers, self._pools.known.keys())
        found = await self._database.do(
            lambda sql: claims.claim(sql, holder, offers, now + lease, now, bonus),
            lambda found: self._pools.leave(found.empty, looked),
            asked=look,
        )
        return found.claim

    async def heartbeat(self, holder: str, *, lease: float) -> Mapping[str, JobStatus]:
        """Hold all that *holder* holds for *lease* seconds from now; how these jobs stand."""
        until = self._database.now() + lease
        return await self._database.do(lambda sql: claims.heartbeat(sql, holder, until))

    async def adopt(self, lease: Lease, holder: str, *, seconds: float) -> Lease:
        """Take over a job from who held it, in the same attempt. Raises `LeaseLost` where
        somebody else was quicker."""
        until = self._database.now() + seconds
        return await self._database.do(lambda sql: claims.adopt(sql, lease, holder, until))

    async def record(
        self, lease: Lease, events: Iterable[NumberedEvent]
    ) -> tuple[NumberedEvent, ...]:
        """Keep what happened to a held job; an output becomes an asset.

        An output in a place (node, key, index) that an earlier attempt filled is left out. Raises
        `LeaseLost`, and `IllegalMove` for a status that the job cannot take.
        """
        now, told = self._database.now(), tuple(events)
        return await self._write(lambda sql: job_writes.record(sql, lease, told, now))

    async def finish(
        self,
        lease: Lease,
        end: StatusChanged,
        *,
        events: Iterable[NumberedEvent] = (),
        progress: Progress | None = None,
        expires_at: float | None = None,
    ) -> tuple[NumberedEvent, ...]:
        """Keep the last *events* of a held job and then its *end*, and let go of it.

        *expires_at* is then that of the job and its outputs. Raises like `record`.
        """
        now, told = self._database.now(), tuple(events)
        return await self._write(
            lambda sql: job_writes.finish(sql, lease, told, end, progress, expires_at, now)
        )

    async def requeue(
        self,
        lease: Lease,
        *,
        counts: bool = True,
        note: str | None = None,
        needs: Needs | None = None,
        queue_deadline: float | None = None,
        expires_at: float | None = None,
    ) -> tuple[NumberedEvent, ...]:
        """Give a held job back to the queue, in its old place; one to be canceled is canceled.

        With *counts* false the attempt never was, which is only true of a job that certainly
        reached no backend. *queue_deadline* is the new one of a job that ran, as it was begun in
        time; *expires_at* that of a job which is canceled. It waits for what it *needs*, where that
        is another thing than it was taken for. Raises `LeaseLost`.
        """
        now = self._database.now()

        def back(sql: Sql) -> tuple[tuple[NumberedEvent, ...], tuple[str, Needs] | None]:
            events = job_writes.requeue(sql, lease, counts, note, queue_deadline, expires_at, now)
            if needs is not None:
                waiting_pools.move(sql, lease.job_id, needs)
            return events, waiting_pools.waits_in(sql, lease.job_id)

        events, _ = await self._database.do(back, lambda done: self._take_back(*done))
        return events

    async def cancel(
        self, job_id: str, owner: str | None = None, *, expires_at: float | None = None
    ) -> Cancellation:
        """End a waiting job; have a running one stopped; leave one that is over as it is.

        *expires_at* is then that of a job that ends. Raises `NotFound`.
        """
        now, looked = self._database.now(), self._pools.moment

        def cancel(sql: Sql) -> tuple[Cancellation, tuple[str, ...]]:
            cancellation = job_writes.cancel(sql, job_id, owner, expires_at, now)
            return cancellation, waiting_pools.left_empty(sql, [job_id])

        cancellation, _ = await self._database.do(
            cancel, lambda done: self._let_go(done[0].events, done[1], looked)
        )
        return cancellation

    async def expire_waiting(
        self,
        most: int = _MOST_AT_ONCE,
        *,
        holder: str | None = None,
        expires_at: float | None = None,
    ) -> tuple[NumberedEvent, ...]:
        """End jobs that waited past their ``queue_deadline``, at most that many, and those that
        *holder* has and that did not begin."""
        now, looked = self._database.now(), self._pools.moment

        def expire(sql: Sql) -> tuple[tuple[NumberedEvent, ...], tuple[str, ...]]:
            events = job_writes.expire_waiting(sql, most, holder, expires_at, now)
            return events, waiting_pools.left_empty(sql, [event.job_id for event in events])

        events, _ = await self._database.do(expire, lambda done: self._let_go(*done, looked))
        return events

    async def next_queue_deadline(self, holder: str | None = None) -> float | None:
        """The first ``queue_deadline`` of those that wait, or that *holder* has and that did not
        begin, past or to come; None without any."""
        return await self._database.look(lambda sql: job_reads.next_queue_deadline(sql, holder))

    async def get(self, job_id: str, owner: str | None = None) -> JobRecord:
        """The job. Raises `NotFound`."""
        now = self._database.now()
        return await self._database.look(lambda sql: job_reads.get(sql, job_id, owner, now))

    async def standing(self, job_id: str, owner: str | None = None) -> tuple[JobRecord, int | None]:
        """The job and its place in the queue, of one moment. Raises `NotFound`."""
        now = self._database.now()
        return await self._database.look(lambda sql: job_reads.standing(sql, job_id, owner, now))

    async def graph(self, job_id: str, owner: str | None = None) -> Graph:
        """The graph that the job runs. Raises `NotFound`."""
        return await job_lists.graph(self._database, job_id, owner)

    async def list(
        self,
        owner: str | None = None,
        *,
        statuses: Iterable[JobStatus] = (),
        workflow: str | None = None,
        labels: Mapping[str, str] | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page[JobRecord]:
        """The jobs that fit all that is given, newest first. Raises `InvalidCursor`."""
        return await job_lists.page(
            self._database,
            owner,
            statuses=statuses,
            workflow=workflow,
            labels=labels,
            cursor=cursor,
            limit=limit,
        )

    async def events(
        self, job_id: str, after: int = 0, limit: int = 1000
    ) -> tuple[NumberedEvent, ...]:
        """What happened to the job after event *after*, in order."""
        return await self._database.look(lambda sql: job_reads.events(sql, job_id, after, limit))

    async def attempts(self, job_id: str) -> tuple[Attempt, ...]:
        """Every time the job was brought to a backend, the first one first."""
        return await job_lists.attempts(self._database, job_id)

    async def held(self, *, until: float | None = None) -> tuple[Claim, ...]:
        """The jobs that somebody holds; with *until*, those whose lease ends before."""
        query = select(tables.jobs).where(text(tables.HELD)).order_by(_JOBS.number)
        if until is not None:
            query = query.where(_JOBS.lease_until < until)
        return claims.claims_of(await self._database.rows(query))

    async def forget_unused(self) -> None:
        """Forget what is only kept for jobs and owners that are no more."""
        now = self._database.now()
        await self._database.do(lambda sql: _forget_unused(sql, now))

    async def waiting(self) -> int:
        """How many jobs wait to be claimed."""
        query = select(func.count().label("n")).select_from(tables.jobs).where(text(tables.WAITS))
        row = await self._database.row(query)
        return 0 if row is None else int(row["n"])

    async def unfinished(self, owner: str, at_most: int) -> int:
        """How many jobs of the owner are not over; counts no further than *at_most*."""
        return await self._database.look(lambda sql: job_reads.unfinished(sql, owner, at_most))

    async def queue_position(self, job_id: str) -> int | None:
        """The job's place among those in its pool that do not run yet, from 1.

        Those that somebody took already come first. None if it is not queued.
        """
        return (await self.queue_positions([job_id])).get(job_id)

    async def queue_positions(self, job_ids: Sequence[str]) -> Mapping[str, int]:
        """The places of all those of these jobs that are queued, of one moment.

        Costs little more for a thousand jobs than for the one that waits the longest.
        """
        return await self._database.look(lambda sql: queue_places.places(sql, job_ids))

    async def expired(self, before: float, limit: int = _MOST_AT_ONCE) -> tuple[str, ...]:
        """The ids of jobs that are over and whose ``expires_at`` is before that time."""
        return await job_lists.expired(self._database, before, limit)

    async def delete(self, job_id: str, owner: str | None = None) -> None:
        """Forget a job that is over, its events, and its outputs with their assets.

        Raises `NotFound`, and `JobUnfinished` for one that is not over.
        """
        await job_lists.delete(self._database, job_id, owner)

    async def _write(
        self, work: Callable[[Sql], tuple[NumberedEvent, ...]]
    ) -> tuple[NumberedEvent, ...]:
        return await self._database.do(work, self._tell)

    def _tell(self, events: tuple[NumberedEvent, ...]) -> None:
        if self._told is not None and events:
            self._told(events)

    def _take_back(self, events: tuple[NumberedEvent, ...], pool: tuple[str, Needs] | None) -> None:
        if pool is not None:
            self._pools.enter(*pool)
        self._tell(events)
        if pool is not None and self._came_back is not None:
            self._came_back()

    def _let_go(
        self, events: tuple[NumberedEvent, ...], empty: tuple[str, ...], looked: int
    ) -> None:
        self._pools.leave(empty, looked)
        self._tell(events)

    def _field_of(self, pool: str) -> Field | None:
        return self._rivals.of(pool, self._pools.known)


def _forget_unused(sql: Sql, now: float) -> None:
    waiting_pools.forget_unused(sql)
    turns.forget_old(sql, now)
