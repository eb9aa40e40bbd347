"""The workflows that were published over the API, each as the file that was sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import delete, select

from comfyserve.store import tables
from comfyserve.store.database import Database
from comfyserve.store.dialects import Sql

_PUBLISHED: Final = tables.published.c


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """A published workflow: its file's *content*, and the text of its *sidecar* where it has one.

    *changed_at* is in seconds since the epoch.
    """

    name: str
    content: bytes
    sidecar: str | None
    changed_at: float


class Published:
    """All published workflows. Raises `StoreUnavailable` where the database fails."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(self) -> tuple[PublishedRow, ...]:
        """Every one, by name."""
        rows = await self._database.rows(select(tables.published).order_by(_PUBLISHED.name))
        return tuple(
            PublishedRow(row["name"], row["content"], row["sidecar"], row["changed_at"])
            for row in rows
        )

    async def put(
        self,
        name: str,
        content: bytes,
        sidecar: str | None = None,
        *,
        changed_at: float | None = None,
    ) -> PublishedRow:
        """Keep a workflow, in the place of the one that had the name before."""
        row = PublishedRow(name, content, sidecar, changed_at or self._database.now())
        await self._database.do(lambda sql: _put(sql, row))
        return row

    async def delete(self, name: str) -> bool:
        """Forget a workflow; says whether there was one."""
        async with self._database.writing() as connection:
            gone = delete(tables.published).where(_PUBLISHED.name == name)
            return (await connection.execute(gone)).rowcount > 0


def _put(sql: Sql, row: PublishedRow) -> None:
    sql.change(
        "INSERT INTO published (name, content, sidecar, changed_at)"
        " VALUES (:name, :content, :sidecar, :changed_at) ON CONFLICT (name) DO UPDATE SET"
        " content = excluded.content, sidecar = excluded.sidecar,"
        " changed_at = excluded.changed_at",
        name=row.name,
        content=row.content,
        sidecar=row.sidecar,
        changed_at=row.changed_at,
    )
