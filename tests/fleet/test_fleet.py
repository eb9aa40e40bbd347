"""Which backend can run what, and hearing of every change."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from comfyserve.comfy.backend import Backend
from comfyserve.errors import BackendUnreachable
from comfyserve.fleet import Fleet, Member
from comfyserve.fleet.catalogs import Catalogs
from comfyserve.workflows.needs import NOTHING, Lack, Needs
from tests.hosts import WITHIN, until
from tests.stand_ins import SAVE, StandIn, nodes, standing_in
from tests.stories import HASTY

pytestmark = pytest.mark.timeout(60)

NOWHERE = "http://127.0.0.1:9"
A = Needs(("SaveImage",), (("CheckpointLoaderSimple", "ckpt_name", "a.ckpt"),))
B = Needs(("SaveImage",), (("CheckpointLoaderSimple", "ckpt_name", "b.ckpt"),))
DICE = Needs(("Dice",))


def backend_at(url: str) -> Backend:
    """One that waits for nobody for long."""
    return Backend(url, timeouts=HASTY)


@asynccontextmanager
async def fleet_of(*servers: StandIn, **options: Any) -> AsyncIterator[Fleet]:
    """A fleet that knows the nodes of all its backends."""
    async with Fleet.open([backend_at(one.url) for one in servers], **options) as fleet:
        await until_learned(fleet)
        yield fleet


async def until_learned(fleet: Fleet) -> None:
    async def is_learned() -> bool:
        return all(member.is_learned for member in fleet.members)

    await until(is_learned)


async def test_each_backend_can_run_what_it_has() -> None:
    """Nodes and models decide; what needs nothing can run anywhere."""
    async with (
        standing_in(nodes("a.ckpt")) as one,
        standing_in(nodes("b.ckpt", Dice=SAVE)) as other,
        fleet_of(one, other) as fleet,
    ):
        first, second = fleet.members
        pools = {needs.pool: needs for needs in (A, B, DICE, NOTHING)}

        assert fleet.runnable(first, pools) == (A.pool, "")
        assert fleet.runnable(second, pools) == (B.pool, DICE.pool, "")
        assert fleet.can_run(first, A) and not fleet.can_run(second, A)


async def test_whose_nodes_nobody_knows_gets_only_what_needs_nothing() -> None:
    """A job waits rather than to go where it may not run."""
    async with Fleet.open([backend_at(NOWHERE)]) as fleet:
        [member] = fleet.members

        assert fleet.can_run(member, NOTHING)
        assert not fleet.can_run(member, A)
        assert [found.lacks for found in fleet.lacking(A)] == [None]


async def test_the_last_known_nodes_count_while_a_backend_is_down() -> None:
    """They are handed in when the fleet is opened; what is broken counts as not known."""
    known = {NOWHERE: gzip.compress(json.dumps(nodes("a.ckpt")).encode())}
    async with Fleet.open([backend_at(NOWHERE)], known=known) as fleet:
        [member] = fleet.members
        assert not member.is_up and not member.takes_jobs
        assert fleet.can_run(member, A) and not fleet.can_run(member, B)
        assert "SaveImage" in fleet.catalogs()[NOWHERE]

    async with Fleet.open([backend_at(NOWHERE)], known={NOWHERE: b"rust"}) as fleet:
        assert fleet.catalogs() == {}


async def test_what_backends_tell_is_handed_on_to_be_kept() -> None:
    """Once, and again only when it is something else."""
    kept: list[tuple[str, str]] = []

    async def keep(name: str, known: Any) -> None:
        kept.append((name, sorted(known.document())[0]))

    async with standing_in(nodes("a.ckpt")) as one, fleet_of(one, keep=keep) as fleet:
        await fleet.refresh()
        assert kept == [(one.url, "CheckpointLoaderSimple")]
        await fleet.refresh()
        assert len(kept) == 1

        one.object_info = {"Dice": SAVE}
        await fleet.refresh()
        assert kept[1:] == [(one.url, "Dice")]


async def test_the_same_nodes_are_kept_once() -> None:
    """Also where two backends tell them in another order."""
    turned = dict(reversed(nodes("a.ckpt").items()))
    async with (
        standing_in(nodes("a.ckpt")) as one,
        standing_in(nodes("a.ckpt")) as same,
        standing_in(turned) as other,
        fleet_of(one, same, other) as fleet,
    ):
        first, second, third = fleet.members
        assert first.known is second.known
        assert first.catalog is second.catalog is third.catalog


async def test_the_nearest_comes_first() -> None:
    """What each backend lacks is told with its number."""
    async with (
        standing_in(nodes("b.ckpt")) as one,
        standing_in(nodes("a.ckpt", Dice=SAVE)) as other,
        fleet_of(one, other) as fleet,
    ):
        needs = Needs(("Dice", "SaveImage"), (*A.choices,))

        found = fleet.lacking(needs)

        assert [(each.number, each.lacks) for each in found] == [
            (2, ()),
            (1, (Lack("Dice"), Lack(*A.choices[0]))),
        ]


async def test_every_change_is_heard() -> None:
    """Who waits is woken by a backend that comes, rests, works again, goes down, or leaves."""
    async with standing_in(nodes("a.ckpt")) as one, Fleet.open() as fleet:

        async def heard(since: int) -> int:
            async with asyncio.timeout(WITHIN):
                return await fleet.wait_for_change(since)

        version = fleet.version
        member = await fleet.add(backend_at(one.url))
        version = await heard(version)
        await member.wait_until_up()
        await until_learned(fleet)
        version = await heard(version)

        changes: tuple[Callable[[], None], ...] = (
            lambda: member.drain(True),
            lambda: member.drain(False),
            lambda: member.suspect("It dropped a job."),
        )
        for change in changes:
            waiting = asyncio.create_task(heard(version))
            await asyncio.sleep(0)
            change()
            assert await waiting > version
            version = fleet.version

        await fleet.remove(member)
        assert fleet.version > version and fleet.members == ()


async def test_a_backend_that_rests_takes_no_jobs_and_is_still_watched() -> None:
    """What runs there goes on, so whether it answers still counts."""
    async with standing_in(nodes("a.ckpt")) as one, fleet_of(one) as fleet:
        [member] = fleet.members
        assert (member.state, member.is_up, member.takes_jobs) == ("up", True, True)

        member.drain(True)

        assert (member.state, member.is_up, member.takes_jobs) == ("draining", True, False)
        assert fleet.can_run(member, A)
        assert await fleet.reasons_against() == ["Backend 1 of 1: It is draining."]

        member.drain(False)
        assert (member.state, await fleet.reasons_against()) == ("up", [])


async def test_jobs_are_given_back_before_a_backend_leaves() -> None:
    """Whoever asked for that is called while the backend can still be spoken to."""
    async with standing_in(nodes("a.ckpt")) as one, fleet_of(one) as fleet:
        [member] = fleet.members
        seen: list[tuple[Member, int]] = []

        async def give_back(leaving: Member) -> None:
            queue = await leaving.backend.queue()
            seen.append((leaving, len(queue.running)))
            assert fleet.members == ()

        fleet.before_leaving(give_back)
        await fleet.remove(member)

        assert seen == [(member, 0)]
        assert not await member.ask()
        assert not await member.read_catalog()
        with pytest.raises(BackendUnreachable):
            await member.backend.queue()
        await fleet.remove(member)
        assert len(seen) == 1


async def test_what_nobody_can_run_is_brought_to_the_nearest_in_the_end() -> None:
    """So that its caller is told why; but not while somebody is away who might run it."""
    needs = Needs(("Dice", "SaveImage"))
    async with (
        standing_in({"Other": SAVE}) as one,
        standing_in(nodes("a.ckpt")) as near,
        fleet_of(one, near, patience=0.1) as fleet,
    ):
        first, second = fleet.members

        async def is_let_through() -> bool:
            return fleet.can_run(second, needs)

        await until(is_let_through)
        assert not fleet.can_run(first, needs)

        first.drain(True)
        assert not fleet.can_run(second, needs)
        await asyncio.sleep(0.2)
        assert not fleet.can_run(second, needs)


async def test_all_nodes_as_one_document() -> None:
    """Of a class that several have the first counts; without any backend that is told."""
    own = {**SAVE, "display_name": "Mine"}
    async with (
        standing_in({"SaveImage": own}) as one,
        standing_in(nodes("a.ckpt")) as other,
        fleet_of(one, other) as fleet,
    ):
        document = json.loads(await fleet.object_info())
        assert document["SaveImage"] == own and "CheckpointLoaderSimple" in document

    async with Fleet.open() as empty:
        with pytest.raises(BackendUnreachable, match="there is no backend"):
            await empty.object_info()
        assert await empty.reasons_against() == ["There is no backend."]


async def test_only_a_document_with_nodes_is_a_catalogue() -> None:
    """Nothing else is taken for one, nor what was cut off on the disk."""
    catalogs = Catalogs()
    for nonsense in (b"", b"[]", b"{}", b'{"a": 1}', b"[" * 100_000):
        with pytest.raises(ValueError):
            await catalogs.read(nonsense)

    known = await catalogs.read(json.dumps(nodes("a.ckpt")).encode())
    assert await catalogs.unpack(known.packed) is known
    with pytest.raises(ValueError):
        await catalogs.unpack(known.packed[:-9])
