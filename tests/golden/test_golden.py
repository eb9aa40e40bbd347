"""The recorded API graphs are whole, and belong to the editor graphs that lie beside them."""

from __future__ import annotations

import itertools

import pytest

from tests.golden import Graph, golden, handmade_files, read_graph, running_types

RECORDED = list(itertools.chain(golden().templates.items(), golden().handmade.items()))


def test_every_handmade_graph_was_recorded() -> None:
    """A handmade graph without a recording, or a recording without its graph, is noticed."""
    assert set(golden().handmade) == set(handmade_files())


@pytest.mark.parametrize(("name", "graph"), RECORDED, ids=[name for name, _ in RECORDED])
def test_recorded_links_lead_to_recorded_nodes(name: str, graph: Graph) -> None:
    """A recorded graph is one that a server would take: every link has a node at its other end."""
    links = [
        value
        for node in graph.values()
        for value in node["inputs"].values()
        if isinstance(value, list)
    ]
    assert graph, name
    assert {origin for origin, _ in links} <= set(graph)


def test_running_types_opens_subgraphs_and_leaves_out_what_is_off() -> None:
    """Types inside a subgraph run; those of a muted or bypassed node do not."""
    graph = read_graph(handmade_files()["subgraph_with_virtual_nodes"])
    assert running_types(graph) == {
        "LoadImage",
        "SaveImage",
        "ImageScaleBy",
        "PreviewImage",
        "PrimitiveNode",
        "Reroute",
    }
