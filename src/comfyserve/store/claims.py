"""Who works on which job: claiming, holding, taking over. These run on the writer's thread."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from uuid import uuid4

from comfyserve.jobs import Claim, JobStatus, Lease
from comfyserve.refusals import LeaseLost
from comfyserve.store.dialects import Row, Sql
from comfyserve.store.rows import job_of, lease_of, load_files


def claim(
    sql: Sql,
    *,
    holder: str,
    backend: str,
    until: float,
    now: float,
    pools: Sequence[str],
    warm: Sequence[str],
    bonus: float,
) -> Claim | None:
    """Give the next job to *holder*: by priority, then by fair share, then by age.

    Only the heads of the queue are looked at, so a long queue costs no more than a short one. A
    job whose model is *warm* may go ahead of others by *bonus* seconds of share.
    """
    heads = _heads(sql, pools, warm, bonus, now)
    if not heads:
        return None
    row = sql.row(
        "UPDATE jobs SET lease_holder = :holder, lease_until = :until, claims = claims + 1,"
        " attempts = attempts + 1, backend = :backend,"
        " prompt_id = CASE attempts WHEN 0 THEN id ELSE :fresh END"
        " WHERE number = :number RETURNING *",
        holder=holder,
        until=until,
        backend=backend,
        fresh=str(uuid4()),
        number=min(heads)[2],
    )
    if row is None:
        return None
    sql.change(
        "INSERT INTO job_attempts (job_id, number, prompt_id, backend, at)"
        " VALUES (:id, :number, :prompt_id, :backend, :now)",
        id=row["id"],
        number=row["attempts"],
        prompt_id=row["prompt_id"],
        backend=backend,
        now=now,
    )
    more_wait = len({number for _, _, number in heads}) > 1
    return replace(_claim_of(row), more_wait=more_wait)


def _heads(
    sql: Sql, pools: Sequence[str], warm: Sequence[str], bonus: float, now: float
) -> list[tuple[int, float, int]]:
    """The order and the numbers of those that may be next; two or more where as many wait."""
    heads = [
        (head, 0.0) for pool in pools for head in sql.rows(sql.dialect.head, pool=pool, now=now)
    ]
    heads += [
        (head, bonus)
        for pool in pools
        for model in warm
        for head in sql.rows(sql.dialect.warm_head, pool=pool, model=model, now=now)
    ]
    return [(head["rank"], head["turn"] - ahead, head["number"]) for head, ahead in heads]


def adopt(sql: Sql, lease: Lease, holder: str, until: float) -> Lease:
    """Take over a held job as it is, in the same attempt; who held it cannot write any more."""
    taken = sql.change(
        "UPDATE jobs SET lease_holder = :holder, lease_until = :until, claims = claims + 1"
        " WHERE id = :id AND lease_holder = :before AND claims = :number",
        holder=holder,
        until=until,
        id=lease.job_id,
        before=lease.holder,
        number=lease.number,
    )
    if not taken:
        raise LeaseLost(lease.job_id, lease.holder)
    return Lease(lease.job_id, holder, lease.number + 1, until)


def heartbeat(sql: Sql, holder: str, until: float) -> dict[str, JobStatus]:
    """Renew all that *holder* holds; how these jobs stand, by id."""
    renewed = sql.rows(
        "UPDATE jobs SET lease_until = :until WHERE lease_holder IS NOT NULL"
        " AND lease_holder = :holder RETURNING id, status",
        until=until,
        holder=holder,
    )
    return {row["id"]: JobStatus(row["status"]) for row in renewed}


def claims_of(rows: Iterable[Row]) -> tuple[Claim, ...]:
    """The claims of rows of ``jobs`` that are held."""
    return tuple(_claim_of(row) for row in rows)


def _claim_of(row: Row) -> Claim:
    lease = lease_of(row)
    if lease is None:
        raise ValueError(f"nobody holds job {row['id']}")
    return Claim(lease, job_of(row), json.loads(row["graph"]), load_files(row["files"]))
