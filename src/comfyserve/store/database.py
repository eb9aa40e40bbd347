"""The database as the nouns of the store use it: what is hot by threads that do many things in
one transaction, everything else by SQLAlchemy."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import Executable
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from comfyserve.refusals import StoreUnavailable
from comfyserve.store.dialects import Row, Sql
from comfyserve.store.sql_thread import SqlThread

Result = TypeVar("Result")
Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Database:
    """An open database. *now* gives the time in seconds since the epoch."""

    name: str
    engine: AsyncEngine
    writer: SqlThread
    reader: SqlThread
    begin_write: str
    now: Clock = time.time

    async def do(
        self,
        work: Callable[[Sql], Result],
        then: Callable[[Result], None] | None = None,
        *,
        asked: Callable[[], None] | None = None,
    ) -> Result:
        """A hot write; see `SqlThread.do`."""
        return await self.writer.do(work, then, asked=asked)

    async def look(self, work: Callable[[Sql], Result]) -> Result:
        """A hot read, of one moment."""
        return await self.reader.do(work)

    async def rows(self, query: Executable) -> Sequence[Row]:
        """Every row of the answer."""
        async with self.reading() as connection:
            return (await connection.execute(query)).mappings().all()

    async def row(self, query: Executable) -> Row | None:
        """The first row of the answer, if any."""
        async with self.reading() as connection:
            return (await connection.execute(query)).mappings().first()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """A connection on which all that is read is of one moment."""
        with self._failures():
            async with self.engine.begin() as connection:
                yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that writes; nothing of it is kept where the block raises."""
        with self._failures():
            engine = self.engine.execution_options(begin=self.begin_write)
            async with engine.begin() as connection:
                yield connection

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            reason = str(getattr(error, "orig", None) or error)
            raise StoreUnavailable(self.name, reason) from error
