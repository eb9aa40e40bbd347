"""The two processes that faults are done to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.engines import RunningEngine, running_engine
from tests.faults import comfyui
from tests.server_calls import ServerCalls
from tests.servers import RunningServer, running_server

Engines = Callable[..., RunningEngine]
Servers = Callable[..., RunningServer]


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEngine]:
    """One ComfyUI for all tests that do it no harm."""
    with running_engine(tmp_path_factory.mktemp("engine"), test_nodes=True) as running:
        yield running


@pytest.fixture(autouse=True)
def emptied(engine: RunningEngine) -> Iterator[None]:
    """After a test nothing of it is left in the shared ComfyUI's queue."""
    yield
    comfyui.clear(engine)


@pytest.fixture
def closing() -> Iterator[ExitStack]:
    """Ends what a test started, the latest first."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def start_engine(tmp_path: Path, closing: ExitStack) -> Engines:
    """Starts a ComfyUI of the test's own; with the same *port* it is the old one come back.

    Those with different *name*s have nothing in common.
    """

    def start(port: int = 0, name: str = "engine", *, test_nodes: bool = True) -> RunningEngine:
        folder = tmp_path / name
        return closing.enter_context(running_engine(folder, test_nodes=test_nodes, port=port))

    return start


@pytest.fixture
def start_server(tmp_path: Path, engine: RunningEngine, closing: ExitStack) -> Servers:
    """Starts a server on data of the test's own, before the shared ComfyUI if no other is told."""

    def start(*backends: str, **settings: Any) -> RunningServer:
        told = {"grace": 1, **settings}
        server = closing.enter_context(
            running_server(tmp_path / "server", backends=backends or [engine.url], **told)
        )
        closing.callback(lambda: print(server.stderr))  # shown where a test fails
        return server

    return start


@pytest.fixture
def server(start_server: Servers) -> RunningServer:
    """A server with its ordinary settings before the shared ComfyUI."""
    return start_server()


@pytest.fixture
def calls(server: RunningServer) -> ServerCalls:
    """Calls of that server."""
    return ServerCalls(server.url)
