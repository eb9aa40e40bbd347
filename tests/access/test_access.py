"""The keys of a server: made, ended, and asked for with every request."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from comfyserve.access import NOTICED_WITHIN, Access, Caller, NewKey
from comfyserve.access.key_secrets import new_secret
from comfyserve.denials import (
    InvalidRequest,
    KeyNameTaken,
    KeyNotFound,
    RateLimited,
    TooManyJobs,
    Unauthorized,
)
from comfyserve.refusals import StoreUnavailable
from comfyserve.store import Rate, Store
from comfyserve.store.store import DATABASE_NAME
from tests.store.samples import START, Clock, submission, succeeded

WITHIN = 20.0
"""Seconds that anything here may take on a busy machine."""


async def test_without_keys_nobody_needs_one(access: Access) -> None:
    """Everybody may do everything, and a key that somebody sends all the same is passed over."""
    for token in (None, "", new_secret(), "whatever"):
        assert await access.of(token) == Caller()

    assert not await access.asks_for_keys()


async def test_once_a_key_was_made_every_request_needs_one(access: Access) -> None:
    """Its secret tells who asks; nothing, or anything else, does not."""
    new = await access.create("app", workflows=["portrait"], rate="60/m", concurrent=4)

    caller = await access.of(new.secret)

    assert await access.asks_for_keys()
    assert caller.key == new.key
    assert (caller.owner, caller.rate, caller.concurrent) == (new.key.id, Rate(60, 60), 4)
    for token in (None, ""):
        with pytest.raises(Unauthorized, match=r"asks for a key.*Bearer"):
            await access.of(token)


async def test_who_stays_is_looked_at_again(access: Access) -> None:
    """A caller is renewed as long as its key lives, and one without a key until the first is
    made."""
    nobody = await access.of(None)
    assert await access.renewed(nobody) == nobody

    ann = await access.of((await access.create("ann")).secret)

    assert await access.renewed(ann) == ann
    with pytest.raises(Unauthorized, match="asks for a key"):
        await access.renewed(nobody)
    await access.revoke("ann")
    with pytest.raises(Unauthorized, match="revoked"):
        await access.renewed(ann)


async def test_a_typo_is_told_from_an_unknown_and_a_revoked_key(access: Access) -> None:
    """Each of the three is told what to do, and none is told its own secret."""
    new = await access.create("app")
    gone = await access.create("gone")
    await access.revoke("gone")
    told = {}
    for kind, token in {
        "typo": new.secret[:-1] + ("a" if new.secret[-1] != "a" else "b"),
        "cut": new.secret[:20],
        "name": "app",
        "unknown": new_secret(),
        "revoked": gone.secret,
    }.items():
        with pytest.raises(Unauthorized) as refused:
            await access.of(token)
        told[kind] = str(refused.value)
        assert refused.value.code == "unauthorized"

    assert all("mistyped or cut" in told[kind] for kind in ("typo", "cut", "name"))
    assert "not known here" in told["unknown"]
    assert "was revoked" in told["revoked"]


async def test_a_server_stays_closed_when_its_last_key_is_revoked(access: Access) -> None:
    """Ending a key never opens anything; a reset does, and the old key then means nothing."""
    new = await access.create("app")

    await access.revoke("app")
    with pytest.raises(Unauthorized):
        await access.of(None)
    with pytest.raises(Unauthorized):
        await access.of(new.secret)
    forgotten = await access.reset()

    assert forgotten == 1
    assert await access.of(None) == await access.of(new.secret) == Caller()
    assert await access.list() == ()


async def test_what_another_process_does_is_noticed(tmp_path: Path, ticks: Clock) -> None:
    """The first key closes the door, an end of a key holds, and a reset opens, within a second."""
    async with Store.open(tmp_path) as store, Store.open_beside(tmp_path) as beside:
        server = await Access.open(store, clock=ticks)
        terminal = await Access.open(beside)
        assert await server.of(None) == Caller()

        new = await terminal.create("app")
        ticks.pass_seconds(NOTICED_WITHIN + 0.1)
        with pytest.raises(Unauthorized):
            await server.of(None)
        assert (await server.of(new.secret)).key == new.key

        await terminal.revoke("app")
        ticks.pass_seconds(NOTICED_WITHIN + 0.1)
        with pytest.raises(Unauthorized, match="was revoked"):
            await server.of(new.secret)

        await terminal.reset()
        ticks.pass_seconds(NOTICED_WITHIN + 0.1)
        assert await server.of(None) == Caller()


async def test_a_key_of_another_process_is_good_at_once(
    store: Store, access: Access, ticks: Clock
) -> None:
    """Who was just given a key does not have to wait, be it the first one or another."""
    other = await Access.open(store, clock=ticks)

    first = await access.create("first")
    seen = [await other.of(first.secret)]
    second = await access.create("second")
    seen.append(await other.of(second.secret))

    assert [caller.key for caller in seen] == [first.key, second.key]


async def test_keys_are_not_looked_up_with_every_request(
    store: Store, access: Access, ticks: Clock
) -> None:
    """Between two looks a request is answered from memory, even while the database is gone."""
    new = await access.create("app")
    await access.of(new.secret)
    await store.keys.revoke("app")

    for _ in range(9):
        ticks.pass_seconds(0.1)
        assert (await access.of(new.secret)).key == new.key


async def test_where_the_keys_cannot_be_read_nobody_comes_in(tmp_path: Path, ticks: Clock) -> None:
    """A database that fails is an error, not an open door."""
    async with Store.open(tmp_path) as store:
        access = await Access.open(store, clock=ticks)
        assert await access.of(None) == Caller()
    ticks.pass_seconds(NOTICED_WITHIN + 0.1)

    with pytest.raises(StoreUnavailable):
        await access.of(None)


async def test_requests_that_come_together_are_all_answered(access: Access, ticks: Clock) -> None:
    """Many at once share one look, also where the one that looks is canceled."""
    new = await access.create("app")
    ticks.pass_seconds(NOTICED_WITHIN + 0.1)

    asked = [asyncio.create_task(access.of(new.secret)) for _ in range(50)]
    await asyncio.sleep(0)
    asked[0].cancel()
    async with asyncio.timeout(WITHIN):
        told = await asyncio.gather(*asked, return_exceptions=True)

    assert isinstance(told[0], asyncio.CancelledError)
    assert {caller.owner for caller in told[1:] if isinstance(caller, Caller)} == {new.key.id}
    assert len([caller for caller in told if isinstance(caller, Caller)]) == 49


async def test_the_use_of_a_key_is_noted_once_a_minute(
    access: Access, clock: Clock, ticks: Clock
) -> None:
    """The list tells when a key was last used, to the minute; unused ones never were."""
    new = await access.create("app")
    await access.create("idle")
    noted = []
    for seconds in (5, 30, 31):
        for each in (clock, ticks):
            each.pass_seconds(seconds)
        await access.of(new.secret)
        noted.append([key.last_used_at for key in await access.list()])

    assert noted == [[START + 5, None], [START + 5, None], [START + 66, None]]


async def test_a_use_that_cannot_be_noted_turns_nobody_away(tmp_path: Path) -> None:
    """While nothing can be written, those who only look are let in."""
    async with Store.open(tmp_path, busy_timeout=0.05) as store:
        access = await Access.open(store)
        new = await access.create("app")
        other = sqlite3.connect(tmp_path / DATABASE_NAME, isolation_level=None)
        try:
            other.execute("BEGIN IMMEDIATE")
            caller = await access.of(new.secret)
        finally:
            other.close()

        assert caller.key == new.key
        assert [key.last_used_at for key in await access.list()] == [None]


async def test_a_key_may_what_it_was_made_for(access: Access) -> None:
    """Everything that is said when it is made is kept, and told in the list."""
    new = await access.create(
        "studio \U0001f98a",
        workflows=["fox", "dog", "fox"],
        may_graphs=True,
        may_publish=True,
        is_admin=True,
        rate=Rate(5, 1),
        concurrent=1,
        priority_max=9,
    )

    (kept,) = await access.list()

    assert kept == new.key
    assert (kept.name, kept.workflows) == ("studio \U0001f98a", ("fox", "dog"))
    assert kept.priority_max == 9
    assert (kept.may_graphs, kept.may_publish, kept.is_admin) == (True, True, True)
    assert (kept.rate, kept.concurrent, kept.created_at) == (Rate(5, 1), 1, START)


@pytest.mark.parametrize(
    ("name", "fields", "sentence"),
    [
        ("", {}, "cannot name a key"),
        (" app", {}, "cannot name a key"),
        ("a\nb", {}, "cannot name a key"),
        ("a" * 101, {}, "cannot name a key"),
        ("\ud800", {}, "cannot name a key"),
        ("CS_app", {}, "cannot begin with cs_"),
        ("app", {"workflows": ["fox", ""]}, "cannot be the name of a workflow"),
        ("app", {"rate": "often"}, "is no rate"),
        ("app", {"concurrent": 0}, "concurrent is 0"),
        ("app", {"priority_max": -1}, "priority_max is -1"),
        ("app", {"priority_max": 2**31}, "priority_max is"),
    ],
)
async def test_a_key_that_makes_no_sense_is_not_made(
    access: Access, name: str, fields: dict[str, Any], sentence: str
) -> None:
    """The sentence says what is wrong, and everything stays as it was."""
    with pytest.raises(InvalidRequest, match=sentence):
        await access.create(name, **fields)

    assert await access.list() == ()
    assert not await access.asks_for_keys()


async def test_a_name_is_free_again_when_its_key_is_revoked(access: Access) -> None:
    """Two living keys never share a name; the new one of a name is not the old one."""
    old = await access.create("app")
    with pytest.raises(KeyNameTaken):
        await access.create("app")

    await access.revoke("app")
    new = await access.create("app")

    assert (await access.of(new.secret)).owner == new.key.id != old.key.id
    with pytest.raises(Unauthorized, match="was revoked"):
        await access.of(old.secret)


async def test_a_key_is_revoked_by_its_secret_too(access: Access) -> None:
    """Who finds a secret where it should not be can end it, without knowing its name."""
    leaked = await access.create("app")

    ended = await access.revoke(leaked.secret)

    assert (ended.id, ended.revoked_at) == (leaked.key.id, START)


async def test_a_secret_that_is_not_found_is_not_told(access: Access) -> None:
    """What looks like a secret is kept out of the error that it leads to."""
    await access.create("app")

    for secret in (new_secret(), new_secret()[:-3], new_secret().upper()):
        with pytest.raises(KeyNotFound) as refused:
            await access.revoke(secret)
        assert "cs_..." in str(refused.value)
        assert secret[4:] not in repr(refused.value) + str(refused.value.to_json())
    with pytest.raises(KeyNotFound, match="Did you mean 'app'"):
        await access.revoke("appp")


async def test_nothing_shows_a_secret(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """No text of any object, no log, no error and no byte on the disk holds a key's secret."""
    caplog.set_level(0)
    async with Store.open(tmp_path) as store:
        access = await Access.open(store)
        new = await access.create("app", rate="1/day")
        caller = await access.of(new.secret)
        await access.spend(caller)
        errors = await _errors(access, new, caller)
        known = await store.keys.known()
        objects = [new, new.key, caller, access, access.links, store, store.keys, known, *errors]
        shown = [f"{each!r} {each} {each:}" for each in objects]
        shown += [f"{error.__cause__!r} {error.__context__!r}" for error in errors]
        link_secret = access.links._secret
    on_disk = _bytes_in(tmp_path)
    told = "".join([*shown, caplog.text, *capfd.readouterr()])

    assert len(errors) == 6
    assert new.key.id.encode() in on_disk
    assert new.secret.encode() not in on_disk
    assert new.secret[3:20] not in told
    assert link_secret.hex() not in told
    assert repr(link_secret) not in told


def _bytes_in(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.iterdir() if file.is_file())


async def _errors(access: Access, new: NewKey, caller: Caller) -> list[Exception]:
    """What is raised where a good secret, or most of one, is used in wrong ways."""
    errors: list[Exception] = []
    for attempt in (
        access.of(new.secret + "a"),
        access.create(new.secret),
        access.revoke(new.secret + "a"),
        access.spend(caller),
        access.verify("/a", new.secret),
        _after_its_end(access, new),
    ):
        try:
            await attempt
        except Exception as error:
            errors.append(error)
    return errors


async def _after_its_end(access: Access, new: NewKey) -> None:
    await access.revoke(new.secret)
    await access.of(new.secret)


async def test_only_limited_keys_are_counted(access: Access) -> None:
    """Who has a rate is told when it is used up; others may come as often as they like."""
    limited = Caller((await access.create("limited", rate="2/day")).key)
    free = Caller((await access.create("free")).key)
    for _ in range(10):
        await access.spend(free)
        await access.spend(Caller())
    await access.spend(limited)
    await access.spend(limited)

    with pytest.raises(RateLimited) as refused:
        await access.spend(limited)

    assert refused.value.retry_after >= 1
    assert str(refused.value).startswith("This key's rate of 2/d is used up. Come again in ")


async def test_no_more_jobs_than_may_be_unfinished_come_in(store: Store, access: Access) -> None:
    """Of many that come together just as many are let in; one that ends makes room for one."""
    caller = Caller((await access.create("app", concurrent=3)).key)

    async def hand_in() -> None:
        async with access.place(caller):
            await store.jobs.submit(submission(owner=caller.owner))

    told = await asyncio.gather(*(hand_in() for _ in range(20)), return_exceptions=True)

    refused = [each for each in told if isinstance(each, TooManyJobs)]
    assert (len(refused), await store.jobs.unfinished(caller.owner, 99)) == (17, 3)
    assert str(refused[0]) == "This key may have 3 unfinished jobs at once. Wait for one to end."


async def test_a_job_that_is_over_makes_room(store: Store, access: Access) -> None:
    """Only jobs that are not over count, and only the caller's own."""
    caller = Caller((await access.create("app", concurrent=1)).key)
    await succeeded(store, owner=caller.owner)
    await store.jobs.submit(submission(owner="somebody else"))

    async with access.place(caller):
        await store.jobs.submit(submission(owner=caller.owner))

    with pytest.raises(TooManyJobs):
        async with access.place(caller):
            raise AssertionError("there was no room")


async def test_a_submission_that_fails_takes_no_place(access: Access) -> None:
    """What goes wrong inside the block leaves room for the next one."""
    caller = Caller((await access.create("app", concurrent=1)).key)

    for _ in range(2):
        with pytest.raises(ValueError, match="no graph"):
            async with access.place(caller):
                raise ValueError("no graph")
