"""Backends that are added, drained and removed while a server runs, and what a restart leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from comfyserve.comfy.backend import Backend
from comfyserve.denials import BackendAlreadyThere, BackendNotAdded, BackendNotFound
from comfyserve.errors import InvalidAddress
from comfyserve.fleet import Membership, Roster, Wanted
from comfyserve.store import Store
from tests.hosts import until
from tests.stand_ins import nodes, standing_in
from tests.stories import HASTY

pytestmark = pytest.mark.timeout(60)

NOWHERE = "http://127.0.0.1:9"
ELSEWHERE = "http://127.0.0.1:19"


def connect(wanted: Wanted) -> Backend:
    """A backend that waits for nobody for long."""
    return Backend(
        wanted.url,
        headers=wanted.headers,
        token=wanted.token,
        verify_tls=wanted.verify_tls,
        timeouts=HASTY,
    )


@asynccontextmanager
async def roster_in(folder: Path, *urls: str) -> AsyncIterator[Roster]:
    """The roster of a server whose settings have these backends."""
    async with (
        Store.open(folder) as store,
        Roster.open(store.backends, connect, [Wanted(url) for url in urls]) as roster,
    ):
        yield roster


def names(roster: Roster) -> list[str]:
    return [member.name for member in roster.fleet.members]


async def test_an_added_backend_stays(tmp_path: Path) -> None:
    """It is asked at once, and after a restart it is there again, with what it had."""
    async with standing_in(nodes("a.ckpt")) as there, roster_in(tmp_path, NOWHERE) as roster:
        member = await roster.add(Wanted(there.url))

        assert member.is_up and member.catalog is not None
        assert names(roster) == [NOWHERE, there.url]
        assert roster.membership(member) == Membership("added", True)
        url = there.url

    async with roster_in(tmp_path, NOWHERE) as roster:
        member = roster.find(url)
        assert not member.is_up
        assert member.catalog is not None and "SaveImage" in member.catalog
        assert roster.membership(member) == Membership("added", True)
        assert roster.membership(roster.find(NOWHERE)) == Membership("settings", True)


async def test_one_that_does_not_answer_joins_as_down(tmp_path: Path) -> None:
    """Unless it must answer: then it is not added, and why is said."""
    async with roster_in(tmp_path) as roster:
        with pytest.raises(BackendNotAdded, match="refused"):
            await roster.add(Wanted(NOWHERE), must_answer=True)
        assert names(roster) == []

        member = await roster.add(Wanted(NOWHERE))

        assert member.state == "down" and "refused" in member.reason
        assert roster.find(member.id) is roster.find(NOWHERE) is member


async def test_none_joins_twice(tmp_path: Path) -> None:
    """Nor does what is no address; who is not there cannot be found."""
    async with roster_in(tmp_path, NOWHERE) as roster:
        for same in (NOWHERE, f"{NOWHERE}/", "127.0.0.1:9"):
            with pytest.raises(BackendAlreadyThere):
                await roster.add(Wanted(same))
        with pytest.raises(InvalidAddress):
            await roster.add(Wanted("ftp://gpu"))
        with pytest.raises(BackendNotFound):
            roster.find("gpu")


@pytest.mark.parametrize(
    "wanted",
    [
        Wanted(ELSEWHERE, headers={"X-Key": "hush-hush"}),
        Wanted(ELSEWHERE, token="hush-hush"),
        Wanted("http://me:hush-hush@127.0.0.1:19"),
        Wanted("me:hush-hush@127.0.0.1:19"),
        Wanted(ELSEWHERE, verify_tls=False),
    ],
)
async def test_what_opens_a_door_is_never_stored(tmp_path: Path, wanted: Wanted) -> None:
    """Such a backend is there until the end of the process, draining or not, and that is said."""
    async with roster_in(tmp_path) as roster:
        member = await roster.add(wanted)
        await roster.drain(member)

        assert member.is_draining
        assert roster.membership(member) == Membership("added", False)
        assert "hush" not in member.name
    assert b"hush-hush" not in await asyncio.to_thread(stored_in, tmp_path)

    async with roster_in(tmp_path) as roster:
        assert names(roster) == []


def stored_in(folder: Path) -> bytes:
    """All that was written there."""
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


async def test_draining_lasts(tmp_path: Path) -> None:
    """Over a restart, for those of the settings and those that were added, until resumed."""
    async with roster_in(tmp_path, NOWHERE) as roster:
        for member in (roster.find(NOWHERE), await roster.add(Wanted(ELSEWHERE))):
            await roster.drain(member)

    async with roster_in(tmp_path, NOWHERE) as roster:
        assert [member.state for member in roster.fleet.members] == ["draining", "draining"]
        for member in roster.fleet.members:
            await roster.resume(member)

    async with roster_in(tmp_path, NOWHERE) as roster:
        assert names(roster) == [NOWHERE, ELSEWHERE]
        assert [member.state for member in roster.fleet.members] == ["down", "down"]


async def test_a_removed_backend_is_forgotten(tmp_path: Path) -> None:
    """One of the settings comes back with the next start, and nothing else does."""
    async with standing_in(nodes("a.ckpt")) as there:
        async with roster_in(tmp_path, NOWHERE) as roster:
            added = await roster.add(Wanted(there.url))
            await roster.drain(roster.find(NOWHERE))

            assert (await roster.remove(added)).origin == "added"
            assert (await roster.remove(roster.find(NOWHERE))).origin == "settings"

            assert names(roster) == []
            for change in (roster.remove, roster.drain):
                with pytest.raises(BackendNotFound):
                    await change(added)

        async with roster_in(tmp_path, NOWHERE) as roster:
            assert [(one.name, one.state) for one in roster.fleet.members] == [(NOWHERE, "down")]


async def until_up(name: str, roster: Roster) -> None:
    async def is_up() -> bool:
        return roster.find(name).is_up

    await until(is_up)


async def test_what_is_in_no_settings_any_more_is_forgotten(tmp_path: Path) -> None:
    """A backend that has another address at each start leaves nothing behind."""
    async with standing_in(nodes("a.ckpt")) as there:
        async with roster_in(tmp_path, there.url) as roster:
            await until_up(there.url, roster)
            await roster.fleet.refresh()
            await roster.drain(roster.find(there.url))
        url = there.url
    async with Store.open(tmp_path) as store:
        assert [row.url for row in await store.backends.catalogs()] == [url]

    async with roster_in(tmp_path, NOWHERE):
        pass

    async with Store.open(tmp_path) as store:
        assert await store.backends.catalogs() == ()
        assert await store.backends.list() == ()
