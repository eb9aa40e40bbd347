"""The async client, against the built-in engine and against a comfyserve in front of it."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import urllib.request
from asyncio import CancelledError
from collections.abc import Callable
from itertools import groupby
from pathlib import Path

import pytest

from comfyserve import (
    AsyncClient,
    AsyncJobHandle,
    BackendUnreachable,
    GraphRejected,
    InvalidInputs,
    JobCanceled,
    JobTimedOut,
    NodeFailed,
    OutOfMemory,
    OutputUnwritable,
    WorkflowUnreadable,
)
from comfyserve.client import async_client
from comfyserve.errors import ClientClosed
from comfyserve.events import OutputSaved, ProgressMade, StatusChanged
from comfyserve.jobs import JobStatus
from tests.client.conftest import Place
from tests.client.graphs import emitting, failing, inverting, ticking
from tests.engines import RunningEngine

SIZE = {"width": 8, "height": 8, "batch_size": 1}


async def running(handle: AsyncJobHandle) -> None:
    async with asyncio.timeout(10):
        async for event in handle.events():
            if isinstance(event, ProgressMade) and event.progress.step:
                return


async def until(holds: Callable[[], bool]) -> None:
    for _ in range(1000):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come about within 10 s")


async def test_runs_a_graph_and_brings_its_outputs(client: AsyncClient, tmp_path: Path) -> None:
    """A finished job has its outputs as files, with their real size and hash."""
    job = await client.run(emitting("fox ", 400), output_dir=tmp_path)

    (output,) = job.outputs
    assert output.path == tmp_path / "fox.bin"
    assert output.to_bytes() == b"fox " * 100
    assert (output.name, output.size_bytes, output.node_id) == ("fox.bin", 400, "1")
    assert output.hash.startswith("blake3:")
    assert job.status == JobStatus.SUCCEEDED
    assert not job.outputs_reused
    assert job.timings.running > 0


async def test_outputs_are_spooled_without_a_folder(client: AsyncClient, tmp_path: Path) -> None:
    """Without an output folder the bytes are there all the same, and can be copied anywhere."""
    job = await client.run(emitting())

    copy = job.outputs[0].to_file(tmp_path)

    assert copy == tmp_path / "fox.bin"
    assert copy.read_bytes() == job.outputs[0].to_bytes()


async def test_the_spool_goes_with_the_client(place: Place) -> None:
    """Closing the client removes what it kept for itself."""
    async with AsyncClient(place.url) as client:
        job = await client.run(emitting())
        path = job.outputs[0].path
        assert path.exists()

    assert not path.parent.exists()
    for look in (job.outputs[0].to_bytes, lambda: job.outputs[0].path):
        with pytest.raises(FileNotFoundError, match=r"fox\.bin is gone.*Pass output_dir"):
            look()


async def test_a_spooled_output_of_a_closed_client_is_no_input(place: Place) -> None:
    """An output whose client was closed cannot be sent any more, and the sentence says why."""
    async with AsyncClient(place.url) as closed:
        job = await closed.run(emitting())

    async with AsyncClient(place.url) as client:
        with pytest.raises(InvalidInputs, match=r"image cannot be sent: fox\.bin is gone"):
            await client.run(inverting(), image=job.outputs[0])


async def test_a_folder_that_takes_nothing_is_told_before_anything_is_queued(
    client: AsyncClient, engine: RunningEngine, tmp_path: Path
) -> None:
    """An output_dir that is a file is an error of `submit`, and the server hears nothing."""
    file = tmp_path / "here"
    file.touch()

    with pytest.raises(OutputUnwritable, match="it is a file, not a folder"):
        await client.submit(ticking(600, 50), output_dir=file)

    assert not is_busy(engine)


async def test_the_spool_keeps_only_what_somebody_refers_to(client: AsyncClient) -> None:
    """A long-lived client does not collect the files of jobs that nobody holds."""
    kept = await client.run(emitting())
    dropped = (await client.run(emitting())).outputs[0].path

    await until(lambda: not dropped.exists())
    assert kept.outputs[0].path.exists()


async def test_runs_a_file_with_inputs_by_address(client: AsyncClient, tmp_path: Path) -> None:
    """Any literal of a graph can be set by its address, and the ones really used are told."""
    file = tmp_path / "näme with blank.json"
    file.write_text('{"1": {"class_type": "TestText", "inputs": {"text": "", "seed": 3}}}')

    job = await client.run(file, {"1.text": "a fox", "1.seed": 5})

    assert job.outputs[0].to_text() == "a fox"
    assert job.inputs == {"1.text": "a fox", "1.seed": 5}


async def test_a_job_that_ran_before_is_reused(client: AsyncClient) -> None:
    """The same graph again gives the outputs of the first run, and says so."""
    graph = emitting()

    first = await client.run(graph)
    second = await client.run(graph)

    assert second.outputs_reused
    assert second.outputs[0].to_bytes() == first.outputs[0].to_bytes()


async def test_events_tell_the_whole_story(client: AsyncClient) -> None:
    """Events come typed and in order, end with the last status, and progress never goes back."""
    handle = await client.submit({**ticking(), **emitting()})

    events = [event async for event in handle.events()]

    told = [event.status for event in events if isinstance(event, StatusChanged)]
    statuses = [status for status, _ in groupby(told)]  # places in the queue are told as well
    assert statuses == [JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.SUCCEEDED]
    values = [event.progress.value for event in events if isinstance(event, ProgressMade)]
    assert values == sorted(values)
    assert values[-1] == handle.progress.value == 1.0
    assert [event.output for event in events if isinstance(event, OutputSaved)] == list(
        handle.outputs
    )
    assert events[-1].is_last


async def test_two_jobs_run_side_by_side(client: AsyncClient) -> None:
    """Jobs submitted at once each get their own outputs."""
    graphs = [emitting(f"{number}", 10, name=f"{number}.bin") for number in range(8)]

    jobs = await asyncio.gather(*(client.run(graph) for graph in graphs))

    contents = [job.outputs[0].to_bytes() for job in jobs]
    assert contents == [f"{number}".encode() * 10 for number in range(8)]


async def test_a_failed_node_is_a_typed_error(client: AsyncClient) -> None:
    """A failure names the node, its class and its words, and keeps what was saved before."""
    with pytest.raises(NodeFailed) as raised:
        await client.run(failing("no more paint"))

    error = raised.value
    assert (error.node_id, error.class_type) == ("2", "TestFail")
    assert error.message == "no more paint"
    assert [output.to_bytes() for output in error.outputs] == [b"fox " * 100]


async def test_too_little_memory_is_an_error_of_its_own(client: AsyncClient) -> None:
    """A node that runs out of memory can be told from one that fails."""
    with pytest.raises(OutOfMemory):
        await client.run({"1": {"class_type": "TestOutOfMemory", "inputs": {}}})


async def test_a_graph_the_server_will_not_run(client: AsyncClient) -> None:
    """A graph that the server rejects is an error of the handle, with the server's reasons."""
    handle = await client.submit({"1": {"class_type": "NoSuchNode", "inputs": {}}})

    assert await handle.wait(10) == JobStatus.FAILED
    with pytest.raises(GraphRejected, match="NoSuchNode"):
        await handle.result()
    last = [event async for event in handle.events()][-1]
    assert isinstance(last, StatusChanged)
    assert last.error is not None
    assert last.error.code == "invalid_workflow"


async def test_canceling_ends_exactly_one_job(client: AsyncClient) -> None:
    """Canceling one job ends it as canceled and leaves the one behind it alone."""
    long, short = await client.submit(ticking(600, 50)), await client.submit(emitting())
    await running(long)

    await long.cancel()

    with pytest.raises(JobCanceled):
        await long.result(10)
    assert (await short.result(10)).outputs


async def test_timings_grow_while_a_job_runs(client: AsyncClient) -> None:
    """Before its end a job tells how long it has taken so far, and afterwards how long it took."""
    handle = await client.submit(ticking(600, 50))
    await running(handle)

    early = handle.timings
    await until(lambda: handle.timings.running > early.running)
    await handle.cancel()
    await handle.wait(10)

    assert early.running > 0
    assert handle.timings == handle.timings
    assert handle.timings.running >= early.running


async def test_a_job_can_be_canceled_by_its_id(client: AsyncClient) -> None:
    """Whoever knows the id can cancel the job."""
    handle = await client.submit(ticking(600, 50))
    await running(handle)

    await client.cancel(handle.id)

    assert await handle.wait(10) == JobStatus.CANCELED


async def test_waiting_has_a_limit_and_the_job_goes_on(
    client: AsyncClient, engine: RunningEngine
) -> None:
    """After the time given the wait is over, and the job is not."""
    with pytest.raises(JobTimedOut) as raised:
        await client.run(ticking(600, 50), timeout=0.2)

    assert is_busy(engine)
    await client.cancel(raised.value.job_id)


async def test_canceling_a_run_cancels_its_job(engine: RunningEngine, place: Place) -> None:
    """A run that is canceled takes its job off the server."""
    async with AsyncClient(place.url) as client:
        task = asyncio.create_task(client.run(ticking(600, 50)))
        await until(lambda: is_busy(engine))

        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

        assert task.cancelled()
        await until(lambda: not is_busy(engine))


async def test_leaving_right_after_canceling_a_run_still_tells_the_server(
    engine: RunningEngine,
    place: Place,
) -> None:
    """A run that was canceled a moment before the client is closed is off the server as well."""
    async with AsyncClient(place.url) as client:
        task = asyncio.create_task(client.run(ticking(600, 50)))
        await until(lambda: is_busy(engine))
        task.cancel()

    assert (await asyncio.gather(task, return_exceptions=True))[0].__class__ is CancelledError
    await until(lambda: not is_busy(engine))


@pytest.mark.skipif(os.name == "nt", reason="a process cannot be paused on Windows")
async def test_a_server_that_cannot_be_told_is_no_success(
    engine: RunningEngine, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the server does not take the cancellation, the caller hears that the job may go on."""
    monkeypatch.setattr(async_client, "CANCEL_TIMEOUT", 0.3)
    async with AsyncClient(place.url) as client:
        task = asyncio.create_task(client.run(ticking(600, 50)))
        await until(lambda: is_busy(engine))
        place.process.send_signal(signal.SIGSTOP)
        try:
            task.cancel()
            with pytest.raises(CancelledError) as raised:
                await task
        finally:
            place.process.send_signal(signal.SIGCONT)
        (note,) = raised.value.__notes__
        assert "which may go on there" in note
        await client.cancel(note.partition("job ")[2].partition(",")[0])
    await until(lambda: not is_busy(engine))


async def test_a_closed_client_cannot_cancel(engine: RunningEngine, place: Place) -> None:
    """Canceling a job by a client that was closed is an error, not a silent nothing."""
    async with AsyncClient(place.url) as client:
        handle = await client.submit(ticking(600, 50))
        await running(handle)

    with pytest.raises(ClientClosed):
        await handle.cancel()
    assert not await async_client.cancel_quickly(handle)
    async with AsyncClient(place.url) as other:
        await other.cancel(handle.id)
        await until(lambda: not is_busy(engine))


def is_busy(engine: RunningEngine) -> bool:
    with urllib.request.urlopen(f"{engine.url}/queue", timeout=5) as answer:
        queue = json.load(answer)
    return bool(queue["queue_running"] or queue["queue_pending"])


async def test_closing_leaves_the_job_alone(engine: RunningEngine, place: Place) -> None:
    """Closing the client ends every wait, and the job goes on until somebody cancels it."""
    async with AsyncClient(place.url) as client:
        handle = await client.submit(ticking(600, 50))
        await running(handle)
        waiting = asyncio.create_task(handle.result())
        await asyncio.sleep(0)

    with pytest.raises(ClientClosed):
        await waiting
    async with AsyncClient(place.url) as other:
        assert is_busy(engine)
        await other.cancel(handle.id)
        await until(lambda: not is_busy(engine))


async def test_a_picture_can_be_given_in_any_form(client: AsyncClient, picture: Path) -> None:
    """A path, bytes, an open file and an earlier output all stand for the same picture."""
    content = (await client.run(inverting(), image=picture)).outputs[0].to_bytes()
    with picture.open("rb") as file:
        forms = [str(picture), picture, io.BytesIO(original(picture)), original(picture), file]
        jobs = [await client.run(inverting(), image=form) for form in forms]
    twice = await client.run(inverting(), image=jobs[0].outputs[0])

    assert {job.outputs[0].to_bytes() for job in jobs} == {content}
    assert pixel(twice.outputs[0].path) == (255, 0, 0)
    assert pixel(jobs[0].outputs[0].path) == (0, 255, 255)


def original(picture: Path) -> bytes:
    return picture.read_bytes()


def pixel(path: Path) -> object:
    from PIL import Image

    with Image.open(path) as image:
        return image.convert("RGB").getpixel((0, 0))


async def test_an_output_that_nobody_holds_can_still_be_an_input(client: AsyncClient) -> None:
    """A spooled output given as an input lives until it was sent."""
    graph = {"1": {"class_type": "EmptyImage", "inputs": SIZE | {"color": 255}}}
    graph["2"] = {
        "class_type": "SaveImage",
        "inputs": {"images": ["1", 0], "filename_prefix": "blue"},
    }

    job = await client.run(inverting(), image=(await client.run(graph)).outputs[0])

    assert pixel(job.outputs[0].path) == (255, 255, 0)


async def test_a_missing_file_is_named(client: AsyncClient, picture: Path) -> None:
    """A file that is not there is named, with the one that looks like it."""
    with pytest.raises(InvalidInputs, match=r"im\.png: .*\. Did you mean 'in\.png'"):
        await client.run(inverting(), image=picture.with_name("im.png"))


async def test_an_input_nobody_knows_is_an_error(client: AsyncClient) -> None:
    """An unknown name comes with the nearest known one."""
    with pytest.raises(InvalidInputs, match="Did you mean 'image'"):
        await client.run(inverting(), imgae="in.png")


async def test_a_missing_workflow_file_is_an_error(client: AsyncClient, tmp_path: Path) -> None:
    """A workflow that is not there is named."""
    with pytest.raises(WorkflowUnreadable, match=r"none\.json does not exist"):
        await client.run(tmp_path / "none.json")


async def test_describes_a_workflow_with_the_servers_nodes(client: AsyncClient) -> None:
    """A described workflow knows the limits its server sets."""
    workflow = await client.describe(ticking())

    with pytest.raises(InvalidInputs, match="the least is 1"):
        await client.bind(workflow, {"7.steps": 0})
    bound = await client.bind(workflow, {"7.steps": 4})
    assert bound.graph["7"]["inputs"]["steps"] == 4


async def test_nobody_answers() -> None:
    """A server that is not there is an error that names the address."""
    async with AsyncClient("http://127.0.0.1:9") as client:
        with pytest.raises(BackendUnreachable, match=r"127\.0\.0\.1:9"):
            await client.run(emitting())


async def test_a_client_must_be_open() -> None:
    """A client outside its block says how to use it."""
    with pytest.raises(RuntimeError, match="async with"):
        await AsyncClient().run(emitting())


def test_the_server_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The argument wins over COMFYSERVE_SERVER, which wins over the usual address."""
    assert AsyncClient().server == "http://127.0.0.1:8188"
    monkeypatch.setenv("COMFYSERVE_SERVER", "http://gpu:1")
    assert AsyncClient().server == "http://gpu:1"
    assert AsyncClient("http://other:2").server == "http://other:2"
