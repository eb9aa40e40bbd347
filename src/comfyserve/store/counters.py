"""Numbers that only grow, by name: what a process looks at to learn that another changed things."""

from __future__ import annotations

from comfyserve.store.database import Database
from comfyserve.store.dialects import Sql


class Counters:
    """Counters, each 0 until it was first increased. Raises `StoreUnavailable`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, name: str) -> int:
        """How far it is."""
        return await self._database.look(lambda sql: counted(sql, name))

    async def increase(self, name: str) -> int:
        """One further; how far it is then, which nobody else is told."""
        return await self._database.do(lambda sql: increase(sql, name))


def counted(sql: Sql, name: str) -> int:
    """How far the counter is."""
    row = sql.row("SELECT value FROM counters WHERE name = :name", name=name)
    return 0 if row is None else int(row["value"])


def increase(sql: Sql, name: str) -> int:
    """One further, together with what else the transaction changes.

    Who increases it waits for who did before, until that one's changes are there: a reader that
    sees a number sees all that came with it.
    """
    row = sql.row(
        "INSERT INTO counters (name, value) VALUES (:name, 1)"
        " ON CONFLICT (name) DO UPDATE SET value = counters.value + 1 RETURNING value",
        name=name,
    )
    return 0 if row is None else int(row["value"])
