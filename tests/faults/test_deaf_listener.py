"""A listener that asks for a job's events and never reads them."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

import pytest

from tests.client.graphs import Graph
from tests.faults.conftest import Servers
from tests.faults.graphs import Counted
from tests.faults.honesty import check_honest
from tests.server_calls import ServerCalls, wait_until
from tests.servers import RunningServer

DEAF = 3
STEPS = 60
SLOWER = 2.0
"""How many times longer a job may take with deaf listeners, on a busy machine."""

MOST = 10

HUNG_UP = 45.0
"""Seconds in which a listener that reads nothing is hung up."""


@pytest.mark.timeout(120)
def test_a_deaf_listener_harms_nobody_and_is_hung_up(
    server: RunningServer, calls: ServerCalls
) -> None:
    """While some listeners read nothing, a job that tells megabytes takes no longer, and another
    listener hears it to its end, with the last step; they are hung up, and what was not sent by
    then is not kept for them."""
    alone = seconds_of(calls, talkative())
    job = calls.submit(talkative())
    with deaf_listeners(server, job["id"]) as sockets:
        began = time.monotonic()
        heard = calls.events(job["id"], after=0)
        took = time.monotonic() - began

        assert heard[-1].data["status"] == "succeeded"
        assert [frame for frame in heard if frame.event == "progress"][-1].data["value"] == 1.0
        assert any(frame.event == "preview" for frame in heard)
        assert took < alone * SLOWER + 1
        assert open_streams(calls) == DEAF
        wait_until(lambda: open_streams(calls) == 0, seconds=HUNG_UP)
        assert not any(map(hears_the_end, sockets))
    check_honest(calls, job["id"])


def test_listeners_that_vanish_leave_nothing(start_server: Servers) -> None:
    """Listeners that go without a word give their places free, however many come and go; while
    all places are taken one more is refused, and told when to try again."""
    server = start_server(max_streams=MOST)
    calls = ServerCalls(server.url)
    job = calls.submit(Counted(seconds=30).graph)
    calls.until_running(job["id"])
    events = f"/api/jobs/{job['id']}/events"

    for _ in range(3):
        with deaf_listeners(server, job["id"], count=MOST):
            assert open_streams(calls) == MOST
            refused = calls.ask("GET", events)
            assert refused.code == "too_many_streams"
            assert int(refused.headers["retry-after"]) > 0
        wait_until(lambda: open_streams(calls) == 0)

    calls.cancel(job["id"])
    assert calls.events(job["id"], after=0)[-1].data["status"] == "canceled"


@contextmanager
def deaf_listeners(
    server: RunningServer, job_id: str, count: int = DEAF
) -> Iterator[list[socket.socket]]:
    """Sockets that asked for the job's events and have read nothing of the answer."""
    address = urlsplit(server.url)
    request = (
        f"GET /api/jobs/{job_id}/events HTTP/1.1\r\nHost: {address.netloc}\r\n"
        "Accept: text/event-stream\r\n\r\n"
    )
    sockets: list[socket.socket] = []

    try:
        for _ in range(count):
            deaf = socket.socket()
            sockets.append(deaf)
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            deaf.settimeout(10)
            deaf.connect((address.hostname or "", address.port or 80))
            deaf.sendall(request.encode())
            assert deaf.recv(12, socket.MSG_PEEK).endswith(b" 200")
        yield sockets
    finally:
        for deaf in sockets:
            deaf.close()


def open_streams(calls: ServerCalls) -> int:
    """How many streams the server has open, as its metrics say."""
    lines = calls.ask("GET", "/metrics").body.decode().splitlines()
    [value] = [line.split()[1] for line in lines if line.startswith("comfyserve_streams_open ")]
    return int(float(value))


def hears_the_end(deaf: socket.socket) -> bool:
    """Whether what was sent, read at last to its end, tells that the job is over."""
    read = b""
    with suppress(ConnectionError):
        while piece := deaf.recv(1 << 20):
            read += piece
    return b"succeeded" in read


def talkative() -> Graph:
    """Tells some steps, with previews that make more than ten megabytes together."""
    inputs = {"steps": STEPS, "delay_ms": 20, "previews": True, "noise": 512}
    return {
        "7": {"class_type": "TestProgress", "inputs": {**inputs, "seed": random.randrange(2**40)}}
    }


def seconds_of(calls: ServerCalls, graph: Graph) -> float:
    """How long a job takes that nobody listens to."""
    began = time.monotonic()
    job = calls.until_over(calls.submit(graph)["id"])
    assert job["status"] == "succeeded"
    return time.monotonic() - began
