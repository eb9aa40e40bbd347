"""The jobs that are kept: handed in, claimed, told about, ended, listed, forgotten."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, delete, exists, func, or_, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from comfyserve.events import NumberedEvent, StatusChanged
from comfyserve.jobs import (
    Attempt,
    Claim,
    JobRecord,
    JobStatus,
    Lease,
    Output,
    Progress,
    Submission,
)
from comfyserve.refusals import JobUnfinished, NotFound
from comfyserve.store import claims, job_reads, job_writes, queue_places, submissions, tables
from comfyserve.store.database import Database
from comfyserve.store.dialects import Sql
from comfyserve.store.job_writes import Cancellation
from comfyserve.store.rows import Page, job_of, output_of, page_of, read_cursor
from comfyserve.store.submissions import UsedKey
from comfyserve.workflows.graph import Graph

_JOBS: Final = tables.jobs.c
_OVER: Final = tuple(str(status) for status in JobStatus if status.is_terminal)
_MOST_AT_ONCE: Final = 200


class Jobs:
    """Everything that can be done with kept jobs.

    What writes to a held job says what it told: the events as they were numbered and kept, for
    those who follow live; `tell_to` has them all. Where an *owner* is given, jobs of others are not
    there. A job that is over is not there either once its ``expires_at`` is past. All raise
    `StoreUnavailable` where the database fails.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._told: Callable[[tuple[NumberedEvent, ...]], None] | None = None

    def tell_to(self, told: Callable[[tuple[NumberedEvent, ...]], None]) -> None:
        """From now on call *told* with all events that are kept, in the order of their numbers.

        It is called before who wrote them goes on, and also where that one was canceled.
        """
        self._told = told

    async def submit(
        self,
        job: Submission,
        *,
        most_waiting: int | None = None,
        key: UsedKey | None = None,
        asked: Callable[[], None] | None = None,
    ) -> tuple[JobRecord, int | None]:
        """Put a job into the queue, together with its first event and the *key* it uses up.

        Says how it stands then, and its place in the queue. *asked* is called before: a claim
        that is made from then on may have the job.

        Raises `QueueFull` where *most_waiting* wait, `IdempotencyKeyReused`, and `BlobNotFound`
        where bytes that it needs are not kept; the key is then still good.
        """
        now = self._database.now()

        entered = await self._database.do(
            lambda sql: submissions.submit(sql, job, now, most_waiting, key),
            lambda entered: self._tell(entered.events),
            asked=asked,
        )
        return entered.record, entered.place

    async def claim(
        self,
        holder: str,
        backend: str,
        *,
        lease: float,
        pools: Sequence[str] = ("",),
        warm: Sequence[str] = (),
        bonus: float = 0.0,
    ) -> Claim | None:
        """Take the next job for *lease* seconds, or None where none waits.

        *pools* are what *backend* can do, *warm* the models it has loaded; a job for one of those
        may go ahead of others by *bonus* seconds of its owner's share.
        """
        now = self._database.now()
        return await self._database.do(
            lambda sql: claims.claim(
                sql,
                holder=holder,
                backend=backend,
                until=now + lease,
                now=now,
                pools=pools,
                warm=warm,
                bonus=bonus,
            )
        )

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
        queue_deadline: float | None = None,
        expires_at: float | None = None,
    ) -> tuple[NumberedEvent, ...]:
        """Give a held job back to the queue, in its old place; one to be canceled is canceled.

        With *counts* false the attempt never was, which is only true of a job that certainly
        reached no backend. *queue_deadline* is the new one of a job that ran, as it was begun in
        time; *expires_at* that of a job which is canceled. Raises `LeaseLost`.
        """
        now = self._database.now()
        return await self._write(
            lambda sql: job_writes.requeue(
                sql, lease, counts, note, queue_deadline, expires_at, now
            )
        )

    async def cancel(
        self, job_id: str, owner: str | None = None, *, expires_at: float | None = None
    ) -> Cancellation:
        """End a waiting job; have a running one stopped; leave one that is over as it is.

        *expires_at* is then that of a job that ends. Raises `NotFound`.
        """
        now = self._database.now()
        return await self._database.do(
            lambda sql: job_writes.cancel(sql, job_id, owner, expires_at, now),
            lambda cancellation: self._tell(cancellation.events),
        )

    async def expire_waiting(
        self,
        most: int = _MOST_AT_ONCE,
        *,
        holder: str | None = None,
        expires_at: float | None = None,
    ) -> tuple[NumberedEvent, ...]:
        """End jobs that waited past their ``queue_deadline``, at most that many, and those that
        *holder* has and that did not begin."""
        now = self._database.now()
        return await self._write(
            lambda sql: job_writes.expire_waiting(sql, most, holder, expires_at, now)
        )

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
        query = select(_JOBS.graph).where(self._is_there(job_id, owner))
        if (row := await self._database.row(query)) is None:
            raise NotFound("job", job_id)
        graph: dict[str, Any] = json.loads(row["graph"])
        return graph

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
        query = select(*job_reads.TOLD).where(self._is_not_past()).order_by(_JOBS.number.desc())
        if owner is not None:
            query = query.where(_JOBS.owner == owner)
        if wanted := [str(status) for status in statuses]:
            query = query.where(_JOBS.status.in_(wanted))
        if workflow is not None:
            query = query.where(_JOBS.workflow == workflow)
        for key, value in (labels or {}).items():
            query = query.where(_has_label(key, value))
        if cursor is not None:
            query = query.where(_JOBS.number < read_cursor(cursor))
        async with self._database.reading() as connection:
            rows = (await connection.execute(query.limit(limit + 1))).mappings().all()
            outputs = await _outputs_of(connection, [row["id"] for row in rows])
        return page_of(rows, [job_of(row, outputs[row["id"]]) for row in rows], limit)

    async def events(
        self, job_id: str, after: int = 0, limit: int = 1000
    ) -> tuple[NumberedEvent, ...]:
        """What happened to the job after event *after*, in order."""
        return await self._database.look(lambda sql: job_reads.events(sql, job_id, after, limit))

    async def attempts(self, job_id: str) -> tuple[Attempt, ...]:
        """Every time the job was brought to a backend, the first one first."""
        columns = tables.attempts.c
        query = select(columns.number, columns.prompt_id, columns.backend, columns.at)
        query = query.where(columns.job_id == job_id).order_by(columns.number)
        rows = await self._database.rows(query)
        return tuple(
            Attempt(row["number"], row["prompt_id"], row["backend"], row["at"]) for row in rows
        )

    async def held(self, *, until: float | None = None) -> tuple[Claim, ...]:
        """The jobs that somebody holds; with *until*, those whose lease ends before."""
        query = select(tables.jobs).where(text(tables.HELD)).order_by(_JOBS.number)
        if until is not None:
            query = query.where(_JOBS.lease_until < until)
        return claims.claims_of(await self._database.rows(query))

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
        query = (
            select(_JOBS.id)
            .where(text("completed_at IS NOT NULL"), _JOBS.expires_at < before)
            .order_by(_JOBS.expires_at)
            .limit(limit)
        )
        return tuple(row["id"] for row in await self._database.rows(query))

    async def delete(self, job_id: str, owner: str | None = None) -> None:
        """Forget a job that is over, its events, and its outputs with their assets.

        Raises `NotFound`, and `JobUnfinished` for one that is not over.
        """
        async with self._database.writing() as connection:
            query = select(_JOBS.status, _JOBS.owner).where(_JOBS.id == job_id)
            row = (await connection.execute(query)).mappings().first()
            if row is None or (owner is not None and row["owner"] != owner):
                raise NotFound("job", job_id)
            if row["status"] not in _OVER:
                raise JobUnfinished(job_id, row["status"])
            await connection.execute(delete(tables.assets).where(tables.assets.c.job_id == job_id))
            await connection.execute(delete(tables.jobs).where(_JOBS.id == job_id))

    async def _write(
        self, work: Callable[[Sql], tuple[NumberedEvent, ...]]
    ) -> tuple[NumberedEvent, ...]:
        return await self._database.do(work, self._tell)

    def _tell(self, events: tuple[NumberedEvent, ...]) -> None:
        if self._told is not None and events:
            self._told(events)

    def _is_there(self, job_id: str, owner: str | None) -> ColumnElement[bool]:
        there = and_(_JOBS.id == job_id, self._is_not_past())
        return there if owner is None else and_(there, _JOBS.owner == owner)

    def _is_not_past(self) -> ColumnElement[bool]:
        return or_(_JOBS.completed_at.is_(None), _JOBS.expires_at > self._database.now())


def _has_label(key: str, value: str) -> ColumnElement[bool]:
    labels = tables.labels.c
    return exists().where(labels.job_id == _JOBS.id, labels.key == key, labels.value == value)


async def _outputs_of(
    connection: AsyncConnection, job_ids: Sequence[str]
) -> defaultdict[str, tuple[Output, ...]]:
    """The outputs of each of these jobs, in the order in which they were told."""
    outputs, assets, blobs = tables.outputs, tables.assets, tables.blobs
    query = (
        select(outputs, assets.c.content_type, assets.c.hash, blobs.c.size_bytes)
        .join(assets, assets.c.id == outputs.c.asset_id)
        .join(blobs, blobs.c.hash == assets.c.hash)
        .where(outputs.c.job_id.in_(job_ids))
        .order_by(outputs.c.job_id, outputs.c.seq)
    )
    found: defaultdict[str, tuple[Output, ...]] = defaultdict(tuple)
    for row in (await connection.execute(query)).mappings():
        found[row["job_id"]] += (output_of(row),)
    return found
