"""The files of a workflow's own that a call leaves in it, where no backend has them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from contextlib import suppress
from typing import Final

from comfyserve.errors import InputProblem
from comfyserve.host import Host
from comfyserve.server.workflows.call_inputs import BoundCall
from comfyserve.server.workflows.media_values import TAKES
from comfyserve.workflows.graph import Graph, nodes_of, shown, upstream
from comfyserve.workflows.node_catalog import NodeCatalog
from comfyserve.workflows.parameters import Media

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
    left = [
        parameter
        for parameter in call.workflow.parameters
        if isinstance(parameter, Media) and parameter.name not in call.media
    ]
    if not left or not catalogs:
        return ()
    graph = call.bound.graph
    live = _live(graph, catalogs)
    given = {target for file in call.bound.files for target in file.targets}
    found = []
    for parameter in left:
        for node_id, name in parameter.targets:
            if node_id not in live or (node_id, name) in given:
                continue
            node = graph[node_id]
            value = node["inputs"].get(name)
            if _is_nowhere(value, node["class_type"], name, catalogs):
                found.append(
                    InputProblem(
                        parameter.name,
                        f"{parameter.name} has to be given: no backend has the workflow's own "
                        f"{shown(value)}. It takes {TAKES}.",
                    )
                )
                break
    return tuple(found)


def _is_nowhere(
    value: object, class_type: str, name: str, catalogs: Collection[NodeCatalog]
) -> bool:
    """Whether each backend that has the node lists its files, and has none of this name there."""
    if not isinstance(value, str) or any(sign in value for sign in _NEVER_LISTED):
        return False
    kinds = [kind for catalog in catalogs if (kind := catalog.get(class_type)) is not None]
    lists = [info.choices for kind in kinds if (info := kind.inputs.get(name)) and info.upload]
    if not kinds or len(lists) < len(kinds):
        return False
    return all(choices is not None and value not in choices for choices in lists)


_NEVER_LISTED: Final = ("/", "\\", "[")
"""What a file in a folder further down, or among outputs (``a.png [output]``), has in its name."""


def _live(graph: Graph, catalogs: Collection[NodeCatalog]) -> Collection[str]:
    """The nodes that an output needs: a backend looks at no others."""
    nodes = nodes_of(graph)
    return upstream(nodes, [node.id for node in nodes.values() if _ends(node.class_type, catalogs)])


def _ends(class_type: str, catalogs: Collection[NodeCatalog]) -> bool:
    kinds: Iterator[bool] = (
        kind.is_output for catalog in catalogs if (kind := catalog.get(class_type)) is not None
    )
    return any(kinds)
