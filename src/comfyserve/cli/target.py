"""The server that a command asks about nodes: one that was named, or whoever is at home."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

from comfyserve.client.async_client import DEFAULT_SERVER
from comfyserve.client.servers import Address, open_server
from comfyserve.comfy.http import Timeouts
from comfyserve.errors import BackendError
from comfyserve.workflows.node_catalog import NodeCatalog

COMFYSERVE = "http://127.0.0.1:8189"
"""Where a comfyserve listens unless it is told otherwise."""

_BRIEFLY = Timeouts(connect=2.0, answer=15.0)


@dataclass(frozen=True, slots=True)
class Target:
    """A server's address, and what opens its door. *named* is None unless a person gave it.

    *usual* is the address where nothing else names one.
    """

    named: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    token: str | None = None
    verify_tls: bool = True
    usual: str = DEFAULT_SERVER

    @property
    def url(self) -> str:
        """The address: the one given, or the usual one."""
        return self.named or os.environ.get("COMFYSERVE_SERVER") or self.usual

    def address(self, timeouts: Timeouts) -> Address:
        """The address with all that it takes to be let in there."""
        return Address(self.url, self.headers, self.token, self.verify_tls, timeouts)


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
    address = target.address(Timeouts() if target.named else _BRIEFLY)
    async with open_server(address) as server:
        return Known(server.url, await server.node_catalog())


def say(sentence: str) -> None:
    """Tell a person something that is not the command's result."""
    print(sentence, file=sys.stderr, flush=True)
