"""Who works on which job: claiming, holding, taking over. These run on the writer's thread."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from uuid import uuid4

from comfyserve.jobs import Claim, JobStatus, Lease, Offer
from comfyserve.refusals import LeaseLost
from comfyserve.store import queue_heads
from comfyserve.store.dialects import Row, Sql
from comfyserve.store.queue_heads import Head
from comfyserve.store.rows import job_of, lease_of, load_files
from comfyserve.store.waiting_pools import has_waiting


@dataclass(frozen=True, slots=True)
class Found:
    """What looking for a job came to; in the pools *empty* none waits any more."""

    claim: Claim | None
    empty: tuple[str, ...]


def claim(
    sql: Sql, holder: str, offers: Sequence[Offer], until: float, now: float, bonus: float
) -> Found:
    """Give the next job to *holder*: by priority, then by fair share, then by age.

    Only the heads of the queue are looked at, so a long queue costs no more than a short one. A
    job whose model is warm in one of the *offers* may go ahead of others by *bonus* seconds of
    share, and a job waits for up to *bonus* seconds for a backend where it is.
    """
    heads = queue_heads.look(sql, offers, now)
    choice = _choose(offers, heads.jobs, bonus)
    if choice is None:
        return Found(None, heads.empty)
    head, offer = choice
    given = _give(sql, head.number, offer.backend, holder, until, now)
    if not heads.is_alone(head) or (not heads.is_whole and has_waiting(sql, head.pool)):
        return Found(given, heads.empty)
    more_wait = len(heads.jobs) > 1 or not heads.is_whole
    return Found(replace(given, more_wait=more_wait), (*heads.empty, head.pool))


def _choose(
    offers: Sequence[Offer], heads: Sequence[Head], bonus: float
) -> tuple[Head, Offer] | None:
    """The job that is next, and the offer that suits it best; the first of equal ones.

    Offers that do not take the next job yet, for its model, are kept for it: no other job goes
    before it there.
    """
    head = _next(offers, heads, bonus)
    if head is None:
        return None

    def wait(offer: Offer) -> float:
        is_cold = head.model and head.model not in offer.warm
        return offer.wait + (bonus if is_cold else 0.0)

    could = [offer for offer in offers if head.pool in offer.pools]
    if takers := [offer for offer in could if offer.takes(head.model)]:
        return head, min(takers, key=wait)
    return _choose([offer for offer in offers if offer not in could], heads, bonus)


def _next(offers: Sequence[Offer], heads: Sequence[Head], bonus: float) -> Head | None:
    best: tuple[tuple[int, float, int], Head] | None = None
    warm: defaultdict[str, set[str]] = defaultdict(set)
    for offer in offers:
        for pool in offer.pools:
            warm[pool].update(offer.warm)
    for head in heads:
        if head.pool not in warm:
            continue
        ahead = bonus if head.model in warm[head.pool] else 0.0
        order = (head.rank, head.turn - ahead, head.number)
        if best is None or order < best[0]:
            best = order, head
    return None if best is None else best[1]


def _give(sql: Sql, number: int, backend: str, holder: str, until: float, now: float) -> Claim:
    row = sql.row(
        "UPDATE jobs SET lease_holder = :holder, lease_until = :until, claims = claims + 1,"
        " attempts = attempts + 1, backend = :backend,"
        " prompt_id = CASE attempts WHEN 0 THEN id ELSE :fresh END"
        " WHERE number = :number RETURNING *",
        holder=holder,
        until=until,
        backend=backend,
        fresh=str(uuid4()),
        number=number,
    )
    assert row is not None
    sql.change(
        "INSERT INTO job_attempts (job_id, number, prompt_id, backend, at)"
        " VALUES (:id, :number, :prompt_id, :backend, :now)",
        id=row["id"],
        number=row["attempts"],
        prompt_id=row["prompt_id"],
        backend=backend,
        now=now,
    )
    return _claim_of(row)


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
