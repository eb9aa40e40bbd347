"""How long a person waits for the first sign of life."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping

from bench.budgets import Measured, WrongResult, percentile
from bench.bytecode import kept_bytecode

RUNS = 10
MUST_S = 0.3
AIM_S = 0.15


def measure() -> Measured:
    """Start ``comfyserve --help`` a few times; the first one fills caches and is not counted."""
    with kept_bytecode() as told:
        environment = {**os.environ, **told}
        seconds = [_help(environment) for _ in range(RUNS + 1)][1:]
    return Measured(
        "comfyserve --help, median",
        percentile(seconds, 50),
        "s",
        must=MUST_S,
        aim=AIM_S,
        detail=f"{RUNS} runs, {min(seconds):.2f} to {max(seconds):.2f} s",
    )


def _help(environment: Mapping[str, str]) -> float:
    start = time.perf_counter()
    answer = subprocess.run(
        [sys.executable, "-m", "comfyserve", "--help"],
        env=environment,
        capture_output=True,
        timeout=60,
    )
    elapsed = time.perf_counter() - start
    if answer.returncode != 0 or b"run" not in answer.stdout:
        raise WrongResult(f"comfyserve --help said: {(answer.stdout + answer.stderr).decode()}")
    return elapsed
