"""What is known of backends beyond the settings: those that were added, those that drain, and the
node catalogue that each had last."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import delete, select

from comfyserve.store import tables
from comfyserve.store.database import Database
from comfyserve.store.dialects import Sql

_BACKENDS: Final = tables.backends.c
_CATALOGS: Final = tables.backend_catalogs.c


@dataclass(frozen=True, slots=True)
class BackendRow:
    """A backend that was added at run time, or is draining; *changed_at* in epoch seconds."""

    url: str
    is_added: bool
    is_draining: bool
    changed_at: float


@dataclass(frozen=True, slots=True)
class CatalogRow:
    """The last ``/object_info`` document of a backend, as JSON packed by gzip, and when it was
    seen, in epoch seconds."""

    url: str
    object_info: bytes
    seen_at: float


class Backends:
    """What lasts of backends, by their addresses. Raises `StoreUnavailable`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(self) -> tuple[BackendRow, ...]:
        """Those that were added or are draining, the one that changed first first."""
        query = select(tables.backends).order_by(_BACKENDS.changed_at, _BACKENDS.url)
        return tuple(
            BackendRow(
                row["url"], bool(row["is_added"]), bool(row["is_draining"]), row["changed_at"]
            )
            for row in await self._database.rows(query)
        )

    async def put(self, url: str, *, is_added: bool, is_draining: bool) -> BackendRow:
        """Keep how the backend is now."""
        row = BackendRow(url, is_added, is_draining, self._database.now())
        await self._database.do(lambda sql: _put(sql, row))
        return row

    async def delete(self, url: str) -> None:
        """Forget the backend, its catalogue and the times learned on it."""
        async with self._database.writing() as connection:
            for gone in (
                delete(tables.backends).where(_BACKENDS.url == url),
                delete(tables.backend_catalogs).where(_CATALOGS.url == url),
                delete(tables.learned_times).where(tables.learned_times.c.backend == url),
            ):
                await connection.execute(gone)

    async def catalogs(self) -> tuple[CatalogRow, ...]:
        """The last known catalogue of each backend."""
        rows = await self._database.rows(select(tables.backend_catalogs).order_by(_CATALOGS.url))
        return tuple(CatalogRow(row["url"], row["object_info"], row["seen_at"]) for row in rows)

    async def put_catalog(self, url: str, object_info: bytes, at: float) -> None:
        """Keep the catalogue that the backend had at that time."""
        await self._database.do(lambda sql: _put_catalog(sql, url, object_info, at))


def _put(sql: Sql, row: BackendRow) -> None:
    sql.change(
        "INSERT INTO backends (url, is_added, is_draining, changed_at)"
        " VALUES (:url, :is_added, :is_draining, :changed_at) ON CONFLICT (url) DO UPDATE SET"
        " is_added = excluded.is_added, is_draining = excluded.is_draining,"
        " changed_at = excluded.changed_at",
        url=row.url,
        is_added=row.is_added,
        is_draining=row.is_draining,
        changed_at=row.changed_at,
    )


def _put_catalog(sql: Sql, url: str, object_info: bytes, at: float) -> None:
    sql.change(
        "INSERT INTO backend_catalogs (url, object_info, seen_at) VALUES (:url, :info, :at)"
        " ON CONFLICT (url) DO UPDATE SET object_info = excluded.object_info,"
        " seen_at = excluded.seen_at",
        url=url,
        info=object_info,
        at=at,
    )
