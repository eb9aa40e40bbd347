"""All that differs from one kind of database to another, side by side.

Only SQLite is here so far. PostgreSQL will be a second value of `Dialect`: its heads of the queue
end in ``FOR UPDATE SKIP LOCKED``, so that several processes can claim at once.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from sqlalchemy import event
from sqlalchemy.engine import URL, Connection
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from comfyserve.store.tables import WAITS


class Row(Protocol):
    """One row of an answer, by column."""

    def __getitem__(self, column: str, /) -> Any: ...


@dataclass(frozen=True, slots=True)
class Dialect:
    """The words of one kind of database.

    *head* finds the first two jobs that wait in a pool, *warm_head* the first two of those that
    want one model, *front* the first ``most`` of all. They take ``now``, and ``pool`` and ``model``
    where they need them, and answer ``number, rank, turn, pool, model``.
    """

    begin_read: str
    begin_write: str
    head: str
    warm_head: str
    front: str


def _first(most: str, where: str) -> str:
    return (
        f"SELECT number, rank, turn, pool, model FROM jobs WHERE {where}"
        " AND (queue_deadline IS NULL OR queue_deadline > :now)"
        f" ORDER BY rank, turn, number LIMIT {most}"
    )


SQLITE: Final = Dialect(
    begin_read="BEGIN",
    # Takes the right to write at once: an upgrade in the middle could not wait for another writer.
    begin_write="BEGIN IMMEDIATE",
    head=_first("2", f"{WAITS} AND pool = :pool"),
    warm_head=_first("2", f"{WAITS} AND pool = :pool AND model = :model"),
    front=_first(":most", WAITS),
)


class Sql:
    """The connection that the hot statements are spoken through; they are the same everywhere."""

    def __init__(self, connection: sqlite3.Connection, dialect: Dialect = SQLITE) -> None:
        self.connection = connection
        self.dialect = dialect

    def rows(self, statement: str, **values: object) -> list[Row]:
        """Every row of the answer."""
        cursor = self.connection.execute(statement, values)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor]

    def row(self, statement: str, **values: object) -> Row | None:
        """The first row of the answer, if any."""
        cursor = self.connection.execute(statement, values)
        row = cursor.fetchone()
        if row is None:
            return None
        return dict(zip((column[0] for column in cursor.description), row, strict=True))

    def change(self, statement: str, **values: object) -> int:
        """Do it; says how many rows it met."""
        return self.connection.execute(statement, values).rowcount

    def change_each(self, statement: str, values: Iterable[Mapping[str, object]]) -> None:
        """Do it once with each of the values."""
        self.connection.executemany(statement, values)


def connect_sqlite(path: Path, busy_timeout: float) -> sqlite3.Connection:
    """A plain connection for a thread of its own. What it committed survives a power cut."""
    connection = sqlite3.connect(
        path, isolation_level=None, check_same_thread=False, cached_statements=256
    )
    for pragma in _pragmas(busy_timeout):
        connection.execute(pragma)
    return connection


def sqlite_engine(path: Path, busy_timeout: float) -> AsyncEngine:
    """SQLAlchemy's way to the same database, for all that is not hot."""
    engine = create_async_engine(URL.create("sqlite+aiosqlite", database=str(path)))

    # The driver's own idea of when a transaction begins leaves schema changes out of it.
    def on_connect(connection: sqlite3.Connection, record: object) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in _pragmas(busy_timeout):
            cursor.execute(pragma)
        cursor.close()

    def on_begin(connection: Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))

    event.listen(engine.sync_engine, "connect", on_connect)
    event.listen(engine.sync_engine, "begin", on_begin)
    return engine


def _pragmas(busy_timeout: float) -> tuple[str, ...]:
    return (
        f"PRAGMA busy_timeout = {int(busy_timeout * 1000)}",
        "PRAGMA journal_mode = WAL",
        "PRAGMA synchronous = FULL",
        "PRAGMA foreign_keys = ON",
    )
