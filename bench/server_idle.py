"""How long an engine stands idle between two jobs that wait in the server's queue."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from bench import bare_client, lasting, server_client
from bench.budgets import Measured, percentile
from bench.engine import Engine
from bench.server_process import serving

JOBS = 30
ROUNDS = 3
PATIENCE_S = 120.0


async def measure(engine: Engine) -> list[Measured]:
    """Queue many jobs at once, at the engine itself and at the server, in turns.

    The engine tells when each began and ended, in whole milliseconds, so that only the mean of
    many says anything. What the engine itself needs between two of its own jobs is taken off.
    """
    graphs = (lasting.graph(engine, number) for number in lasting.numbers(engine))
    bare_gaps: list[float] = []
    our_gaps: list[float] = []
    with serving(engine.url) as server:
        async with (
            bare_client.connect(engine.url) as bare,
            server_client.connect(server.url) as ours,
            asyncio.timeout(PATIENCE_S),
        ):
            for _ in range(ROUNDS):
                ids = [await bare.submit(next(graphs)) for _ in range(JOBS)]
                await _wait_for(bare, ids[-1])
                bare_gaps += await _gaps(bare, ids)
                ids = [await ours.submit(next(graphs)) for _ in range(JOBS)]
                for job_id in ids:
                    await ours.first_output(job_id)
                our_gaps += await _gaps(bare, ids)
    mean, bare_mean = statistics.mean(our_gaps), statistics.mean(bare_gaps)
    return [
        Measured(
            "idle engine between two queued jobs, mean",
            max(0.0, mean - bare_mean),
            "ms",
            must=2.0,
            aim=0.5,
            detail=f"{mean:.2f} ms, less the engine's own {bare_mean:.2f} ms; p95"
            f" {percentile(our_gaps, 95):.0f} ms, {len(our_gaps)} gaps",
        )
    ]


async def _wait_for(bare: bare_client.BareClient, prompt_id: str) -> None:
    while True:
        async with bare.session.get(f"{bare.url}/history/{prompt_id}") as answer:
            if await answer.json():
                return
        await asyncio.sleep(0.05)


async def _gaps(bare: bare_client.BareClient, ids: Sequence[str]) -> list[float]:
    """Milliseconds from the end of each job to the beginning of the one that ran next."""
    times = sorted([_times(await bare.entry(job_id)) for job_id in ids])
    return [later[0] - earlier[1] for earlier, later in pairwise(times)]


def _times(entry: Mapping[str, Any]) -> tuple[float, float]:
    told = {kind: data.get("timestamp") for kind, data in entry["status"]["messages"]}
    return told["execution_start"], told["execution_success"]
