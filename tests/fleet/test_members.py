"""Noticing which backends answer, and knowing their nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from comfyserve.comfy.backend import Backend
from comfyserve.errors import BackendUnreachable
from comfyserve.fleet import Device, Fleet, Member, System
from comfyserve.workflows.needs import Needs
from tests.hosts import WITHIN, until
from tests.machines import Machine
from tests.stand_ins import StandIn, nodes, standing_in
from tests.stories import HASTY

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path / "engine")
    try:
        yield machine
    finally:
        machine.close()


async def until_down(member: Member) -> None:
    async def is_down() -> bool:
        return not member.is_up

    await until(is_down)


async def test_a_backend_is_up_once_it_answers(machine: Machine) -> None:
    """Until then it says why it is not, and waiting for it goes on."""
    async with Fleet.open([backend_at(machine.url)]) as fleet:
        [member] = fleet.members
        assert not await fleet.answers()
        assert "refused" in member.reason
        waiting = asyncio.create_task(member.wait_until_up())
        with pytest.raises(BackendUnreachable):
            await fleet.object_info()

        await machine.start()

        await asyncio.wait_for(waiting, 20)
        assert member.is_up and member.reason == ""
        assert await fleet.answers()


async def test_a_lost_backend_is_noticed_and_its_nodes_are_kept(machine: Machine) -> None:
    """Its socket tells at once; what is known of its nodes stays true until it says otherwise."""
    await machine.start()
    async with Fleet.open([backend_at(machine.url)]) as fleet:
        [member] = fleet.members
        await until_known(member)
        before = member.since

        machine.kill()

        await until_down(member)
        assert member.since >= before
        assert member.catalog is not None and "TestSleep" in member.catalog
        assert b'"TestSleep"' in await fleet.object_info()


async def test_a_restarted_backend_is_asked_for_its_nodes_anew(machine: Machine) -> None:
    """It may come back with other nodes than it had."""
    await machine.start()
    async with Fleet.open([backend_at(machine.url)]) as fleet:
        [member] = fleet.members
        await until_known(member)

        machine.kill()
        await machine.start(test_nodes=False)

        async def is_renewed() -> bool:
            return member.catalog is not None and "TestSleep" not in member.catalog

        await until(is_renewed)
        assert member.is_up


async def test_a_suspect_is_asked_again(machine: Machine) -> None:
    """A job that failed on it marks it down at once, and its answer marks it up again."""
    await machine.start()
    async with Fleet.open([backend_at(machine.url)]) as fleet:
        [member] = fleet.members
        await until_known(member)

        member.suspect("It dropped a job.")

        assert not member.is_up
        assert member.reason == "It dropped a job."
        await asyncio.wait_for(member.wait_until_up(), 10)


async def test_one_backend_that_answers_is_enough(machine: Machine, tmp_path: Path) -> None:
    """The others are down without harm, and a member is found by its name."""
    await machine.start()
    other = Machine(tmp_path / "other")
    async with Fleet.open([backend_at(other.url), backend_at(machine.url)]) as fleet:
        assert await fleet.answers()
        assert [member.is_up for member in fleet.members] == [False, True]
        assert fleet.member(machine.url) is fleet.members[1]
        assert fleet.member("http://nobody") is None


def backend_at(url: str) -> Backend:
    """One that waits for nobody for long."""
    return Backend(url, timeouts=HASTY)


async def until_known(member: Member) -> None:
    async def is_known() -> bool:
        return member.catalog is not None and member.backend.socket.is_open

    await until(is_known)


async def test_what_a_backend_says_of_itself_is_known() -> None:
    """Its version and its devices, as far as they make sense."""
    async with standing_in(nodes("a.ckpt")) as there, fleet_of(there) as fleet:
        [member] = fleet.members
        await until_learned(member)

        async def is_told() -> bool:
            return bool(member.system.version)

        await until(is_told)
        assert member.system == System("0.3.50", (Device("cuda:0 A Card", "cuda", 8 << 30),))


async def test_a_catalogue_that_is_the_same_is_not_read_again() -> None:
    """It is asked for from time to time, and only what changed is taken in and told."""
    async with (
        standing_in(nodes("a.ckpt")) as there,
        Fleet.open([backend_at(there.url)], catalog_pause=0.05) as fleet,
    ):
        [member] = fleet.members
        await until_learned(member)

        async def is_asked_again() -> bool:
            return there.asked["/object_info"] > 2

        await until(is_asked_again)
        before, version = member.catalog, fleet.version

        async def is_asked_often() -> bool:
            return there.asked["/object_info"] > 6

        await until(is_asked_often)
        assert member.catalog is before
        assert fleet.version == version

        there.object_info = nodes("a.ckpt", "b.ckpt")
        async with asyncio.timeout(WITHIN):
            await fleet.wait_for_change(version)
        assert member.catalog is not None
        info = member.catalog.input("CheckpointLoaderSimple", "ckpt_name")
        assert info is not None and info.choices == ("a.ckpt", "b.ckpt")
        assert member.backend.known_catalog is member.catalog


async def test_a_socket_that_opens_again_has_the_nodes_read() -> None:
    """The backend may have been restarted with other ones, however quickly."""
    async with standing_in(nodes("a.ckpt")) as there, fleet_of(there) as fleet:
        [member] = fleet.members
        await until_learned(member)

        async def is_heard() -> bool:
            return member.backend.socket.is_open

        await until(is_heard)
        there.object_info = nodes("b.ckpt")
        await there.drop_sockets()

        async def has_other() -> bool:
            return fleet.can_run(member, Needs((), (("CheckpointLoaderSimple", *B),)))

        await until(has_other)


async def test_reading_the_nodes_is_shared() -> None:
    """Many who want fresh ones at once share one reading that begins after they asked."""
    async with standing_in(nodes("a.ckpt")) as there, fleet_of(there) as fleet:
        [member] = fleet.members
        await until_learned(member)
        before = there.asked["/object_info"]

        assert all(await asyncio.gather(*(member.read_catalog() for _ in range(20))))

        assert there.asked["/object_info"] - before in (1, 2)


async def test_a_backend_that_tells_no_nodes_keeps_the_last_ones() -> None:
    """An answer that makes no sense is no news."""
    async with standing_in(nodes("a.ckpt")) as there, fleet_of(there) as fleet:
        [member] = fleet.members
        await until_learned(member)
        before = member.catalog

        for nonsense in ({}, {"a": "b"}):
            there.object_info = nonsense
            assert not await member.read_catalog()
            assert member.catalog is before


async def until_learned(member: Member) -> None:
    async def is_learned() -> bool:
        return member.is_learned

    await until(is_learned)


B = ("ckpt_name", "b.ckpt")


def fleet_of(*servers: StandIn) -> AbstractAsyncContextManager[Fleet]:
    return Fleet.open([backend_at(server.url) for server in servers])
