"""Opening a store: one process, the right schema, nothing lost between two openings."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from uuid import UUID

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

from comfyserve.refusals import DataFolderLocked, SchemaTooNew, StoreUnavailable
from comfyserve.store import Store, migrations, tables
from comfyserve.store.store import DATABASE_NAME
from tests.store.samples import output, submission, succeeded

HOLD = """
import asyncio, sys
from pathlib import Path
from comfyserve.store import Store

async def hold():
    async with Store.open(Path(sys.argv[1])):
        print("open", flush=True)
        sys.stdin.read()

asyncio.run(hold())
"""


def test_a_second_process_is_refused_and_told_who_is_there(tmp_path: Path) -> None:
    """The folder of a running process is not opened; its end, however hard, frees the folder."""
    folder = tmp_path / "data"
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline().strip() == b"open"

        with pytest.raises(DataFolderLocked) as refused:
            asyncio.run(_open_once(folder))

        holder.kill()
        holder.wait(20)
    asyncio.run(_open_once(folder))
    assert refused.value.pid == holder.pid
    assert str(holder.pid) in str(refused.value)


async def _open_once(folder: Path) -> None:
    async with Store.open(folder) as store:
        assert await store.jobs.waiting() == 0


async def test_a_folder_is_opened_once_in_a_process_too(tmp_path: Path) -> None:
    """Two stores on one folder in the same process would be two writers."""
    async with Store.open(tmp_path):
        with pytest.raises(DataFolderLocked) as refused:
            async with Store.open(tmp_path):
                pass

    assert refused.value.pid == os.getpid()


async def test_all_is_there_when_it_is_opened_again(tmp_path: Path) -> None:
    """Jobs, events and assets are the same after a restart, and numbers go on."""
    async with Store.open(tmp_path) as store:
        job_id = await succeeded(store, output(), expires_at=9e9)
        before = (await store.jobs.get(job_id), await store.jobs.events(job_id))
    async with Store.open(tmp_path) as store:
        after = (await store.jobs.get(job_id), await store.jobs.events(job_id))
        await store.jobs.submit(submission())

    assert after == before


async def test_a_database_has_a_name_of_its_own(tmp_path: Path) -> None:
    """Its identity is the same whenever it is opened, and another one's is another."""
    names = []
    for folder in (tmp_path / "one", tmp_path / "one", tmp_path / "two"):
        async with Store.open(folder) as store:
            names.append(await store.identity())

    assert names[0] == names[1] != names[2]
    assert str(UUID(names[0])) == names[0]


async def test_commits_are_durable(tmp_path: Path) -> None:
    """The database is opened as what a power cut does not hurt: WAL, and every commit synced."""
    async with Store.open(tmp_path) as store:
        connections = await store.jobs._database.do(
            lambda sql: [
                sql.row(f"PRAGMA {name}")
                for name in ("journal_mode", "synchronous", "foreign_keys")
            ]
        )
        async with store.jobs._database.writing() as connection:
            cold = [
                (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar()
                for name in ("journal_mode", "synchronous", "foreign_keys")
            ]

    assert connections == [{"journal_mode": "wal"}, {"synchronous": 2}, {"foreign_keys": 1}]
    assert cold == ["wal", 2, 1]


async def test_the_steps_lead_to_the_tables(tmp_path: Path) -> None:
    """A database that took all steps has exactly the tables and indexes that `tables` names."""
    async with Store.open(tmp_path):
        pass
    engine = create_engine(f"sqlite:///{tmp_path / DATABASE_NAME}")
    try:
        with engine.connect() as connection:
            differences = compare_metadata(MigrationContext.configure(connection), tables.metadata)
    finally:
        engine.dispose()

    assert differences == []


def test_a_step_is_called_what_it_is() -> None:
    """Each step's file is named by the step's own number, and each follows the one before it."""
    steps = [
        (name, import_module(f"comfyserve.store.migrations.{name}"))
        for name in sorted(file.stem for file in Path(migrations.__path__[0]).glob("v*.py"))
    ]

    assert [step.revision for _, step in steps] == [name[1:5] for name, _ in steps]
    assert [step.down_revision for _, step in steps] == [
        None,
        *(step.revision for _, step in steps[:-1]),
    ]


async def test_a_newer_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    """A database of a version to come is not touched, and the message says what to do."""
    async with Store.open(tmp_path):
        pass
    path = tmp_path / DATABASE_NAME
    _execute(path, "UPDATE alembic_version SET version_num = '0999'")

    with pytest.raises(SchemaTooNew, match=r"0999.*Update comfyserve"):
        async with Store.open(tmp_path):
            pass

    _execute(path, "UPDATE alembic_version SET version_num = '0003'")
    async with Store.open(tmp_path) as store:
        assert await store.jobs.waiting() == 0


def _execute(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path)
    try:
        assert connection.execute(statement).rowcount == 1
        connection.commit()
    finally:
        connection.close()


async def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    """A file that is no database is not overwritten, and the error names it."""
    path = tmp_path / DATABASE_NAME
    path.write_bytes(b"this is no database" * 100)

    with pytest.raises(StoreUnavailable, match="not a database"):
        async with Store.open(tmp_path):
            pass

    assert path.read_bytes().startswith(b"this is no database")


async def test_a_folder_that_cannot_be_is_refused(tmp_path: Path) -> None:
    """A data folder whose place is taken by a file gives our error, not the system's."""
    (tmp_path / "file").write_text("", encoding="utf-8")

    with pytest.raises(StoreUnavailable, match="file"):
        async with Store.open(tmp_path / "file" / "data"):
            pass


async def test_a_locked_database_fails_a_rare_write_clearly(tmp_path: Path) -> None:
    """What goes through SQLAlchemy gives the same error, and changes nothing."""
    async with Store.open(tmp_path, busy_timeout=0.05) as store:
        job_id = await succeeded(store, expires_at=9e9)
        other = sqlite3.connect(tmp_path / DATABASE_NAME, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked"):
            await store.jobs.delete(job_id)
        other.close()

        assert (await store.jobs.get(job_id)).id == job_id
