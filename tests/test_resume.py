"""Taking up jobs that a backend was given before, by somebody who is gone."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from comfyserve.client.output_folder import OutputFolder
from comfyserve.comfy.backend import Backend, Gone, Running
from comfyserve.comfy.records import HistoryEntry
from comfyserve.errors import BackendUnreachable, JobLost, OutputUnavailable
from comfyserve.events import Event, OutputSaved, PreviewDrawn, ProgressMade, StatusChanged
from comfyserve.execution import Execution, resume, run
from comfyserve.jobs import Job, JobStatus
from tests.engines import RunningEngine, running_engine
from tests.hosts import emitting, sleeping, until
from tests.machines import Machine
from tests.stories import connected

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEngine]:
    with running_engine(tmp_path_factory.mktemp("engine"), test_nodes=True) as running:
        yield running


@pytest.fixture
async def backend(engine: RunningEngine) -> AsyncIterator[Backend]:
    async with connected(engine.url, client_id="the-same-again") as opened:
        yield opened


async def given(backend: Backend, graph: Mapping[str, Any]) -> tuple[Job, str]:
    """A job that somebody submitted who is not there any more, and its prompt_id."""
    job = Job(str(uuid.uuid4()), graph)
    prompt_id = str(uuid.uuid4())
    await backend.submit(graph, prompt_id)
    return job, prompt_id


async def told(execution: Execution) -> list[Event]:
    """All that an execution tells."""
    async with asyncio.timeout(30):
        return [event async for event in execution]


def statuses(events: list[Event]) -> list[JobStatus]:
    return [event.status for event in events if isinstance(event, StatusChanged)]


async def test_a_running_prompt_is_taken_up(backend: Backend, tmp_path: Path) -> None:
    """It is told as running, live messages come for the same client id, and it is not run again."""
    steps = {"steps": 30, "delay_ms": 50, "previews": True, "seed": 1}
    graph = {"1": {"class_type": "TestProgress", "inputs": steps}, "2": emitting(1)["1"]}
    job, prompt_id = await given(backend, graph)

    async def runs() -> bool:
        return isinstance(await backend.whereabouts(prompt_id), Running)

    await until(runs)

    events = await told(resume(backend, job, OutputFolder(tmp_path), prompt_id=prompt_id))

    assert statuses(events)[-2:] == [JobStatus.RUNNING, JobStatus.SUCCEEDED]
    assert any(isinstance(event, PreviewDrawn) for event in events)
    assert any(isinstance(event, ProgressMade) and event.progress.step for event in events)
    assert [event.output.name for event in events if isinstance(event, OutputSaved)] == ["out.txt"]
    assert {event.job_id for event in events} == {job.id}


async def test_a_prompt_that_has_ended_is_brought_home(backend: Backend, tmp_path: Path) -> None:
    """Its history says how it ended and what it made."""
    job, prompt_id = await given(backend, emitting(2))

    async def has_ended() -> bool:
        return isinstance(await backend.whereabouts(prompt_id), HistoryEntry)

    await until(has_ended)

    events = await told(resume(backend, job, OutputFolder(tmp_path), prompt_id=prompt_id))

    assert statuses(events)[-1] is JobStatus.SUCCEEDED
    [output] = [event.output for event in events if isinstance(event, OutputSaved)]
    assert output.size_bytes == 1000


async def test_a_prompt_that_nobody_knows_is_lost(backend: Backend, tmp_path: Path) -> None:
    """It is said at once that the backend has forgotten it."""
    job = Job(str(uuid.uuid4()), emitting(3))
    execution = resume(backend, job, OutputFolder(tmp_path), prompt_id=str(uuid.uuid4()))

    events = await told(execution)

    assert statuses(events)[-1] is JobStatus.FAILED
    assert isinstance(execution.failure, JobLost)


async def test_a_prompt_taken_up_can_be_canceled(backend: Backend, tmp_path: Path) -> None:
    """Canceling is told to the backend also by somebody who did not submit it."""
    job, prompt_id = await given(backend, sleeping(60.0, 4))
    execution = resume(backend, job, OutputFolder(tmp_path), prompt_id=prompt_id)
    events = []
    async for event in execution:
        events.append(event)
        if isinstance(event, StatusChanged) and event.status is JobStatus.RUNNING:
            await execution.cancel()

    assert statuses(events)[-1] is JobStatus.CANCELED


async def test_pictures_sent_before_are_missed_honestly(backend: Backend, tmp_path: Path) -> None:
    """Outputs that were only sent live are not there any more, and that is why the job fails."""
    graph = {
        "8": {
            "class_type": "EmptyImage",
            "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 5},
        },
        "9": {"class_type": "SaveImageWebsocket", "inputs": {"images": ["8", 0]}},
    }
    job, prompt_id = await given(backend, graph)

    async def has_ended() -> bool:
        return isinstance(await backend.whereabouts(prompt_id), HistoryEntry)

    await until(has_ended)
    execution = resume(backend, job, OutputFolder(tmp_path), prompt_id=prompt_id)

    events = await told(execution)

    assert statuses(events)[-1] is JobStatus.FAILED
    assert isinstance(execution.failure, OutputUnavailable)


async def test_a_further_attempt_has_its_own_prompt_id(backend: Backend, tmp_path: Path) -> None:
    """The backend knows it by that, and whoever listens by the job's id."""
    job, prompt_id = Job(str(uuid.uuid4()), emitting(6)), str(uuid.uuid4())
    moves = []
    execution = run(
        backend,
        job,
        OutputFolder(tmp_path),
        prompt_id=prompt_id,
        moved=lambda: moves.append((execution.has_settled, execution.has_left)),
    )

    events = await told(execution)

    assert {event.job_id for event in events} == {job.id}
    assert await backend.history(prompt_id) is not None
    assert isinstance(await backend.whereabouts(job.id), Gone)
    assert moves == [(True, False), (True, True)]


async def test_a_refused_connection_is_told_as_such(tmp_path: Path) -> None:
    """Who submits learns that the graph certainly did not arrive."""
    machine = Machine(tmp_path / "engine")
    async with connected(machine.url) as backend:
        with pytest.raises(BackendUnreachable) as caught:
            await backend.submit(emitting(7), str(uuid.uuid4()))

    assert caught.value.refused
