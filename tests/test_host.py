"""Opening and closing everything that one server process holds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import pytest

from comfyserve.events import Event, NumberedEvent, StatusChanged
from comfyserve.host import open_host
from comfyserve.jobs import JobStatus
from comfyserve.refusals import DataFolderLocked, NotFound
from comfyserve.settings import BackendSettings, Settings
from tests.engines import RunningEngine, running_engine
from tests.hosts import emitting, end, hosting, submit, until

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEngine]:
    with running_engine(tmp_path_factory.mktemp("engine"), test_nodes=True) as running:
        yield running


async def test_a_second_process_is_refused(engine: RunningEngine, tmp_path: Path) -> None:
    """One data folder has one process, and the one that has it goes on."""
    async with hosting(tmp_path, engine.url) as host:
        with pytest.raises(DataFolderLocked):
            async with hosting(tmp_path, engine.url):
                pass
        assert (await end(host, await submit(host, emitting()))).status is JobStatus.SUCCEEDED


async def test_what_a_block_raises_comes_out_as_it_is(
    engine: RunningEngine, tmp_path: Path
) -> None:
    """Closing everything neither hides it nor wraps it."""
    with pytest.raises(ValueError, match="of the caller"):
        async with hosting(tmp_path, engine.url):
            raise ValueError("of the caller")


async def test_it_opens_and_closes_without_a_backend(tmp_path: Path) -> None:
    """A server starts at once, whatever its backends do, and leaves no task behind."""
    before = asyncio.all_tasks()
    began = time.monotonic()
    async with hosting(tmp_path, "http://127.0.0.1:9") as host:
        assert not (await host.is_ready()).is_ready
    assert time.monotonic() - began < 10
    assert asyncio.all_tasks() == before


async def test_every_kept_event_is_told_to_a_watch(engine: RunningEngine, tmp_path: Path) -> None:
    """Metrics hear all that lasts, in order."""
    heard: list[NumberedEvent] = []
    settings = Settings(data=tmp_path, backends=(BackendSettings(engine.url),))
    async with open_host(settings, watch=heard.append) as host:
        await end(host, await submit(host, emitting(1)))

    assert [event.seq for event in heard] == [1, 2, 3, 4]
    assert isinstance(heard[-1], StatusChanged) and heard[-1].status is JobStatus.SUCCEEDED


async def test_jobs_past_their_time_are_forgotten(engine: RunningEngine, tmp_path: Path) -> None:
    """The first sweep is at the start, and takes the outputs too."""
    async with hosting(tmp_path, engine.url, retention=0.2) as host:
        job_id = await submit(host, emitting(2))
        await end(host, job_id)

    async def is_past() -> bool:
        async with hosting(tmp_path, engine.url, retention=0.2) as host:
            await asyncio.sleep(0.1)
            try:
                await host.job_queue.get(job_id)
            except NotFound:
                return True
        return False

    await until(is_past)


async def test_a_graph_is_checked_against_the_nodes(engine: RunningEngine, tmp_path: Path) -> None:
    """What no backend would run is told node by node, and what is fine says nothing."""
    async with hosting(tmp_path, engine.url) as host:
        await host.fleet.members[0].wait_until_up()
        await host.fleet.refresh()
        assert await host.check_graph(emitting()) == {}

        problems = await host.check_graph({"3": {"class_type": "TestSlep", "inputs": {}}})

        assert list(problems) == ["3"]
        assert "TestSleep" in problems["3"][0].message
        assert b'"TestSleep"' in await host.object_info()


async def test_the_backend_knows_us_after_a_restart(engine: RunningEngine, tmp_path: Path) -> None:
    """The same data folder has the same client id, another one has another."""
    ids = []
    for folder in (tmp_path / "a", tmp_path / "a", tmp_path / "b"):
        async with hosting(folder, engine.url) as host:
            ids.append(host.fleet.members[0].backend.client_id)

    assert ids[0] == ids[1] != ids[2]


async def test_stopping_ends_every_stream(engine: RunningEngine, tmp_path: Path) -> None:
    """Who follows a job that is left behind is not left hanging, and stopping twice is fine."""
    async with hosting(tmp_path, "http://127.0.0.1:9", grace=0.0) as host:
        job_id = await submit(host, emitting(3))
        following = host.job_queue.follow(job_id)
        assert await anext(following)
        rest = asyncio.create_task(_all(following))

        await host.stop()
        await host.stop()

        assert not any(event.is_last for event in await asyncio.wait_for(rest, 10))
        assert host.is_stopping and not (await host.is_ready()).is_ready


async def _all(events: AsyncGenerator[Event]) -> list[Event]:
    return [event async for event in events]
