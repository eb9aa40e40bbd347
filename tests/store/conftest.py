"""An open store for every test here; another database will be another parameter."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from comfyserve.store import Store
from tests.store.samples import Clock


@pytest.fixture
def clock() -> Clock:
    """The time as the store sees it; it passes only when a test says so."""
    return Clock()


@pytest.fixture(params=["sqlite"])
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, clock: Clock
) -> AsyncIterator[Store]:
    """An empty store."""
    async with Store.open(tmp_path / "dätä folder", clock=clock) as opened:
        yield opened
