"""Jobs on their way through a host to a real engine, and back."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from comfyserve.events import OutputSaved, ProgressMade, StatusChanged
from comfyserve.host import Host
from comfyserve.jobs import JobStatus
from comfyserve.store.store import DATABASE_NAME
from tests.engines import RunningEngine, running_engine
from tests.hosts import (
    ask,
    emitting,
    end,
    hosting,
    inside,
    numbers,
    outputs,
    ran,
    sleeping,
    statuses,
    story,
    submit,
    until,
    until_status,
)

pytestmark = pytest.mark.timeout(90)

_LONG: dict[str, object] = {"seconds": 60.0, "interruptible": True, "value": ["1", 0]}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEngine]:
    with running_engine(tmp_path_factory.mktemp("engine"), test_nodes=True) as running:
        yield running


@pytest.fixture
async def host(engine: RunningEngine, tmp_path: Path) -> AsyncIterator[Host]:
    async with hosting(tmp_path / "data", engine.url) as opened:
        yield opened


# A plain job


async def test_a_job_runs_to_its_end(host: Host) -> None:
    """A job is told from queued over running to its end, its output before that, without a gap."""
    job_id = await submit(host, emitting(1))

    events = await story(host, job_id)

    assert statuses(events) == [JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.SUCCEEDED]
    assert outputs(events) == ["out.txt"]
    assert numbers(events) == [1, 2, 3, 4]
    standing = await host.job_queue.get(job_id)
    assert standing.record.status is JobStatus.SUCCEEDED
    assert standing.record.started_at is not None and standing.record.completed_at is not None
    [output] = standing.record.outputs
    assert output.id is not None
    asset = await host.asset_library.get(output.id)
    async with host.asset_library.content(asset) as chunks:
        assert b"".join([chunk async for chunk in chunks]) == b"x" * 1000


async def test_the_last_progress_comes_before_the_end(host: Host) -> None:
    """Who follows hears that all is done just before the end, and the record keeps it."""
    graph = {"1": {"class_type": "TestProgress", "inputs": {"steps": 5, "delay_ms": 20}}}
    job_id = await submit(host, graph)

    events = await story(host, job_id)

    assert isinstance(events[-2], ProgressMade) and events[-2].progress.value == 1.0
    running = next(
        place
        for place, event in enumerate(events)
        if isinstance(event, StatusChanged) and event.status is JobStatus.RUNNING
    )
    assert all(not isinstance(event, ProgressMade) for event in events[:running])
    progress = (await host.job_queue.get(job_id)).progress
    assert progress is not None and progress.value == 1.0


async def test_an_output_is_told_while_the_job_runs(host: Host) -> None:
    """An early output is there long before the job ends."""
    graph = {
        **emitting(7, name="early.txt"),
        "2": {"class_type": "TestSleep", "inputs": _LONG},
    }
    job_id = await submit(host, graph)

    async with asyncio.timeout(20):
        async for event in host.job_queue.follow(job_id):
            if isinstance(event, OutputSaved):
                break

    record = (await host.job_queue.get(job_id)).record
    assert [output.name for output in record.outputs] == ["early.txt"]
    assert record.status is JobStatus.RUNNING
    await host.job_queue.cancel(job_id)
    assert (await end(host, job_id)).status is JobStatus.CANCELED


async def test_a_graph_that_comfyui_refuses_fails(host: Host) -> None:
    """What ComfyUI says of a graph is why the job failed, with the node it is about."""
    graph = {"5": {"class_type": "TestSleep", "inputs": {"interruptible": True}}}
    job_id = await submit(host, graph)

    last = await end(host, job_id)

    assert last.status is JobStatus.FAILED
    assert last.error is not None
    assert (last.error.code, last.error.node_id) == ("invalid_workflow", "5")
    assert "seconds" in last.error.message
    assert "http" not in last.error.message


async def test_a_node_error_fails_the_job_at_once(host: Host) -> None:
    """A graph that fails is not tried again: it would fail again."""
    graph = {"1": {"class_type": "TestFail", "inputs": {"message": "no luck"}}}
    job_id = await submit(host, graph)

    last = await end(host, job_id)

    assert last.error is not None and last.error.code == "node_execution_error"
    assert (await host.job_queue.get(job_id)).record.attempts == 1


# Two at a time


async def test_one_runs_and_one_waits_inside_the_backend(host: Host, engine: RunningEngine) -> None:
    """The backend has the next job before it needs it, and never more than that."""
    jobs = [await submit(host, sleeping(0.3, seed)) for seed in range(100, 105)]
    seen: set[tuple[int, int]] = set()

    async def watch() -> None:
        while True:
            running, pending = await inside(engine.url)
            seen.add((len(running), len(pending)))
            await asyncio.sleep(0.005)

    watching = asyncio.create_task(watch())
    ends = [await end(host, job_id) for job_id in jobs]
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)

    assert {one.status for one in ends} == {JobStatus.SUCCEEDED}
    assert (1, 1) in seen
    assert max(running + pending for running, pending in seen) == 2
    ids = await ran(engine.url)
    assert [job_id for job_id in ids if job_id in jobs] == jobs


async def test_the_next_job_uploads_its_files_meanwhile(host: Host, engine: RunningEngine) -> None:
    """What the next job needs is brought to the backend while it still works on another."""

    async def content() -> AsyncIterator[bytes]:
        yield b"P5 1 1 255 a picture of the night"

    first = await submit(host, sleeping(60.0, 110))
    asset = (await host.asset_library.upload(content(), file_path="night.pgm")).asset
    reference = {"__type": "core/ASSET", "info": {"id": asset.id}}
    graph = {"1": {"class_type": "LoadImage", "inputs": {"image": reference}}}
    graph["2"] = {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "n"}}
    resolved = await host.asset_library.resolve(graph)
    second = await submit(host, resolved.graph, files=resolved.files)

    async def is_there() -> bool:
        return bool(list((engine.folder / "input" / "comfyserve").glob("*")))

    await until(is_there)

    assert first in (await inside(engine.url))[0]
    for job_id in (second, first):
        await host.job_queue.cancel(job_id)
        await end(host, job_id)


# Canceling


async def test_a_job_that_waits_inside_the_backend_is_canceled_at_once(
    host: Host, engine: RunningEngine
) -> None:
    """It is canceled before the caller has the answer, and the backend never begins it."""
    first = await submit(host, sleeping(60.0, 120))
    second = await submit(host, sleeping(0.0, 121))
    await until_status(host, first, JobStatus.RUNNING)

    async def waits_there() -> bool:
        return second in (await inside(engine.url))[1]

    await until(waits_there)

    standing = await host.job_queue.cancel(second)

    assert standing.record.status is JobStatus.CANCELED

    async def is_gone() -> bool:
        return second not in (await inside(engine.url))[1]

    await until(is_gone)
    await host.job_queue.cancel(first)
    assert (await end(host, first)).status is JobStatus.CANCELED
    assert second not in await ran(engine.url)


async def test_a_running_job_is_canceled(host: Host, engine: RunningEngine) -> None:
    """It is canceling until the backend has let go of it, and told so once."""
    job_id = await submit(host, sleeping(60.0, 130))
    await until_status(host, job_id, JobStatus.RUNNING)

    standing = await host.job_queue.cancel(job_id)

    assert standing.record.status is JobStatus.CANCELING
    events = await story(host, job_id)
    assert statuses(events) == [
        JobStatus.QUEUED,
        JobStatus.RUNNING,
        JobStatus.CANCELING,
        JobStatus.CANCELED,
    ]
    assert (await inside(engine.url)) == ([], [])


async def test_a_cancel_that_races_the_end_leads_to_one_state(host: Host) -> None:
    """Whenever the wish comes, the job ends once, and its record says how."""
    for number in range(25):
        job_id = await submit(host, emitting(1000 + number))
        await asyncio.sleep(number * 0.002)
        await host.job_queue.cancel(job_id)

        last = await end(host, job_id)

        assert last.status in (JobStatus.CANCELED, JobStatus.SUCCEEDED)
        record = (await host.job_queue.get(job_id)).record
        assert record.status is last.status
        assert bool(record.outputs) or last.status is JobStatus.CANCELED


# Time limits


async def test_a_job_that_runs_too_long_is_stopped(engine: RunningEngine, tmp_path: Path) -> None:
    """It fails with that reason, and the backend is free again."""
    async with hosting(tmp_path / "data", engine.url, timeout=0.4) as host:
        job_id = await submit(host, sleeping(60.0, 140))

        last = await end(host, job_id)

        assert last.status is JobStatus.FAILED
        assert last.error is not None and last.error.code == "job_timed_out"
        assert "0.4 s" in last.error.message
        assert (await inside(engine.url)) == ([], [])


async def test_a_job_that_waits_too_long_expires(engine: RunningEngine, tmp_path: Path) -> None:
    """Past its deadline it is not begun any more, nor where it waits inside the backend."""
    async with hosting(tmp_path / "data", engine.url, queue_timeout=0.5) as host:
        first = await submit(host, sleeping(60.0, 150))
        await until_status(host, first, JobStatus.RUNNING)
        second = await submit(host, sleeping(0.0, 151))
        third = await submit(host, sleeping(0.0, 152))

        assert (await end(host, third)).status is JobStatus.EXPIRED

        assert (await end(host, second)).status is JobStatus.EXPIRED

        async def is_alone() -> bool:
            return await inside(engine.url) == ([first], [])

        await until(is_alone)
        assert (await host.job_queue.get(first)).record.status is JobStatus.RUNNING
        await host.job_queue.cancel(first)
        assert (await end(host, first)).status is JobStatus.CANCELED


# Disks and databases


async def test_a_disk_that_takes_no_output_fails_the_job(
    engine: RunningEngine, tmp_path: Path
) -> None:
    """The reason is told, the server's folders are not, and the backend need not go on."""
    data = tmp_path / "data"
    graph = {
        **emitting(160),
        "2": {"class_type": "TestSleep", "inputs": _LONG},
    }
    async with hosting(data, engine.url) as host:
        (data / "incoming").rmdir()
        (data / "incoming").write_text("in the way", encoding="utf-8")
        job_id = await submit(host, graph)

        last = await end(host, job_id)

        assert last.status is JobStatus.FAILED
        assert last.error is not None and last.error.code == "output_unwritable"
        assert str(data) not in last.error.message

        async def is_idle() -> bool:
            return (await inside(engine.url)) == ([], [])

        await until(is_idle)


async def test_a_database_that_is_locked_for_a_while_loses_no_job(
    engine: RunningEngine, tmp_path: Path
) -> None:
    """What happened meanwhile is written when it can be, the output with it."""
    data = tmp_path / "data"
    async with hosting(data, engine.url, busy_timeout=0.1) as host:
        job_id = await submit(host, sleeping(0.3, 170))
        await until_status(host, job_id, JobStatus.RUNNING)
        other = sqlite3.connect(data / DATABASE_NAME, isolation_level=None, check_same_thread=False)
        # Whoever writes just then needs this loop to come to an end.
        await asyncio.to_thread(other.execute, "BEGIN IMMEDIATE")

        async def has_run() -> bool:
            return job_id in await ran(engine.url)

        await until(has_run)
        await asyncio.sleep(0.5)  # long enough that a write has failed
        await asyncio.to_thread(other.execute, "COMMIT")
        other.close()

        events = await story(host, job_id)

        assert statuses(events)[-1] is JobStatus.SUCCEEDED
        assert outputs(events) == ["out.txt"]


# Stopping and going on


async def test_stopping_lets_a_running_job_end(engine: RunningEngine, tmp_path: Path) -> None:
    """Within the grace period it ends as if nothing were; what was not begun stays queued."""
    data = tmp_path / "data"
    async with hosting(data, engine.url, grace=20.0) as host:
        jobs = [await submit(host, sleeping(0.5, 180 + number)) for number in range(4)]
        await until_status(host, jobs[0], JobStatus.RUNNING)

        await host.stop()

        assert (await host.job_queue.get(jobs[0])).record.status is JobStatus.SUCCEEDED
        assert (await host.job_queue.get(jobs[3])).record.status is JobStatus.QUEUED
        assert (await host.job_queue.get(jobs[3])).record.attempts == 0
    async with hosting(data, engine.url) as host:
        ends = [await end(host, job_id) for job_id in jobs]
        assert {one.status for one in ends} == {JobStatus.SUCCEEDED}


async def test_what_does_not_end_in_time_is_taken_up_by_the_next_process(
    engine: RunningEngine, tmp_path: Path
) -> None:
    """The job goes on inside the backend, is run once, and its attempt stays its first."""
    data = tmp_path / "data"
    async with hosting(data, engine.url, grace=0.0) as host:
        first = await submit(host, sleeping(1.5, 190))
        second = await submit(host, sleeping(0.0, 191))
        await until_status(host, first, JobStatus.RUNNING)

        async def waits_there() -> bool:
            return second in (await inside(engine.url))[1]

        await until(waits_there)
    async with hosting(data, engine.url) as host:
        events = {job_id: await story(host, job_id) for job_id in (first, second)}
        records = [(await host.job_queue.get(job_id)).record for job_id in (first, second)]

    for job_id in (first, second):
        assert statuses(events[job_id]) == [
            JobStatus.QUEUED,
            JobStatus.RUNNING,
            JobStatus.SUCCEEDED,
        ]
        assert outputs(events[job_id]) == ["out.txt"]
    assert [record.attempts for record in records] == [1, 1]
    ids = await ran(engine.url)
    assert [ids.count(job_id) for job_id in (first, second)] == [1, 1]


async def test_a_job_that_ended_while_nobody_listened_is_brought_home(
    engine: RunningEngine, tmp_path: Path
) -> None:
    """The history of the backend has what is needed."""
    data = tmp_path / "data"
    async with hosting(data, engine.url, grace=0.0) as host:
        job_id = await submit(host, sleeping(0.5, 200))
        await until_status(host, job_id, JobStatus.RUNNING)

    async def has_run() -> bool:
        return job_id in await ran(engine.url)

    await until(has_run)
    async with hosting(data, engine.url) as host:
        events = await story(host, job_id)

    assert statuses(events)[-1] is JobStatus.SUCCEEDED
    assert outputs(events) == ["out.txt"]


async def test_a_job_taken_up_can_be_canceled(engine: RunningEngine, tmp_path: Path) -> None:
    """Who asked for it before the process ended need not ask again."""
    data = tmp_path / "data"
    async with hosting(data, engine.url, grace=0.0) as host:
        job_id = await submit(host, sleeping(3.0, 210, interruptible=False))
        await until_status(host, job_id, JobStatus.RUNNING)
        await host.job_queue.cancel(job_id)
    async with hosting(data, engine.url) as host:
        assert (await end(host, job_id)).status is JobStatus.CANCELED


async def test_secrets_do_not_outlive_the_process(tmp_path: Path, engine: RunningEngine) -> None:
    """A job that came with secrets fails with that reason when they are gone before it ran."""
    data = tmp_path / "data"
    async with hosting(data, engine.url, grace=0.0) as host:
        busy = [await submit(host, sleeping(1.0, 220 + number)) for number in range(2)]
        await until_status(host, busy[0], JobStatus.RUNNING)
        job_id = await submit(host, emitting(222), extra_data={"api_key_comfy_org": "s3cret"})
    async with hosting(data, engine.url) as host:
        last = await end(host, job_id)
        for other in busy:
            await end(host, other)

    assert last.error is not None and last.error.code == "extra_data_lost"
    assert all(b"s3cret" not in file.read_bytes() for file in data.rglob("*") if file.is_file())


async def test_secrets_reach_the_backend(host: Host, engine: RunningEngine) -> None:
    """They go with the graph, and are forgotten at the job's end."""
    job_id = await submit(host, sleeping(60.0, 230), extra_data={"probe": "s3cret"})
    await until_status(host, job_id, JobStatus.RUNNING)

    queue: dict[str, Any] = await ask(engine.url, "/queue")

    assert queue["queue_running"][0][3]["probe"] == "s3cret"
    await host.job_queue.cancel(job_id)
    await end(host, job_id)
    assert host.job_queue.extra_data(job_id) is None
