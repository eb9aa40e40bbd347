"""What can be done to a job, each thing whole inside one transaction.

These run on the writer's thread. Every change of a job and the events that tell it are written
together; moves that `JobStatus` does not allow, and writes of who lost the job, are refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Final
from uuid import uuid4

from comfyserve.events import Noted, NumberedEvent, OutputSaved, StatusChanged
from comfyserve.jobs import JobStatus, Lease, Output, Progress
from comfyserve.refusals import IllegalMove, LeaseLost, NotFound
from comfyserve.store.dialects import Row, Sql
from comfyserve.store.rows import dump, dump_event, lease_of, storable
from comfyserve.store.tables import WAITS

_HAS_OUTPUTS: Final = (
    "EXISTS (SELECT 1 FROM job_outputs WHERE job_outputs.job_id = jobs.id) AS has_outputs"
)


@dataclass(frozen=True, slots=True)
class Cancellation:
    """What a wish to cancel led to: the status now, the events that tell it (none when nothing
    changed), and who held the job when it came, who has to stop it."""

    status: JobStatus
    events: tuple[NumberedEvent, ...]
    lease: Lease | None


def record(
    sql: Sql, lease: Lease, events: Iterable[NumberedEvent], now: float
) -> tuple[NumberedEvent, ...]:
    """Keep what happened to a job that is held; the kept events, numbered."""
    row = _held_row(sql, lease)
    told = _take_in(sql, row, events, now, row["expires_at"])
    if not told.events:
        return ()
    sql.change(
        "UPDATE jobs SET status = :status, started_at = coalesce(:started_at, started_at),"
        " last_event = :last WHERE id = :id",
        status=str(told.status),
        started_at=told.started_at,
        last=row["last_event"] + len(told.events),
        id=lease.job_id,
    )
    return append(sql, row, told.events, now)


def finish(
    sql: Sql,
    lease: Lease,
    events: Sequence[NumberedEvent],
    end: StatusChanged,
    progress: Progress | None,
    expires_at: float | None,
    now: float,
) -> tuple[NumberedEvent, ...]:
    """Keep the last things that happened to a job, its end, and let go of it."""
    row = _held_row(sql, lease)
    told = _take_in(sql, row, events, now, row["expires_at"] if expires_at is None else expires_at)
    _check_move(lease.job_id, told.status, end.status)
    last = [*told.events, end]
    _end(sql, row, end, now, last, told.started_at, progress=progress, expires_at=expires_at)
    return append(sql, row, last, now)


def requeue(
    sql: Sql,
    lease: Lease,
    counts: bool,
    note: str | None,
    queue_deadline: float | None,
    expires_at: float | None,
    now: float,
) -> tuple[NumberedEvent, ...]:
    """Give a held job back to the queue, or end it if it was to be canceled."""
    row = _held_row(sql, lease)
    events: list[NumberedEvent] = []
    if note is not None:
        events.append(Noted(lease.job_id, "warning", note))
    if row["status"] == JobStatus.CANCELING:
        events.append(end := StatusChanged(lease.job_id, JobStatus.CANCELED))
        _end(sql, row, end, now, events, expires_at=expires_at)
        return append(sql, row, events, now)
    if row["status"] == JobStatus.RUNNING:
        events.append(StatusChanged(lease.job_id, JobStatus.QUEUED))
    else:
        queue_deadline = None
    if not counts:
        sql.change(
            "DELETE FROM job_attempts WHERE job_id = :id AND number = :number",
            id=lease.job_id,
            number=row["attempts"],
        )
    sql.change(
        "UPDATE jobs SET status = 'queued', started_at = NULL, lease_holder = NULL,"
        " lease_until = NULL, attempts = :attempts,"
        " queue_deadline = coalesce(:deadline, queue_deadline), last_event = :last WHERE id = :id",
        last=row["last_event"] + len(events),
        deadline=queue_deadline,
        attempts=row["attempts"] if counts else row["attempts"] - 1,
        id=lease.job_id,
    )
    return append(sql, row, events, now)


def cancel(
    sql: Sql, job_id: str, owner: str | None, expires_at: float | None, now: float
) -> Cancellation:
    """A waiting job ends at once; a running one is to be stopped by who holds it."""
    row = sql.row(
        "SELECT id, owner, status, last_event, claims, lease_holder, lease_until,"
        f" {_HAS_OUTPUTS} FROM jobs WHERE id = :id",
        id=job_id,
    )
    if row is None or (owner is not None and row["owner"] != owner):
        raise NotFound("job", job_id)
    status, lease = JobStatus(row["status"]), lease_of(row)
    if status is JobStatus.QUEUED:
        end = StatusChanged(job_id, JobStatus.CANCELED)
        _end(sql, row, end, now, [end], expires_at=expires_at)
        return Cancellation(end.status, append(sql, row, [end], now), lease)
    if status is JobStatus.RUNNING:
        told = StatusChanged(job_id, JobStatus.CANCELING)
        sql.change(
            "UPDATE jobs SET status = 'canceling', last_event = :last WHERE id = :id",
            last=row["last_event"] + 1,
            id=job_id,
        )
        return Cancellation(told.status, append(sql, row, [told], now), lease)
    return Cancellation(status, (), lease)


def expire_waiting(
    sql: Sql, most: int, holder: str | None, expires_at: float | None, now: float
) -> tuple[NumberedEvent, ...]:
    """End the jobs whose deadline passed before anybody took them, or before they began where
    *holder* has them, who is to take them off their backend."""
    late = sql.rows(
        f"SELECT id, last_event, {_HAS_OUTPUTS} FROM jobs WHERE {WAITS}"
        " AND queue_deadline IS NOT NULL AND queue_deadline <= :now"
        " ORDER BY queue_deadline LIMIT :most",
        now=now,
        most=most,
    )
    late += sql.rows(
        f"SELECT id, last_event, {_HAS_OUTPUTS} FROM jobs WHERE lease_holder IS NOT NULL"
        " AND lease_holder = :holder AND status = 'queued' AND queue_deadline <= :now",
        holder=holder,
        now=now,
    )
    events: list[NumberedEvent] = []
    for row in late:
        end = StatusChanged(row["id"], JobStatus.EXPIRED)
        _end(sql, row, end, now, [end], expires_at=expires_at)
        events.extend(append(sql, row, [end], now))
    return tuple(events)


def append(
    sql: Sql, row: Row, events: Iterable[NumberedEvent], now: float
) -> tuple[NumberedEvent, ...]:
    """Number the events after the last one of a job's row and keep them; the row is to count
    them."""
    numbered = number(events, after=row["last_event"])
    keep_events(sql, row["id"], numbered, now)
    return numbered


def number(events: Iterable[NumberedEvent], *, after: int) -> tuple[NumberedEvent, ...]:
    """The events with the numbers that follow *after*."""
    return tuple(replace(event, seq=seq) for seq, event in enumerate(events, start=after + 1))


def keep_events(sql: Sql, job_id: str, events: Sequence[NumberedEvent], now: float) -> None:
    """Keep the numbered events."""
    sql.change_each(
        "INSERT INTO job_events (job_id, seq, body, at) VALUES (:id, :seq, :body, :now)",
        [
            {"id": job_id, "seq": event.seq, "body": dump_event(event), "now": now}
            for event in events
        ],
    )


def _held_row(sql: Sql, lease: Lease) -> Row:
    row = sql.row(
        f"SELECT id, owner, status, attempts, last_event, expires_at, {_HAS_OUTPUTS} FROM jobs"
        " WHERE id = :id AND lease_holder = :holder AND claims = :number",
        id=lease.job_id,
        holder=lease.holder,
        number=lease.number,
    )
    if row is None:
        raise LeaseLost(lease.job_id, lease.holder)
    return row


@dataclass(frozen=True, slots=True)
class _TakenIn:
    """What events do to a job: those that are to be told, its status then, and when it started
    if it did with them."""

    events: Sequence[NumberedEvent]
    status: JobStatus
    started_at: float | None


def _take_in(
    sql: Sql, row: Row, events: Iterable[NumberedEvent], now: float, expires_at: float
) -> _TakenIn:
    """Do what the events say to all but the job's own row; outputs last until *expires_at*."""
    status, started_at, told = JobStatus(row["status"]), None, list[NumberedEvent]()
    may_be_taken = bool(row["has_outputs"])
    for event in events:
        if event.job_id != row["id"]:
            raise ValueError(f"an event of job {event.job_id} is none of job {row['id']}")
        match event:
            case StatusChanged():
                if event.status is not status:
                    _check_move(row["id"], status, event.status)
                    _check_no_end(event.status)
                    status = event.status
                    started_at = now if status is JobStatus.RUNNING else started_at
                told.append(event)
            case OutputSaved(output=output):
                if may_be_taken and _is_taken(sql, row, output):
                    continue
                may_be_taken = True
                seq = row["last_event"] + len(told) + 1
                kept = _keep_output(sql, row, output, seq, now, expires_at)
                told.append(replace(event, output=kept))
            case Noted():
                told.append(event)
    return _TakenIn(told, status, started_at)


def _check_move(job_id: str, status: JobStatus, wanted: JobStatus) -> None:
    if not status.may_become(wanted):
        raise IllegalMove(job_id, status, wanted)


def _check_no_end(status: JobStatus) -> None:
    if status.is_terminal or status is JobStatus.QUEUED:
        raise ValueError(f"a job becomes {status} by being finished or requeued, not recorded")


def _is_taken(sql: Sql, row: Row, output: Output) -> bool:
    """Whether an earlier attempt filled the output's place already."""
    taken = sql.row(
        "SELECT 1 AS taken FROM job_outputs WHERE job_id = :id AND node_id = :node_id"
        " AND key = :key AND position = :position",
        id=row["id"],
        node_id=storable(output.node_id),
        key=storable(output.key),
        position=output.index,
    )
    return taken is not None


def _keep_output(
    sql: Sql, row: Row, output: Output, seq: int, now: float, expires_at: float
) -> Output:
    """Make an asset of the output."""
    asset_id = output.id or str(uuid4())
    keep_blob(sql, output.hash, output.size_bytes, now)
    sql.change(
        "INSERT INTO assets (id, owner, hash, content_type, file_path, tags, job_id, created_at,"
        " expires_at) VALUES (:asset_id, :owner, :hash, :content_type, :path, '[]', :job_id,"
        " :now, :expires_at)",
        asset_id=asset_id,
        owner=row["owner"],
        hash=output.hash,
        content_type=output.content_type,
        path=storable(f"{output.subfolder}/{output.name}" if output.subfolder else output.name),
        job_id=row["id"],
        now=now,
        expires_at=expires_at,
    )
    sql.change(
        'INSERT INTO job_outputs (job_id, seq, asset_id, node_id, "key", position, name, type,'
        " subfolder, temp, location) VALUES (:job_id, :seq, :asset_id, :node_id, :key, :position,"
        " :name, :type, :subfolder, :temp, :location)",
        job_id=row["id"],
        seq=seq,
        asset_id=asset_id,
        node_id=storable(output.node_id),
        key=storable(output.key),
        position=output.index,
        name=storable(output.name),
        type=output.type,
        subfolder=storable(output.subfolder),
        temp=output.temp,
        location=output.location,
    )
    return replace(output, id=asset_id)


def keep_blob(sql: Sql, hash: str, size_bytes: int, now: float) -> bool:
    """Note that bytes are kept, so that something can refer to them; says whether that is new."""
    added = sql.change(
        "INSERT INTO blobs (hash, size_bytes, created_at) VALUES (:hash, :size, :now)"
        " ON CONFLICT (hash) DO NOTHING",
        hash=hash,
        size=size_bytes,
        now=now,
    )
    return added > 0


def _end(
    sql: Sql,
    row: Row,
    end: StatusChanged,
    now: float,
    events: Sequence[NumberedEvent],
    started_at: float | None = None,
    *,
    progress: Progress | None = None,
    expires_at: float | None = None,
) -> None:
    """Have the job's row say how it ended; *events* are those that tell it, the end the last."""
    sql.change(
        "UPDATE jobs SET status = :status, completed_at = :now, lease_holder = NULL,"
        " lease_until = NULL, progress = :progress, error = :error, outputs_reused = :reused,"
        " timings = :timings, expires_at = coalesce(:expires_at, expires_at),"
        " started_at = coalesce(:started_at, started_at), last_event = :last WHERE id = :id",
        status=str(end.status),
        now=now,
        progress=None if progress is None else dump(asdict(progress)),
        error=None if end.error is None else dump(asdict(end.error)),
        reused=end.outputs_reused,
        timings=dump(asdict(end.timings)),
        expires_at=expires_at,
        started_at=started_at,
        last=row["last_event"] + len(events),
        id=row["id"],
    )
    # Outputs that come with the end have the right time from the start.
    if expires_at is not None and row["has_outputs"]:
        sql.change(
            "UPDATE assets SET expires_at = :expires_at WHERE job_id = :id",
            expires_at=expires_at,
            id=row["id"],
        )
