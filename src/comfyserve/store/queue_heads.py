"""The jobs that may be next: the first ones of each pool, found without reading the queue."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from comfyserve.jobs import Offer
from comfyserve.store.dialects import Row, Sql

_MOST_POOLS: Final = 64
"""Pools that are looked at one by one; with more of them the front of the queue is tried first."""

_FRONT: Final = 128
"""How many jobs the front is."""


@dataclass(frozen=True, slots=True)
class Head:
    """A job that may be next: of all in its *pool* with its *model* none is before it but one."""

    rank: int
    turn: float
    number: int
    pool: str
    model: str


@dataclass(frozen=True, slots=True)
class Heads:
    """The heads of several pools, each once; in the pools *empty* nothing waits."""

    jobs: tuple[Head, ...]
    empty: tuple[str, ...]
    is_whole: bool = True

    def is_alone(self, head: Head) -> bool:
        """Whether nobody else in its pool was found."""
        return not any(
            other.pool == head.pool and other.number != head.number for other in self.jobs
        )


def look(sql: Sql, offers: Sequence[Offer], now: float) -> Heads:
    """The heads of all pools in the *offers*, and in each those that want a warm model."""
    warm: dict[str, dict[str, None]] = {}
    for offer in offers:
        for pool in offer.pools:
            warm.setdefault(pool, {}).update(dict.fromkeys(offer.warm))
    if len(warm) > _MOST_POOLS and (front := _front(sql, frozenset(warm), now)):
        return Heads(tuple(front), (), is_whole=False)
    jobs: dict[int, Head] = {}
    empty = []
    for pool, models in warm.items():
        found = _heads(sql.rows(sql.dialect.head, pool=pool, now=now))
        if not found:
            empty.append(pool)
        elif len(found) == 2:
            for model in models:
                found += _heads(sql.rows(sql.dialect.warm_head, pool=pool, model=model, now=now))
        jobs.update((head.number, head) for head in found)
    return Heads(tuple(jobs.values()), tuple(empty))


def _front(sql: Sql, pools: frozenset[str], now: float) -> list[Head]:
    """Those of the first jobs of the whole queue that wait in the pools."""
    rows = sql.rows(sql.dialect.front, most=_FRONT, now=now)
    return [head for head in _heads(rows) if head.pool in pools]


def _heads(rows: Iterable[Row]) -> list[Head]:
    return [
        Head(row["rank"], row["turn"], row["number"], row["pool"], row["model"]) for row in rows
    ]
