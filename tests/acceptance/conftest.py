"""The real command, the real engine, and what lies between them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.client.graphs import Graph
from tests.engines import RunningEngine, engine_environment, running_engine

LONGEST = 50.0
"""Seconds a command may take on a busy machine."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str

    @property
    def paths(self) -> list[Path]:
        """The lines of stdout, as paths."""
        return [Path(line) for line in self.out.splitlines()]

    @property
    def events(self) -> list[dict[str, Any]]:
        """The lines of stdout, as JSON."""
        return [json.loads(line) for line in self.out.splitlines()]


class Command:
    """`comfyserve`, started in a folder of its own with the engine as its server."""

    def __init__(self, folder: Path, server: str) -> None:
        self.folder = folder
        self.environment = {**engine_environment(), "COMFYSERVE_SERVER": server}

    def __call__(self, *arguments: object, **environment: str) -> Ended:
        with self.start(*arguments, **environment) as process:
            out, err = process.communicate(timeout=LONGEST)
        return Ended(process.returncode, out, err)

    def start(self, *arguments: object, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "comfyserve", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            cwd=self.folder,
            env={**self.environment, **environment},
        )

    def workflow(self, graph: Graph | Mapping[str, Any], name: str = "work flow ü.json") -> Path:
        """A workflow file of that graph."""
        path = self.folder / name
        path.write_text(json.dumps(graph), encoding="utf-8")
        return path


@pytest.fixture(scope="session")
def engine() -> Iterator[RunningEngine]:
    """One engine with test nodes for all commands."""
    with running_engine(test_nodes=True) as running:
        yield running


@pytest.fixture
def comfyserve(engine: RunningEngine, tmp_path: Path) -> Command:
    """The command, with the engine as its server."""
    folder = tmp_path / "my folder"
    folder.mkdir()
    return Command(folder, engine.url)
