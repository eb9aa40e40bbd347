"""How long somebody who queued thousands of jobs keeps another one waiting."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

import aiohttp

from bench import lasting, server_client
from bench.budgets import Measured, WrongResult
from bench.engine import Engine, engines
from tests.engines import engine_environment
from tests.servers import running_server

BACKENDS = 2
QUEUED = 2_000
HANDED_IN = 2_600
"""More than are to be queued, as some of them run while the others are handed in."""
AT_A_TIME = 8
JOBS = 10
JOB_S = 0.3
PATIENCE_S = 300.0


async def measure() -> list[Measured]:
    """One key queues thousands of jobs, then another one ten; the engines tell what began when."""
    with (
        tempfile.TemporaryDirectory(prefix="comfyserve bench ") as folder,
        engines(BACKENDS) as busy,
    ):
        keys = [_key(Path(folder), name) for name in ("greedy", "modest")]
        backends = [engine.url for engine in busy]
        with running_server(Path(folder), backends=backends, queue_size=HANDED_IN + 100) as server:
            async with (
                asyncio.timeout(PATIENCE_S),
                server_client.connect(server.url, keys[0]) as greedy,
                server_client.connect(server.url, keys[1]) as modest,
            ):
                theirs = await _hand_in(greedy, busy[0], range(HANDED_IN))
                numbers = range(HANDED_IN, HANDED_IN + JOBS)
                ours = await _hand_in(modest, busy[0], numbers)
                for job_id, number in zip(ours, numbers, strict=True):
                    lasting.check(busy[0])(await modest.first_content(job_id), number)
                asked = await _queued_at(modest, ours[0])
                began = await _beginnings(modest.session, busy)
                await _check_those_that_ran(greedy, busy[0], theirs, began)
    return [_delay(theirs, ours, began, asked)]


def _key(folder: Path, name: str) -> str:
    """The secret of a new key of the server that keeps its data there."""
    made = subprocess.run(
        [sys.executable, "-m", "comfyserve", "keys", "create", name, "--graphs", "--data", folder],
        env=engine_environment(),
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=True,
    )
    return made.stdout.strip()


async def _hand_in(
    client: server_client.ServerClient, engine: Engine, numbers: range
) -> Sequence[str]:
    """Hand in the jobs of these numbers, a few at a time; their ids in that order."""
    ids: dict[int, str] = {}
    left = iter(numbers)

    async def call() -> None:
        for number in left:
            ids[number] = await client.submit(lasting.graph(engine, number, JOB_S))

    async with asyncio.TaskGroup() as callers:
        for _ in range(AT_A_TIME):
            callers.create_task(call())
    return [ids[number] for number in numbers]


async def _queued_at(client: server_client.ServerClient, job_id: str) -> float:
    """When the server had the job, in milliseconds since the epoch."""
    async with client.session.get(f"{client.url}/api/v2/jobs/{job_id}") as answer:
        answer.raise_for_status()
        created = datetime.fromisoformat((await answer.json())["created_at"])
    return created.timestamp() * 1000


async def _beginnings(
    session: aiohttp.ClientSession, busy: Sequence[Engine]
) -> Mapping[str, float]:
    """When each job began that ran, in milliseconds since the epoch; all engines have one clock."""
    began: dict[str, float] = {}
    for engine in busy:
        async with session.get(f"{engine.url}/history") as answer:
            for prompt_id, entry in (await answer.json()).items():
                told = {kind: data["timestamp"] for kind, data in entry["status"]["messages"]}
                began[prompt_id] = told["execution_start"]
    return began


async def _check_those_that_ran(
    client: server_client.ServerClient,
    engine: Engine,
    ids: Sequence[str],
    began: Mapping[str, float],
) -> None:
    """Nobody's jobs went wrong meanwhile."""
    for number, job_id in enumerate(ids):
        if job_id in began:
            lasting.check(engine)(await client.first_content(job_id), number)


def _delay(
    theirs: Sequence[str], ours: Sequence[str], began: Mapping[str, float], asked: float
) -> Measured:
    """How many of their jobs began before one of ours did, and after the one before that."""
    if (left := sum(began.get(job_id, asked) >= asked for job_id in theirs)) < QUEUED:
        raise WrongResult(f"only {left} jobs were queued, where {QUEUED} were to be")
    between = []
    since = asked
    for beginning in sorted(began[job_id] for job_id in ours):
        between.append(sum(since <= began.get(job_id, 0.0) < beginning for job_id in theirs))
        since = beginning
    return Measured(
        f"jobs of a key with {QUEUED:,} that begin before each of another's {JOBS}, most",
        max(between),
        "",
        must=BACKENDS,
        aim=1,
        detail=f"{BACKENDS} backends, {left:,} were queued; {' '.join(map(str, between))}",
    )
