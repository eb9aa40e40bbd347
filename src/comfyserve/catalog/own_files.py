"""The files of a workflow's own, such as the picture it was saved with, where nobody has them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final

from comfyserve.workflows.graph import Graph, nodes_of, upstream
from comfyserve.workflows.node_catalog import NodeCatalog
from comfyserve.workflows.parameters import Media, Parameter


def files_nowhere(
    parameters: Collection[Parameter],
    graph: Graph,
    catalogs: Collection[NodeCatalog],
    given: Collection[tuple[str | int, ...]] = (),
) -> Iterator[tuple[Parameter, object]]:
    """The parameters that take a file, and the one which *graph* names there, that is in none of
    the *catalogs* and so has to be given; *given* are the places where it is.

    Where a backend does not list its files, or a file is where none are listed, it may be there.
    """
    files = [parameter for parameter in parameters if isinstance(parameter, Media)]
    live = _live(graph, catalogs) if files and catalogs else ()
    for parameter in files:
        for node_id, name in parameter.targets:
            if node_id not in live or (node_id, name) in given:
                continue
            node = graph[node_id]
            value = node["inputs"].get(name)
            if _is_nowhere(value, node["class_type"], name, catalogs):
                yield parameter, value
                break


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
