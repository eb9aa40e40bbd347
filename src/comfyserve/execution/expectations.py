"""What a graph lets us expect of its run: nodes that run, that show something, that cost money."""

from __future__ import annotations

from collections.abc import Mapping

from comfyserve.workflows.graph import Graph, Node, nodes_of, upstream
from comfyserve.workflows.node_catalog import NodeCatalog


def expected_nodes(graph: Graph, catalog: NodeCatalog | None) -> list[str]:
    """The nodes that lead to an output; all of them where nobody knows the outputs."""
    nodes = _readable(graph)
    ends = [node.id for node in nodes.values() if _is_output(catalog, node.class_type)]
    return list(upstream(nodes, ends)) if ends else list(nodes)


def live_nodes(graph: Graph) -> set[str]:
    """The nodes whose pictures come over the socket and are stored nowhere else."""
    return {node.id for node in _readable(graph).values() if _is_live(node.class_type)}


def is_live_output(class_type: str | None, content_type: str, catalog: NodeCatalog | None) -> bool:
    """Whether a picture that came over the socket is an output and no preview.

    Nodes like SaveImageWebsocket send their picture there and nowhere else.
    """
    if class_type is None or content_type != "image/png":
        return False
    return _is_output(catalog, class_type) or _is_live(class_type)


def paid_node(graph: Graph, catalog: NodeCatalog) -> Node | None:
    """The first node that somebody pays for whenever it runs."""
    for node in _readable(graph).values():
        kind = catalog.get(node.class_type)
        if kind is not None and kind.is_paid:
            return node
    return None


def _readable(graph: Graph) -> dict[str, Node]:
    """The nodes that are nodes; whether the others are errors is for the backend to say."""
    entries = {
        node: entry
        for node, entry in graph.items()
        if isinstance(entry, Mapping)
        and isinstance(entry.get("class_type"), str)
        and isinstance(entry.get("inputs"), Mapping)
    }
    return nodes_of(entries)


def _is_output(catalog: NodeCatalog | None, class_type: str) -> bool:
    kind = catalog.get(class_type) if catalog is not None else None
    return kind is not None and kind.is_output


def _is_live(class_type: str) -> bool:
    return "websocket" in class_type.lower()
