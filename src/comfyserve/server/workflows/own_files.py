"""The files of a workflow's own that a call leaves in it, where no backend has them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from contextlib import suppress
from typing import Final

from comfyserve.catalog.own_files import files_nowhere
from comfyserve.errors import InputProblem
from comfyserve.host import Host
from comfyserve.server.workflows.call_inputs import BoundCall
from comfyserve.server.workflows.media_values import TAKES
from comfyserve.workflows.graph import shown
from comfyserve.workflows.node_catalog import NodeCatalog

_FRESH_WITHIN: Final = 5.0


async def missing_files(host: Host, call: BoundCall) -> tuple[InputProblem, ...]:
    """A sentence for each file that has to be given, as no known backend has the workflow's own.

    Their lists of files grow without a word, so they are read anew before this is told.
    """
    if not _missing(call, host.fleet.catalogs().values()):
        return ()
    with suppress(TimeoutError):
        async with asyncio.timeout(_FRESH_WITHIN):
            await host.fleet.refresh()
    return _missing(call, host.fleet.catalogs().values())


def _missing(call: BoundCall, catalogs: Collection[NodeCatalog]) -> tuple[InputProblem, ...]:
    left = [one for one in call.workflow.parameters if one.name not in call.media]
    given = {target for file in call.bound.files for target in file.targets}
    return tuple(
        InputProblem(
            parameter.name,
            f"{parameter.name} has to be given: no backend has the workflow's own {shown(value)}. "
            f"It takes {TAKES}.",
        )
        for parameter, value in files_nowhere(left, call.bound.graph, catalogs, given)
    )
