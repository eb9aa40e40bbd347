"""How long it takes until a server answers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from urllib.request import urlopen

from bench.budgets import Measured, WrongResult, percentile
from bench.bytecode import kept_bytecode
from bench.engine import Engine
from bench.server_process import serving

RUNS = 5


def measure(engine: Engine) -> list[Measured]:
    """Start ``comfyserve serve`` a few times; the first one fills caches and is not counted."""
    with kept_bytecode() as environment:
        seconds = [_ready(engine, environment) for _ in range(RUNS + 1)][1:]
    return [
        Measured(
            "comfyserve serve, ready to answer, median",
            percentile(seconds, 50),
            "s",
            must=1.5,
            aim=0.8,
            detail=f"{RUNS} runs, {min(seconds):.2f} to {max(seconds):.2f} s",
        )
    ]


def _ready(engine: Engine, environment: Mapping[str, str]) -> float:
    start = time.perf_counter()
    with serving(engine.url, environment=environment) as server:
        with urlopen(f"{server.url}/api/v2/health", timeout=10) as answer:
            if answer.status != 200:
                raise WrongResult(f"/api/v2/health answered {answer.status}")
        return time.perf_counter() - start
