"""A real server before a real engine, and both official clients of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.contract.sdk import Sdk, sdk_for
from tests.engines import RunningEngine, running_engine
from tests.servers import RunningServer, running_server

Folders = pytest.TempPathFactory

QUEUE_SIZE = 2
MOST_STREAMS = 2
UPLOAD_CAP = 100_000
BODY_CAP = 50_000


@pytest.fixture(scope="session")
def engine() -> Iterator[RunningEngine]:
    """The engine that all servers here have their jobs run on."""
    with running_engine(test_nodes=True) as running:
        yield running


@pytest.fixture(scope="session")
def server(
    engine: RunningEngine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    """A server as people have it."""
    folder = tmp_path_factory.mktemp("contract server")
    with running_server(folder, backends=[engine.url]) as running:
        yield running


@pytest.fixture(scope="session")
def narrow(
    engine: RunningEngine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    """A server that takes little of everything."""
    folder = tmp_path_factory.mktemp("narrow server")
    with running_server(
        folder,
        backends=[engine.url],
        queue_size=QUEUE_SIZE,
        max_streams=MOST_STREAMS,
        upload_cap=UPLOAD_CAP,
        body_cap=BODY_CAP,
    ) as running:
        yield running


@pytest.fixture(params=["sync", "async"])
async def sdk(request: pytest.FixtureRequest, server: RunningServer) -> AsyncIterator[Sdk]:
    """The official client, once the synchronous one and once the asynchronous."""
    async with sdk_for(request.param, server.url) as client:
        yield client


@pytest.fixture(params=["sync", "async"])
async def narrow_sdk(request: pytest.FixtureRequest, narrow: RunningServer) -> AsyncIterator[Sdk]:
    """The official client of the server that takes little."""
    async with sdk_for(request.param, narrow.url) as client:
        yield client
