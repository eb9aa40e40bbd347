"""What more backends bring: the same jobs, that wait rather than compute, on one, two and four."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack

from bench import lasting, server_client
from bench.budgets import Measured
from bench.engine import Engine, engines
from bench.server_process import serving

COUNTS = (1, 2, 4)
JOBS = 8
JOB_S = 1.0
ROUNDS = 2
PATIENCE_S = 120.0
LIMITS: Mapping[int, tuple[float, float]] = {2: (1.95, 1.99), 4: (3.8, 3.95)}


async def measure() -> list[Measured]:
    """Hand in the same jobs at three servers in turns; each has its share of the same engines."""
    took: dict[int, list[float]] = {count: [] for count in COUNTS}
    with ExitStack() as stack:
        all_engines = stack.enter_context(engines(max(COUNTS)))
        urls = [engine.url for engine in all_engines]
        servers = {count: stack.enter_context(serving(*urls[:count])) for count in COUNTS}
        numbers = lasting.numbers(all_engines[0])
        for turn in range(ROUNDS):
            for count in COUNTS if turn % 2 == 0 else reversed(COUNTS):
                async with server_client.connect(servers[count].url) as client:
                    took[count].append(await _burst(client, all_engines[0], numbers))
    return [_gain(took, count) for count in COUNTS[1:]]


async def _burst(
    client: server_client.ServerClient, engine: Engine, numbers: Iterator[int]
) -> float:
    """The seconds from the first job handed in to the last one's end; all must be right."""
    mine = [next(numbers) for _ in range(JOBS)]
    async with asyncio.timeout(PATIENCE_S):
        start = time.perf_counter()
        ids = await asyncio.gather(
            *(client.submit(lasting.graph(engine, number, JOB_S)) for number in mine)
        )
        await asyncio.gather(*(client.first_output(job_id) for job_id in ids))
        seconds = time.perf_counter() - start
        for job_id, number in zip(ids, mine, strict=True):
            lasting.check(engine)(await client.first_content(job_id), number)
    return seconds


def _gain(took: Mapping[int, Sequence[float]], count: int) -> Measured:
    must, aim = LIMITS[count]
    return Measured(
        f"{count} backends over one, jobs that wait {JOB_S:g} s",
        sum(took[1]) / sum(took[count]),
        "x",
        must=must,
        aim=aim,
        at_least=True,
        detail=f"{ROUNDS} rounds of {JOBS} jobs, {sum(took[1]) / ROUNDS:.2f} and"
        f" {sum(took[count]) / ROUNDS:.2f} s",
    )
