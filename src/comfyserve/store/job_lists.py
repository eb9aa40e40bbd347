"""What is asked about kept jobs now and then: lists, one graph, what is past its time; and
forgetting a job."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, exists, or_, select, text
from sqlalchemy import delete as deletion
from sqlalchemy.ext.asyncio import AsyncConnection

from comfyserve.jobs import Attempt, JobRecord, JobStatus, Output
from comfyserve.refusals import JobUnfinished, NotFound
from comfyserve.store import job_reads, tables
from comfyserve.store.database import Database
from comfyserve.store.rows import Page, job_of, output_of, page_of, read_cursor
from comfyserve.workflows.graph import Graph

_JOBS: Final = tables.jobs.c
_OVER: Final = tuple(str(status) for status in JobStatus if status.is_terminal)


async def page(
    database: Database,
    owner: str | None,
    *,
    statuses: Iterable[JobStatus],
    workflow: str | None,
    labels: Mapping[str, str] | None,
    cursor: str | None,
    limit: int,
) -> Page[JobRecord]:
    """The jobs that fit all that is given, newest first. Raises `InvalidCursor`."""
    query = select(*job_reads.TOLD).where(_is_not_past(database)).order_by(_JOBS.number.desc())
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
    async with database.reading() as connection:
        rows = (await connection.execute(query.limit(limit + 1))).mappings().all()
        outputs = await _outputs_of(connection, [row["id"] for row in rows])
    return page_of(rows, [job_of(row, outputs[row["id"]]) for row in rows], limit)


async def graph(database: Database, job_id: str, owner: str | None) -> Graph:
    """The graph that the job runs. Raises `NotFound`."""
    is_there = and_(_JOBS.id == job_id, _is_not_past(database))
    query = select(_JOBS.graph).where(is_there)
    if owner is not None:
        query = query.where(_JOBS.owner == owner)
    if (row := await database.row(query)) is None:
        raise NotFound("job", job_id)
    found: dict[str, Any] = json.loads(row["graph"])
    return found


async def attempts(database: Database, job_id: str) -> tuple[Attempt, ...]:
    """Every time the job was brought to a backend, the first one first."""
    columns = tables.attempts.c
    query = select(columns.number, columns.prompt_id, columns.backend, columns.at)
    query = query.where(columns.job_id == job_id).order_by(columns.number)
    return tuple(
        Attempt(row["number"], row["prompt_id"], row["backend"], row["at"])
        for row in await database.rows(query)
    )


async def expired(database: Database, before: float, limit: int) -> tuple[str, ...]:
    """The ids of jobs that are over and whose ``expires_at`` is before that time."""
    query = (
        select(_JOBS.id)
        .where(text("completed_at IS NOT NULL"), _JOBS.expires_at < before)
        .order_by(_JOBS.expires_at)
        .limit(limit)
    )
    return tuple(row["id"] for row in await database.rows(query))


async def delete(database: Database, job_id: str, owner: str | None) -> None:
    """Forget a job that is over. Raises `NotFound`, and `JobUnfinished` for one that is not."""
    async with database.writing() as connection:
        query = select(_JOBS.status, _JOBS.owner).where(_JOBS.id == job_id)
        row = (await connection.execute(query)).mappings().first()
        if row is None or (owner is not None and row["owner"] != owner):
            raise NotFound("job", job_id)
        if row["status"] not in _OVER:
            raise JobUnfinished(job_id, row["status"])
        await connection.execute(deletion(tables.assets).where(tables.assets.c.job_id == job_id))
        await connection.execute(deletion(tables.jobs).where(_JOBS.id == job_id))


def _is_not_past(database: Database) -> ColumnElement[bool]:
    return or_(_JOBS.completed_at.is_(None), _JOBS.expires_at > database.now())


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
