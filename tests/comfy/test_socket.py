"""The one socket to a ComfyUI: who hears what, what may be lost, and how it comes back."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import aiohttp
import pytest
from aiohttp import web

from comfyserve.comfy.protocol import (
    FEATURE_FLAGS,
    Cached,
    Ended,
    Executed,
    Executing,
    NodeStates,
    NodeText,
    Picture,
    QueueLength,
    Started,
    Step,
    Succeeded,
)
from comfyserve.comfy.socket import Heard, Listener, Nudged, Socket, SocketLost, SocketOpened
from tests.comfy.tiny_server import TinyServer, hang, tiny_server

A, B = "0b2f5c1e-0000-4000-8000-00000000000a", "0b2f5c1e-0000-4000-8000-00000000000b"
DEADLINE = 10.0
JPEG = Picture(A, "3", "image/jpeg", b"\xff\xd8")
T = TypeVar("T")


def png(size: int) -> Picture:
    return Picture(A, "9", "image/png", b"\x89" * size)


def step(number: int) -> Step:
    return Step(A, "3", number, 100_000)


async def soon(waiting: Awaitable[T]) -> T:
    async with asyncio.timeout(DEADLINE):
        return await waiting


async def all_of(listener: Listener) -> list[Heard]:
    """What waits in a listener right now."""
    found: list[Heard] = []
    while (heard := await listener.hear(0)) is not None:
        found.append(heard)
    return found


async def blocked(task: asyncio.Task[None]) -> bool:
    """Whether a task is still waiting after every other one had its turns."""
    for _ in range(20):
        await asyncio.sleep(0)
    return not task.done()


async def test_messages_are_heard_in_order() -> None:
    """A listener hears all that was said, in the order in which it was said."""
    listener = Listener()
    said: list[Heard] = [Started(A), step(1), JPEG, png(3), Ended(A)]
    for message in said:
        await listener.put(message)

    assert await all_of(listener) == said


async def test_silence_is_none() -> None:
    """When nothing comes in time the listener is told so, and hears what comes later."""
    listener = Listener()

    assert await soon(listener.hear(0.01)) is None
    hearing = asyncio.create_task(listener.hear(DEADLINE))
    await asyncio.sleep(0)
    listener.put_now(Nudged())
    assert await soon(hearing) == Nudged()


async def test_a_slow_listener_loses_previews_and_progress_first() -> None:
    """Of a flood, what a later message makes worthless goes; facts and outputs all stay."""
    listener = Listener()
    facts: list[Heard] = [Started(A), Cached(A, ()), png(10), Executed(A, "9", {}), Succeeded(A)]
    fleeting: list[Heard] = [step(0), JPEG, NodeStates(A, {}), NodeText("3", "x"), QueueLength(1)]
    for number in range(500):
        await listener.put(fleeting[number % 5])
        if number % 100 == 50:
            await listener.put(facts[number // 100])
    await listener.put(step(99))

    heard = await all_of(listener)

    assert [message for message in heard if message in facts] == facts
    assert len(heard) < 100
    assert heard[-1] == step(99)


async def test_the_latest_progress_is_never_the_one_that_is_lost() -> None:
    """However far behind a listener is, the newest step is there when it comes back."""
    listener = Listener()
    for number in range(10_000):
        await listener.put(step(number))

    assert (await all_of(listener))[-1] == step(9_999)


async def test_a_flood_of_facts_has_a_bound() -> None:
    """Facts that the history tells again stop piling up at some point; pictures do not."""
    listener = Listener()
    for number in range(30_000):
        listener.put_now(Executed(A, str(number), {}))
    await soon(listener.put(png(5)))

    heard = await all_of(listener)

    assert 1_000 < len(heard) <= 20_001
    assert heard[0] == Executed(A, "0", {})
    assert heard[-1] == png(5)


async def test_pictures_that_are_outputs_wait_for_room() -> None:
    """When too many bytes of outputs wait, the next one waits too, and none is lost."""
    listener = Listener()
    large = png(33 << 20)
    await soon(listener.put(large))
    await soon(listener.put(large))
    third = asyncio.create_task(listener.put(large))
    assert await blocked(third)
    await soon(listener.put(step(1)))

    assert await listener.hear(0) == large
    await soon(third)

    assert [await listener.hear(0) for _ in range(4)] == [large, step(1), large, None]


async def test_a_closed_listener_holds_nobody_up() -> None:
    """Once nobody listens, whoever waits for room goes on, and so does whoever comes after."""
    listener = Listener()
    for _ in range(2):
        await soon(listener.put(png(33 << 20)))
    waiting = asyncio.create_task(listener.put(png(33 << 20)))
    assert await blocked(waiting)

    listener.close()

    await soon(waiting)
    for _ in range(4):
        await soon(listener.put(png(33 << 20)))


@asynccontextmanager
async def socket_to(server: TinyServer, connect_timeout: float = 2.0) -> AsyncIterator[Socket]:
    async with aiohttp.ClientSession() as session:
        socket = Socket(
            session, f"{server.url}/ws", "me", headers={}, connect_timeout=connect_timeout
        )
        running = asyncio.create_task(socket.run())
        try:
            yield socket
        finally:
            running.cancel()
            [end] = await asyncio.gather(running, return_exceptions=True)
            assert isinstance(end, asyncio.CancelledError)


@pytest.fixture
async def server() -> AsyncIterator[TinyServer]:
    async with tiny_server() as server:
        yield server


@pytest.fixture
async def socket(server: TinyServer) -> AsyncIterator[Socket]:
    async with socket_to(server) as socket:
        yield socket


async def say(peer: web.WebSocketResponse, kind: str, **data: Any) -> None:
    await peer.send_json({"type": kind, "data": data})


async def hear(listener: Listener) -> Heard:
    """The next message that is no mere queue length."""
    async with asyncio.timeout(DEADLINE):
        while True:
            heard = await listener.hear(DEADLINE)
            assert heard is not None
            if not isinstance(heard, QueueLength):
                return heard


async def test_nothing_is_opened_until_somebody_wants_it(server: TinyServer) -> None:
    """A backend nobody uses has no open socket; one somebody listens to opens by itself."""
    async with socket_to(server) as socket:
        await asyncio.sleep(0)
        assert (socket.is_open, server.sockets) == (False, [])
        with socket.listening(A) as listener:
            assert await hear(listener) == SocketOpened()
            assert socket.is_open
    assert server.client_ids == ["me"]


async def test_the_first_words_ask_for_described_previews(
    server: TinyServer, socket: Socket
) -> None:
    """The handshake is the first message on every socket, also on one that was reopened."""
    with socket.listening(A) as listener:
        for _ in range(2):
            peer = await soon(server.connected.get())
            assert isinstance(await hear(listener), SocketOpened)
            assert await soon(server.said.get()) == FEATURE_FLAGS
            await peer.close()
            assert isinstance(await hear(listener), SocketLost)


async def test_each_listener_hears_its_own_prompt(server: TinyServer, socket: Socket) -> None:
    """What is said of one prompt is heard by its listener alone."""
    assert await soon(socket.opened(DEADLINE))
    peer = await soon(server.connected.get())
    with socket.listening(A) as of_a, socket.listening(B) as of_b:
        await say(peer, "execution_start", prompt_id=A)
        await say(peer, "executing", prompt_id=A, node=None)
        await say(peer, "execution_start", prompt_id=B)
        await say(peer, "execution_start", prompt_id="somebody else's")

        assert [await hear(of_a), await hear(of_a)] == [Started(A), Ended(A)]
        assert await hear(of_b) == Started(B)


async def test_the_queue_is_everybodys_business(server: TinyServer, socket: Socket) -> None:
    """A change of the queue's length is told to all who listen."""
    assert await soon(socket.opened(DEADLINE))
    peer = await soon(server.connected.get())
    with socket.listening(A) as of_a, socket.listening(B) as of_b:
        await say(peer, "status", status={"exec_info": {"queue_remaining": 7}})

        for listener in (of_a, of_b):
            assert await soon(listener.hear(DEADLINE)) == QueueLength(7)


async def test_a_nameless_message_is_about_the_running_prompt(
    server: TinyServer, socket: Socket
) -> None:
    """Previews, steps and texts that name no prompt go to the one that runs."""
    assert await soon(socket.opened(DEADLINE))
    peer = await soon(server.connected.get())
    jpeg = struct.pack(">II", 1, 1) + b"\xff\xd8"
    with socket.listening(A) as of_a, socket.listening(B) as of_b:
        await peer.send_bytes(jpeg)
        await say(peer, "execution_start", prompt_id=A)
        await peer.send_bytes(jpeg)
        await peer.send_bytes(struct.pack(">II", 3, 1) + b"3text")
        await say(peer, "progress", value=1, max=2)
        await say(peer, "executing", prompt_id=A, node=None)
        await peer.send_bytes(jpeg)
        await say(peer, "execution_start", prompt_id=B)
        await peer.send_bytes(jpeg)

        preview = Picture(None, None, "image/jpeg", b"\xff\xd8")
        assert [await hear(of_a) for _ in range(5)] == [
            Started(A),
            preview,
            NodeText("3", "text"),
            Step(None, None, 1.0, 2.0),
            Ended(A),
        ]
        assert [await hear(of_b), await hear(of_b)] == [Started(B), preview]


async def test_a_nameless_message_to_a_single_listener_is_its_own(
    server: TinyServer, socket: Socket
) -> None:
    """After a reconnect nobody says which prompt runs; with one listener there is no doubt."""
    assert await soon(socket.opened(DEADLINE))
    peer = await soon(server.connected.get())
    with socket.listening(A) as listener:
        await say(peer, "executing", node="3")

        assert await hear(listener) == Executing(None, "3", "3")


async def test_noise_breaks_nothing(server: TinyServer, socket: Socket) -> None:
    """Broken, unknown and empty frames are passed over; the next good one is heard."""
    assert await soon(socket.opened(DEADLINE))
    peer = await soon(server.connected.get())
    with socket.listening(A) as listener:
        for text in (
            "",
            "{",
            "[]",
            '{"type": "x"}',
            '{"type": "progress", "data": {"max": 1e999}}',
        ):
            await peer.send_str(text)
        for frame in (b"", b"\0\0\0\1", struct.pack(">II", 4, 99) + b"{", struct.pack(">II", 9, 9)):
            await peer.send_bytes(frame)
        await peer.send_bytes(struct.pack(">II", 4, 17) + b'{"prompt_id": []}')
        await peer.send_str('{"type": "progress", "data": {"value": 1' + "0" * 400 + ', "max": 1}}')
        await say(peer, "execution_start", prompt_id=A)

        assert await hear(listener) == Started(A)
        assert socket.is_open


async def test_a_lost_socket_is_told_and_comes_back(server: TinyServer, socket: Socket) -> None:
    """A listener hears of the loss with its reason, then of the new socket, and goes on."""
    with socket.listening(A) as listener:
        first = await soon(server.connected.get())
        assert await hear(listener) == SocketOpened()
        await first.close()
        lost = await hear(listener)
        second = await soon(server.connected.get())
        assert await hear(listener) == SocketOpened()
        await say(second, "execution_start", prompt_id=A)

        assert await hear(listener) == Started(A)
    assert isinstance(lost, SocketLost)
    assert lost.reason == "the server closed the socket (code 1000)"


async def test_a_socket_nobody_listens_to_is_not_reopened(server: TinyServer) -> None:
    """A loss while nobody listens is let be; the next who wants the socket opens it."""
    async with socket_to(server) as socket:
        assert await soon(socket.opened(DEADLINE))
        peer = await soon(server.connected.get())
        await peer.close()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await server.connected.get()

        assert not socket.is_open
        assert await soon(socket.opened(DEADLINE))
    assert len(server.sockets) == 2


async def test_a_deaf_socket_is_replaced(server: TinyServer, socket: Socket) -> None:
    """Reopening closes the old socket before the new one takes its client id."""
    with socket.listening(A) as listener:
        first = await soon(server.connected.get())
        assert await hear(listener) == SocketOpened()

        await soon(socket.reopen())

        assert isinstance(await hear(listener), SocketLost)
        assert await hear(listener) == SocketOpened()
        assert first.closed
    assert server.client_ids == ["me", "me"]


async def test_reopening_what_is_closed_changes_nothing(server: TinyServer, socket: Socket) -> None:
    """A socket that is not open has nothing to close."""
    await soon(socket.reopen())

    assert server.sockets == []


async def test_a_socket_that_cannot_open_says_why(server: TinyServer) -> None:
    """A failed handshake ends the wait at once, and the reason is kept."""
    server.on["GET /ws"] = web.Response(status=503)
    async with socket_to(server) as socket:
        assert not await soon(socket.opened(DEADLINE))
        assert "503" in socket.last_error


async def test_a_handshake_that_hangs_is_given_up(server: TinyServer) -> None:
    """A server that never answers the handshake holds nobody longer than the time to connect."""
    server.on["GET /ws"] = hang
    async with socket_to(server, connect_timeout=0.2) as socket:
        assert not await soon(socket.opened(DEADLINE))
        assert socket.last_error == "no answer in time"


async def test_the_server_that_comes_back_is_found(server: TinyServer, socket: Socket) -> None:
    """While somebody listens, failed handshakes are tried again until one succeeds."""
    server.on["GET /ws"] = web.Response(status=503)
    with socket.listening(A) as listener:
        assert not await soon(socket.opened(DEADLINE))
        del server.on["GET /ws"]

        assert await hear(listener) == SocketOpened()
    assert socket.is_open


async def test_what_was_said_too_early_is_not_lost(server: TinyServer, socket: Socket) -> None:
    """Messages of a prompt whose id the server chose are kept until we know the id."""
    assert await soon(socket.opened(DEADLINE))
    peer = await soon(server.connected.get())
    with socket.listening(A) as listener:
        await say(peer, "execution_start", prompt_id=B)
        await say(peer, "execution_cached", prompt_id=B, nodes=["3"])
        await say(peer, "execution_start", prompt_id=A)
        assert await hear(listener) == Started(A)

        socket.also(B, listener)
        await say(peer, "execution_success", prompt_id=B)

        heard = [await hear(listener) for _ in range(3)]
    assert heard == [Started(B), Cached(B, ("3",)), Succeeded(B)]


async def test_what_nobody_claims_has_a_bound(server: TinyServer, socket: Socket) -> None:
    """Of messages nobody listens to only the latest few are kept."""
    assert await soon(socket.opened(DEADLINE))
    peer = await soon(server.connected.get())
    with socket.listening(A) as listener:
        for number in range(1_000):
            await say(peer, "executed", prompt_id=B, node=str(number), output={})
        await say(peer, "execution_start", prompt_id=A)
        assert await hear(listener) == Started(A)

        socket.also(B, listener)
        heard = await all_of(listener)

    assert len(heard) < 500
    assert heard[-1] == Executed(B, "999", {})


async def test_who_left_hears_no_more(server: TinyServer, socket: Socket) -> None:
    """After the block a listener is forgotten, under every id it listened to."""
    assert await soon(socket.opened(DEADLINE))
    peer = await soon(server.connected.get())
    with socket.listening(A) as gone:
        socket.also(B, gone)
    with socket.listening("third") as present:
        for prompt_id in (A, B, "third"):
            await say(peer, "execution_start", prompt_id=prompt_id)
        assert await hear(present) == Started("third")

    assert [m for m in await all_of(gone) if not isinstance(m, QueueLength)] == []


async def test_pictures_that_wait_hold_the_server_back(server: TinyServer, socket: Socket) -> None:
    """Outputs over the socket arrive whole and in order, also by a listener that is late."""
    assert await soon(socket.opened(DEADLINE))
    peer = await soon(server.connected.get())
    count, size = 12, 8 << 20
    with socket.listening(A) as listener:
        await say(peer, "execution_start", prompt_id=A)
        sending = asyncio.create_task(_send_pngs(peer, count, size))
        assert await hear(listener) == Started(A)
        assert await blocked(sending)

        for number in range(count):
            picture = await hear(listener)
            assert isinstance(picture, Picture)
            assert picture.data == bytes([number]) * size
        await soon(sending)


async def _send_pngs(peer: web.WebSocketResponse, count: int, size: int) -> None:
    for number in range(count):
        await peer.send_bytes(struct.pack(">II", 1, 2) + bytes([number]) * size)
