"""What a ComfyUI certainly refuses is told beforehand; what it runs never is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from comfyserve.workflows.graph_check import WHOLE_GRAPH, Problems, problems_of
from comfyserve.workflows.node_catalog import NodeCatalog
from tests.traces.recording import FOLDER

OBJECT_INFO = json.loads((FOLDER / "object_info.json").read_text(encoding="utf-8"))
CATALOG = NodeCatalog.from_json(OBJECT_INFO)

# Why ComfyUI refused a recorded graph, where we can know it beforehand.
TELLABLE = {
    "missing required input": [("3", "steps", "missing_input")],
    "missing required link": [("3", "model", "missing_input")],
    "bad link: length 3": [("8", "samples", "invalid_link")],
    "link to a node that is not there": [("8", "samples", "invalid_link")],
    "link to a missing node, one level up": [("3", "latent_image", "invalid_link")],
    "link slot out of range": [("8", "samples", "invalid_link")],
    "link node id as a number": [("8", "samples", "invalid_link")],
    "unknown class_type": [("8", None, "unknown_node")],
    "no class_type": [("8", None, "invalid_node")],
    "no inputs key": [("8", None, "invalid_node")],
    "no output nodes": [(WHOLE_GRAPH, None, "no_output")],
    "two nodes with errors": [("3", "steps", "missing_input")],
    "node is a string": [("8", None, "invalid_node")],
    "empty prompt {}": [(WHOLE_GRAPH, None, "no_output")],
}


def posts() -> Iterator[tuple[str, str, dict[str, Any], int]]:
    """Every recorded graph that was handed in: recording, note before it, graph, status."""
    for path in sorted(FOLDER.glob("*.jsonl")):
        note, asked = "", dict[int, tuple[str, Any]]()
        for line in path.read_text(encoding="utf-8").splitlines():
            seen = json.loads(line)
            if seen["kind"] == "note":
                note = seen["text"]
            elif seen["kind"] == "http-request" and seen["path"] in ("/prompt", "/api/prompt"):
                asked[seen["id"]] = (note, seen.get("json"))
            elif seen["kind"] == "http-response" and seen["id"] in asked:
                told, body = asked[seen["id"]]
                graph = body.get("prompt") if isinstance(body, dict) else None
                if isinstance(graph, dict):
                    yield path.stem, told, graph, seen["status"]


def known(graph: dict[str, Any]) -> bool:
    """Whether the nodes are of the server whose catalogue was recorded."""
    return all(node["class_type"] in CATALOG for node in graph.values())


def node(class_type: str, **inputs: object) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def told(problems: Problems) -> list[tuple[str, str | None, str]]:
    return [(id, one.field, one.reason) for id, found in problems.items() for one in found]


IMAGE = node("EmptyImage", width=8, height=8, batch_size=1, color=0)
SAVE = node("SaveImage", images=["1", 0], filename_prefix="x")


def test_no_graph_that_comfyui_took_is_refused() -> None:
    """Every graph that ComfyUI accepted in the recordings has no problems."""
    taken = [(name, note, graph) for name, note, graph, status in posts() if status == 200]
    judged = [one for one in taken if known(one[2])]

    refused = {(name, note): problems_of(graph, CATALOG) for name, note, graph in judged}

    assert len(judged) > 60
    assert {key: problems for key, problems in refused.items() if problems} == {}


def test_what_comfyui_refused_for_its_build_is_told() -> None:
    """Of the graphs that ComfyUI refused, those that are built wrong have just these problems."""
    refused = {
        note: told(problems_of(graph, CATALOG))
        for name, note, graph, status in posts()
        if name == "prompt_errors" and status == 400
    }

    assert set(TELLABLE) <= set(refused)
    assert {note: found for note, found in refused.items() if found} == TELLABLE


def test_one_good_output_is_enough() -> None:
    """A graph with a broken output runs as long as another output is whole, as ComfyUI does."""
    broken = node("SaveImage", filename_prefix="x")

    assert problems_of({"1": IMAGE, "2": SAVE, "3": broken}, CATALOG) == {}
    assert told(problems_of({"1": IMAGE, "3": broken}, CATALOG)) == [
        ("3", "images", "missing_input")
    ]


def test_a_broken_node_that_nothing_needs_is_nothing() -> None:
    """Nodes that lead to no output are never looked at, but their class must be known."""
    graph = {"1": IMAGE, "2": SAVE, "3": node("VAEDecode", samples=["99", 0])}

    assert problems_of(graph, CATALOG) == {}
    graph["3"] = node("VAEDecoed")
    (problem,) = problems_of(graph, CATALOG)["3"]
    assert problem.reason == "unknown_node"
    assert "Did you mean 'VAEDecode'?" in problem.message


def test_only_problems_on_the_way_to_an_output_are_told() -> None:
    """Where nothing can run, what is told is what stands in an output's way."""
    graph = {"2": SAVE, "3": node("VAEDecode", samples=["99", 0])}

    assert told(problems_of(graph, CATALOG)) == [("2", "images", "invalid_link")]


def test_inputs_that_nobody_knows_are_nothing() -> None:
    """An input that the node does not have may hold anything, also a link to nowhere."""
    extra = {"class_type": "SaveImage", "inputs": {**SAVE["inputs"], "extra": ["99", 7]}}

    assert problems_of({"1": IMAGE, "2": extra}, CATALOG) == {}


@pytest.mark.parametrize(("slot", "fits"), [(0, True), (-1, True), (1, False), (-2, False)])
@pytest.mark.parametrize("odd", [1.0, "0", None])
def test_slots_are_counted_as_comfyui_counts(slot: int, fits: bool, odd: object) -> None:
    """A slot is a number that the node has, also from the end; nothing else is one."""
    graph = {"1": IMAGE, "2": node("SaveImage", images=["1", slot], filename_prefix="x")}

    assert (problems_of(graph, CATALOG) == {}) is fits
    graph["2"]["inputs"]["images"] = ["1", odd]
    assert told(problems_of(graph, CATALOG)) == [("2", "images", "invalid_link")]


def test_outputs_of_custom_nodes_are_not_counted() -> None:
    """A custom node may have more outputs than it lists, so its slots are its own affair."""
    custom = {"input": {}, "output": ["*"], "python_module": "custom_nodes.any_switch"}
    catalog = NodeCatalog.from_json({**OBJECT_INFO, "Switch": custom})
    save = node("SaveImage", images=["1", 5], filename_prefix="x")

    assert problems_of({"1": node("Switch"), "2": save}, catalog) == {}


def test_dynamic_inputs_are_left_to_comfyui() -> None:
    """An input whose parts depend on other values is never called missing."""
    required = {"parts": ["COMFY_AUTOGROW_V3", {}]}
    kind = {"input": {"required": required}, "output_node": True}
    catalog = NodeCatalog.from_json({"Join": kind})

    assert problems_of({"1": node("Join", **{"parts.a": "x"})}, catalog) == {}


def test_a_misspelled_input_is_seen() -> None:
    """A required input that is there under nearly its name is told so."""
    save = node("SaveImage", image=["1", 0], filename_prefix="x")

    (problem,) = problems_of({"1": IMAGE, "2": save}, CATALOG)["2"]

    assert "needs a value or a link for its input 'images'" in problem.message
    assert "'image'" in problem.message


def test_a_circle_is_left_to_others() -> None:
    """Nodes that feed each other do not keep the check from ending."""
    graph = {
        "1": node("ImageInvert", image=["3", 0]),
        "3": node("ImageInvert", image=["1", 0]),
        "2": SAVE,
    }

    assert problems_of(graph, CATALOG) == {}


def test_a_large_graph_takes_no_time() -> None:
    """Twenty thousand nodes with thousands of outputs are checked in one go."""
    graph = {"0": IMAGE}
    for number in range(1, 20_000):
        kind = "SaveImage" if number % 5 == 0 else "ImageInvert"
        graph[str(number)] = node(kind, **{"images" if number % 5 == 0 else "image": ["0", 0]})

    assert told(problems_of(graph, CATALOG))[0] == ("5", "filename_prefix", "missing_input")
