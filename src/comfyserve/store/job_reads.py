"""What is asked about one job again and again, by those who poll and follow.

These run on the reader's thread.
"""

from __future__ import annotations

from typing import Final

from comfyserve.events import NumberedEvent
from comfyserve.jobs import JobRecord, JobStatus
from comfyserve.refusals import NotFound
from comfyserve.store import tables
from comfyserve.store.dialects import Sql
from comfyserve.store.queue_places import places
from comfyserve.store.rows import job_of, load_event, output_of

TOLD: Final = tuple(
    column for column in tables.jobs.columns if column.name not in ("graph", "files")
)
"""The columns of a `JobRecord`."""

TOLD_NAMES: Final = ", ".join(column.name for column in TOLD)
"""Their names, as a statement lists them."""


def get(sql: Sql, job_id: str, owner: str | None, now: float) -> JobRecord:
    """The job with its outputs. Raises `NotFound`."""
    row = sql.row(
        f"SELECT {TOLD_NAMES} FROM jobs WHERE id = :id"
        " AND (completed_at IS NULL OR expires_at > :now)",
        id=job_id,
        now=now,
    )
    if row is None or (owner is not None and row["owner"] != owner):
        raise NotFound("job", job_id)
    outputs = sql.rows(
        "SELECT job_outputs.*, assets.content_type, assets.hash, blobs.size_bytes FROM job_outputs"
        " JOIN assets ON assets.id = job_outputs.asset_id JOIN blobs ON blobs.hash = assets.hash"
        " WHERE job_outputs.job_id = :id ORDER BY job_outputs.seq",
        id=job_id,
    )
    return job_of(row, tuple(output_of(output) for output in outputs))


def standing(sql: Sql, job_id: str, owner: str | None, now: float) -> tuple[JobRecord, int | None]:
    """The job and its place in the queue, if it is queued. Raises `NotFound`."""
    record = get(sql, job_id, owner, now)
    if record.status is not JobStatus.QUEUED:
        return record, None
    return record, places(sql, [job_id]).get(job_id)


def events(sql: Sql, job_id: str, after: int, limit: int) -> tuple[NumberedEvent, ...]:
    """The events after number *after*, in order."""
    rows = sql.rows(
        "SELECT body FROM job_events WHERE job_id = :id AND seq > :after ORDER BY seq LIMIT :limit",
        id=job_id,
        after=after,
        limit=limit,
    )
    return tuple(load_event(row["body"]) for row in rows)


def next_queue_deadline(sql: Sql, holder: str | None = None) -> float | None:
    """When the first of those that wait is to be given up, or of those that *holder* has and that
    did not begin; None where none ever is."""
    waits = sql.row(
        f"SELECT queue_deadline AS due FROM jobs WHERE {tables.WAITS}"
        " AND queue_deadline IS NOT NULL ORDER BY queue_deadline LIMIT 1"
    )
    held = sql.row(
        "SELECT min(queue_deadline) AS due FROM jobs WHERE lease_holder IS NOT NULL"
        " AND lease_holder = :holder AND status = 'queued'",
        holder=holder,
    )
    dues = [float(row["due"]) for row in (waits, held) if row is not None and row["due"]]
    return min(dues, default=None)


def unfinished(sql: Sql, owner: str, at_most: int) -> int:
    """How many jobs of the owner are not over, counted no further than *at_most*."""
    row = sql.row(
        "SELECT count(*) AS n FROM (SELECT 1 FROM jobs"
        f" WHERE owner = :owner AND {tables.UNFINISHED} LIMIT :at_most) AS theirs",
        owner=owner,
        at_most=at_most,
    )
    return 0 if row is None else int(row["n"])
