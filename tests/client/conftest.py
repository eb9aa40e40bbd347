"""The servers that the tests of the library run on: an engine, and a comfyserve in front of it."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from comfyserve import AsyncClient
from tests.engines import RunningEngine, running_engine
from tests.servers import RunningServer, running_server


@pytest.fixture(scope="session")
def engine() -> Iterator[RunningEngine]:
    """One engine with test nodes for all tests of the library."""
    with running_engine(test_nodes=True) as running:
        yield running


@pytest.fixture(scope="session")
def hosted(
    engine: RunningEngine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    """One comfyserve in front of that engine."""
    folder = tmp_path_factory.mktemp("comfyserve") / "data"
    with running_server(folder, backends=[engine.url]) as running:
        yield running


@dataclass(frozen=True, slots=True)
class Place:
    """A server that a client is pointed at, and the process that answers there."""

    url: str
    process: subprocess.Popen[str]


@pytest.fixture(params=["bare", "hosted"])
def place(request: pytest.FixtureRequest, engine: RunningEngine) -> Place:
    """The engine itself, then a comfyserve in front of it: what is promised holds for both."""
    if request.param == "bare":
        return Place(engine.url, engine.process)
    server: RunningServer = request.getfixturevalue("hosted")
    return Place(server.url, server.process)


@pytest.fixture
async def client(place: Place) -> AsyncIterator[AsyncClient]:
    """A client of that server."""
    async with AsyncClient(place.url) as opened:
        yield opened


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A small PNG file."""
    from PIL import Image

    path = tmp_path / "in.png"
    Image.new("RGB", (8, 8), (255, 0, 0)).save(path)
    return path
