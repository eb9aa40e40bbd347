"""Backends that are lost and come back, and what becomes of the jobs that were there."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from comfyserve.events import Noted
from comfyserve.host import Host
from comfyserve.jobs import JobStatus
from tests.engines import engine_environment
from tests.hosts import (
    emitting,
    end,
    hosting,
    inside,
    outputs,
    paying,
    ran,
    sleeping,
    statuses,
    story,
    submit,
    until,
    until_status,
)
from tests.machines import Machine

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path / "engine")
    try:
        yield machine
    finally:
        machine.close()


async def test_a_job_waits_for_a_backend_that_is_not_there_yet(
    machine: Machine, tmp_path: Path
) -> None:
    """It is queued, the host says why, and waiting costs no attempt."""
    async with hosting(tmp_path / "data", machine.url) as host:
        job_id = await submit(host, emitting())
        readiness = await host.is_ready()
        assert not readiness.is_ready
        assert "Backend 1 of 1" in readiness.reasons[0]
        assert (await host.job_queue.get(job_id)).record.status is JobStatus.QUEUED

        await machine.start()

        assert (await end(host, job_id)).status is JobStatus.SUCCEEDED
        assert (await host.job_queue.get(job_id)).record.attempts == 1
        assert (await host.is_ready()).is_ready


async def test_a_job_whose_backend_is_lost_runs_again(machine: Machine, tmp_path: Path) -> None:
    """Running and waiting jobs come back to the queue, in their order, and end well."""
    await machine.start()
    async with hosting(tmp_path / "data", machine.url) as host:
        jobs = [await submit(host, sleeping(1.0, seed)) for seed in range(3)]
        await until_status(host, jobs[0], JobStatus.RUNNING)

        machine.kill()
        await machine.start()

        events = await story(host, jobs[0])
        assert statuses(events) == [
            JobStatus.QUEUED,
            JobStatus.RUNNING,
            JobStatus.QUEUED,
            JobStatus.RUNNING,
            JobStatus.SUCCEEDED,
        ]
        assert outputs(events) == ["out.txt"]
        assert any(isinstance(event, Noted) and "again" in event.message for event in events)
        ends = [await end(host, job_id) for job_id in jobs]
        assert {one.status for one in ends} == {JobStatus.SUCCEEDED}
        assert (await host.job_queue.get(jobs[0])).record.attempts == 2
        first = (await host.job_queue.get(jobs[0])).record
        assert await ran(machine.url) == [first.prompt_id, *(await _prompt_ids(host, jobs[1:]))]


async def test_a_job_is_tried_so_often_and_no_more(machine: Machine, tmp_path: Path) -> None:
    """At the limit it fails, with what happened and how often it was tried."""
    await machine.start()
    async with hosting(tmp_path / "data", machine.url, attempts=2) as host:
        job_id = await submit(host, sleeping(60.0))
        for _ in range(2):
            await until_status(host, job_id, JobStatus.RUNNING)
            machine.kill()
            await until_left(host, job_id)
            await machine.start()

        last = await end(host, job_id)

        assert last.status is JobStatus.FAILED
        assert last.error is not None and last.error.code == "backend_lost"
        assert "tried 2 times" in last.error.message


async def test_a_job_that_costs_money_is_not_run_again(machine: Machine, tmp_path: Path) -> None:
    """It fails at once, with the node that would be paid twice."""
    await machine.start()
    async with hosting(tmp_path / "data", machine.url) as host:
        job_id = await submit(host, paying(60.0))
        await until_status(host, job_id, JobStatus.RUNNING)

        machine.kill()

        last = await end(host, job_id)
        assert last.status is JobStatus.FAILED
        assert last.error is not None and last.error.code == "backend_lost"
        assert "node 2 (TestPaid) costs money" in last.error.message


async def test_a_paid_job_that_never_got_there_waits(machine: Machine, tmp_path: Path) -> None:
    """Where the connection is refused nothing was paid, so it is run when the backend is back."""
    await machine.start()
    async with hosting(tmp_path / "data", machine.url) as host:
        await end(host, await submit(host, emitting()))
        machine.kill()
        job_id = await submit(host, paying(0.0))

        await machine.start()

        assert (await end(host, job_id)).status is JobStatus.SUCCEEDED
        assert (await host.job_queue.get(job_id)).record.attempts == 1


async def test_canceling_while_the_backend_is_away(machine: Machine, tmp_path: Path) -> None:
    """A job to be canceled whose backend is lost is canceled, not run again."""
    await machine.start()
    async with hosting(tmp_path / "data", machine.url) as host:
        job_id = await submit(host, sleeping(60.0))
        await until_status(host, job_id, JobStatus.RUNNING)
        machine.kill()

        await host.job_queue.cancel(job_id)

        assert (await end(host, job_id)).status is JobStatus.CANCELED


async def test_a_job_is_canceled_that_waits_to_be_taken_up(
    machine: Machine, tmp_path: Path
) -> None:
    """Nobody has to wait for a backend that may never come back."""
    await machine.start()
    data = tmp_path / "data"
    async with hosting(data, machine.url, grace=0.0) as host:
        job_id = await submit(host, sleeping(60.0))
        await until_status(host, job_id, JobStatus.RUNNING)
    machine.kill()
    async with hosting(data, machine.url, grace=0.0) as host:
        await until_taken_up(host, job_id)

        await host.job_queue.cancel(job_id)

        assert (await end(host, job_id)).status is JobStatus.CANCELED


async def test_both_the_server_and_the_backend_were_gone(machine: Machine, tmp_path: Path) -> None:
    """A job of the earlier process waits for the backend, and then runs again."""
    await machine.start()
    data = tmp_path / "data"
    async with hosting(data, machine.url, grace=0.0) as host:
        job_id = await submit(host, sleeping(1.0))
        await until_status(host, job_id, JobStatus.RUNNING)
    machine.kill()
    async with hosting(data, machine.url) as host:
        await until_taken_up(host, job_id)
        assert (await host.job_queue.get(job_id)).record.status is JobStatus.RUNNING

        await machine.start()

        assert (await end(host, job_id)).status is JobStatus.SUCCEEDED
        assert (await host.job_queue.get(job_id)).record.attempts == 2


async def test_a_killed_process_loses_nothing(machine: Machine, tmp_path: Path) -> None:
    """Running, waiting and queued jobs each end once; what the backend had is not run twice."""
    await machine.start()
    data = tmp_path / "data"
    with host_process(data, machine.url) as process:
        assert process.stdout is not None
        jobs = (await asyncio.to_thread(process.stdout.readline)).split()
        assert len(jobs) == 4

        async def is_full() -> bool:
            return (await inside(machine.url)) == ([jobs[0]], [jobs[1]])

        await until(is_full)
        process.kill()

    async with hosting(data, machine.url) as host:
        ends = [await end(host, job_id) for job_id in jobs]
        records = [(await host.job_queue.get(job_id)).record for job_id in jobs]

    assert {one.status for one in ends} == {JobStatus.SUCCEEDED}
    assert [len(record.outputs) for record in records] == [1, 1, 1, 1]
    assert [record.attempts for record in records] == [1, 1, 1, 1]
    assert await ran(machine.url) == jobs


async def test_pictures_that_nobody_heard_are_made_again(machine: Machine, tmp_path: Path) -> None:
    """Outputs that are only sent live are missed by a process that is gone: the job runs again."""
    await machine.start()
    data = tmp_path / "data"
    wait = {"seconds": 1.0, "interruptible": True}
    graph = {
        "0": {"class_type": "TestSleep", "inputs": wait},
        "9": {"class_type": "SaveImageWebsocket", "inputs": {"images": ["8", 0]}},
        "8": {
            "class_type": "EmptyImage",
            "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 255},
        },
    }
    async with hosting(data, machine.url, grace=0.0) as host:
        job_id = await submit(host, graph)
        await until_status(host, job_id, JobStatus.RUNNING)

    async def has_run() -> bool:
        return job_id in await ran(machine.url)

    await until(has_run)
    async with hosting(data, machine.url) as host:
        events = await story(host, job_id)

    assert statuses(events)[-1] is JobStatus.SUCCEEDED
    assert len(outputs(events)) == 1
    assert statuses(events).count(JobStatus.RUNNING) == 2


def host_process(data: Path, url: str) -> subprocess.Popen[str]:
    """A host in a process of its own, with jobs that take a while."""
    command = [sys.executable, "-m", "tests.host_process", str(data), url]
    environment = engine_environment()
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


async def until_left(host: Host, job_id: str) -> None:
    """Wait until a job runs no more."""

    async def has_left() -> bool:
        return (await host.job_queue.get(job_id)).record.status is not JobStatus.RUNNING

    await until(has_left)


async def until_taken_up(host: Host, job_id: str) -> None:
    """Wait until this process holds the job that an earlier one held."""

    async def is_ours() -> bool:
        holders = {one.record.id: one.lease.number for one in await host.job_queue.held()}
        return holders.get(job_id) == 2

    await until(is_ours)


async def _prompt_ids(host: Host, jobs: list[str]) -> list[str | None]:
    return [(await host.job_queue.get(job_id)).record.prompt_id for job_id in jobs]
