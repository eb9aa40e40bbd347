"""What hosting keeps: published workflows, backends, their catalogues, learned times."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import create_engine, text

from comfyserve.jobs import Offer
from comfyserve.store import BackendRow, CatalogRow, LearnedTime, Store
from comfyserve.store.store import DATABASE_NAME
from tests.store.samples import START, Clock, claimed, submission

DAY = 86400.0
SEEN = LearnedTime("portrait", "http://gpu:8188", "", 3, 12.5, 0.5, START)


async def test_a_published_workflow_is_kept_as_it_was_sent(store: Store, clock: Clock) -> None:
    """Its bytes, its sidecar, and when; published again it is replaced, deleted it is gone."""
    first = await store.published.put("porträt", b"\x89PNG\0", "title = 'x'")
    clock.pass_seconds(5)
    second = await store.published.put("porträt", b"{}")
    other = await store.published.put("a", b"[]")

    assert (first.sidecar, first.changed_at) == ("title = 'x'", START)
    assert await store.published.list() == (other, second)
    assert (second.content, second.sidecar, second.changed_at) == (b"{}", None, START + 5)
    assert await store.published.delete("porträt") is True
    assert await store.published.delete("porträt") is False
    assert await store.published.list() == (other,)


async def test_a_backend_is_kept_with_its_catalogue(store: Store, clock: Clock) -> None:
    """How it stands and what it had last; who forgets it forgets also what was learned on it."""
    await store.backends.put("http://a", is_added=True, is_draining=False)
    await store.backends.put("http://b", is_added=False, is_draining=True)
    clock.pass_seconds(5)
    await store.backends.put("http://a", is_added=True, is_draining=True)
    for document in (b"old", b"new"):
        await store.backends.put_catalog("http://a", document, START)
    await store.times.save([replace(SEEN, backend="http://a"), SEEN])

    listed, catalogs = await store.backends.list(), await store.backends.catalogs()
    await store.backends.delete("http://a")

    b = BackendRow("http://b", False, True, START)
    assert listed == (b, BackendRow("http://a", True, True, START + 5))
    assert catalogs == (CatalogRow("http://a", b"new", START),)
    assert await store.backends.list() == (b,)
    assert await store.backends.catalogs() == ()
    assert await store.times.load() == (SEEN,)


async def test_learned_times_last_for_ninety_days(store: Store, clock: Clock) -> None:
    """Seen again they are replaced and stay; not seen for longer they are as good as gone."""
    node = replace(SEEN, node="KSampler", mean=9.0)
    await store.times.save([SEEN, node])
    clock.pass_seconds(60 * DAY)
    again = replace(SEEN, count=4, mean=11.0, seen_at=clock())
    await store.times.save([again])
    both = await store.times.load()
    clock.pass_seconds(31 * DAY)
    one = await store.times.load()
    forgotten = await store.times.forget_old()

    assert both == (again, node)
    assert one == (again,)
    assert (forgotten, await store.times.forget_old()) == (1, 0)


async def test_no_more_times_are_kept_than_fit(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of too many those that were seen last stay."""
    monkeypatch.setattr("comfyserve.store.times.MOST_TIMES", 3)
    times = [replace(SEEN, subject=f"s{number}", seen_at=START + number) for number in range(5)]
    await store.times.save(times)

    assert await store.times.forget_old() == 2
    assert await store.times.load() == tuple(times[:1:-1])


@pytest.mark.parametrize("step", ["0001", "0002"])
async def test_an_older_database_goes_on(tmp_path: Path, step: str) -> None:
    """Opened by this version its jobs wait in their order, and their owners keep their shares."""
    path = tmp_path / DATABASE_NAME
    _make_old(path, step)
    _add_jobs(path)

    async with Store.open(tmp_path, clock=Clock()) as store:
        pools = set(store.jobs.waiting_pools)
        keys = await store.keys.list()
        await store.jobs.submit(submission(owner="flood"))
        offers = [Offer("b", ("",))]
        await store.jobs.submit(submission(owner="new", id="new"))
        order = [await claimed(store, offers=offers) for _ in range(4)]

    assert (pools, keys) == ({""}, ())
    assert [claim.record.owner for claim in order] == ["flood", "new", "flood", "flood"]
    assert [claim.record.estimate for claim in order] == [1.0] * 4
    assert order[0].record.timeout is None
    with closing(sqlite3.connect(path)) as connection:
        (version,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    assert version == "0003"


def _make_old(path: Path, step: str) -> None:
    """A database as the version with that last step made it."""
    names = {"0001": ["v0001_jobs_and_assets"], "0002": ["v0001_jobs_and_assets", "v0002_keys"]}
    engine = create_engine(f"sqlite:///{path}")
    try:
        with engine.begin() as connection:
            context = MigrationContext.configure(connection)
            with Operations.context(context):
                for name in names[step]:
                    import_module(f"comfyserve.store.migrations.{name}").upgrade()
            connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32))"))
            connection.execute(text(f"INSERT INTO alembic_version VALUES ('{step}')"))
    finally:
        engine.dispose()


def _add_jobs(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for turn in (40.0, 41.0, 42.0):
            connection.execute(
                "INSERT INTO jobs (id, owner, graph, files, seeds, inputs, status, pool, model,"
                " rank, turn, attempts, claims, last_event, outputs_reused, has_extra_data,"
                " created_at, expires_at) VALUES (?, 'flood', '{}', '[]', '{}', '{}', 'queued',"
                " '', '', 0, ?, 0, 0, 1, 0, 0, 1.0, 9e9)",
                (f"job {turn}", turn),
            )
        connection.execute("INSERT INTO owners VALUES ('flood', 1.0, 43.0)")
        connection.commit()
