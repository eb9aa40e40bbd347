"""The one writer: grouped commits, each piece of work whole or not at all."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from comfyserve.refusals import StoreUnavailable
from comfyserve.store.dialects import Sql, connect_sqlite
from comfyserve.store.sql_thread import SqlThread

DEADLINE = 20


@asynccontextmanager
async def writing(path: Path, *, pages: int = 0, patience: float = 5) -> AsyncIterator[SqlThread]:
    """A writer on a database with one table of numbers; *pages* bounds its size."""

    def connect() -> sqlite3.Connection:
        connection = connect_sqlite(path, patience)
        connection.execute("CREATE TABLE IF NOT EXISTS numbers (n INTEGER PRIMARY KEY, t TEXT)")
        if pages:
            connection.execute(f"PRAGMA max_page_count = {pages}")
        return connection

    async with SqlThread(str(path), connect, "BEGIN IMMEDIATE") as writer:
        yield writer


def put(number: int, text: str = "") -> Callable[[Sql], int]:
    def work(sql: Sql) -> int:
        sql.change("INSERT INTO numbers VALUES (:n, :t)", n=number, t=text)
        return number

    return work


def kept(path: Path) -> list[int]:
    connection = sqlite3.connect(path)
    try:
        return [row[0] for row in connection.execute("SELECT n FROM numbers ORDER BY n")]
    finally:
        connection.close()


@asynccontextmanager
async def held_up(writer: SqlThread) -> AsyncIterator[None]:
    """Keep the writer busy for the time of the block, so that what is asked meanwhile waits."""
    go_on, begun = threading.Event(), threading.Event()

    def wait(sql: Sql) -> None:
        begun.set()
        go_on.wait(DEADLINE)

    task = asyncio.create_task(writer.do(wait))
    await asyncio.to_thread(begun.wait, DEADLINE)
    try:
        yield
    finally:
        go_on.set()
        await task


async def test_work_that_waits_is_committed_together(tmp_path: Path) -> None:
    """Whatever was asked while the writer was busy goes into one transaction."""
    begun: list[str] = []
    async with writing(tmp_path / "db") as writer:
        async with held_up(writer):
            writer._connection.set_trace_callback(begun.append)
            tasks = [asyncio.create_task(writer.do(put(n))) for n in range(100)]
            await asyncio.sleep(0)
        results = await asyncio.gather(*tasks)

    assert results == list(range(100))
    assert begun.count("BEGIN IMMEDIATE") == 1
    assert kept(tmp_path / "db") == list(range(100))


async def test_one_that_fails_does_not_take_others_along(tmp_path: Path) -> None:
    """An error undoes its own work alone and goes to its own caller alone."""

    def half(sql: Sql) -> None:
        put(500)(sql)
        raise ZeroDivisionError

    async with writing(tmp_path / "db") as writer:
        async with held_up(writer):
            tasks: list[asyncio.Task[int | None]] = [
                asyncio.create_task(writer.do(put(1))),
                asyncio.create_task(writer.do(half)),
                asyncio.create_task(writer.do(put(1))),
                asyncio.create_task(writer.do(put(2))),
            ]
            await asyncio.sleep(0)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        with pytest.raises(ZeroDivisionError):
            await writer.do(half)

    assert [type(result) for result in results] == [int, ZeroDivisionError, StoreUnavailable, int]
    assert kept(tmp_path / "db") == [1, 2]


async def test_a_full_disk_fails_clearly_and_keeps_what_was_there(tmp_path: Path) -> None:
    """Who finds no room gets an error with the reason; nothing is half-written, and the writer
    goes on once there is room."""
    path = tmp_path / "db"
    async with writing(path, pages=8) as writer:
        await writer.do(put(1))
        async with held_up(writer):
            tasks = [asyncio.create_task(writer.do(put(n, "x" * 9000))) for n in range(2, 12)]
            await asyncio.sleep(0)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        told = [result for result in results if isinstance(result, int)]
        failed = [result for result in results if isinstance(result, StoreUnavailable)]
        await writer.do(lambda sql: sql.change("PRAGMA max_page_count = 1000"))
        await writer.do(put(100))

    assert len(failed) >= 8
    assert all("full" in str(failure) for failure in failed)
    assert kept(path) == [1, *told, 100]


async def test_a_locked_database_fails_clearly(tmp_path: Path) -> None:
    """A write that another program keeps out fails within its time, and later ones succeed."""
    path = tmp_path / "db"
    async with writing(path, patience=0.05) as writer:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked"):
            await writer.do(put(1))
        other.execute("ROLLBACK")
        other.close()
        await writer.do(put(2))

    assert kept(path) == [2]


async def test_leaving_does_what_was_asked_before(tmp_path: Path) -> None:
    """What waits when the writer is closed is done first; what comes later is refused."""
    path = tmp_path / "db"
    async with writing(path) as writer:
        tasks = [asyncio.create_task(writer.do(put(n))) for n in range(600)]
        await asyncio.sleep(0)

    assert await asyncio.gather(*tasks) == list(range(600))
    assert kept(path) == list(range(600))
    with pytest.raises(StoreUnavailable):
        await writer.do(put(1000))


async def test_a_canceled_caller_leaves_the_others_alone(tmp_path: Path) -> None:
    """Who gives up waiting does not disturb those before and after."""
    async with writing(tmp_path / "db") as writer:
        async with held_up(writer):
            tasks = [asyncio.create_task(writer.do(put(n))) for n in range(3)]
            await asyncio.sleep(0)
            tasks[1].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)

    assert (results[0], results[2]) == (0, 2)
    assert isinstance(results[1], asyncio.CancelledError)


async def test_more_than_the_writer_takes_at_once_waits(tmp_path: Path) -> None:
    """Thousands of callers at once all get their turn."""
    async with writing(tmp_path / "db") as writer:
        results = await asyncio.gather(*(writer.do(put(n)) for n in range(3000)))

    assert results == list(range(3000))


async def test_who_is_told_of_results_harms_nobody(tmp_path: Path) -> None:
    """Results are told in order, before who asked goes on, and a failure there is reported."""
    told, failures = list[int](), list[object]()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: failures.append(context["exception"]))

    def tell(number: int) -> None:
        told.append(number)
        if number == 3:
            raise ValueError(number)

    async with writing(tmp_path / "db") as writer:
        async with held_up(writer):
            tasks = [asyncio.create_task(writer.do(put(n), tell)) for n in range(6)]
            await asyncio.sleep(0)
            tasks[1].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)

    assert told == [0, 1, 2, 3, 4, 5]
    assert [number for number in results if isinstance(number, int)] == [0, 2, 3, 4, 5]
    assert [str(failure) for failure in failures] == ["3"]
