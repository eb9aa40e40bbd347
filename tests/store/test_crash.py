"""A process that is killed while it writes loses nothing that it was told lasts."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from comfyserve.events import NumberedEvent, OutputSaved
from comfyserve.jobs import JobRecord
from comfyserve.store import Store

ROUNDS = 3
DEADLINE = 20

# Says a job's id once the store said that its submission lasts, and once more when its end does.
WRITE = """
import asyncio, sys, time
from pathlib import Path
from comfyserve.events import OutputSaved
from comfyserve.jobs import JobStatus
from comfyserve.store import Store
from tests.store.samples import claimed, output, status, submission

async def one(store, holder):
    while True:
        job = submission(expires_at=9e9)
        await store.jobs.submit(job)
        print("submitted", job.id, flush=True)
        lease = (await claimed(store, holder=holder)).lease
        await store.jobs.record(lease, [status(lease, JobStatus.RUNNING)])
        saved = [OutputSaved(lease.job_id, output(str(n), index=n)) for n in range(3)]
        await store.jobs.record(lease, saved)
        await store.jobs.finish(lease, status(lease, JobStatus.SUCCEEDED))
        print("ended", lease.job_id, flush=True)

async def main():
    async with Store.open(Path(sys.argv[1])) as store:
        await asyncio.gather(*(one(store, str(n)) for n in range(8)))

asyncio.run(main())
"""


@pytest.mark.timeout(120)
def test_kill_9_leaves_whole_jobs_and_loses_none(tmp_path: Path) -> None:
    """Killed at any moment, again and again: every job that was said to last is there, whole, its
    events numbered without gap, its outputs as many as were told, and its status agrees."""
    chance = random.Random(4)
    submitted: set[str] = set()
    ended: set[str] = set()

    for _ in range(ROUNDS):
        said = _write_until_killed(tmp_path, after=chance.uniform(0.05, 0.6))
        submitted |= {line.split()[1] for line in said if line.startswith("submitted ")}
        ended |= {line.split()[1] for line in said if line.startswith("ended ")}
        jobs = asyncio.run(_read_all(tmp_path))
        assert submitted <= jobs.keys()
        assert {jobs[job_id][0].status for job_id in ended} == {"succeeded"}
        for job, events in jobs.values():
            _check_whole(job, events)

    assert len(submitted) > 10


def _write_until_killed(folder: Path, after: float) -> list[str]:
    """What a process said that wrote jobs until it was killed, some time after its first job."""
    command = [sys.executable, "-c", WRITE, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        time.sleep(after)
        process.kill()
        rest = process.stdout.read()
        process.wait(DEADLINE)
    lines = (first + rest).splitlines(keepends=True)
    return [line for line in lines if line.endswith("\n")]


async def _read_all(folder: Path) -> dict[str, tuple[JobRecord, tuple[NumberedEvent, ...]]]:
    async with Store.open(folder) as store:
        check = await store.jobs._database.do(lambda sql: sql.row("PRAGMA integrity_check"))
        assert check == {"integrity_check": "ok"}
        jobs, cursor = {}, None
        while True:
            page = await store.jobs.list(limit=500, cursor=cursor)
            for job in page.items:
                jobs[job.id] = (job, await store.jobs.events(job.id))
            cursor = page.next_cursor
            if cursor is None:
                break
        for claim in await store.jobs.held():
            await store.jobs.requeue(claim.lease)
            await store.jobs.cancel(claim.lease.job_id)
        return jobs


def _check_whole(job: JobRecord, events: tuple[NumberedEvent, ...]) -> None:
    assert [event.seq for event in events] == list(range(1, job.last_event + 1))
    outputs = [event.output for event in events if isinstance(event, OutputSaved)]
    assert list(job.outputs) == outputs
    assert len(outputs) in (0, 3)
    assert events[-1].is_last == job.status.is_terminal
    assert (job.completed_at is not None) == job.status.is_terminal
