"""The application in this process and on this loop, for tests that turn what they test by hand."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from comfyserve.cli.web_server import web_server_of
from comfyserve.events import PreviewDrawn, ProgressMade
from comfyserve.host import Host, open_host
from comfyserve.jobs import JobStatus, Lease, Offer, Preview, Progress
from comfyserve.server.app import create_app
from comfyserve.server.sockets import Sockets
from comfyserve.server.streams import Streams
from comfyserve.settings import BackendSettings, Settings
from comfyserve.workflows.needs import NOTHING
from tests.server.serving import NOWHERE
from tests.store.samples import GRAPH, output, status

SECONDS = 20.0
LARGEST = 1 << 20


@dataclass(frozen=True, slots=True)
class House:
    """A running application whose jobs nobody runs but the test."""

    url: str
    app: FastAPI

    @property
    def host(self) -> Host:
        """What the application holds open."""
        host: Host = self.app.state.host
        return host

    @property
    def sockets(self) -> Sockets:
        """Its open sockets."""
        sockets: Sockets = self.app.state.sockets
        return sockets

    @property
    def streams(self) -> Streams:
        """Its open streams: followed jobs are such."""
        streams: Streams = self.app.state.streams
        return streams

    async def running(self, owner: str = "") -> Lease:
        """A new job that runs."""
        queue = self.host.job_queue
        await queue.submit(GRAPH, owner=owner)
        offer = Offer("http://gpu:8188", pools=(NOTHING.pool,))
        claim = await queue.claim("tests", [offer], lease=300)
        assert claim is not None
        await queue.record(claim.lease, [status(claim.lease, JobStatus.RUNNING)])
        return claim.lease

    async def end(self, lease: Lease) -> None:
        """Let the job succeed."""
        await self.host.job_queue.finish(lease, status(lease, JobStatus.SUCCEEDED))

    def step(self, lease: Lease, value: float) -> None:
        """Tell that the job is so far."""
        progress = Progress(value=value, nodes_done=0, nodes_total=1)
        self.host.job_queue.tell(ProgressMade(lease.job_id, progress))

    def show(self, lease: Lease, picture: bytes) -> None:
        """Tell what the job looks like."""
        preview = Preview("3", "image/png", picture)
        self.host.job_queue.tell(PreviewDrawn(lease.job_id, preview))


@asynccontextmanager
async def house(folder: Path, **settings: Any) -> AsyncIterator[House]:
    """The application behind the web server that `comfyserve serve` uses; gone afterwards, with
    no task of it left."""
    backends = (BackendSettings(NOWHERE),)
    told: dict[str, Any] = {"data": folder, "grace": 0.1, "backends": backends, **settings}
    chosen = Settings(**told)
    app = create_app(lambda counts: open_host(chosen, watch=counts.watch), chosen)
    before = asyncio.all_tasks()
    ready = asyncio.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with app.router.lifespan_context(app):
            server = web_server_of(app, ready.set, largest_message=LARGEST)
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            async with asyncio.timeout(SECONDS):
                await ready.wait()
            # It would take up what a test claims, as what an earlier process left behind.
            await app.state.host.dispatcher.stop()
            try:
                yield House(f"http://127.0.0.1:{listener.getsockname()[1]}", app)
            finally:
                server.should_exit = True
                await serving
    async with asyncio.timeout(SECONDS):
        while not asyncio.all_tasks() <= {*before, asyncio.current_task()}:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


__all__ = ["GRAPH", "House", "house", "output"]
