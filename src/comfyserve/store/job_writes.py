"""What can be done to a job, each thing whole inside one transaction.

These run on the writer's thread. Every change of a job and the events that tell it are written
together; moves that `JobStatus` does not allow, and writes of who lost the job, are refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from uuid import uuid4

from comfyserve.events import Noted, NumberedEvent, OutputSaved, StatusChanged
from comfyserve.jobs import JobStatus, Lease, Output, Progress
from comfyserve.refusals import IllegalMove, LeaseLost, NotFound
from comfyserve.store.dialects import Row, Sql
from comfyserve.store.rows import dump, dump_event, lease_of, storable
from comfyserve.store.tables import WAITS


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
    return append(sql, lease.job_id, row["last_event"], _take_in(sql, row, events, now), now)


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
    told = _take_in(sql, row, events, now)
    status = next(
        (event.status for event in reversed(told) if isinstance(event, StatusChanged)),
        JobStatus(row["status"]),
    )
    _check_move(lease.job_id, status, end.status)
    _end(sql, lease.job_id, end, now, progress=progress, expires_at=expires_at)
    return append(sql, lease.job_id, row["last_event"], [*told, end], now)


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
        end = StatusChanged(lease.job_id, JobStatus.CANCELED)
        _end(sql, lease.job_id, end, now, expires_at=expires_at)
        return append(sql, lease.job_id, row["last_event"], [*events, end], now)
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
        " queue_deadline = coalesce(:deadline, queue_deadline) WHERE id = :id",
        deadline=queue_deadline,
        attempts=row["attempts"] if counts else row["attempts"] - 1,
        id=lease.job_id,
    )
    return append(sql, lease.job_id, row["last_event"], events, now)


def cancel(
    sql: Sql, job_id: str, owner: str | None, expires_at: float | None, now: float
) -> Cancellation:
    """A waiting job ends at once; a running one is to be stopped by who holds it."""
    row = sql.row("SELECT * FROM jobs WHERE id = :id", id=job_id)
    if row is None or (owner is not None and row["owner"] != owner):
        raise NotFound("job", job_id)
    status, lease = JobStatus(row["status"]), lease_of(row)
    if status is JobStatus.QUEUED:
        end = StatusChanged(job_id, JobStatus.CANCELED)
        _end(sql, job_id, end, now, expires_at=expires_at)
        return Cancellation(end.status, append(sql, job_id, row["last_event"], [end], now), lease)
    if status is JobStatus.RUNNING:
        told = StatusChanged(job_id, JobStatus.CANCELING)
        sql.change("UPDATE jobs SET status = 'canceling' WHERE id = :id", id=job_id)
        events = append(sql, job_id, row["last_event"], [told], now)
        return Cancellation(told.status, events, lease)
    return Cancellation(status, (), lease)


def expire_waiting(
    sql: Sql, most: int, expires_at: float | None, now: float
) -> tuple[NumberedEvent, ...]:
    """End the jobs whose deadline passed before anybody took them."""
    late = sql.rows(
        f"SELECT id, last_event FROM jobs WHERE {WAITS} AND queue_deadline IS NOT NULL"
        " AND queue_deadline <= :now ORDER BY queue_deadline LIMIT :most",
        now=now,
        most=most,
    )
    events: list[NumberedEvent] = []
    for row in late:
        end = StatusChanged(row["id"], JobStatus.EXPIRED)
        _end(sql, row["id"], end, now, expires_at=expires_at)
        events.extend(append(sql, row["id"], row["last_event"], [end], now))
    return tuple(events)


def append(
    sql: Sql, job_id: str, last: int, events: Iterable[NumberedEvent], now: float
) -> tuple[NumberedEvent, ...]:
    """Number the events after *last* and keep them."""
    numbered = tuple(replace(event, seq=seq) for seq, event in enumerate(events, start=last + 1))
    for seq, event in enumerate(numbered, start=last + 1):
        sql.change(
            "INSERT INTO job_events (job_id, seq, body, at) VALUES (:id, :seq, :body, :now)",
            id=job_id,
            seq=seq,
            body=dump_event(event),
            now=now,
        )
    if numbered:
        sql.change(
            "UPDATE jobs SET last_event = :last WHERE id = :id",
            last=last + len(numbered),
            id=job_id,
        )
    return numbered


def _held_row(sql: Sql, lease: Lease) -> Row:
    row = sql.row(
        "SELECT id, owner, status, attempts, last_event, expires_at FROM jobs"
        " WHERE id = :id AND lease_holder = :holder AND claims = :number",
        id=lease.job_id,
        holder=lease.holder,
        number=lease.number,
    )
    if row is None:
        raise LeaseLost(lease.job_id, lease.holder)
    return row


def _take_in(
    sql: Sql, row: Row, events: Iterable[NumberedEvent], now: float
) -> list[NumberedEvent]:
    """Do to the job what the events say; those that are to be told."""
    status, told = JobStatus(row["status"]), list[NumberedEvent]()
    for event in events:
        if event.job_id != row["id"]:
            raise ValueError(f"an event of job {event.job_id} is none of job {row['id']}")
        match event:
            case StatusChanged():
                if event.status is not status:
                    _check_move(row["id"], status, event.status)
                    _move(sql, row["id"], event.status, now)
                    status = event.status
                told.append(event)
            case OutputSaved(output=output):
                seq = row["last_event"] + len(told) + 1
                if (kept := _keep_output(sql, row, output, seq, now)) is not None:
                    told.append(replace(event, output=kept))
            case Noted():
                told.append(event)
    return told


def _check_move(job_id: str, status: JobStatus, wanted: JobStatus) -> None:
    if not status.may_become(wanted):
        raise IllegalMove(job_id, status, wanted)


def _move(sql: Sql, job_id: str, status: JobStatus, now: float) -> None:
    if status.is_terminal or status is JobStatus.QUEUED:
        raise ValueError(f"a job becomes {status} by being finished or requeued, not recorded")
    started = ", started_at = :now" if status is JobStatus.RUNNING else ""
    sql.change(
        f"UPDATE jobs SET status = :status{started} WHERE id = :id",
        **{"status": str(status), "id": job_id} | ({"now": now} if started else {}),
    )


def _keep_output(sql: Sql, row: Row, output: Output, seq: int, now: float) -> Output | None:
    """Make an asset of the output, unless an earlier attempt filled its place already."""
    asset_id = output.id or str(uuid4())
    taken = sql.row(
        "SELECT 1 AS taken FROM job_outputs WHERE job_id = :id AND node_id = :node_id"
        " AND key = :key AND position = :position",
        id=row["id"],
        node_id=storable(output.node_id),
        key=storable(output.key),
        position=output.index,
    )
    if taken is not None:
        return None
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
        expires_at=row["expires_at"],
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
    job_id: str,
    end: StatusChanged,
    now: float,
    *,
    progress: Progress | None = None,
    expires_at: float | None = None,
) -> None:
    sql.change(
        "UPDATE jobs SET status = :status, completed_at = :now, lease_holder = NULL,"
        " lease_until = NULL, progress = :progress, error = :error, outputs_reused = :reused,"
        " timings = :timings, expires_at = coalesce(:expires_at, expires_at) WHERE id = :id",
        status=str(end.status),
        now=now,
        progress=None if progress is None else dump(asdict(progress)),
        error=None if end.error is None else dump(asdict(end.error)),
        reused=end.outputs_reused,
        timings=dump(asdict(end.timings)),
        expires_at=expires_at,
        id=job_id,
    )
    if expires_at is not None:
        sql.change(
            "UPDATE assets SET expires_at = :expires_at WHERE job_id = :id",
            expires_at=expires_at,
            id=job_id,
        )
