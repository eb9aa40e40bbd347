"""What a graph needs and a server lacks, told from the catalogue alone."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from comfyserve.comfy.findings import Finding
from comfyserve.comfy.needs import ModelSource, files_of, model_sources, shortfalls
from comfyserve.workflows.node_catalog import NodeCatalog

CATALOG = NodeCatalog.from_json(
    {
        "Loader": {"input": {"required": {"ckpt_name": [["dream_v8.safetensors", "b\\c.ckpt"]]}}},
        "LoadImage": {"input": {"required": {"image": [["example.png"], {"image_upload": True}]}}},
        "Sampler": {
            "input": {
                "required": {
                    "model": ["MODEL"],
                    "steps": ["INT", {"min": 1, "max": 100}],
                    "cfg": ["FLOAT", {"min": 0.5}],
                    "mode": ["COMBO", {"options": ["fast", "slow"]}],
                },
                "optional": {"image": ["IMAGE"]},
            }
        },
        "Save": {"input": {"required": {"images": ["IMAGE"]}}, "output_node": True},
        "Paid": {"input": {}, "output_node": True, "api_node": True},
        "Dynamic": {
            "input": {"required": {"images": ["COMFY_AUTOGROW_V3", {}]}},
            "output_node": True,
        },
    }
)
GRAPH: dict[str, Any] = {
    "1": {"class_type": "Loader", "inputs": {"ckpt_name": "dream_v8.safetensors"}},
    "2": {"class_type": "LoadImage", "inputs": {"image": "example.png"}},
    "3": {
        "class_type": "Sampler",
        "inputs": {"model": ["1", 0], "steps": 20, "cfg": 7, "mode": "fast", "image": ["2", 0]},
    },
    "4": {"class_type": "Save", "inputs": {"images": ["3", 0]}},
}

Change = Callable[[dict[str, Any]], object]


def found(*changes: Change, **told: Any) -> list[Finding]:
    """What is missing for the graph after these changes to it."""
    graph = copy.deepcopy(GRAPH)
    for change in changes:
        change(graph)
    return list(shortfalls(graph, CATALOG, **told))


def setting(node_id: str, **inputs: Any) -> Change:
    return lambda graph: graph[node_id]["inputs"].update(inputs)


def test_a_graph_that_fits_misses_nothing() -> None:
    """Nothing is found where all is there."""
    assert found() == []


def test_a_missing_model_names_the_nearest_and_where_to_put_it() -> None:
    """A model that is not there is told with the nearest names and its folder."""
    (finding,) = found(setting("1", ckpt_name="dream_v9.safetensors"))

    assert (finding.mark, finding.topic) == ("problem", "models")
    assert "'dream_v9.safetensors'" in finding.message
    assert "node 1 (Loader)" in finding.message
    assert "models/checkpoints" in finding.advice
    assert "dream_v8.safetensors" in finding.advice
    assert "1.ckpt_name=" in finding.advice


def test_a_model_that_the_file_knows_a_source_of() -> None:
    """Where the workflow's file says where its model can be had, that is the advice."""
    sources = {"new.gguf": ModelSource("https://models.example/new.gguf", "unet")}

    (finding,) = found(setting("1", ckpt_name="sub\\new.gguf"), sources=sources)

    assert "Download https://models.example/new.gguf into its models/unet." in finding.advice


def test_a_model_is_reported_once() -> None:
    """Several nodes that want the same model are one finding that names them all."""

    def two(graph: dict[str, Any]) -> None:
        graph["5"] = copy.deepcopy(graph["1"])
        graph["3"]["inputs"]["image"] = ["5", 0]

    (finding,) = found(
        two,
        setting("1", ckpt_name="x.safetensors"),
        lambda g: g["5"]["inputs"].update(ckpt_name="x.safetensors"),
    )

    assert "node 1 (Loader), node 5 (Loader) ask for" in finding.message


def test_the_other_slash_is_the_same_model() -> None:
    """A name from Windows is the same on a server with the other slash."""
    assert found(setting("1", ckpt_name="b/c.ckpt")) == []


@pytest.mark.parametrize(
    ("meta", "advice"),
    [
        ({"cnr_id": "great-pack", "ver": "1.2.0"}, "Install the pack great-pack 1.2.0"),
        ({"aux_id": "someone/some-nodes"}, "github.com/someone/some-nodes"),
        ({"cnr_id": "comfy-core", "ver": "0.9.0"}, "ComfyUI itself (the file is from 0.9.0)"),
        ({"title": "Mine"}, "Did you mean 'Sampler'?"),
    ],
)
def test_a_missing_node_names_its_pack(meta: dict[str, str], advice: str) -> None:
    """A kind of node that is not there is told with what brings it, as far as the file says."""

    def renamed(graph: dict[str, Any]) -> None:
        graph["3"] |= {"class_type": "Samplers", "_meta": meta}

    (finding,) = found(renamed)

    assert (finding.mark, finding.topic) == ("problem", "nodes")
    assert "no Samplers, which node 3 needs" in finding.message
    assert advice in finding.advice


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"steps": 0}, "steps 0; the least is 1"),
        ({"steps": 101}, "steps 101; the most is 100"),
        ({"cfg": 0.1}, "cfg 0.1; the least is 0.5"),
        ({"mode": "quick"}, "no mode 'quick'"),
    ],
)
def test_a_value_that_does_not_fit(inputs: dict[str, Any], said: str) -> None:
    """A value outside of its limits or choices is told with them and its address."""
    (finding,) = found(setting("3", **inputs))

    assert (finding.mark, finding.topic) == ("problem", "values")
    assert said in finding.message
    assert f"3.{next(iter(inputs))}=" in finding.advice


def test_an_input_that_is_lacking() -> None:
    """A required input without value and link is told; an optional or dynamic one is not."""

    def without(graph: dict[str, Any]) -> None:
        del graph["3"]["inputs"]["cfg"], graph["3"]["inputs"]["image"]
        graph["5"] = {"class_type": "Dynamic", "inputs": {"images.image0": ["3", 0]}}

    (finding,) = found(without)

    assert finding.message == "Node 3 (Sampler) lacks its input cfg."


def test_a_file_to_give() -> None:
    """An input file that is not there is a warning: most runs bring their own."""
    (finding,) = found(setting("2", image="cat.png"), missing_files=["cat.png"])

    assert (finding.mark, finding.topic) == ("warn", "files")
    assert "2.image=@FILE" in finding.advice


def test_only_files_the_server_does_not_list_have_to_be_looked_for() -> None:
    """What the catalogue lists is there; of the rest the server has to be asked."""
    graph = copy.deepcopy(GRAPH)

    assert files_of(graph, CATALOG) == []
    graph["2"]["inputs"]["image"] = "comfyserve/cat.png"
    assert files_of(graph, CATALOG) == ["comfyserve/cat.png"]


def test_nodes_that_no_output_needs_do_not_matter() -> None:
    """A server looks only at what leads to a result, so nothing else is told."""

    def loose(graph: dict[str, Any]) -> None:
        graph["9"] = {"class_type": "Loader", "inputs": {"ckpt_name": "gone.ckpt"}}

    assert found(loose) == []


def test_a_graph_without_results() -> None:
    """A graph in which nothing gives a result is told as one the server refuses."""
    (finding,) = found(lambda graph: graph.pop("4"))

    assert finding.topic == "workflow"
    assert "SaveImage" in finding.advice


def test_credits_are_told() -> None:
    """A node that spends credits is a warning."""
    (finding,) = found(lambda graph: graph.update({"7": {"class_type": "Paid", "inputs": {}}}))

    assert finding.mark == "warn"
    assert "node 7 (Paid)" in finding.message


def test_sources_of_models_in_a_file() -> None:
    """Models are found on nodes and inside of subgraphs; nonsense and other links are not."""
    models = [
        {"name": "a.ckpt", "url": "https://m.example/a", "directory": "checkpoints"},
        {"name": "b", "url": "file:///etc/passwd"},
        7,
    ]
    inner = {"nodes": [{"properties": {"models": [{"name": "c", "url": "https://m.example/c"}]}}]}

    sources = model_sources(
        {"nodes": [{"properties": {"models": models}}, 3], "definitions": {"subgraphs": [inner]}}
    )

    assert sources == {
        "a.ckpt": ModelSource("https://m.example/a", "checkpoints"),
        "c": ModelSource("https://m.example/c", ""),
    }


def test_a_strange_name_gets_no_far_fetched_hint() -> None:
    """A kind of node that is like none is taken for no other, and may be the end."""
    graph = {"1": {"class_type": "FarOffThing", "inputs": {}}}

    (finding,) = shortfalls(graph, CATALOG)

    assert finding.topic == "nodes"
    assert "Did you mean" not in finding.advice
