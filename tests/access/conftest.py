"""The keys of an open store, as a server asks for them."""

from __future__ import annotations

import pytest

from comfyserve.access import Access
from comfyserve.store import Store
from tests.store.conftest import clock, store
from tests.store.samples import Clock

__all__ = ["access", "clock", "store", "ticks"]


@pytest.fixture
def ticks() -> Clock:
    """The seconds that pass for who asks; they pass only when a test says so."""
    return Clock()


@pytest.fixture
async def access(store: Store, ticks: Clock) -> Access:
    """The keys of an empty store."""
    return await Access.open(store, clock=ticks)
