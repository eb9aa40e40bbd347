"""Whether a long queue makes the next job dearer to find, in one pool and over many."""

from __future__ import annotations

import sqlite3
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final
from uuid import uuid4

from bench import pictures
from bench.budgets import Measured, WrongResult, percentile
from comfyserve.jobs import Offer, Submission
from comfyserve.store import Store
from comfyserve.workflows.needs import Needs

SHORT: Final = 1_000
LONG: Final = 1_000_000
POOLS: Final = 20
BACKENDS: Final = 4
MODELS: Final = ("a.safetensors", "b.safetensors", "c.safetensors")
WARM_UP_ROUNDS = 20
MEASURED_ROUNDS = 300
LEASE_S = 600.0
BONUS_S = 20.0


async def measure() -> list[Measured]:
    """Claim from short and long queues in turns, and compare the medians."""
    anything = [Submission(_id(), pictures.graph(1), expires_at=_later())]
    one = [Offer("http://gpu:8188", ("",))]
    various = [_one_of_many(number) for number in range(POOLS * len(MODELS))]
    pools = sorted({job.pool for job in various})
    return [
        await _compare("claim", anything, one),
        await _compare(
            f"{POOLS} pools, {BACKENDS} offers: claim", various, _offers(pools), bonus=BONUS_S
        ),
    ]


async def _compare(
    what: str, jobs: Sequence[Submission], offers: Sequence[Offer], bonus: float = 0.0
) -> Measured:
    took: dict[int, list[float]] = {SHORT: [], LONG: []}
    with tempfile.TemporaryDirectory(prefix="comfyserve bench ") as folder:
        async with (
            _queue_of(SHORT, jobs, Path(folder) / "short") as short,
            _queue_of(LONG, jobs, Path(folder) / "long") as long,
        ):
            for turn in range(WARM_UP_ROUNDS + MEASURED_ROUNDS):
                for count, store in ((SHORT, short), (LONG, long)):
                    seconds = await _claim(store, offers, bonus)
                    if turn >= WARM_UP_ROUNDS:
                        took[count].append(seconds * 1000)
    short_ms, long_ms = percentile(took[SHORT], 50), percentile(took[LONG], 50)
    return Measured(
        f"{what} with 1 M queued / 1 k queued",
        long_ms / short_ms,
        "x",
        must=1.5,
        aim=1.05,
        detail=f"{long_ms:.2f} over {short_ms:.2f} ms, p50 of {MEASURED_ROUNDS}",
    )


async def _claim(store: Store, offers: Sequence[Offer], bonus: float) -> float:
    start = time.perf_counter()
    claim = await store.jobs.claim("bench", offers, lease=LEASE_S, bonus=bonus)
    seconds = time.perf_counter() - start
    if claim is None:
        raise WrongResult("nothing to claim in a queue that is full")
    return seconds


def _one_of_many(number: int) -> Submission:
    """A job of one of the pools, for one of the models."""
    needs = Needs((f"Node{number % POOLS}", "SaveImage"))
    return Submission(
        _id(),
        pictures.graph(number),
        expires_at=_later(),
        needs=needs,
        pool=needs.pool,
        model=MODELS[number // POOLS],
    )


def _offers(pools: Sequence[str]) -> list[Offer]:
    """Backends that can run most pools each, all of them together every one."""
    return [
        Offer(
            f"http://gpu{number}:8188",
            tuple(pool for at, pool in enumerate(pools) if at % BACKENDS != number),
            warm=(MODELS[number % len(MODELS)],),
            wait=number / 10,
        )
        for number in range(BACKENDS)
    ]


def _id() -> str:
    return str(uuid4())


def _later() -> float:
    return time.time() + 1e6


@asynccontextmanager
async def _queue_of(count: int, jobs: Sequence[Submission], folder: Path) -> AsyncIterator[Store]:
    """A store in which that many jobs wait, like *jobs* in turns."""
    async with Store.open(folder) as store:
        for job in jobs:
            await store.jobs.submit(job)
    _multiply(folder, len(jobs), count)
    async with Store.open(folder) as store:
        yield store


def _multiply(folder: Path, kinds: int, count: int) -> None:
    """Put jobs like the first ones behind them, each with its own place in the queue.

    To hand them in one by one would take minutes.
    """
    (database,) = folder.glob("*.db")
    with sqlite3.connect(database) as connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(jobs)")]
        number = f"n * {kinds} + number"
        own = {"number": number, "id": f"'copy-' || ({number})", "turn": f"n * {kinds} + turn"}
        connection.execute(
            "WITH RECURSIVE up(n) AS"
            f" (SELECT 1 UNION ALL SELECT n + 1 FROM up WHERE n < {count // kinds - 1})"
            f" INSERT INTO jobs ({', '.join(columns)})"
            f" SELECT {', '.join(own.get(column, column) for column in columns)} FROM up, jobs"
            f" WHERE jobs.number <= {kinds}"
        )
    connection.close()
