"""How much of an engine's time is left to jobs of a fixed length: one by one, and eight at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack

from bench import bare_client, lasting, server_client
from bench.budgets import Measured, percentile
from bench.engine import Engine
from bench.rounds import Check, Run, in_turns, p50_of_bare, p50_of_ours, ratio, refuse_wrong
from bench.server_process import serving

WARM_UP_ROUNDS = 3
MEASURED_ROUNDS = 40
CALLERS = 8
JOBS_EACH = 6
BURSTS = 5


async def measure(engine: Engine) -> list[Measured]:
    """Run jobs that wait, where the engine can; else jobs that save a picture of some size."""
    numbers, check = lasting.numbers(engine), lasting.check(engine)
    with serving(engine.url) as server:
        async with (
            AsyncExitStack() as stack,
            server_client.connect(server.url) as ours,
        ):
            connecting = bare_client.connect
            bare = [await stack.enter_async_context(connecting(engine.url)) for _ in range(CALLERS)]

            async def run_ours(number: int) -> bytes:
                return await ours.run(lasting.graph(engine, number))

            def run_bare_of(client: bare_client.BareClient) -> Run:
                return lambda number: client.run(lasting.graph(engine, number))

            rounds = refuse_wrong(
                await in_turns(
                    run_bare_of(bare[0]),
                    run_ours,
                    numbers,
                    check,
                    warm_up=WARM_UP_ROUNDS,
                    measured=MEASURED_ROUNDS,
                )
            )
            bare_runs, our_runs = [run_bare_of(client) for client in bare], [run_ours] * CALLERS
            bursts = [
                (await _burst(bare_runs, numbers, check), await _burst(our_runs, numbers, check))
                for _ in range(BURSTS)
            ]
    return [
        Measured(
            f"jobs of a {lasting.what(engine)}, one by one",
            ratio(rounds),
            "x",
            must=1.25,
            aim=1.1,
            detail=f"{p50_of_bare(rounds):.1f} and {p50_of_ours(rounds):.1f} ms, p50 of"
            f" {len(rounds)}",
        ),
        Measured(
            f"{CALLERS} callers at once, throughput",
            percentile([bare_s / ours_s for bare_s, ours_s in bursts], 50),
            "x",
            must=0.9,
            aim=0.97,
            at_least=True,
            detail=f"{BURSTS} bursts of {CALLERS * JOBS_EACH} jobs,"
            f" {_per_second(bursts, 0)} and {_per_second(bursts, 1)} a second",
        ),
    ]


async def _burst(runs: Sequence[Run], numbers: Iterator[int], check: Check) -> float:
    """The seconds until each of these callers had a few jobs, one after the other."""

    async def call(run: Run) -> None:
        for _ in range(JOBS_EACH):
            number = next(numbers)
            check(await run(number), number)

    start = time.perf_counter()
    async with asyncio.TaskGroup() as callers:
        for run in runs:
            callers.create_task(call(run))
    return time.perf_counter() - start


def _per_second(bursts: Sequence[tuple[float, float]], side: int) -> str:
    return f"{CALLERS * JOBS_EACH / percentile([burst[side] for burst in bursts], 50):.1f}"
