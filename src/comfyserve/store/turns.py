"""The fair order: where among those that wait a new job has its turn.

Start-time fair queueing. A turn is a time in seconds of share; of two jobs of one priority that
compete for a backend the lower turn goes first. A new job comes where the queue is *now*, or, by as
much as its owner has asked for already, behind it: neither idling nor flooding earns a share. Each
priority has a time of its own, as its jobs compete with no others; so have backends that run
nothing in common. These run on the writer's thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from comfyserve.jobs import Submission
from comfyserve.store.dialects import Sql
from comfyserve.store.rivals import Field
from comfyserve.store.tables import HELD, UNFINISHED, WAITS

FieldOf = Callable[[str], Field | None]
"""What competes with a pool; None for everything."""

_MOST_POOLS: Final = 64
"""Pools that are looked at one by one; with more of them all are taken together."""

_FORGET_AFTER: Final = 3600.0
"""Seconds after which an owner without jobs is as good as new."""


def take_turn(sql: Sql, job: Submission, now: float, field_of: FieldOf) -> float:
    """The turn of a new job; what its owner asks for next comes behind it."""
    rank = -job.priority
    share = sql.row(
        "SELECT turn, pool, (SELECT weight FROM owners WHERE owner = :owner) AS weight"
        " FROM (SELECT 1 AS one) AS one LEFT JOIN shares ON owner = :owner AND rank = :rank",
        owner=job.owner,
        rank=rank,
    )
    assert share is not None
    field = field_of(job.pool)
    here = _now(sql, rank, field)
    turn = _end_of_all(sql) if here is None else here
    if share["turn"] is not None:
        its_field = field_of(share["pool"])
        there = here if its_field == field else _now(sql, rank, its_field)
        if there is not None:
            turn += max(0.0, share["turn"] - there)
    sql.change(
        "INSERT INTO shares (owner, rank, turn, pool, at) VALUES (:owner, :rank, :turn, :pool,"
        " :now) ON CONFLICT (owner, rank) DO UPDATE SET turn = excluded.turn,"
        " pool = excluded.pool, at = excluded.at",
        owner=job.owner,
        rank=rank,
        turn=turn + job.estimate / (share["weight"] or 1.0),
        pool=job.pool,
        now=now,
    )
    return turn


def forget_old(sql: Sql, now: float) -> int:
    """Forget the shares of owners that have had no job for long; says how many it were."""
    return sql.change(
        "DELETE FROM shares WHERE at < :before AND NOT EXISTS"
        f" (SELECT 1 FROM jobs WHERE jobs.owner = shares.owner AND {UNFINISHED})",
        before=now - _FORGET_AFTER,
    )


def _now(sql: Sql, rank: int, field: Field | None) -> float | None:
    """The turn of who was last to be taken in the field, or of who is next if that is earlier;
    None where nobody of this priority waits there or is held.

    Who is new comes before all those who had a turn just now, and behind others who are new.
    """
    if field is None or len(field.pools) > _MOST_POOLS:
        first = sql.row(
            f"SELECT turn FROM jobs WHERE {WAITS} AND rank = :rank ORDER BY turn LIMIT 1",
            rank=rank,
        )
        turns = [] if first is None else [float(first["turn"])]
    else:
        turns = [turn for pool in field.pools if (turn := _first(sql, pool, rank)) is not None]
    held = sql.rows(f"SELECT backend, turn FROM jobs WHERE {HELD} AND rank = :rank", rank=rank)
    taken = [
        float(row["turn"]) for row in held if field is None or row["backend"] in field.backends
    ]
    return min([*turns, *([max(taken)] if taken else [])], default=None)


def _first(sql: Sql, pool: str, rank: int) -> float | None:
    row = sql.row(
        f"SELECT turn FROM jobs WHERE {WAITS} AND pool = :pool AND rank = :rank"
        " ORDER BY turn LIMIT 1",
        pool=pool,
        rank=rank,
    )
    return None if row is None else float(row["turn"])


def _end_of_all(sql: Sql) -> float:
    row = sql.row("SELECT max(turn) AS turn FROM shares")
    return 0.0 if row is None or row["turn"] is None else float(row["turn"])
