"""What arrives live: progress, previews, and one event at many listeners."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from bench import server_client
from bench.bare_client import history_entry
from bench.budgets import Measured, WrongResult, percentile
from bench.engine import Engine, file_graph
from bench.listeners import Listeners, listeners_to
from bench.server_process import serving

JOBS = 20
STEPS = 12
DELAY_MS = 20
LISTENERS = 200
JOBS_LISTENED_TO = 10
LASTING_S = (0.0, 0.3)
BLOCKED_S = 60.0
PATIENCE_S = 120.0
WHITE = 240


Graph = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Heard:
    """What one listener heard of a job of `STEPS` steps with a preview each."""

    progress: int
    previews: int
    has_last_progress: bool
    has_last_preview: bool


async def measure(engine: Engine) -> list[Measured]:
    """Listen to jobs of steps with previews, then with many listeners to one job."""
    if not engine.has_test_nodes:
        return [_delivered(None), _fan_out(None)]
    with serving(engine.url) as server:
        async with (
            asyncio.timeout(PATIENCE_S),
            server_client.connect(server.url) as client,
            listeners_to(server.url) as listeners,
        ):
            heard = [await _hear(client, number) for number in range(JOBS)]
            late_ms: dict[float, list[float]] = {seconds: [] for seconds in LASTING_S}
            for number in range(JOBS_LISTENED_TO):
                for seconds in LASTING_S:
                    graph = _waiting(number, seconds)
                    late_ms[seconds] += await _listen_together(client, listeners, engine, graph)
    return [_delivered(heard), _fan_out(late_ms)]


async def _hear(client: server_client.ServerClient, number: int) -> Heard:
    progress, previews, last_progress, last_preview = 0, 0, 0.0, b""
    async for kind, data in client.events(await client.submit(_steps(number))):
        if kind == "progress":
            progress, last_progress = progress + 1, data["value"]
        elif kind == "preview":
            previews, last_preview = previews + 1, base64.b64decode(data["data_base64"])
    return Heard(progress, previews, last_progress == 1, _is_white(last_preview))


def _is_white(picture: bytes) -> bool:
    """Whether it is the last step's: each is lighter than the one before."""
    if not picture:
        return False
    with Image.open(io.BytesIO(picture)) as image:
        return min(image.convert("L").tobytes()) >= WHITE


async def _listen_together(
    client: server_client.ServerClient, listeners: Listeners, engine: Engine, graph: Graph
) -> list[float]:
    """Milliseconds from ComfyUI's word that a job began to its arrival at each listener.

    The job waits behind another until all listen. ComfyUI's word carries its own time, in whole
    milliseconds of the clock that this machine has.
    """
    blocker = await client.submit(_blocking())
    job_id = await client.submit(graph)
    await listeners.listen(f"/api/v2/jobs/{job_id}/events", LISTENERS)
    await client.cancel(blocker)
    arrived = await listeners.arrivals()
    await client.first_output(job_id)
    began = await _began(client, engine, job_id)
    if len(arrived) != LISTENERS:
        raise WrongResult(f"{len(arrived)} of {LISTENERS} listeners heard that a job began")
    return [(at - began) * 1000 for at in arrived]


async def _began(client: server_client.ServerClient, engine: Engine, job_id: str) -> float:
    entry = await history_entry(client.session, engine.url, job_id)
    told: dict[str, Any] = dict(entry["status"]["messages"])
    return float(told["execution_start"]["timestamp"]) / 1000


def _steps(number: int) -> Graph:
    inputs = {"steps": STEPS, "delay_ms": DELAY_MS, "previews": True, "seed": number}
    graph = file_graph("stepped.txt", f"{number} stepped", 64)
    graph["1"]["inputs"]["value"] = ["2", 0]
    return {**graph, "2": {"class_type": "TestProgress", "inputs": inputs}}


def _waiting(number: int, seconds: float) -> Graph:
    """A job that lasts so long: where it is over at once, its beginning is told with its end."""
    wait = {"seconds": seconds, "interruptible": True, "seed": number}
    graph = file_graph("heard.txt", f"{number} heard {seconds}", 64)
    graph["1"]["inputs"]["value"] = ["2", 0]
    return {**graph, "2": {"class_type": "TestSleep", "inputs": wait}}


def _blocking() -> Graph:
    inputs = {"seconds": BLOCKED_S, "interruptible": True}
    return {"1": {"class_type": "TestSleep", "inputs": inputs}}


def _delivered(heard: Sequence[Heard] | None) -> Measured:
    what = f"jobs whose last progress or preview did not arrive, of {JOBS}"
    if heard is None:
        return Measured(what, None, "", must=0, aim=0, detail="needs test nodes")
    missed = sum(not (each.has_last_progress and each.has_last_preview) for each in heard)
    previews = sum(each.previews for each in heard) / (STEPS * len(heard))
    steps = sum(each.progress for each in heard) / (STEPS * len(heard))
    detail = f"steps every {DELAY_MS} ms: {steps:.2f} progress and {previews:.2f} previews a step"
    return Measured(what, missed, "", must=0, aim=0, detail=detail)


def _fan_out(late_ms: Mapping[float, Sequence[float]] | None) -> Measured:
    what = f"an event from ComfyUI's socket to {LISTENERS} listeners, p99"
    if late_ms is None:
        return Measured(what, None, "ms", must=50, aim=10, detail="needs test nodes")
    each = ", ".join(
        f"of jobs of {seconds:g} s p50 {percentile(ms, 50):.1f}, p99 {percentile(ms, 99):.1f} ms"
        for seconds, ms in late_ms.items()
    )
    whole = [ms for some in late_ms.values() for ms in some]
    detail = f"{JOBS_LISTENED_TO} jobs each: {each}"
    return Measured(what, percentile(whole, 99), "ms", must=50, aim=10, detail=detail)
