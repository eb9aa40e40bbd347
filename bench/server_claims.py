"""Whether a long queue makes the next job dearer to find."""

from __future__ import annotations

import sqlite3
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final
from uuid import uuid4

from bench import pictures
from bench.budgets import Measured, WrongResult, percentile
from comfyserve.jobs import Submission
from comfyserve.store import Store

SHORT: Final = 1_000
LONG: Final = 1_000_000
WARM_UP_ROUNDS = 20
MEASURED_ROUNDS = 300


async def measure() -> list[Measured]:
    """Claim from a short and from a long queue in turns, and compare the medians."""
    took: dict[int, list[float]] = {SHORT: [], LONG: []}
    with tempfile.TemporaryDirectory(prefix="comfyserve bench ") as folder:
        async with (
            _queue_of(SHORT, Path(folder) / "short") as short,
            _queue_of(LONG, Path(folder) / "long") as long,
        ):
            for turn in range(WARM_UP_ROUNDS + MEASURED_ROUNDS):
                for count, store in ((SHORT, short), (LONG, long)):
                    seconds = await _claim(store)
                    if turn >= WARM_UP_ROUNDS:
                        took[count].append(seconds * 1000)
    short_ms, long_ms = percentile(took[SHORT], 50), percentile(took[LONG], 50)
    return [
        Measured(
            "claim with 1 M queued / 1 k queued",
            long_ms / short_ms,
            "x",
            must=1.5,
            aim=1.05,
            detail=f"{long_ms:.2f} over {short_ms:.2f} ms, p50 of {MEASURED_ROUNDS}",
        )
    ]


async def _claim(store: Store) -> float:
    start = time.perf_counter()
    claim = await store.jobs.claim("bench", "http://gpu:8188", lease=600)
    seconds = time.perf_counter() - start
    if claim is None:
        raise WrongResult("nothing to claim in a queue that is full")
    return seconds


@asynccontextmanager
async def _queue_of(count: int, folder: Path) -> AsyncIterator[Store]:
    """A store in which that many jobs wait."""
    async with Store.open(folder) as store:
        job = Submission(str(uuid4()), pictures.graph(1), expires_at=time.time() + 1e6)
        await store.jobs.submit(job)
    _multiply(folder, count)
    async with Store.open(folder) as store:
        yield store


def _multiply(folder: Path, count: int) -> None:
    """Put as many jobs like the first one behind it, each with its own place in the queue.

    To hand them in one by one would take minutes.
    """
    (database,) = folder.glob("*.db")
    with sqlite3.connect(database) as connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(jobs)")]
        own = {"number": "n", "id": "'copy-' || n", "turn": "turn + n"}
        connection.execute(
            f"WITH RECURSIVE up(n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM up WHERE n < {count})"
            f" INSERT INTO jobs ({', '.join(columns)})"
            f" SELECT {', '.join(own.get(column, column) for column in columns)} FROM jobs, up"
            " WHERE jobs.number = 1"
        )
    connection.close()
