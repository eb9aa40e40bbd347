"""The workflow that a request names: there, read, and one that its caller may run."""

from __future__ import annotations

import asyncio
from typing import Final

from comfyserve.access import Caller
from comfyserve.catalog import Catalog, Entry
from comfyserve.denials import ServerStarting
from comfyserve.host import Host
from comfyserve.refusals import WorkflowNotFound

PATIENCE: Final = 10.0
"""Seconds for which a request waits until the server has read its workflows."""


async def read_catalog(host: Host, patience: float = PATIENCE) -> Catalog:
    """The catalogue once all of it was read. Raises `ServerStarting` if that takes too long."""
    return await _once_read(host.catalog, patience)


async def offered(host: Host, caller: Caller, name: str, patience: float = PATIENCE) -> Entry:
    """What is on offer under exactly this name.

    Raises `WorkflowNotFound`, also where the caller may not run it: a key learns nothing of
    workflows that are none of its own. Raises `ServerStarting`.
    """
    catalog = host.catalog
    # A file comes before everything else of its name, so it need not wait for what is not read.
    if name not in catalog or catalog[name].source != "folder":
        await _once_read(catalog, patience)
    try:
        entry = catalog[name]
    except WorkflowNotFound as error:
        near = [one for one in error.nearest if caller.may_run(one)]
        raise WorkflowNotFound(name, near) from None
    if not caller.may_run(name):
        raise WorkflowNotFound(name)
    return entry


async def _once_read(catalog: Catalog, patience: float) -> Catalog:
    if not catalog.is_read:
        try:
            async with asyncio.timeout(patience):
                await catalog.wait_until_read()
        except TimeoutError:
            raise ServerStarting from None
    return catalog
