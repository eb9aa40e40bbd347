"""Noticing which backends answer, and knowing their nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from comfyserve.errors import BackendUnreachable
from comfyserve.fleet import Fleet, Member
from tests.hosts import until
from tests.machines import Machine
from tests.stories import connected

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
    async with connected(machine.url) as backend, Fleet.open([backend]) as fleet:
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
    async with connected(machine.url) as backend, Fleet.open([backend]) as fleet:
        [member] = fleet.members
        await until_known(member)
        before = member.since

        machine.kill()

        await until_down(member)
        assert member.since >= before
        assert member.catalog is not None and "TestSleep" in member.catalog
        assert "TestSleep" in await fleet.object_info()


async def test_a_restarted_backend_is_asked_for_its_nodes_anew(machine: Machine) -> None:
    """It may come back with other nodes than it had."""
    await machine.start()
    async with connected(machine.url) as backend, Fleet.open([backend]) as fleet:
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
    async with connected(machine.url) as backend, Fleet.open([backend]) as fleet:
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
    async with (
        connected(machine.url) as backend,
        connected(other.url) as absent,
        Fleet.open([absent, backend]) as fleet,
    ):
        assert await fleet.answers()
        assert [member.is_up for member in fleet.members] == [False, True]
        assert fleet.member(machine.url) is fleet.members[1]
        assert fleet.member("http://nobody") is None


async def until_known(member: Member) -> None:
    async def is_known() -> bool:
        return member.catalog is not None and member.backend.socket.is_open

    await until(is_known)
