"""How long things took: what was learned of workflows and their nodes on each backend."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Final

from sqlalchemy import select

from comfyserve.store import tables
from comfyserve.store.database import Database
from comfyserve.store.dialects import Sql

_TIMES: Final = tables.learned_times.c

FORGET_AFTER: Final = 90 * 86400.0
"""Seconds after which a time that was not seen again is forgotten."""

MOST_TIMES: Final = 50_000
"""Times that are kept; of more those seen last."""


@dataclass(frozen=True, slots=True)
class LearnedTime:
    """What *count* runs of a *node* took in a *subject* on a *backend*; without a node the whole.

    *mean* and *spread* are seconds, *seen_at* the last time, in seconds since the epoch.
    """

    subject: str
    backend: str
    node: str
    count: int
    mean: float
    spread: float
    seen_at: float


class Times:
    """All learned times. Raises `StoreUnavailable` where the database fails."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self) -> tuple[LearnedTime, ...]:
        """Those that are not forgotten, the one seen last first."""
        query = (
            select(tables.learned_times)
            .where(_TIMES.seen_at >= self._database.now() - FORGET_AFTER)
            .order_by(_TIMES.seen_at.desc())
            .limit(MOST_TIMES)
        )
        return tuple(
            LearnedTime(*(row[field.name] for field in fields(LearnedTime)))
            for row in await self._database.rows(query)
        )

    async def save(self, times: Iterable[LearnedTime]) -> None:
        """Keep these times, each in the place of the one known before."""
        rows = [asdict(time) for time in times]
        await self._database.do(
            lambda sql: sql.change_each(
                "INSERT INTO learned_times (subject, backend, node, count, mean, spread, seen_at)"
                " VALUES (:subject, :backend, :node, :count, :mean, :spread, :seen_at)"
                " ON CONFLICT (subject, backend, node) DO UPDATE SET count = excluded.count,"
                " mean = excluded.mean, spread = excluded.spread, seen_at = excluded.seen_at",
                rows,
            )
        )

    async def forget_old(self) -> int:
        """Forget what was not seen for long, and what is too much; says how many it were."""
        before = self._database.now() - FORGET_AFTER
        return await self._database.do(lambda sql: _forget_old(sql, before))


def _forget_old(sql: Sql, before: float) -> int:
    old = sql.change("DELETE FROM learned_times WHERE seen_at < :before", before=before)
    too_many = sql.change(
        "DELETE FROM learned_times WHERE (subject, backend, node) IN"
        " (SELECT subject, backend, node FROM learned_times ORDER BY seen_at DESC"
        " LIMIT -1 OFFSET :most)",
        most=MOST_TIMES,
    )
    return old + too_many
