"""The server that a command asks about nodes: one that was named, or whoever is at home."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

from comfyserve.client.async_client import DEFAULT_SERVER
from comfyserve.comfy.backend import Backend, Timeouts
from comfyserve.comfy.http import Http
from comfyserve.errors import BackendError
from comfyserve.workflows.node_catalog import NodeCatalog

_BRIEFLY = Timeouts(connect=2.0, answer=15.0)


@dataclass(frozen=True, slots=True)
class Target:
    """A server's address, and what opens its door. *named* is None unless a person gave it."""

    named: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    token: str | None = None
    verify_tls: bool = True

    @property
    def url(self) -> str:
        """The address: the one given, or the usual one."""
        return self.named or os.environ.get("COMFYSERVE_SERVER") or DEFAULT_SERVER

    def http(self, timeouts: Timeouts) -> Http:
        """A session with it, to be opened."""
        return Http(
            self.url,
            headers=self.headers,
            token=self.token,
            verify_tls=self.verify_tls,
            timeouts=timeouts,
        )


@dataclass(frozen=True, slots=True)
class Known:
    """The nodes of the server at *url*, or what *trouble* there was to ask for them."""

    url: str
    catalog: NodeCatalog | None = None
    trouble: BackendError | None = None


async def node_catalog_of(target: Target) -> Known:
    """Ask the server for its nodes, and say on stderr whose they are.

    Raises `BackendError` only where the server was named: the usual one need not be there.
    """
    try:
        known = await _asked(target)
    except BackendError as error:
        if target.named:
            raise
        say(f"No nodes to go by: no ComfyUI at {error.url}. Name one with --server.")
        return Known(error.url, trouble=error)
    say(f"Nodes as {known.url} has them.")
    return known


async def _asked(target: Target) -> Known:
    async with Backend(
        target.url,
        headers=target.headers,
        token=target.token,
        verify_tls=target.verify_tls,
        timeouts=Timeouts() if target.named else _BRIEFLY,
    ) as backend:
        return Known(backend.url, await backend.node_catalog())


def say(sentence: str) -> None:
    """Tell a person something that is not the command's result."""
    print(sentence, file=sys.stderr, flush=True)
