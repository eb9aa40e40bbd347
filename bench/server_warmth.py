"""How often models are loaded where jobs of two checkpoints come mixed."""

from __future__ import annotations

import asyncio
import random
import time
from itertools import pairwise
from typing import Any

import aiohttp

from bench import server_client
from bench.budgets import Measured, WrongResult
from bench.engine import Engine, bytes_of, engines
from bench.server_process import serving

BACKENDS = 2
CHECKPOINTS = ("test-a.safetensors", "test-b.safetensors")
JOBS = 24
LOAD_S = 1.0
WORK_S = 0.1
SIZE = 64
PATIENCE_S = 120.0


async def measure() -> list[Measured]:
    """Hand in a mix of jobs at once; the engines tell how often they loaded."""
    mix = [CHECKPOINTS[number % len(CHECKPOINTS)] for number in range(JOBS)]
    random.Random(2).shuffle(mix)
    with engines(BACKENDS) as loaded, serving(*(engine.url for engine in loaded)) as server:
        async with server_client.connect(server.url) as client, asyncio.timeout(PATIENCE_S):
            start = time.perf_counter()
            ids = [await client.submit(_graph(name, seed)) for seed, name in enumerate(mix)]
            made = await asyncio.gather(*(client.first_content(job_id) for job_id in ids))
            seconds = time.perf_counter() - start
            loads = [await _loads(client.session, engine) for engine in loaded]
    if wrong := sum(bytes_of(name, SIZE) != told for name, told in zip(mix, made, strict=True)):
        raise WrongResult(f"{wrong} of {JOBS} jobs ran with another checkpoint than theirs")
    if sum(loads) < len(CHECKPOINTS):
        raise WrongResult(f"{sum(loads)} loads are too few for {len(CHECKPOINTS)} checkpoints")
    switches = sum(ours != theirs for ours, theirs in pairwise(mix))
    return [
        Measured(
            f"model loads, mix of {len(CHECKPOINTS)} checkpoints on {BACKENDS} backends",
            sum(loads),
            "",
            must=BACKENDS + 2,
            aim=BACKENDS,
            detail=f"{' and '.join(map(str, loads))}; {JOBS} jobs whose checkpoint changes"
            f" {switches} times, {seconds:.1f} s",
        )
    ]


def _graph(checkpoint: str, seed: int) -> dict[str, Any]:
    """A job whose file says with which checkpoint it was made."""
    model = {"ckpt_name": checkpoint, "load_seconds": LOAD_S, "seed": seed}
    work = {"seconds": WORK_S, "interruptible": True, "seed": seed, "value": ["1", 0]}
    file = {"key": "images", "kind": "files", "name": f"made {seed}.txt", "size": SIZE}
    return {
        "1": {"class_type": "TestCheckpoint", "inputs": model},
        "2": {"class_type": "TestSleep", "inputs": work},
        "3": {
            "class_type": "TestEmit",
            "inputs": {**file, "pattern": ["1", 1], "value": ["2", 0]},
        },
    }


async def _loads(session: aiohttp.ClientSession, engine: Engine) -> int:
    """How many checkpoints the engine loaded; it writes a line for each."""
    async with session.get(f"{engine.url}/view", params={"filename": "loads.txt"}) as answer:
        if answer.status == 404:
            return 0
        answer.raise_for_status()
        return len((await answer.text()).splitlines())
