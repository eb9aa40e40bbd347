"""How much time comfyserve adds to a job, beside the least that a program can do."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from bench.bare_client import BareClient, connect
from bench.budgets import Measured, WrongResult, percentile
from comfyserve import AsyncClient, Client

WARM_UP_ROUNDS = 20
MEASURED_ROUNDS = 200
MUST_MS = 2.0
SETTLE_S = 0.005

Run = Callable[[int], Awaitable[tuple[bytes, float]]]
"""Runs the job of one color; its picture, and the seconds it took."""


@dataclass(frozen=True, slots=True)
class Round:
    """The milliseconds of two jobs that ran right after each other."""

    bare: float
    ours: float


async def measure(url: str) -> list[Measured]:
    """Run the same jobs bare and through `AsyncClient` in turns, then bare and through `Client`.

    In every round both run once, either of them first as often as the other, so that a busy
    machine is as busy for both. What is added is the difference within a round. Ours run a
    workflow file with an input, as people do; the bare one knows its graph.
    """
    with tempfile.TemporaryDirectory(prefix="comfyserve bench ") as folder:
        file = Path(folder) / "invert.json"
        file.write_text(json.dumps(_graph(0)), encoding="utf-8")
        colors = _colors()
        async with connect(url) as bare:

            def run_bare(color: int) -> Awaitable[tuple[bytes, float]]:
                return _through_bare(bare, _graph(color))

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


async def _rounds(bare: Run, ours: Run, colors: Iterator[int]) -> list[Round]:
    rounds = []
    for number in range(WARM_UP_ROUNDS + MEASURED_ROUNDS):
        if number % 2:
            bare_ms = await _timed(bare, next(colors))
            ours_ms = await _timed(ours, next(colors))
        else:
            ours_ms = await _timed(ours, next(colors))
            bare_ms = await _timed(bare, next(colors))
        if number >= WARM_UP_ROUNDS:
            rounds.append(Round(bare_ms, ours_ms))
    return rounds


def _colors() -> Iterator[int]:
    """Colors that never come twice, or the job is cached, and never near the one before."""
    return (number * 40503 % (1 << 24) for number in itertools.count(1))


async def _timed(run: Run, color: int) -> float:
    await asyncio.sleep(SETTLE_S)  # the job before leaves messages to all sockets
    picture, seconds = await run(color)
    _check(picture, color)
    return seconds * 1000


async def _through_bare(client: BareClient, graph: Mapping[str, Any]) -> tuple[bytes, float]:
    start = time.perf_counter()
    picture = await client.run(graph)
    return picture, time.perf_counter() - start


async def _through_async(client: AsyncClient, file: Path, color: int) -> tuple[bytes, float]:
    start = time.perf_counter()
    job = await client.run(file, {"1.color": color})
    picture = job.outputs[0].to_bytes()
    return picture, time.perf_counter() - start


def _through_sync(client: Client, file: Path, color: int) -> tuple[bytes, float]:
    start = time.perf_counter()
    job = client.run(file, {"1.color": color})
    picture = job.outputs[0].to_bytes()
    return picture, time.perf_counter() - start


def _graph(color: int) -> dict[str, Any]:
    """An image of one color, inverted and saved."""
    image = {"width": 64, "height": 64, "batch_size": 1, "color": color}
    return {
        "1": {"class_type": "EmptyImage", "inputs": image},
        "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "3": {
            "class_type": "SaveImage",
            "inputs": {"images": ["2", 0], "filename_prefix": "bench"},
        },
    }


def _check(picture: bytes, color: int) -> None:
    expected = bytes(255 - (color >> shift & 255) for shift in (16, 8, 0))
    with Image.open(io.BytesIO(picture)) as image:
        seen = image.convert("RGB").tobytes()[:3]
    # ComfyUI's way from float to byte may lose one.
    if any(abs(ours - due) > 1 for ours, due in zip(seen, expected, strict=True)):
        raise WrongResult(f"color {color:06x} became {seen.hex()} where {expected.hex()} was due")


def _added(name: str, rounds: list[Round]) -> Measured:
    added = [times.ours - times.bare for times in rounds]
    return Measured(
        f"what {name} adds to it, p50",
        percentile(added, 50),
        "ms",
        must=MUST_MS,
        detail=f"p95 {percentile(added, 95):.1f} ms, {len(rounds)} rounds",
    )
