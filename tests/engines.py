"""Starts the built-in engine as a real process, for tests of everything that talks to one."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import comfyserve

START_SECONDS = 30.0
STOP_SECONDS = 10.0
READY = "comfyserve engine listening on "


@dataclass(frozen=True, slots=True)
class RunningEngine:
    """An engine that answers at *url* and keeps its files in *folder*."""

    url: str
    folder: Path
    process: subprocess.Popen[str]

    def stop(self) -> int:
        """Ask it to end, and wait until it has; its exit code."""
        self.process.terminate()
        return self.process.wait(STOP_SECONDS)

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self.process.kill()
        self.process.wait(STOP_SECONDS)


@contextmanager
def running_engine(
    folder: Path | None = None,
    *,
    test_nodes: bool = False,
    preview_method: str = "auto",
    max_upload_size: float = 100,
    port: int = 0,
    python_flags: Sequence[str] = (),
) -> Iterator[RunningEngine]:
    """An engine on a free loopback port; it is gone when the context ends.

    Without a *folder* its files are in a temporary one. Raises RuntimeError, with what the engine
    said, when it is not ready in time.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        root = folder or Path(temporary) / "engine"
        command = [sys.executable, *python_flags, "-m", "comfyserve.engine"]
        command += [f"--port={port}", f"--folder={root}"]
        command += [f"--preview-method={preview_method}", f"--max-upload-size={max_upload_size}"]
        command += ["--test-nodes"] if test_nodes else []
        with (
            (Path(temporary) / "stderr.txt").open("w+", encoding="utf-8") as said,
            subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=said, text=True, env=engine_environment()
            ) as process,
        ):
            try:
                yield RunningEngine(_ready_url(process, said), root, process)
            finally:
                _end(process)


def engine_environment() -> dict[str, str]:
    """The environment in which a new Python finds the same comfyserve as this one."""
    sources = str(Path(comfyserve.__file__).resolve().parents[1])
    before = os.environ.get("PYTHONPATH")
    path = os.pathsep.join([sources, before]) if before else sources
    return {**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"}


def _ready_url(process: subprocess.Popen[str], said: IO[str]) -> str:
    assert process.stdout is not None
    lines: queue.Queue[str] = queue.Queue()
    stdout = process.stdout
    reader = threading.Thread(target=lambda: lines.put(stdout.readline()), daemon=True)
    reader.start()
    try:
        line = lines.get(timeout=START_SECONDS)
    except queue.Empty:
        line = ""
    if not line.startswith(READY):
        _end(process)
        said.seek(0)
        raise RuntimeError(f"the engine was not ready: {line!r} {said.read()}")
    return line.removeprefix(READY).strip()


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_SECONDS)
