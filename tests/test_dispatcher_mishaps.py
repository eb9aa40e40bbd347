"""What goes wrong inside the server itself: a mistake of ours, a database that is away for long."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from comfyserve import execution
from comfyserve.host import Host
from comfyserve.jobs import JobStatus
from comfyserve.store.store import DATABASE_NAME
from tests.engines import RunningEngine, running_engine
from tests.hosts import (
    emitting,
    end,
    hosting,
    inside,
    outputs,
    sleeping,
    statuses,
    story,
    submit,
    until,
    until_status,
)

pytestmark = pytest.mark.timeout(90)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEngine]:
    with running_engine(tmp_path_factory.mktemp("engine"), test_nodes=True) as running:
        yield running


@pytest.fixture
async def host(engine: RunningEngine, tmp_path: Path) -> AsyncIterator[Host]:
    async with hosting(tmp_path / "data", engine.url) as opened:
        yield opened


def stumbling(work: Callable[..., Any]) -> Callable[..., Any]:
    """The same, but the first time that it is called it finds a mistake of ours."""
    calls = 0

    def stumble(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ZeroDivisionError("a mistake")
        return work(*arguments, **options)

    return stumble


async def test_a_mistake_before_a_job_begins_fails_it_alone(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job fails without a word about our insides, and the next one runs."""
    monkeypatch.setattr(execution, "run", stumbling(execution.run))

    last = await end(host, await submit(host, emitting(301)))

    assert (last.status, last.error and last.error.code) == (JobStatus.FAILED, "internal_error")
    assert last.error is not None and "mistake" not in last.error.message
    assert (await end(host, await submit(host, emitting(302)))).status is JobStatus.SUCCEEDED


async def test_a_mistake_while_a_job_runs_takes_it_off_the_backend(
    host: Host, engine: RunningEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job fails and leaves its place inside the backend to the next one, which runs."""
    monkeypatch.setattr(host.job_queue, "record", stumbling(host.job_queue.record))

    last = await end(host, await submit(host, sleeping(60.0, 303)))

    assert (last.status, last.error and last.error.code) == (JobStatus.FAILED, "internal_error")
    assert (await end(host, await submit(host, emitting(304)))).status is JobStatus.SUCCEEDED
    assert await inside(engine.url) == ([], [])


async def test_a_database_that_is_away_for_longer_than_a_lease_loses_no_job(
    engine: RunningEngine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The job is left, and taken up in the same attempt once the database is there again."""
    data = tmp_path / "data"
    async with hosting(data, engine.url, busy_timeout=0.1, lease=1.0) as host:
        job_id = await submit(host, sleeping(0.3, 305))
        await until_status(host, job_id, JobStatus.RUNNING)
        other = sqlite3.connect(data / DATABASE_NAME, isolation_level=None, check_same_thread=False)
        # Whoever writes just then needs this loop to come to an end.
        await asyncio.to_thread(other.execute, "BEGIN IMMEDIATE")

        async def is_left() -> bool:
            return "A job is left as it is for now" in caplog.text

        await until(is_left)
        await asyncio.to_thread(other.execute, "COMMIT")
        other.close()

        events = await story(host, job_id)
        attempts = (await host.job_queue.get(job_id)).record.attempts

    assert statuses(events) == [JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.SUCCEEDED]
    assert outputs(events) == ["out.txt"]
    assert attempts == 1
