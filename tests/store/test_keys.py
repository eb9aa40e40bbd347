"""Keys and counters in the store: kept, found by their hash, ended, seen by other processes."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from comfyserve.denials import InvalidRequest, KeyNameTaken, KeyNotFound
from comfyserve.jobs import JobStatus
from comfyserve.refusals import StoreUnavailable
from comfyserve.store import Key, Rate, Store, tables
from comfyserve.store.store import DATABASE_NAME
from tests.store.samples import START, Clock, claimed, running, submission, succeeded

FULL = Key(
    id="id-full",
    name="fül \U0001f98a",
    created_at=START,
    workflows=("portrait", "landscape"),
    may_graphs=True,
    may_publish=True,
    is_admin=True,
    rate=Rate(60, 60),
    concurrent=4,
    priority_max=7,
)


def key(name: str) -> Key:
    """A key that was just made, and may what every key may."""
    return Key(id=f"id-{name}", name=name, created_at=START)


async def revoked(store: Store, name: str) -> None:
    await store.keys.add(key(name), f"hash of {name}")
    await store.keys.revoke(name)


async def test_a_key_comes_back_as_it_was(store: Store) -> None:
    """All that a key may is kept, also that it may only what every key may."""
    await store.keys.add(FULL, "hash of full")
    await store.keys.add(key("plain"), "hash of plain")

    assert await store.keys.list() == (FULL, key("plain"))


async def test_a_key_without_workflows_is_none_for_all(store: Store) -> None:
    """No workflow at all is another thing than every workflow."""
    none = Key("id", "none", START, workflows=())

    await store.keys.add(none, "hash")

    assert (await store.keys.list())[0].workflows == ()


async def test_a_key_is_found_by_the_hash_of_its_secret(store: Store) -> None:
    """The right hash finds the key; one that only begins alike, or none, finds nothing."""
    hash = "ab" * 32
    await store.keys.add(FULL, hash)

    known = await store.keys.known()

    assert known is not None
    assert known.of(hash) == FULL
    assert known.of(hash[:-1] + "c") is None
    assert known.of("") is None
    assert hash not in repr(known) + repr(FULL)


async def test_keys_are_read_again_only_after_a_change(store: Store) -> None:
    """Making, ending and forgetting keys are changes, using one is not."""
    await store.keys.add(key("a"), "hash of a")
    made = await store.keys.known(unless=0)
    assert made is not None
    await store.keys.note_use("id-a")
    used = await store.keys.known(unless=made.change)
    await store.keys.revoke("a")
    ended = await store.keys.known(unless=made.change)
    assert ended is not None
    await store.keys.forget_all()
    forgotten = await store.keys.known(unless=ended.change)

    assert used is None
    assert [each.is_living for each in made] == [True]
    assert [each.is_living for each in ended] == [False]
    assert forgotten is not None
    assert len(forgotten) == 0
    assert await store.keys.known(unless=forgotten.change) is None


async def test_a_name_is_good_for_one_living_key(store: Store) -> None:
    """A second key of the same name is refused until the first one was revoked."""
    await store.keys.add(key("app"), "first")
    other = Key("other", "app", START)

    with pytest.raises(KeyNameTaken, match="'app'"):
        await store.keys.add(other, "second")
    await store.keys.revoke("app")
    await store.keys.add(other, "second")

    assert [each.is_living for each in await store.keys.list()] == [False, True]


@pytest.mark.parametrize("which", ["app", "id-app"])
async def test_a_key_is_ended_by_name_or_id(store: Store, clock: Clock, which: str) -> None:
    """It has the time of its end, which is told, and others go on."""
    await store.keys.add(key("app"), "hash of app")
    await store.keys.add(key("other"), "hash of other")
    clock.pass_seconds(5)

    ended = await store.keys.revoke(which)

    kept = {each.name: each.revoked_at for each in await store.keys.list()}
    assert (ended.name, ended.revoked_at) == ("app", START + 5)
    assert kept == {"app": START + 5, "other": None}


async def test_an_id_goes_before_a_name(store: Store) -> None:
    """Where one key is named like the id of another, the id is meant."""
    await store.keys.add(Key("one", "id-app", START), "first")
    await store.keys.add(key("app"), "second")

    assert (await store.keys.revoke("id-app")).name == "app"


async def test_who_is_not_there_is_not_ended(store: Store) -> None:
    """The sentence names the living key that looks most like it, or says it was revoked."""
    await store.keys.add(key("portrait-app"), "hash")
    await revoked(store, "old")

    with pytest.raises(KeyNotFound, match="Did you mean 'portrait-app'"):
        await store.keys.revoke("portrat-app")
    with pytest.raises(KeyNotFound, match="'old' was revoked before"):
        await store.keys.revoke("old")


async def test_a_use_is_noted_once_a_minute(store: Store, clock: Clock) -> None:
    """What comes within a minute of a noted use is not written."""
    await store.keys.add(key("app"), "hash")
    seen = []
    for seconds in (1, 30, 29.5, 0.5):
        clock.pass_seconds(seconds)
        await store.keys.note_use("id-app")
        seen.append((await store.keys.list())[0].last_used_at)

    assert seen == [START + 1, START + 1, START + 1, START + 61]


async def test_an_owners_unfinished_jobs_are_counted(store: Store) -> None:
    """Those that wait, are held or run count, those that are over or another's do not."""
    await succeeded(store, owner="ann")
    await running(store, owner="ann")
    await store.jobs.submit(submission(owner="ann"))
    await claimed(store)
    canceled = submission(owner="ann")
    await store.jobs.submit(canceled)
    await store.jobs.cancel(canceled.id)
    await store.jobs.submit(submission(owner="ann"))
    await store.jobs.submit(submission(owner="bob"))

    assert (await store.jobs.get(canceled.id)).status is JobStatus.CANCELED
    assert await store.jobs.unfinished("ann", 10) == 3
    assert await store.jobs.unfinished("ann", 2) == 2
    assert await store.jobs.unfinished("eve", 10) == 0


async def test_unfinished_jobs_are_counted_by_their_index(store: Store) -> None:
    """The count does not look at jobs that are over, however many there are."""
    plan = await store.jobs._database.look(
        lambda sql: sql.rows(
            f"EXPLAIN QUERY PLAN SELECT 1 FROM jobs WHERE owner = 'a' AND {tables.UNFINISHED}"
        )
    )

    assert [row["detail"] for row in plan] == [
        "SEARCH jobs USING COVERING INDEX jobs_unfinished (owner=? AND completed_at=?)"
    ]


async def test_a_counter_grows_by_one_for_each(store: Store) -> None:
    """Whoever increases it at the same time gets a number of its own."""
    before = await store.counters.get("turns")

    taken = await asyncio.gather(*(store.counters.increase("turns") for _ in range(20)))

    assert (before, sorted(taken)) == (0, list(range(1, 21)))
    assert await store.counters.get("turns") == 20


async def test_keys_are_made_beside_a_running_process(tmp_path: Path) -> None:
    """While one has the store open, another can still make keys, and the first one sees them."""
    async with Store.open(tmp_path) as serving:
        before = await serving.keys.known()
        assert before is not None
        async with Store.open_beside(tmp_path) as beside:
            await beside.keys.add(FULL, "hash")
        after = await serving.keys.known(unless=before.change)

    assert after is not None
    assert list(after) == [FULL]


async def test_keys_are_made_before_the_first_start(tmp_path: Path) -> None:
    """Where nobody has the store open, it is made, and is there when it is opened."""
    async with Store.open_beside(tmp_path / "new") as alone:
        await alone.keys.add(FULL, "hash")
    async with Store.open(tmp_path / "new") as serving:
        assert await serving.keys.list() == (FULL,)


async def test_beside_another_version_nothing_is_touched(tmp_path: Path) -> None:
    """A database that another version has open is left in its form."""
    async with Store.open(tmp_path):
        connection = sqlite3.connect(tmp_path / DATABASE_NAME)
        try:
            connection.execute("UPDATE alembic_version SET version_num = '0001'")
            connection.commit()
            with pytest.raises(StoreUnavailable, match="another version"):
                async with Store.open_beside(tmp_path):
                    pass
            found = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        finally:
            connection.close()

    assert found == ("0001",)


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("5/s", Rate(5, 1)),
        ("60/m", Rate(60, 60)),
        (" 60 / Minutes", Rate(60, 60)),
        ("500/h", Rate(500, 3600)),
        ("1000/day", Rate(1000, 86400)),
    ],
)
def test_a_rate_is_read_as_people_write_it(text: str, rate: Rate) -> None:
    """A number and a time, short or whole, make a rate, which is told in short."""
    assert Rate.parse(text) == rate
    assert Rate.parse(str(rate)) == rate


@pytest.mark.parametrize("text", ["", "60", "0/s", "-1/s", "1.5/s", "60/w", "60/", "/s", "6/s/s"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    """The sentence tells what was seen and what would do."""
    with pytest.raises(InvalidRequest, match=r"is no rate.*60/m") as refused:
        Rate.parse(text)

    assert repr(text) in str(refused.value)
