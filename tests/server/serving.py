"""Runs the application in this process, on a thread and a real socket, over real rooms."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from comfyserve.host import open_host
from comfyserve.server.app import create_app
from comfyserve.settings import BackendSettings, Settings
from tests.server_calls import ServerCalls

NOWHERE = "http://127.0.0.1:9"
"""An address at which no ComfyUI answers, so that jobs wait."""

START_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Served:
    """A running application, and calls of it."""

    app: FastAPI
    calls: ServerCalls
    settings: Settings


@contextmanager
def serving(folder: Path, *backends: str, **settings: Any) -> Iterator[Served]:
    """The application on a free loopback port, with its data in *folder*; gone afterwards."""
    told: dict[str, Any] = {"data": folder, "grace": 1.0, **settings}
    urls = backends or (NOWHERE,)
    chosen = Settings(backends=tuple(BackendSettings(url) for url in urls), **told)
    app = create_app(lambda counts: open_host(chosen, watch=counts.watch), chosen)
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="on")
    server = uvicorn.Server(config)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            _wait(server, thread)
            yield Served(app, ServerCalls(_address(listening)), chosen)
        finally:
            server.should_exit = True
            thread.join(START_SECONDS)
            assert not thread.is_alive(), "the server did not end"


def _address(listening: socket.socket) -> str:
    return f"http://127.0.0.1:{listening.getsockname()[1]}"


def _wait(server: uvicorn.Server, thread: threading.Thread) -> None:
    end = time.monotonic() + START_SECONDS
    while not server.started:
        assert thread.is_alive(), "the server ended at once"
        assert time.monotonic() < end, "the server did not start in time"
        time.sleep(0.01)
