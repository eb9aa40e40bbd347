"""A server of its own for each measurement, and what its process uses."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bench.budgets import percentile
from tests.servers import RunningServer, running_server

SYNCS = 200


@contextmanager
def serving(
    *engine_urls: str, environment: Mapping[str, str] | None = None
) -> Iterator[RunningServer]:
    """``comfyserve serve`` in front of engines, as people start it, with a fresh data folder."""
    with (
        tempfile.TemporaryDirectory(prefix="comfyserve bench ") as folder,
        running_server(Path(folder), backends=engine_urls, environment=environment) as server,
    ):
        yield server


def cpu_seconds(process: int) -> float | None:
    """The time that all threads of a process computed; None where the system does not tell."""
    tasks = Path(f"/proc/{process}/task")
    if not tasks.exists():
        return None
    # Nanoseconds, where the process's own times are counted in hundredths of a second.
    spent = (task.read_text(encoding="ascii").split()[0] for task in tasks.glob("*/schedstat"))
    return sum(map(int, spent)) / 1e9


def forget_peak(process: int) -> None:
    """Have the system count the process's peak memory from now on, where it can."""
    counter = Path(f"/proc/{process}/clear_refs")
    if counter.exists():
        counter.write_text("5", encoding="ascii")


def sync_ms(folder: Path) -> float:
    """The median milliseconds in which the disk under *folder* makes a page last."""
    page = os.urandom(4096)
    sync = getattr(os, "fdatasync", os.fsync)
    took = []
    with (folder / "sync").open("wb") as file:
        for _ in range(SYNCS):
            file.write(page)
            file.flush()
            start = time.perf_counter()
            sync(file.fileno())
            took.append((time.perf_counter() - start) * 1000)
    return percentile(took, 50)
