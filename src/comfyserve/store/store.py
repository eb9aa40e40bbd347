"""The store: one data folder, one process, everything that lasts but the bytes."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import uuid4

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from comfyserve.refusals import StoreUnavailable
from comfyserve.store.assets import Assets
from comfyserve.store.database import Clock, Database
from comfyserve.store.dialects import SQLITE, connect_sqlite, sqlite_engine
from comfyserve.store.facts import Facts
from comfyserve.store.folder_lock import locked
from comfyserve.store.idempotency import IdempotencyKeys
from comfyserve.store.jobs import Jobs
from comfyserve.store.schema import upgrade
from comfyserve.store.sql_thread import SqlThread

DATABASE_NAME: Final = "comfyserve.db"


@dataclass(frozen=True, slots=True)
class Store:
    """Jobs, assets, idempotency keys and facts that last; see `Store.open`."""

    jobs: Jobs
    assets: Assets
    idempotency: IdempotencyKeys
    facts: Facts

    async def identity(self) -> str:
        """A random UUID that this database has for ever, and no other."""
        return await self.facts.settle("identity", str(uuid4()))

    @classmethod
    @asynccontextmanager
    async def open(
        cls, folder: Path, *, busy_timeout: float = 10.0, clock: Clock = time.time
    ) -> AsyncIterator[Store]:
        """The store in *folder*, which is made where it is missing, for the time of the block.

        *busy_timeout* is for how many seconds a write waits for another program that has the
        database. Raises `DataFolderLocked`, `SchemaTooNew` and `StoreUnavailable`.
        """
        path = folder / DATABASE_NAME
        with locked(folder):
            async with _open_database(path, busy_timeout, clock) as database:
                yield cls(
                    Jobs(database), Assets(database), IdempotencyKeys(database), Facts(database)
                )


@asynccontextmanager
async def _open_database(path: Path, busy_timeout: float, clock: Clock) -> AsyncIterator[Database]:
    engine = sqlite_engine(path, busy_timeout)

    def connect() -> sqlite3.Connection:
        return connect_sqlite(path, busy_timeout)

    try:
        await _upgrade(engine, path)
        async with (
            SqlThread(str(path), connect, SQLITE.begin_write) as writer,
            SqlThread(str(path), connect, SQLITE.begin_read) as reader,
        ):
            yield Database(str(path), engine, writer, reader, SQLITE.begin_write, clock)
    finally:
        # A connection that is left open would keep its thread, and so the process, alive.
        await asyncio.shield(engine.dispose())


async def _upgrade(engine: AsyncEngine, path: Path) -> None:
    writing = engine.execution_options(begin=SQLITE.begin_write)
    try:
        async with writing.begin() as connection:
            await connection.run_sync(upgrade, str(path))
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error)
        raise StoreUnavailable(str(path), reason) from error
