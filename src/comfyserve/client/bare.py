"""A ComfyUI itself, without a comfyserve before it: the client runs the jobs on it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from comfyserve import execution
from comfyserve.client.servers import Address
from comfyserve.comfy.backend import Backend
from comfyserve.jobs import Job
from comfyserve.outputs import Sink
from comfyserve.workflows.node_catalog import NodeCatalog


@asynccontextmanager
async def open_bare(address: Address) -> AsyncIterator[Bare]:
    """The ComfyUI at an address, with a session and a socket of its own."""
    async with Backend(
        address.url,
        headers=address.headers,
        token=address.token,
        verify_tls=address.verify_tls,
        timeouts=address.timeouts,
    ) as backend:
        yield Bare(backend)


class Bare:
    """One ComfyUI; see `servers.Server`."""

    names_jobs = False

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    @property
    def url(self) -> str:
        """The server's address, without credentials."""
        return self._backend.url

    @property
    def known_catalog(self) -> NodeCatalog | None:
        """The node catalogue if somebody asked for it before; costs nothing."""
        return self._backend.known_catalog

    async def node_catalog(self, *, refresh: bool = False) -> NodeCatalog:
        """The server's nodes, asked once unless told to *refresh*."""
        return await self._backend.node_catalog(refresh=refresh)

    async def system_stats(self) -> Mapping[str, Any]:
        """The server's version, memory and devices."""
        return await self._backend.system_stats()

    async def cancel(self, job_id: str) -> None:
        """Cancel a job that somebody else follows, or nobody; unknown ids change nothing."""
        await execution.cancel(self._backend, job_id)

    def run(self, job: Job, sink: Sink, *, keep_temp: bool) -> execution.Execution:
        """Run a job here and now."""
        return execution.run(self._backend, job, sink, keep_temp=keep_temp)
