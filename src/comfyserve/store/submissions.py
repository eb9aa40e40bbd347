"""How a job enters the queue: whole or not at all, in its fair place, its key used up.

These run on the writer's thread, inside its transaction.
"""

from __future__ import annotations

from dataclasses import dataclass

from comfyserve.events import NumberedEvent, StatusChanged
from comfyserve.jobs import JobRecord, JobStatus, Submission
from comfyserve.refusals import BlobNotFound, IdempotencyKeyReused, QueueFull
from comfyserve.store.dialects import Row, Sql
from comfyserve.store.job_reads import TOLD_NAMES
from comfyserve.store.job_writes import keep_events, number
from comfyserve.store.queue_places import last_place
from comfyserve.store.rows import dump, dump_files, job_of, storable
from comfyserve.store.tables import WAITS


@dataclass(frozen=True, slots=True)
class UsedKey:
    """An idempotency key that a request used up; *digest* is of the request's content."""

    owner: str
    route: str
    key: str
    digest: str
    expires_at: float


@dataclass(frozen=True, slots=True)
class Entered:
    """A job that was just put into the queue: how it stands, its place, the events that tell it."""

    record: JobRecord
    place: int
    events: tuple[NumberedEvent, ...]


def submit(
    sql: Sql, job: Submission, now: float, most_waiting: int | None, key: UsedKey | None
) -> Entered:
    """Put the job into the queue and tell so."""
    if most_waiting is not None:
        _refuse_when_full(sql, most_waiting)
    if key is not None:
        use_key(sql, key, now, job.id)
    row = _insert(sql, job, now, _take_turn(sql, job))
    _note_labels(sql, job)
    _refer_to_files(sql, job)
    events = number((StatusChanged(job.id, JobStatus.QUEUED),), after=0)
    keep_events(sql, job.id, events, now)
    return Entered(job_of(row), last_place(sql, row), events)


def _insert(sql: Sql, job: Submission, now: float, turn: float) -> Row:
    """The new row of ``jobs``, its first event counted already."""
    row = sql.row(
        "INSERT INTO jobs (id, owner, workflow, graph, files, seeds, inputs, metadata, status,"
        " pool, model, rank, turn, queue_deadline, attempts, claims, last_event, outputs_reused,"
        " has_extra_data, created_at, expires_at) VALUES (:id, :owner, :workflow, :graph, :files,"
        " :seeds, :inputs, :metadata, 'queued', :pool, :model, :rank, :turn, :queue_deadline,"
        " 0, 0, 1, :reused, :has_extra_data, :now, :expires_at)"
        f" RETURNING {TOLD_NAMES}",
        id=job.id,
        owner=job.owner,
        workflow=job.workflow,
        graph=dump(job.graph),
        files=dump_files(job.files),
        seeds=dump(dict(job.seeds)),
        inputs=dump(dict(job.inputs)),
        metadata=None if job.metadata is None else dump(job.metadata),
        pool=job.pool,
        model=job.model,
        rank=-job.priority,
        turn=turn,
        queue_deadline=job.queue_deadline,
        reused=False,
        has_extra_data=job.has_extra_data,
        now=now,
        expires_at=job.expires_at,
    )
    assert row is not None
    return row


def use_key(sql: Sql, key: UsedKey, now: float, job_id: str | None = None) -> None:
    """Use the key up; one whose time is over is as good as new."""
    sql.change(
        "DELETE FROM idempotency_keys WHERE owner = :owner AND route = :route AND key = :key"
        " AND expires_at <= :now",
        owner=key.owner,
        route=key.route,
        key=key.key,
        now=now,
    )
    was_free = sql.change(
        "INSERT INTO idempotency_keys (owner, route, key, digest, job_id, created_at, expires_at)"
        " VALUES (:owner, :route, :key, :digest, :job_id, :now, :expires_at)"
        " ON CONFLICT (owner, route, key) DO NOTHING",
        owner=key.owner,
        route=key.route,
        key=key.key,
        digest=key.digest,
        job_id=job_id,
        now=now,
        expires_at=key.expires_at,
    )
    if not was_free:
        raise IdempotencyKeyReused(key.key)


def _refuse_when_full(sql: Sql, most: int) -> None:
    # Counts no further than needed, so that a long queue costs no more than a full one.
    counted = sql.row(
        f"SELECT count(*) AS n FROM (SELECT 1 FROM jobs WHERE {WAITS} LIMIT :most) AS waiting",
        most=most,
    )
    if counted is not None and counted["n"] >= most:
        raise QueueFull(most)


def _take_turn(sql: Sql, job: Submission) -> float:
    """Where in the fair order the job comes: behind what its owner asked for before.

    Start-time fair queueing: an owner that asked for nothing lately starts where the queue is now,
    so that neither idling nor flooding earns a share.
    """
    state = sql.row(
        "SELECT coalesce("
        "(SELECT max(turn) FROM jobs WHERE lease_holder IS NOT NULL AND pool = :pool),"
        f"(SELECT turn FROM jobs WHERE {WAITS} AND pool = :pool"
        " ORDER BY rank, turn, number LIMIT 1),"
        "(SELECT max(last_turn) FROM owners), 0.0) AS turn,"
        " (SELECT weight FROM owners WHERE owner = :owner) AS weight,"
        " (SELECT last_turn FROM owners WHERE owner = :owner) AS last_turn",
        pool=job.pool,
        owner=job.owner,
    )
    assert state is not None
    is_known = state["weight"] is not None
    weight = state["weight"] if is_known else 1.0
    turn = float(max(state["last_turn"], state["turn"]) if is_known else state["turn"])
    sql.change(
        "INSERT INTO owners (owner, weight, last_turn) VALUES (:owner, :weight, :last)"
        " ON CONFLICT (owner) DO UPDATE SET last_turn = excluded.last_turn",
        owner=job.owner,
        weight=weight,
        last=turn + job.estimate / weight,
    )
    return turn


def _note_labels(sql: Sql, job: Submission) -> None:
    if job.metadata is None or isinstance(job.metadata, str):
        return
    for key, value in job.metadata.items():
        sql.change(
            "INSERT INTO job_labels (job_id, key, value) VALUES (:id, :key, :value)",
            id=job.id,
            key=storable(key),
            value=storable(value),
        )


def _refer_to_files(sql: Sql, job: Submission) -> None:
    missing = [
        file.hash
        for file in job.files
        if sql.row("SELECT 1 AS kept FROM blobs WHERE hash = :hash", hash=file.hash) is None
    ]
    if missing:
        raise BlobNotFound(dict.fromkeys(missing))
    for hash, asset_id in dict.fromkeys((file.hash, file.asset_id or "") for file in job.files):
        sql.change(
            "INSERT INTO job_files (job_id, hash, asset_id) VALUES (:id, :hash, :asset_id)",
            id=job.id,
            hash=hash,
            asset_id=asset_id,
        )
