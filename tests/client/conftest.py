"""The engine that the tests of the library run on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from comfyserve import AsyncClient
from tests.engines import RunningEngine, running_engine


@pytest.fixture(scope="session")
def engine() -> Iterator[RunningEngine]:
    """One engine with test nodes for all tests of the library."""
    with running_engine(test_nodes=True) as running:
        yield running


@pytest.fixture
async def client(engine: RunningEngine) -> AsyncIterator[AsyncClient]:
    """A client of that engine."""
    async with AsyncClient(engine.url) as opened:
        yield opened


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A small PNG file."""
    from PIL import Image

    path = tmp_path / "in.png"
    Image.new("RGB", (8, 8), (255, 0, 0)).save(path)
    return path
