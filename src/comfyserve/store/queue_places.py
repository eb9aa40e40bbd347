"""Who is how far from their turn: the places of queued jobs.

First come those that somebody took and that do not run yet, then those that wait, in the order in
which they will be taken.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final, TypeVar

from comfyserve.store.dialects import Row, Sql
from comfyserve.store.tables import HELD, WAITS

Item = TypeVar("Item")

_MOST_NAMED: Final = 10_000
"""How many jobs one statement may name; databases have a limit somewhere above."""


def places(sql: Sql, job_ids: Sequence[str]) -> Mapping[str, int]:
    """The places of those of these jobs that are queued, each within its pool, from 1."""
    wanted, found, taken = set(job_ids), dict[str, int](), Counter[str]()
    for row in sorted(_taken(sql), key=_turn):
        taken[row["pool"]] += 1
        if row["id"] in wanted:
            found[row["id"]] = taken[row["pool"]]
    for pool, jobs in _waiting(sql, job_ids).items():
        found |= {
            job_id: place + taken[pool] for job_id, place in _places_in(sql, pool, jobs).items()
        }
    return found


def last_place(sql: Sql, job: Row) -> int:
    """The place of one job that waits."""
    row = sql.row(
        f"SELECT (SELECT count(*) FROM jobs WHERE {HELD} AND status = 'queued' AND pool = :pool)"
        f" + (SELECT count(*) FROM jobs WHERE {WAITS} AND pool = :pool"
        " AND (rank, turn, number) <= (:rank, :turn, :number)) AS place",
        pool=job["pool"],
        rank=job["rank"],
        turn=job["turn"],
        number=job["number"],
    )
    assert row is not None
    return int(row["place"])


def _taken(sql: Sql) -> list[Row]:
    return sql.rows(
        f"SELECT id, pool, rank, turn, number FROM jobs WHERE {HELD} AND status = 'queued'"
    )


def _turn(row: Row) -> tuple[int, float, int]:
    return row["rank"], row["turn"], row["number"]


def _waiting(sql: Sql, job_ids: Sequence[str]) -> Mapping[str, list[Row]]:
    """Those of the jobs that wait, by pool."""
    pools: defaultdict[str, list[Row]] = defaultdict(list)
    for some in _chunks(job_ids):
        names = {f"id{index}": job_id for index, job_id in enumerate(some)}
        rows = sql.rows(
            f"SELECT id, pool, rank, turn, number FROM jobs WHERE id IN ({_marks(names)})"
            f" AND {WAITS}",
            **names,
        )
        for row in rows:
            pools[row["pool"]].append(row)
    return pools


def _places_in(sql: Sql, pool: str, jobs: Sequence[Row]) -> Mapping[str, int]:
    """The places among those that wait in the pool: one walk, as far as the last of the jobs."""
    last = max(jobs, key=_turn)
    ids = {job["number"]: job["id"] for job in jobs}
    to_last = (
        f"FROM jobs WHERE {WAITS} AND pool = :pool"
        " AND (rank, turn, number) <= (:rank, :turn, :number)"
    )
    end = {name: last[name] for name in ("rank", "turn", "number")}
    if len(jobs) == 1:
        count = sql.row(f"SELECT count(*) AS n {to_last}", pool=pool, **end)
        return {last["id"]: count["n"]} if count is not None else {}
    walk = f"SELECT number, row_number() OVER (ORDER BY rank, turn, number) AS place {to_last}"
    found: dict[str, int] = {}
    for some in _chunks(ids):
        names = {f"n{index}": number for index, number in enumerate(some)}
        rows = sql.rows(
            f"SELECT number, place FROM ({walk}) AS walk WHERE number IN ({_marks(names)})",
            pool=pool,
            **end,
            **names,
        )
        found |= {ids[row["number"]]: row["place"] for row in rows}
    return found


def _chunks(items: Iterable[Item]) -> Iterator[tuple[Item, ...]]:
    rest = iter(items)
    while some := tuple(islice(rest, _MOST_NAMED)):
        yield some


def _marks(names: Iterable[str]) -> str:
    return ", ".join(f":{name}" for name in names)
