"""How a job enters the queue: whole or not at all, in its fair place, its key used up.

A key that *replays* brings who uses it again to the job that it was used for.

These run on the writer's thread, inside its transaction.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from comfyserve.events import NumberedEvent, StatusChanged
from comfyserve.jobs import JobRecord, JobStatus, Submission
from comfyserve.refusals import BlobNotFound, IdempotencyKeyReused, NotFound, QueueFull
from comfyserve.store import waiting_pools
from comfyserve.store.dialects import Row, Sql
from comfyserve.store.job_reads import TOLD_NAMES, standing
from comfyserve.store.job_writes import keep_events, number
from comfyserve.store.queue_places import last_place
from comfyserve.store.rows import dump, dump_files, job_of, storable
from comfyserve.store.tables import WAITS
from comfyserve.store.turns import FieldOf, take_turn

_THIS_KEY: Final = "FROM idempotency_keys WHERE owner = :owner AND route = :route AND key = :key"


@dataclass(frozen=True, slots=True)
class UsedKey:
    """An idempotency key that a request used up; *digest* is of the request's content.

    Where it *replays*, the same request again gets the same job for as long as that is there.
    """

    owner: str
    route: str
    key: str
    digest: str
    expires_at: float
    replays: bool = False


@dataclass(frozen=True, slots=True)
class Entered:
    """A job that was just put into the queue: how it stands, its place, the events that tell it.

    One that a key brought back has no events, and no place once it runs.
    """

    record: JobRecord
    place: int | None
    events: tuple[NumberedEvent, ...] = ()


def submit(
    sql: Sql,
    job: Submission,
    now: float,
    most_waiting: int | None,
    key: UsedKey | None,
    field_of: FieldOf,
) -> Entered:
    """Put the job into the queue and tell so; or find the one that its key was used for."""
    if key is not None and (earlier := _use_or_replay(sql, key, now, job.id)) is not None:
        return earlier
    if most_waiting is not None:
        _refuse_when_full(sql, most_waiting)
    row = _insert(sql, job, now, take_turn(sql, job, now, field_of))
    waiting_pools.keep(sql, job.pool, job.needs)
    _note_labels(sql, job)
    _refer_to_files(sql, job)
    events = number((StatusChanged(job.id, JobStatus.QUEUED),), after=0)
    keep_events(sql, job.id, events, now)
    return Entered(job_of(row), last_place(sql, row), events)


def replayed(sql: Sql, key: UsedKey, now: float) -> Entered | None:
    """The job that the key would bring back; None where it is good for a new one.

    Raises `IdempotencyKeyReused` where it was used for something else.
    """
    used = sql.row(
        f"SELECT digest, job_id {_THIS_KEY} AND expires_at > :now", now=now, **_named(key)
    )
    if used is None:
        return None
    if not key.replays or used["digest"] != key.digest or used["job_id"] is None:
        raise IdempotencyKeyReused(key.key, replays=key.replays)
    with suppress(NotFound):
        record, place = standing(sql, used["job_id"], key.owner, now)
        return Entered(record, place)
    return None


def _use_or_replay(sql: Sql, key: UsedKey, now: float, job_id: str) -> Entered | None:
    """The job that the key brings back; None where it is used up now, for the new one.

    Raises `IdempotencyKeyReused` where it was used for something else.
    """
    try:
        use_key(sql, key, now, job_id)
    except IdempotencyKeyReused:
        used = sql.row(f"SELECT digest, job_id {_THIS_KEY}", **_named(key))
        if not key.replays or used is None or used["digest"] != key.digest:
            raise
        if used["job_id"] is None:
            raise
    else:
        return None
    with suppress(NotFound):
        record, place = standing(sql, used["job_id"], key.owner, now)
        return Entered(record, place)
    # The job was forgotten, so that the same request is a new one.
    sql.change(f"DELETE {_THIS_KEY}", **_named(key))
    use_key(sql, key, now, job_id)
    return None


def _insert(sql: Sql, job: Submission, now: float, turn: float) -> Row:
    """The new row of ``jobs``, its first event counted already."""
    row = sql.row(
        "INSERT INTO jobs (id, owner, workflow, graph, files, seeds, inputs, metadata, status,"
        " pool, model, rank, turn, queue_deadline, attempts, claims, last_event, outputs_reused,"
        " has_extra_data, created_at, expires_at, timeout, estimate) VALUES (:id, :owner,"
        " :workflow, :graph, :files, :seeds, :inputs, :metadata, 'queued', :pool, :model, :rank,"
        " :turn, :queue_deadline, 0, 0, 1, :reused, :has_extra_data, :now, :expires_at, :timeout,"
        " :estimate)"
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
        timeout=job.timeout,
        estimate=job.estimate,
    )
    assert row is not None
    return row


def use_key(sql: Sql, key: UsedKey, now: float, job_id: str | None = None) -> None:
    """Use the key up; one whose time is over is as good as new."""
    sql.change(f"DELETE {_THIS_KEY} AND expires_at <= :now", now=now, **_named(key))
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
        raise IdempotencyKeyReused(key.key, replays=key.replays)


def _named(key: UsedKey) -> Mapping[str, str]:
    return {"owner": key.owner, "route": key.route, "key": key.key}


def _refuse_when_full(sql: Sql, most: int) -> None:
    # Counts no further than needed, so that a long queue costs no more than a full one.
    counted = sql.row(
        f"SELECT count(*) AS n FROM (SELECT 1 FROM jobs WHERE {WAITS} LIMIT :most) AS waiting",
        most=most,
    )
    if counted is not None and counted["n"] >= most:
        raise QueueFull(most)


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
