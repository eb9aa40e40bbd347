"""Whatever is sent on a socket gets an error or a close, and harms nobody else."""

from __future__ import annotations

import asyncio
import json
import socket as plain
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comfyserve.server.sockets.messages import FIELDS
from comfyserve.server.sockets.session import MOST_GARBLED
from tests.server.serving import NOWHERE
from tests.server.socket_calls import SECONDS, socket
from tests.server_calls import ServerCalls
from tests.servers import RunningServer, running_server

ANSWERS = {
    *("ready", "submitted", "following", "unfollowed", "canceled", "job", "pong"),
    *("error", "event"),
}
GARBLED = 4400
HANDSHAKE = (
    "GET /api/ws HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server whose jobs wait."""
    folder = tmp_path_factory.mktemp("garbage")
    with running_server(folder, backends=[NOWHERE], queue_size=10_000) as running:
        yield running
        # Nothing that a client sends is worth a traceback in the server's log.
        assert "Traceback" not in running.stderr, running.stderr


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4)
    ),
    max_leaves=10,
)
fields = sorted({"id", *(name for names in FIELDS.values() for name in names)})
near_messages = st.builds(
    lambda type, said: {"type": type, **said},
    st.sampled_from([*FIELDS, "sumbit", "", "event"]) | json_values,
    st.dictionaries(st.sampled_from(fields) | st.text(max_size=8), json_values, max_size=5),
)
garbage = (
    st.text(max_size=200)
    | st.binary(max_size=200)
    | st.builds(json.dumps, json_values)
    | st.builds(json.dumps, near_messages)
)


@settings(max_examples=60)
@given(messages=st.lists(garbage, min_size=1, max_size=8))
def test_no_garbage_gets_more_than_an_error(
    server: RunningServer, messages: list[str | bytes]
) -> None:
    """After anything at all the socket still answers, with messages that there are, or it was
    closed because too much made no sense."""
    asyncio.run(_send_all(server.url, messages))


async def _send_all(url: str, messages: list[str | bytes]) -> None:
    async with socket(url) as opened, asyncio.timeout(SECONDS):
        for message in messages:
            await opened.send(message)
        await opened.say("ping", id="the end")
        while True:
            answer = await opened.connection.receive()
            if answer.type is not aiohttp.WSMsgType.TEXT:
                assert opened.closed_with == GARBLED
                return
            said: dict[str, Any] = json.loads(answer.data)
            assert said["type"] in ANSWERS
            if said["type"] == "error":
                assert {*said["error"]} == {"code", "message", "details"}
                assert said["error"]["code"] != "upstream_error", said
            if said.get("id") == "the end":
                return


async def test_too_much_garbage_is_closed(server: RunningServer) -> None:
    """So many messages in a row that make no sense are answered, and the last one closes; one
    that makes sense in between begins the count anew."""
    async with socket(server.url) as opened:
        for _ in range(2):
            for _ in range(MOST_GARBLED - 1):
                await opened.send("{")
            assert (await opened.ask("ping"))["type"] == "pong"
        for _ in range(MOST_GARBLED):
            await opened.send("{")
        assert await opened.closed() == GARBLED


@settings(max_examples=40)
@given(content=st.binary(min_size=1, max_size=300))
def test_no_bytes_on_the_wire_harm_the_server(server: RunningServer, content: bytes) -> None:
    """What follows a handshake may be anything: the connection ends, and the server goes on."""
    with _connected(server) as sending:
        sending.sendall(content)

    assert ServerCalls(server.url).ask("GET", "/healthz").status == 200


def test_a_handshake_has_an_end(server: RunningServer) -> None:
    """One with a header that is too long is answered, and the connection closed."""
    address = urlsplit(server.url)
    shaken = HANDSHAKE.format(host=address.netloc).encode()
    with plain.create_connection((address.hostname or "", address.port or 0), SECONDS) as sending:
        sending.sendall(shaken.replace(b"\r\n\r\n", b"\r\nA: " + b"a" * 20_000 + b"\r\n\r\n"))

        assert _head(sending).split()[1] in (b"400", b"431")
        assert sending.recv(1) == b""


def test_endless_parts_have_an_end(server: RunningServer) -> None:
    """A message that comes in ever more parts, each of them empty, is refused."""
    with _connected(server) as sending:
        sending.sendall(b"\x01\x80aaaa")
        sending.sendall(b"\x00\x80aaaa" * 2000)
        got = b""
        while piece := sending.recv(1 << 16):
            got += piece

    assert (1009).to_bytes(2, "big") in got


def test_answers_to_pings_do_not_pile_up(server: RunningServer) -> None:
    """Who sends pings and reads no answer costs no more memory the longer he does."""
    ping = b"\x89\xfd" + bytes(4) + b"x" * 125
    with _connected(server) as sending:
        before = _resident(server)
        sending.sendall(ping * (60_000_000 // len(ping)))
        after = _resident(server)

    assert after - before < 30_000_000


@contextmanager
def _connected(server: RunningServer) -> Iterator[plain.socket]:
    """A connection on which a handshake was made."""
    address = urlsplit(server.url)
    with plain.socket() as sending:
        sending.settimeout(SECONDS)
        sending.setsockopt(plain.SOL_SOCKET, plain.SO_RCVBUF, 4096)
        sending.connect((address.hostname, address.port))
        sending.sendall(HANDSHAKE.format(host=address.netloc).encode())
        assert b" 101 " in _head(sending)
        yield sending


def _head(sending: plain.socket) -> bytes:
    """The head of an answer."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        piece = sending.recv(1)
        assert piece, head
        head += piece
    return head


def _resident(server: RunningServer) -> int:
    """The bytes of memory that the server has, where the system tells it; else none."""
    try:
        with open(f"/proc/{server.process.pid}/statm", encoding="ascii") as told:
            return int(told.read().split()[1]) * 4096
    except FileNotFoundError:
        return 0
