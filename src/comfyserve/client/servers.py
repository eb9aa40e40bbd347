"""The two kinds of server that a client may have before it, and which of them is there."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from comfyserve.comfy.http import Http, Timeouts
from comfyserve.errors import BackendRefused
from comfyserve.events import Event
from comfyserve.jobs import Job
from comfyserve.outputs import Sink
from comfyserve.workflows.node_catalog import NodeCatalog

Kind = Literal["ComfyUI", "comfyserve", "official"]
"""*official* is a server that speaks the Comfy API v2 without what comfyserve adds to it."""


class Run(Protocol):
    """One job on its way through a server; iterate it once."""

    def __aiter__(self) -> AsyncGenerator[Event]: ...

    async def cancel(self) -> None:
        """Ask for this job, and no other, to end; returns once the server was told."""


class Server(Protocol):
    """What a client needs of a server, whichever kind it is.

    *names_jobs* tells that jobs get ids of the server's own, known once it took them. The node
    catalogue is None of a server that does not tell its nodes.
    """

    @property
    def url(self) -> str: ...

    @property
    def names_jobs(self) -> bool: ...

    @property
    def known_catalog(self) -> NodeCatalog | None: ...

    async def node_catalog(self, *, refresh: bool = False) -> NodeCatalog | None: ...

    async def system_stats(self) -> Mapping[str, Any]: ...

    async def cancel(self, job_id: str) -> None: ...

    def run(self, job: Job, sink: Sink, *, keep_temp: bool) -> Run: ...


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is, and what opens its door."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    token: str | None = None
    verify_tls: bool = True
    timeouts: Timeouts = field(default_factory=Timeouts)

    def http(self) -> Http:
        """A session with it, to be opened. Raises `InvalidAddress`."""
        return Http(
            self.url,
            headers=self.headers,
            token=self.token,
            verify_tls=self.verify_tls,
            timeouts=self.timeouts,
        )


@asynccontextmanager
async def open_server(address: Address, *, expected: str = "ComfyUI") -> AsyncIterator[Server]:
    """The server at an address, once it is known what it is.

    Raises `BackendUnreachable` where nobody answers, which says that nobody of the *expected* kind
    does.
    """
    # Who runs graphs on a ComfyUI need not load what a comfyserve takes, and the other way round.
    async with session(address) as http:
        http.what = expected
        kind = await kind_of(http)
        if kind != "ComfyUI":
            from comfyserve.client.hosted import Hosted

            yield Hosted(http, address.timeouts, is_official=kind == "official")
            return
    from comfyserve.client.bare import open_bare

    async with open_bare(address) as server:
        yield server


@asynccontextmanager
async def session(address: Address) -> AsyncIterator[Http]:
    """An open session with whoever is at the address."""
    http = address.http()
    await http.open()
    try:
        yield http
    finally:
        await http.close()


async def kind_of(http: Http) -> Kind:
    """Which kind of server it is, by one question that only those who speak v2 can answer.

    Who cannot is taken for a ComfyUI, whose own answers then tell what is wrong with it.
    """
    try:
        status, text = await http.ask("GET", "/api/v2/health")
    except BackendRefused:  # a proxy that lets only ComfyUI's own routes pass
        return "ComfyUI"
    if status == 429:
        _refuse_busy(http.url, text)
    try:
        health = json.loads(text) if status == 200 else None
    except (ValueError, RecursionError):
        return "ComfyUI"
    if not isinstance(health, dict) or not isinstance(health.get("status"), str):
        return "ComfyUI"
    http.what = "comfyserve"
    return "comfyserve" if health.get("server") == "comfyserve" else "official"


def _refuse_busy(url: str, text: str) -> None:
    """Raise what a comfyserve says to who came too often; nothing for what others say."""
    from comfyserve.client.wire import error_of

    with suppress(ValueError, KeyError, TypeError, RecursionError):
        raise error_of(url, text, ("page", ""))
