"""A host over real engines, and waiting for what jobs do in it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from comfyserve.events import Event, NumberedEvent, OutputSaved, StatusChanged
from comfyserve.host import Host, open_host
from comfyserve.jobs import JobStatus
from comfyserve.settings import BackendSettings, Settings

WITHIN = 30.0
"""Seconds that anything a test waits for may take on a busy machine."""

Graph = Mapping[str, Any]


@asynccontextmanager
async def hosting(folder: Path, *urls: str, **settings: Any) -> AsyncIterator[Host]:
    """A host that keeps its data in *folder* and has the backends at *urls*."""
    backends = tuple(BackendSettings(url) for url in urls)
    wanted: dict[str, Any] = {"data": folder, "backends": backends, "grace": 10.0, **settings}
    async with open_host(Settings(**wanted)) as host:
        yield host


async def submit(host: Host, graph: Graph, **options: Any) -> str:
    """Hand a graph in; the job's id."""
    return (await host.job_queue.submit(graph, **options)).record.id


async def story(host: Host, job_id: str) -> list[Event]:
    """All that is told of a job, from its first event to its last."""
    async with asyncio.timeout(WITHIN):
        return [event async for event in host.job_queue.follow(job_id)]


async def end(host: Host, job_id: str) -> StatusChanged:
    """How a job ended; nothing follows that event, and no other is like it."""
    events = await story(host, job_id)
    last = events[-1]
    assert isinstance(last, StatusChanged)
    assert [event for event in events if event.is_last] == [last]
    return last


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until that holds, looking every few milliseconds."""
    deadline = time.monotonic() + WITHIN
    while time.monotonic() < deadline:
        if await condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"it did not come to that within {WITHIN:g} s")


async def until_status(host: Host, job_id: str, status: JobStatus) -> None:
    """Wait until a job has that status."""

    async def has_it() -> bool:
        return (await host.job_queue.get(job_id)).record.status is status

    await until(has_it)


async def ask(url: str, path: str) -> Any:
    """What an engine answers."""
    async with aiohttp.ClientSession() as session, session.get(url + path) as response:
        return await response.json()


async def inside(url: str) -> tuple[list[str], list[str]]:
    """The prompt ids that run in an engine, and those that wait there."""
    queue = await ask(url, "/queue")
    return (
        [entry[1] for entry in queue["queue_running"]],
        [entry[1] for entry in queue["queue_pending"]],
    )


async def ran(url: str) -> list[str]:
    """The prompt ids of all that an engine has run to an end."""
    return list(await ask(url, "/history"))


def statuses(events: list[Event]) -> list[JobStatus]:
    """The statuses that were told, in order, places in the queue aside."""
    return [
        event.status
        for event in events
        if isinstance(event, StatusChanged) and event.seq is not None
    ]


def outputs(events: list[Event]) -> list[str]:
    """The names of the outputs that were told."""
    return [event.output.name for event in events if isinstance(event, OutputSaved)]


def numbers(events: list[Event]) -> list[int | None]:
    """The numbers of the events that have one."""
    return [event.seq for event in events if isinstance(event, NumberedEvent) and event.seq]


def emitting(seed: int = 0, *, size: int = 1000, name: str = "out.txt") -> Graph:
    """A graph that is over at once and makes one file."""
    inputs = {
        "key": "files",
        "kind": "files",
        "name": name,
        "pattern": "x",
        "size": size,
        "seed": seed,
    }
    return {"1": {"class_type": "TestEmit", "inputs": inputs}}


def sleeping(seconds: float, seed: int = 0, *, interruptible: bool = True) -> Graph:
    """A graph that waits and then makes one file."""
    wait = {"seconds": seconds, "interruptible": interruptible, "seed": seed}
    made = {**emitting(seed)["1"]["inputs"], "value": ["0", 0]}
    return {
        "0": {"class_type": "TestSleep", "inputs": wait},
        "1": {"class_type": "TestEmit", "inputs": made},
    }


def paying(seconds: float) -> Graph:
    """A graph that waits, with a node that costs money."""
    return {
        **sleeping(seconds),
        "2": {"class_type": "TestPaid", "inputs": {"credits": 1.0, "value": ["0", 0]}},
    }
