"""Streams over a real socket: what a listener hears, how fast, and when nobody waits for him."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from fastapi import FastAPI, Request, Response

from comfyserve.cli.web_server import web_server_of
from comfyserve.events import Noted, OutputSaved, PreviewDrawn, ProgressMade
from comfyserve.feed import LocalFeed
from comfyserve.job_queue import JobQueue
from comfyserve.jobs import JobStatus, Lease, Offer, Preview, Progress
from comfyserve.server import streams
from comfyserve.server.frames import Frames
from comfyserve.server.links import Links
from comfyserve.server.problems import Answered
from comfyserve.server.streams import Streams
from comfyserve.store import Store
from tests.store.samples import GRAPH, output, status

SECONDS = 15.0
OFFERS = [Offer("http://gpu:8188", ("",))]


@dataclass
class Frame:
    """One frame as it came, and when; a comment has no name."""

    name: str
    data: Any = None
    id: int | None = None
    at: float = field(default_factory=time.monotonic)


@dataclass
class Served:
    """An app with both streams of every job, over a real queue."""

    url: str
    queue: JobQueue
    streams: Streams
    session: aiohttp.ClientSession

    async def submit(self) -> str:
        return (await self.queue.submit(GRAPH)).record.id

    async def running(self) -> Lease:
        """A new job that runs."""
        await self.queue.submit(GRAPH)
        claim = await self.queue.claim("server", OFFERS, lease=300)
        assert claim is not None
        await self.queue.record(claim.lease, [status(claim.lease, JobStatus.RUNNING)])
        return claim.lease

    async def end(self, lease: Lease) -> None:
        await self.queue.finish(lease, status(lease, JobStatus.SUCCEEDED))

    def get(self, path: str, **headers: str) -> Any:
        return self.session.get(self.url + path, headers=headers)

    async def hear(self, path: str, **headers: str) -> list[Frame]:
        """All frames of a stream, to its end."""
        async with asyncio.timeout(SECONDS), self.get(path, **headers) as response:
            assert response.status == 200
            return [frame async for frame in frames(response)]

    async def until_open(self, count: int) -> None:
        """Wait until so many streams are open."""
        await until(lambda: self.streams.open == count)


async def until(is_so: Callable[[], bool]) -> None:
    """Wait until it is so."""
    async with asyncio.timeout(SECONDS):
        while not is_so():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def frames(response: aiohttp.ClientResponse) -> AsyncIterator[Frame]:
    """The frames of a stream as they come."""
    buffer = b""
    async for piece in response.content.iter_any():
        buffer += piece
        while (end := buffer.find(b"\n\n")) >= 0:
            text, buffer = buffer[:end].decode(), buffer[end + 2 :]
            if text.startswith(":"):
                yield Frame(text)
                continue
            fields = dict(line.split(": ", 1) for line in text.split("\n"))
            number = int(fields["id"]) if "id" in fields else None
            yield Frame(fields["event"], json.loads(fields["data"]), number)
    assert buffer == b""


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    """The app on a free port of this machine; afterwards no task of it is left."""
    async with Store.open(tmp_path) as store:
        before = asyncio.all_tasks()
        queue = JobQueue(store.jobs, LocalFeed(), most_waiting=100, retention=3600)
        app = FastAPI()
        app.state.host = SimpleNamespace(job_queue=queue)
        app.state.streams = Streams(most=4)

        @app.get("/v2/{job_id}")
        async def v2(request: Request, job_id: str) -> Response:
            return await streams.v2_events(request, job_id, owner="", links=Links.of("http://a"))

        @app.get("/ours/{job_id}")
        async def ours(request: Request, job_id: str) -> Response:
            return await streams.our_events(request, job_id, owner="", links=Links.of("http://a"))

        app.add_middleware(Answered)
        async with listening(app) as url, aiohttp.ClientSession() as session:
            yield Served(url, queue, app.state.streams, session)
            queue.close()
        this = asyncio.current_task()
        await until(lambda: asyncio.all_tasks() <= {*before, this})


@asynccontextmanager
async def listening(app: FastAPI) -> AsyncIterator[str]:
    """The app behind the web server that `comfyserve serve` uses."""
    ready = asyncio.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = web_server_of(app, ready.set)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        async with asyncio.timeout(SECONDS):
            await ready.wait()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving


def told(job_id: str, value: float) -> ProgressMade:
    return ProgressMade(job_id, Progress(value=value, nodes_done=1, nodes_total=2))


async def test_our_stream_tells_all_and_can_be_resumed(served: Served) -> None:
    """Every lasting frame has its number, and who comes back with one hears what follows it."""
    lease = await served.running()
    await served.queue.record(lease, [Noted(lease.job_id, "info", "Late.", {"by": "1 s"})])
    await served.queue.record(lease, [OutputSaved(lease.job_id, output())])
    await served.end(lease)

    whole = await served.hear(f"/ours/{lease.job_id}")
    by_header = await served.hear(f"/ours/{lease.job_id}?after=1", **{"Last-Event-ID": "3"})
    by_query = await served.hear(f"/ours/{lease.job_id}?after=4")

    assert [(frame.name, frame.id) for frame in whole] == [
        ("status", 1),
        ("status", 2),
        ("log", 3),
        ("output", 4),
        ("status", 5),
    ]
    assert whole[2].data == {"level": "info", "message": "Late.", "details": {"by": "1 s"}}
    assert (whole[4].data["status"], whole[4].data["error"]) == ("succeeded", None)
    assert [frame.id for frame in by_header] == [4, 5]
    assert [frame.id for frame in by_query] == [5]


async def test_nothing_can_follow_the_end(served: Served) -> None:
    """Who has heard the last event and comes back is told to stay away, as browsers need it."""
    lease = await served.running()
    await served.end(lease)

    async with served.get(f"/ours/{lease.job_id}?after=3") as response:
        assert (response.status, await response.read()) == (204, b"")


@pytest.mark.parametrize("after", ["-1", "x", "1.5", "99", "9" * 400, "", "²"])
async def test_a_number_that_is_none_is_refused(served: Served, after: str) -> None:
    """What is no number of an event of this job is 422, with what was seen."""
    job_id = await served.submit()

    async with served.session.get(served.url + f"/ours/{job_id}", params={"after": after}) as got:
        assert got.status == 422
        assert (await got.json())["error"]["code"] == "invalid_request"


@pytest.mark.parametrize("kind", ["v2", "ours"])
async def test_an_unknown_job_is_404_before_any_stream(served: Served, kind: str) -> None:
    """The answer is an error with a JSON body, no stream."""
    async with served.get(f"/{kind}/nobody") as response:
        assert response.status == 404
        assert (await response.json())["error"]["code"] == "not_found"


async def test_the_head_keeps_caches_and_proxies_out(served: Served) -> None:
    """A stream is neither stored nor held back on its way."""
    lease = await served.running()
    async with served.get(f"/v2/{lease.job_id}") as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["X-Accel-Buffering"] == "no"


async def test_a_v2_stream_begins_with_how_the_job_stands(served: Served) -> None:
    """Status, outputs, the latest progress and preview, then live; outputs before the end."""
    lease = await served.running()
    await served.queue.record(lease, [Noted(lease.job_id, "info", "Not told here.")])
    await served.queue.record(lease, [OutputSaved(lease.job_id, output("a.png"))])
    served.queue.tell(told(lease.job_id, 0.5))
    served.queue.tell(PreviewDrawn(lease.job_id, Preview("3", "image/png", b"early")))

    listening = asyncio.create_task(served.hear(f"/v2/{lease.job_id}"))
    await served.until_open(1)
    await served.queue.record(lease, [OutputSaved(lease.job_id, output("b.png", index=1))])
    await served.end(lease)
    heard = await listening

    names = [frame.name for frame in heard if frame.name not in ("progress", "preview")]
    assert names == ["status", "output", "output", "status"]
    assert heard[0].data == {"status": "running", "queue_position": None}
    assert [frame.data["name"] for frame in heard if frame.name == "output"] == ["a.png", "b.png"]
    assert next(frame.data["value"] for frame in heard if frame.name == "progress") == 0.5
    assert "preview" in {frame.name for frame in heard}
    assert heard[-1].data["status"] == "succeeded"
    assert all(frame.id is None for frame in heard)


async def test_a_v2_stream_of_an_ended_job_is_short(served: Served) -> None:
    """Its outputs and last progress, then one terminal status."""
    lease = await served.running()
    await served.queue.record(lease, [OutputSaved(lease.job_id, output())])
    served.queue.tell(told(lease.job_id, 0.75))
    await served.end(lease)

    heard = await served.hear(f"/v2/{lease.job_id}")

    assert [frame.name for frame in heard] == ["output", "progress", "status"]
    assert heard[1].data["value"] == 0.75


async def test_v2_progress_is_spared_and_the_last_is_sent(served: Served) -> None:
    """A hundred steps are a few frames, at least half a second apart, and the last is the last."""
    lease = await served.running()
    listening = asyncio.create_task(served.hear(f"/v2/{lease.job_id}"))
    await served.until_open(1)

    for step in range(1, 101):
        served.queue.tell(told(lease.job_id, step / 100))
        await asyncio.sleep(0.012)
    await served.end(lease)
    heard = await listening

    progress = [frame for frame in heard if frame.name == "progress"]
    assert 3 <= len(progress) <= 5
    pauses = [later.at - earlier.at for earlier, later in pairwise(progress[:-1])]
    assert min(pauses) > 0.35
    assert (heard[-2].data["value"], heard[-1].data["status"]) == (1.0, "succeeded")


async def test_our_stream_is_not_held_back(served: Served) -> None:
    """Whoever reads in time hears of every step."""
    lease = await served.running()
    async with asyncio.timeout(SECONDS), served.get(f"/ours/{lease.job_id}") as response:
        heard = frames(response)
        await anext(heard)
        await anext(heard)
        for step in range(1, 21):
            served.queue.tell(told(lease.job_id, step / 20))
            frame = await anext(heard)
            assert (frame.name, frame.data["value"]) == ("progress", step / 20)


async def test_what_came_together_is_sent_together(served: Served) -> None:
    """A job's last events are kept at once, so a listener gets them in one piece."""
    lease = await served.running()
    async with asyncio.timeout(SECONDS), served.get(f"/ours/{lease.job_id}") as response:
        pieces = chunks(response)
        heard = await anext(pieces)
        while b"id: 2" not in heard:
            heard += await anext(pieces)

        end = status(lease, JobStatus.SUCCEEDED)
        told = Noted(lease.job_id, "info", "Late."), OutputSaved(lease.job_id, output())
        await served.queue.finish(lease, end, events=told, progress=Progress(value=1.0))
        piece = await anext(pieces)

    names = [line for line in piece.split(b"\n") if line.startswith((b"event", b"id"))]
    assert names == [
        *(b"event: log", b"id: 3", b"event: output", b"id: 4"),
        *(b"event: progress", b"event: status", b"id: 5"),
    ]


async def chunks(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """What was sent at a time, each."""
    chunk = b""
    async for piece, is_whole in response.content.iter_chunks():
        chunk += piece
        if is_whole:
            yield chunk
            chunk = b""


async def test_a_v2_stream_does_not_say_twice_how_the_job_stands(served: Served) -> None:
    """Its place in the queue comes with the first status, and again only when it moved."""
    ahead, job_id = await served.submit(), await served.submit()
    async with asyncio.timeout(SECONDS), served.get(f"/v2/{job_id}") as response:
        heard = frames(response)
        told = [(await anext(heard)).data]
        await served.queue.cancel(ahead)
        told.append((await anext(heard)).data)

    assert told == [
        {"status": "queued", "queue_position": 2},
        {"status": "queued", "queue_position": 1},
    ]


async def test_a_silent_stream_says_that_it_stands(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In silence a comment comes again and again."""
    monkeypatch.setattr(streams, "KEEPALIVE", 0.1)
    lease = await served.running()
    async with asyncio.timeout(SECONDS), served.get(f"/v2/{lease.job_id}") as response:
        heard = frames(response)
        names = [(await anext(heard)).name for _ in range(3)]

    assert names == ["status", ": keepalive", ": keepalive"]


async def test_streams_end_whole_when_the_queue_closes(served: Served) -> None:
    """A server that stops ends its streams cleanly, without a status that is not true."""
    lease = await served.running()
    listeners = [
        asyncio.create_task(served.hear(f"/{kind}/{lease.job_id}")) for kind in ("v2", "ours")
    ]
    await served.until_open(2)

    served.queue.close()

    assert [heard[-1].data["status"] for heard in await asyncio.gather(*listeners)] == [
        "running",
        "running",
    ]


async def test_a_listener_who_leaves_leaves_nothing(served: Served) -> None:
    """His place is free at once, although nothing happens to the job."""
    lease = await served.running()
    async with served.get(f"/ours/{lease.job_id}") as response:
        await anext(frames(response))
        assert served.streams.open == 1
        response.close()

    await served.until_open(0)


async def test_only_so_many_streams_may_be_open(served: Served) -> None:
    """One more is 429 and says when to come again; a place that is free again is free."""
    lease = await served.running()
    open_streams = [await served.get(f"/v2/{lease.job_id}") for _ in range(4)]

    async with served.get(f"/ours/{lease.job_id}") as refused:
        assert (refused.status, refused.headers["Retry-After"]) == (429, "5")
        assert (await refused.json())["error"]["code"] == "too_many_streams"
    open_streams.pop().close()
    await served.until_open(3)
    async with served.get(f"/ours/{lease.job_id}") as taken:
        assert taken.status == 200

    for response in open_streams:
        response.close()


async def test_who_does_not_read_is_hung_up_and_slows_nobody(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """His connection is cut without a last frame; another listener hears everything in time."""
    monkeypatch.setattr(streams, "SEND_WITHIN", 0.5)
    lease = await served.running()
    host, port = served.url.removeprefix("http://").split(":")
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect((host, int(port)))
        deaf.sendall(f"GET /ours/{lease.job_id} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        await served.until_open(1)
        reading = asyncio.create_task(served.hear(f"/ours/{lease.job_id}"))
        await served.until_open(2)
        began = time.monotonic()
        while served.streams.open == 2:
            assert time.monotonic() - began < SECONDS
            picture = Preview("3", "image/png", b"x" * 200_000)
            served.queue.tell(PreviewDrawn(lease.job_id, picture))
            served.queue.tell(told(lease.job_id, 0.5))
            await asyncio.sleep(0.01)
        await served.end(lease)
        heard = await reading
        deaf.settimeout(SECONDS)
        got = bytearray()
        with suppress(ConnectionResetError):
            while piece := deaf.recv(1 << 16):
                got += piece

    assert heard[-1].data["status"] == "succeeded"
    assert [frame.id for frame in heard if frame.id] == [1, 2, 3]
    assert b"succeeded" not in got
    assert not got.endswith(b"0\r\n\r\n")


async def test_a_frame_is_made_once_for_all(served: Served) -> None:
    """Listeners of the same kind are sent the very same bytes."""
    lease = await served.running()
    record = (await served.queue.get(lease.job_id)).record
    event, links = told(lease.job_id, 0.5), Links.of("http://a")
    frames = Frames()

    first = frames.frame(event, links, record, numbered=True)

    assert frames.frame(event, Links.of("http://a"), record, numbered=True) is first
    for step in range(100):
        frames.frame(told(lease.job_id, step / 100), links, record, numbered=True)
    assert frames.frame(event, links, record, numbered=True) == first
