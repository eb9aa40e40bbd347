"""Conversion held against what ComfyUI's own frontend makes of the same files.

What no file and no server tells is left out: the empty previews that the frontend adds to nodes
that show a 3D model, one refresh button, and the titles, from its own word list, that it gives to
nodes whose author left them untitled.
"""

from __future__ import annotations

import time
from typing import Any

import pytest

from comfyserve.workflows.node_catalog import NodeCatalog
from comfyserve.workflows.ui_format import convert
from tests.golden import Graph, golden, handmade_files, read_graph, template_files

FRONTEND_ONLY = {
    ("SaveGLB", "image"): "",
    ("Preview3D", "image"): "",
    ("LoadImageOutput", "refresh"): "refresh",
}
DRAWN = {
    ("texts_and_titles", "2", "text"),
    ("texts_and_titles", "3", "text"),
    ("primitive_nodes", "2", "text"),
    ("primitive_nodes", "3", "text"),
}
"""Texts with choices, of which the frontend draws one when it converts, and we at each run."""


def differences(name: str, wanted: Graph, catalog: NodeCatalog) -> list[str]:
    """Everything in which our graph differs from the recorded one."""
    files = handmade_files() if name in golden().handmade else template_files()
    got = convert(read_graph(files[name]), catalog, strict=True).graph
    found = [f"{name}: node {node_id} is missing" for node_id in wanted.keys() - got.keys()]
    found += [f"{name}: node {node_id} is too much" for node_id in got.keys() - wanted.keys()]
    for node_id in wanted.keys() & got.keys():
        ours, theirs = comparable(got[node_id]), comparable(wanted[node_id])
        for address in ours.keys() | theirs.keys():
            our, their = ours.get(address, "nothing"), theirs.get(address, "nothing")
            if our == their or (name, node_id, address) in DRAWN:
                continue
            if address != "_meta.title" or not is_untitled(got[node_id], our, catalog):
                found.append(f"{name}: {node_id} {address} is {our!r}, not {their!r}")
    return found


def comparable(node: dict[str, Any]) -> dict[str, Any]:
    """A node's class, what is told about it, and its inputs, side by side."""
    class_type = node["class_type"]
    inputs = {
        name: value
        for name, value in node["inputs"].items()
        if FRONTEND_ONLY.get((class_type, name), "nothing") != value
    }
    meta = {f"_meta.{name}": value for name, value in node["_meta"].items()}
    return {"class_type": class_type} | meta | inputs


def is_untitled(node: dict[str, Any], title: str, catalog: NodeCatalog) -> bool:
    """The title is one that neither the file nor the server has."""
    known = catalog.get(node["class_type"])
    return title in (node["class_type"], known.title if known else "")


@pytest.mark.parametrize("name", golden().handmade)
def test_converts_what_templates_do_not_show(name: str, catalog: NodeCatalog) -> None:
    """Each graph written to show one thing converts exactly as in the editor."""
    assert differences(name, golden().handmade[name], catalog) == []


def test_converts_every_template_exactly(catalog: NodeCatalog) -> None:
    """Every official template that the recorded server could run converts as in the editor."""
    templates = golden().templates
    assert len(templates) >= 121
    found = [differences(name, wanted, catalog) for name, wanted in templates.items()]
    assert [one for many in found for one in many] == []


def test_reads_every_template_with_any_server(catalog: NodeCatalog) -> None:
    """All official templates are read, with a catalogue that lacks many nodes and without any."""
    for name, file in template_files().items():
        document = read_graph(file)
        for known in (catalog, None):
            converted = convert(document, known, source=name)
            assert converted.graph
            assert {warning.node_id for warning in converted.warnings} <= set(converted.graph)


def test_the_largest_template_converts_at_once(catalog: NodeCatalog) -> None:
    """Converting the largest template takes less than 0.2 s."""
    largest = max(template_files().values(), key=lambda file: file.stat().st_size)
    document = read_graph(largest)
    times: list[float] = []
    for _ in range(5):
        began = time.perf_counter()
        convert(document, catalog)
        times.append(time.perf_counter() - began)
    assert min(times) < 0.2
