"""How much time comfyserve adds to a job, beside the least that a program can do."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench import pictures
from bench.bare_client import connect
from bench.budgets import Measured, percentile
from bench.rounds import Round, Run, in_turns, refuse_wrong
from comfyserve import AsyncClient, Client

WARM_UP_ROUNDS = 20
MEASURED_ROUNDS = 200
MUST_MS = 2.0


async def measure(url: str) -> list[Measured]:
    """Run the same jobs bare and through `AsyncClient` in turns, then bare and through `Client`.

    In every round both run once, either of them first as often as the other, so that a busy
    machine is as busy for both. What is added is the difference within a round. Ours run a
    workflow file with an input, as people do; the bare one knows its graph.
    """
    with tempfile.TemporaryDirectory(prefix="comfyserve bench ") as folder:
        file = Path(folder) / "invert.json"
        file.write_text(json.dumps(pictures.graph(0)), encoding="utf-8")
        colors = pictures.colors()
        async with connect(url) as bare:

            async def run_bare(color: int) -> bytes:
                return await bare.run(pictures.graph(color))

            async with AsyncClient(url) as ours:
                beside_async = await _rounds(
                    run_bare, lambda color: _through_async(ours, file, color), colors
                )
            with Client(url) as sync:
                beside_sync = await _rounds(
                    run_bare,
                    lambda color: asyncio.to_thread(_through_sync, sync, file, color),
                    colors,
                )
    bare_ms = [times.bare for times in (*beside_async, *beside_sync)]
    return [
        Measured(
            "a job without a model on one bare connection, p50",
            percentile(bare_ms, 50),
            "ms",
            detail=f"p95 {percentile(bare_ms, 95):.1f} ms, {len(bare_ms)} jobs",
        ),
        _added("AsyncClient", beside_async),
        _added("Client", beside_sync),
    ]


async def _rounds(bare: Run, ours: Run, colors: Iterator[int]) -> Sequence[Round]:
    rounds = await in_turns(
        bare, ours, colors, pictures.check, warm_up=WARM_UP_ROUNDS, measured=MEASURED_ROUNDS
    )
    return refuse_wrong(rounds)


async def _through_async(client: AsyncClient, file: Path, color: int) -> bytes:
    job = await client.run(file, {"1.color": color})
    return job.outputs[0].to_bytes()


def _through_sync(client: Client, file: Path, color: int) -> bytes:
    job = client.run(file, {"1.color": color})
    return job.outputs[0].to_bytes()


def _added(name: str, rounds: Sequence[Round]) -> Measured:
    added = [times.ours - times.bare for times in rounds]
    return Measured(
        f"what {name} adds to it, p50",
        percentile(added, 50),
        "ms",
        must=MUST_MS,
        detail=f"p95 {percentile(added, 95):.1f} ms, {len(rounds)} rounds",
    )
