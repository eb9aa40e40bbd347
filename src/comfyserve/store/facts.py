"""What a database knows of itself, by name: who it is, later the secrets it signs with."""

from __future__ import annotations

from comfyserve.store.database import Database
from comfyserve.store.dialects import Sql


class Facts:
    """Facts that are settled once and never change. Raises `StoreUnavailable`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def settle(self, name: str, value: str) -> str:
        """The fact of this name: what was settled first, which is *value* if nothing was."""
        return await self._database.do(lambda sql: _settle(sql, name, value))


def _settle(sql: Sql, name: str, value: str) -> str:
    sql.change(
        "INSERT INTO facts (name, value) VALUES (:name, :value) ON CONFLICT (name) DO NOTHING",
        name=name,
        value=value,
    )
    row = sql.row("SELECT value FROM facts WHERE name = :name", name=name)
    return value if row is None else str(row["value"])
