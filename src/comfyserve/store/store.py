"""The store: one data folder, one process, everything that lasts but the bytes."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self
from uuid import uuid4

from sqlalchemy.engine import Connection
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from comfyserve.refusals import DataFolderLocked, StoreUnavailable
from comfyserve.store import waiting_pools
from comfyserve.store.assets import Assets
from comfyserve.store.backends import Backends
from comfyserve.store.counters import Counters
from comfyserve.store.database import Clock, Database
from comfyserve.store.dialects import SQLITE, connect_sqlite, sqlite_engine
from comfyserve.store.facts import Facts
from comfyserve.store.folder_lock import locked
from comfyserve.store.idempotency import IdempotencyKeys
from comfyserve.store.jobs import Jobs
from comfyserve.store.keys import Keys
from comfyserve.store.published import Published
from comfyserve.store.schema import require_current, upgrade
from comfyserve.store.sql_thread import SqlThread
from comfyserve.store.times import Times

DATABASE_NAME: Final = "comfyserve.db"


@dataclass(frozen=True, slots=True)
class Store:
    """Jobs, assets, keys and all else that lasts; see `Store.open`."""

    jobs: Jobs
    assets: Assets
    idempotency: IdempotencyKeys
    facts: Facts
    keys: Keys
    counters: Counters
    published: Published
    backends: Backends
    times: Times

    async def forget_unneeded(self) -> None:
        """Forget learned times not seen for long, and what is only kept for jobs and owners that
        are no more."""
        await self.times.forget_old()
        await self.jobs.forget_unused()

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
                yield await cls._of(database)

    @classmethod
    @asynccontextmanager
    async def open_beside(
        cls, folder: Path, *, busy_timeout: float = 10.0, clock: Clock = time.time
    ) -> AsyncIterator[Store]:
        """Like `open`, also where another process has the store open; for keys, not for jobs.

        Whoever runs jobs has the store for itself. What is done here meanwhile is seen there, and
        the form of the database stays as it is: `StoreUnavailable` where the other process is of
        another version.
        """
        path = folder / DATABASE_NAME
        async with AsyncExitStack() as stack:
            try:
                stack.enter_context(locked(folder))
            except DataFolderLocked:
                opening = _open_database(path, busy_timeout, clock, prepare=require_current)
            else:
                opening = _open_database(path, busy_timeout, clock)
            yield await cls._of(await stack.enter_async_context(opening))

    @classmethod
    async def _of(cls, database: Database) -> Self:
        return cls(
            jobs=Jobs(database, await database.look(waiting_pools.read)),
            assets=Assets(database),
            idempotency=IdempotencyKeys(database),
            facts=Facts(database),
            keys=Keys(database),
            counters=Counters(database),
            published=Published(database),
            backends=Backends(database),
            times=Times(database),
        )


@asynccontextmanager
async def _open_database(
    path: Path,
    busy_timeout: float,
    clock: Clock,
    prepare: Callable[[Connection, str], None] = upgrade,
) -> AsyncIterator[Database]:
    engine = sqlite_engine(path, busy_timeout)

    def connect() -> sqlite3.Connection:
        return connect_sqlite(path, busy_timeout)

    try:
        await _prepare(engine, path, prepare)
        async with (
            SqlThread(str(path), connect, SQLITE.begin_write, takes_late=True) as writer,
            SqlThread(str(path), connect, SQLITE.begin_read) as reader,
        ):
            yield Database(str(path), engine, writer, reader, SQLITE.begin_write, clock)
    finally:
        # A connection that is left open would keep its thread, and so the process, alive.
        await asyncio.shield(engine.dispose())


async def _prepare(
    engine: AsyncEngine, path: Path, prepare: Callable[[Connection, str], None]
) -> None:
    writing = engine.execution_options(begin=SQLITE.begin_write)
    try:
        async with writing.begin() as connection:
            await connection.run_sync(prepare, str(path))
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error)
        raise StoreUnavailable(str(path), reason) from error
