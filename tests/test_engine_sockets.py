"""Whose messages the built-in engine sends to which socket, and in whose turn."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.engine_client import EngineClient, engine_client, kinds, node
from tests.engines import RunningEngine, running_engine


@pytest.fixture(scope="module")
def engine() -> Iterator[RunningEngine]:
    with running_engine(test_nodes=True) as engine:
        yield engine


@pytest.fixture
async def client(engine: RunningEngine) -> AsyncIterator[EngineClient]:
    async with engine_client(engine.url) as client:
        await client.forget()
        yield client


PICTURE = {
    "1": node("EmptyImage", width=16, height=16, batch_size=1, color=255),
    "2": node("TestProgress", steps=2, delay_ms=1, previews=True, value=["1", 0]),
    "3": node("SaveImage", images=["2", 0], filename_prefix="fox"),
}


async def test_named_previews_come_before_their_progress(engine: RunningEngine) -> None:
    """A socket that asked for metadata gets event 4, which says whose preview it is."""
    async with engine_client(engine.url, named_previews=True) as client:
        await client.forget()
        heard = await client.run(PICTURE)

    steps = [each for each in kinds(heard) if each.startswith(("progress", "event"))]
    assert steps == ["event 4", "progress 1/2", "event 4", "progress 2/2"]
    frame = next(each for each in heard if isinstance(each, bytes))
    length = struct.unpack(">I", frame[4:8])[0]
    about = json.loads(frame[8 : 8 + length])
    assert (about["node_id"], about["image_type"]) == ("2", "image/jpeg")
    assert frame[8 + length :].startswith(b"\xff\xd8")


async def test_an_interrupt_of_another_prompt_does_nothing(client: EngineClient) -> None:
    """Neither an unknown id nor a waiting one interrupts the prompt that runs."""
    running = await client.submit({"1": node("TestProgress", steps=20, delay_ms=10)})
    waiting = await client.submit({"1": node("TestText", text="next")})
    await client.hear(lambda: client.is_stepping(running))

    await client.post("/interrupt", {"prompt_id": waiting})
    await client.post("/interrupt", {"prompt_id": "nobody"})
    await client.hear(lambda: client.has_ended(waiting))

    assert client.messages("execution_interrupted") == []


async def test_an_idle_interrupt_is_forgotten(client: EngineClient) -> None:
    """An interrupt while nothing runs does not hit the next prompt."""
    await client.post("/interrupt", {})

    await client.run({"1": node("TestText", text="still here")})

    assert client.messages("execution_interrupted") == []


async def test_who_comes_back_learns_where_its_prompt_is(engine: RunningEngine) -> None:
    """A socket that opens while its prompt runs hears the current node, without a prompt id."""
    async with engine_client(engine.url, "leaver") as first:
        prompt_id = await first.submit({"1": node("TestProgress", steps=100, delay_ms=10)})
        await first.hear(lambda: first.is_stepping(prompt_id))

    async with engine_client(engine.url, "leaver") as second:
        await second.hear(lambda: second.has_ended(prompt_id))

    assert second.messages("executing")[0] == {"node": "1"}
    assert len(second.messages("execution_success", prompt_id)) == 1


async def test_who_comes_late_hears_only_the_greeting(engine: RunningEngine) -> None:
    """After the end nothing is told again: a ping's answer is the next thing after the status."""
    async with engine_client(engine.url, "late") as client:
        await client.run({"1": node("TestText", text="over")})

    async with engine_client(engine.url, "late") as client:
        await client.say_features({})

    assert kinds(client.heard) == ["status 0", "feature_flags"]
    assert client.messages("status")[0]["sid"] == "late"


async def test_a_newer_socket_of_the_same_client_outlives_the_older(engine: RunningEngine) -> None:
    """With one client id twice the newer hears, and goes on hearing when the older closes."""
    async with engine_client(engine.url, "twin") as older, engine_client(engine.url, "twin") as new:
        await older.socket.close()
        heard = await new.run({"1": node("TestText", text="who hears?")})

    assert kinds(heard)[-1] == "executing None"


async def test_nobodys_prompt_tells_everyone_of_its_progress(engine: RunningEngine) -> None:
    """Without a client id, progress goes to all sockets, but neither start nor end is told."""
    async with engine_client(engine.url, "one") as one, engine_client(engine.url, "two") as two:
        await one.forget()
        prompt_id = await one.submit(PICTURE, client_id=None)
        await one.entry(prompt_id)
        for client in (one, two):
            await client.say_features({})

    for client in (one, two):
        told = {each.split()[0] for each in kinds(client.heard)}
        assert told == {"status", "state", "progress", "event", "feature_flags"}


async def test_order_is_by_number_then_front(client: EngineClient) -> None:
    """Lower numbers run first; `front` puts a prompt before all that were given no number."""
    blocker = await client.submit({"1": node("TestSleep", seconds=0.8, interruptible=True)})
    texts: list[tuple[str, dict[str, Any]]] = [
        ("plain", {}),
        ("front", {"front": True}),
        ("first", {"number": -1e6}),
    ]
    ids = {
        await client.submit({"1": node("TestText", text=text)}, **place): text
        for text, place in texts
    }
    await client.hear(lambda: all(map(client.has_ended, [blocker, *ids])))

    started = [each["prompt_id"] for each in client.messages("execution_start")]
    assert [ids[each] for each in started if each in ids] == ["first", "front", "plain"]


async def test_what_is_deleted_never_runs(client: EngineClient) -> None:
    """A prompt taken out of the queue sends nothing and leaves no history."""
    blocker = await client.submit({"1": node("TestSleep", seconds=0.8, interruptible=True)})
    deleted = await client.submit({"1": node("TestText", text="never")})
    last = await client.submit({"1": node("TestText", text="last")})

    await client.post("/queue", {"delete": [deleted]})
    await client.hear(lambda: client.has_ended(blocker) and client.has_ended(last))

    assert client.messages("execution_start", deleted) == []
    assert await client.get(f"/history/{deleted}") == {}


async def test_two_clients_hear_only_their_own(engine: RunningEngine) -> None:
    """Messages of a prompt go to its owner; the other socket hears only of the queue."""
    async with engine_client(engine.url, "one") as one, engine_client(engine.url, "two") as two:
        ids = await asyncio.gather(
            one.submit({"1": node("TestText", text="one", seed=1)}),
            two.submit({"1": node("TestText", text="two", seed=2)}),
        )
        await one.hear(lambda: one.has_ended(ids[0]))
        await two.hear(lambda: two.has_ended(ids[1]))

    assert {each["prompt_id"] for each in one.messages("execution_start")} == {ids[0]}
    assert {each["prompt_id"] for each in two.messages("execution_start")} == {ids[1]}
