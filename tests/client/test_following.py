"""A job on a comfyserve is followed to its end whatever happens to the connections."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from comfyserve import (
    AsyncClient,
    AsyncJobHandle,
    Event,
    JobStatus,
    Noted,
    OutputSaved,
    StatusChanged,
)
from comfyserve.client.api import Api
from comfyserve.client.servers import Address, kind_of, session
from comfyserve.client.story import Story
from comfyserve.comfy.http import Timeouts
from comfyserve.errors import BackendLost, JobRemoved
from comfyserve.events import NumberedEvent, ProgressMade
from tests.client.graphs import emitting, ticking
from tests.client.proxies import dropping_proxy
from tests.engines import RunningEngine
from tests.servers import RunningServer, running_server


@asynccontextmanager
async def asking(url: str, timeouts: Timeouts | None = None) -> AsyncIterator[Api]:
    """The questions that can be asked of the comfyserve at *url*."""
    timeouts = timeouts or Timeouts()
    async with session(Address(url, timeouts=timeouts)) as http:
        assert await kind_of(http) == "comfyserve"
        yield Api(http, timeouts, is_official=False)


def numbered(events: list[Event]) -> list[NumberedEvent]:
    return [event for event in events if isinstance(event, NumberedEvent) and event.seq is not None]


async def kept(server: RunningServer, job_id: str) -> list[int]:
    """The numbers of all events that the server keeps of an ended job."""
    address = f"{server.url}/api/jobs/{job_id}/events"

    def read() -> list[int]:
        with urllib.request.urlopen(address, timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return [int(line.removeprefix("id: ")) for line in lines if line.startswith("id: ")]

    return await asyncio.to_thread(read)


def many_events(outputs: int = 12) -> dict[str, dict[str, object]]:
    """A graph whose outputs come one after the other, with steps between them."""
    graph: dict[str, dict[str, object]] = {}
    for number in range(outputs):
        graph[f"{number}"] = emitting(f"{number}", 100, name=f"{number}.bin")["1"]
        graph[f"{number}t"] = ticking(30, 5)["7"]
    return graph


async def test_every_numbered_event_once_over_a_line_that_is_cut(hosted: RunningServer) -> None:
    """However often the connection is cut mid-stream, each numbered event comes once, in order."""
    async with asking(hosted.url) as direct:
        job = await direct.submit({"workflow": many_events()}, "cut")
    async with dropping_proxy(hosted.url) as proxy, asking(proxy.url) as api:
        proxy.cut_after = 2500
        async with asyncio.timeout(60):
            events = [event async for event in Story(api, str(job["id"])).events()]

        assert proxy.cuts >= 5
    seen = [event.seq for event in numbered(events)]
    assert seen == await kept(hosted, str(job["id"]))
    assert seen == list(range(1, len(seen) + 1))
    assert events[-1].is_last
    assert len([event for event in events if isinstance(event, OutputSaved)]) == 12
    values = [event.progress.value for event in events if isinstance(event, ProgressMade)]
    assert values == sorted(values)


async def test_outputs_come_whole_over_a_line_that_is_cut(
    hosted: RunningServer, tmp_path: Path
) -> None:
    """A large output is taken up where it broke off, and what arrives is what was made."""
    size = 1_000_000
    async with dropping_proxy(hosted.url) as proxy:
        async with AsyncClient(proxy.url, output_dir=tmp_path) as client:
            graph = emitting("0123456789", size, name="large.bin")
            await client.describe(graph)
            proxy.cut_after = 70_000
            async with asyncio.timeout(60):
                job = await client.run(graph)

        assert proxy.cuts >= 10
        assert proxy.passed < 1.5 * size
    assert job.outputs[0].to_bytes() == b"0123456789" * (size // 10)


async def test_an_answer_that_was_lost_makes_no_second_job(hosted: RunningServer) -> None:
    """A submission whose answer never came is found again, and its job runs once."""
    async with dropping_proxy(hosted.url) as proxy, AsyncClient(proxy.url) as client:
        graph = emitting()
        await client.describe(graph)
        proxy.swallow = b"POST /api/v2/jobs "
        async with asyncio.timeout(30):
            job = await client.run(graph)

        assert proxy.cuts == 1
    async with asking(hosted.url) as api:
        listed = (await api.jobs(limit="100"))["jobs"]
        assert [each["id"] for each in listed].count(job.id) == 1
        graphs = [await api.workflow(each["id"]) for each in listed[:5]]
    assert [each["workflow"] for each in graphs].count(graph) == 1


async def test_a_server_that_comes_back_is_followed_on(hosted: RunningServer) -> None:
    """While the server does not answer a note says so; afterwards nothing is missing."""
    async with dropping_proxy(hosted.url) as proxy, AsyncClient(proxy.url) as client:
        handle = await client.submit({**ticking(150, 20), **emitting()})
        async with asyncio.timeout(40):
            events: list[Event] = []
            is_back = False
            async for event in handle.events():
                events.append(event)
                if isinstance(event, ProgressMade) and proxy.is_listening and not is_back:
                    await proxy.vanish()
                if isinstance(event, Noted) and not proxy.is_listening:
                    await proxy.listen()
                    is_back = True

    notes = [event.message for event in events if isinstance(event, Noted)]
    assert len(notes) == 1
    assert "does not answer (the connection was refused); asking again for up to 60 s" in notes[0]
    assert handle.status == JobStatus.SUCCEEDED


async def test_a_server_that_is_killed_and_started_again(
    engine: RunningEngine, tmp_path: Path
) -> None:
    """A job goes on through the death of its server, and who follows it misses nothing."""
    with running_server(tmp_path / "data", backends=[engine.url]) as server:
        async with AsyncClient(server.url, output_dir=tmp_path / "out") as client:
            handle = await client.submit({**ticking(150, 20), **emitting("fox ", 400)})
            await running(handle)
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)

            async with asyncio.timeout(60):
                job = await handle.result()

        async with asking(server.url) as api:
            told = [event async for event in Story(api, handle.id).events()]
    assert job.outputs[0].to_bytes() == b"fox " * 100
    assert statuses([event async for event in handle.events()]) == statuses(told)
    assert len(job.outputs) == len([event for event in told if isinstance(event, OutputSaved)])


def statuses(events: list[Event]) -> list[JobStatus]:
    """The statuses that were told, places in the queue aside."""
    return [
        event.status
        for event in events
        if isinstance(event, StatusChanged) and event.queue_position is None
    ]


async def test_a_server_that_stays_away_is_lost(hosted: RunningServer) -> None:
    """A server that does not come back in time ends the wait, and says that it was lost."""
    async with (
        dropping_proxy(hosted.url) as proxy,
        AsyncClient(proxy.url, timeouts=Timeouts(away=1.0)) as client,
    ):
        handle = await client.submit(ticking(600, 50))
        await running(handle)
        await proxy.vanish()

        async with asyncio.timeout(20):
            with pytest.raises(BackendLost, match=r"was lost while the job was there"):
                await handle.result()
    async with AsyncClient(hosted.url) as client:
        await client.cancel(handle.id)


async def test_a_job_that_somebody_deletes_has_failed(hosted: RunningServer) -> None:
    """A job that the server no longer has is told as such, with no endless wait."""
    async with asking(hosted.url) as api:
        with pytest.raises(JobRemoved, match="no longer has the job"):
            async with asyncio.timeout(10):
                missing = "00000000-0000-4000-8000-000000000000"
                _ = [event async for event in Story(api, missing).events()]


@pytest.fixture(scope="module")
def narrow(
    engine: RunningEngine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    """A comfyserve that has room for one stream and one waiting job."""
    folder = tmp_path_factory.mktemp("narrow") / "data"
    with running_server(folder, backends=[engine.url], max_streams=1, queue_size=1) as server:
        yield server


async def test_without_a_stream_the_job_itself_is_asked(narrow: RunningServer) -> None:
    """Where as many streams are open as may be, a job is followed all the same, to its end."""
    async with AsyncClient(narrow.url) as first, AsyncClient(narrow.url) as second:
        listening = await first.submit(ticking(100, 20))
        async for event in listening.events():
            if isinstance(event, ProgressMade):
                break

        async with asyncio.timeout(30):
            job = await second.run(emitting())

        assert job.outputs[0].to_bytes() == b"fox " * 100
        await listening.cancel()
        await listening.wait(10)


async def test_a_full_queue_is_waited_for(narrow: RunningServer) -> None:
    """A job that the server cannot take yet waits outside, says so, and gets in when it can."""
    async with AsyncClient(narrow.url) as client:
        busy, waiting = await left_outside(client)
        note = await noted(waiting)

        await busy.cancel()

        assert (await waiting.result(30)).outputs
    assert note == "The server's queue is full; trying again in 2 s, for 60 s in all."


async def test_a_job_that_waits_outside_can_be_canceled(narrow: RunningServer) -> None:
    """Canceling a job that the server never took ends it at once."""
    async with AsyncClient(narrow.url) as client:
        busy, waiting = await left_outside(client)

        await waiting.cancel()

        assert await waiting.wait(1.5) == JobStatus.CANCELED
        await busy.cancel()
        await busy.wait(10)


async def left_outside(client: AsyncClient) -> tuple[AsyncJobHandle, AsyncJobHandle]:
    """A job that keeps the server busy, and one that it does not take while its queue is full."""
    busy = await client.submit(ticking(600, 50))
    await running(busy)
    for _ in range(10):
        handle = await client.submit(emitting())
        async with asyncio.timeout(10):
            first = await anext(handle.events())
        if isinstance(first, Noted):
            return busy, handle
    raise AssertionError("the queue takes more than it should")


async def noted(handle: AsyncJobHandle) -> str:
    """The first note on a job."""
    async with asyncio.timeout(10):
        async for event in handle.events():
            if isinstance(event, Noted):
                return event.message
    raise AssertionError("the job ended without a note")


async def running(handle: AsyncJobHandle) -> None:
    async with asyncio.timeout(10):
        async for event in handle.events():
            if isinstance(event, StatusChanged) and event.status == JobStatus.RUNNING:
                return
