"""Marks and sidecars reach the workflow that people load."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from comfyserve.errors import InvalidInputs, WorkflowUnreadable
from comfyserve.workflows.embedded import Embedded
from comfyserve.workflows.node_catalog import NodeCatalog
from comfyserve.workflows.source import Source
from comfyserve.workflows.workflow import Workflow


def text_to_image(prompt_title: str = "Prompt") -> dict[str, Any]:
    return {
        "3": {
            "class_type": "KSampler",
            "inputs": {
                "seed": 5,
                "steps": 20,
                "cfg": 7.0,
                "positive": ["6", 0],
                "negative": ["7", 0],
                "latent_image": ["5", 0],
            },
        },
        "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": 512}},
        "6": {
            "class_type": "CLIPTextEncode",
            "inputs": {"text": "a fox"},
            "_meta": {"title": prompt_title},
        },
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "blurry"}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["3", 0]}},
    }


def saved(folder: Path, graph: dict[str, Any], sidecar: str | None = None) -> Path:
    file = folder / "portrait.json"
    file.write_text(json.dumps(graph), encoding="utf-8")
    if sidecar is not None:
        (folder / "portrait.toml").write_text(sidecar, encoding="utf-8")
    return file


SIDECAR = """
title = "Portrait"
description = "A face in a style"

[inputs.style]
targets = ["6.text"]
label = "Style"
default = "oil painting"

[inputs.quality]
targets = ["3.steps"]
min = 10
max = 40
"""


def test_a_sidecar_beside_the_file_decides(tmp_path: Path) -> None:
    """The sidecar's inputs replace what would have been inferred, defaults included."""
    workflow = Workflow.load(saved(tmp_path, text_to_image(), SIDECAR))

    assert [parameter.name for parameter in workflow.parameters] == ["style", "quality"]
    assert (workflow.title, workflow.convention) == ("Portrait", "sidecar")
    bound = workflow.bind({"quality": 12}, rng=random.Random(1))
    assert bound.graph["6"]["inputs"]["text"] == "oil painting"
    assert bound.graph["3"]["inputs"]["steps"] == 12
    with pytest.raises(InvalidInputs, match="40"):
        workflow.bind({"quality": 41}, rng=random.Random(1))


def test_a_broken_sidecar_names_its_key(tmp_path: Path) -> None:
    """An unknown key of a sidecar is an error with the nearest right one."""
    with pytest.raises(WorkflowUnreadable, match=r"portrait\.toml.*titel.*title"):
        Workflow.load(saved(tmp_path, text_to_image(), 'titel = "x"'))


def test_a_sidecar_that_is_no_text_is_named(tmp_path: Path) -> None:
    """A sidecar in another encoding is an error that names the file."""
    file = saved(tmp_path, text_to_image())
    (tmp_path / "portrait.toml").write_bytes('title = "ä"'.encode("latin-1"))

    with pytest.raises(WorkflowUnreadable, match=r"portrait\.toml is not UTF-8"):
        Workflow.load(file)


def test_a_seed_that_the_author_hid_is_still_fresh(tmp_path: Path) -> None:
    """A marked workflow that shows no seed does not give the same picture every time."""
    workflow = Workflow.load(saved(tmp_path, text_to_image("$prompt.text!:what to draw")))

    assert [parameter.name for parameter in workflow.parameters] == ["prompt"]
    assert workflow.convention == "titles"
    first, second = (workflow.bind({}, rng=random.Random(n)) for n in (1, 2))
    assert first.seeds.keys() == second.seeds.keys() == {"3.seed"}
    assert first.seeds != second.seeds
    assert "seed" not in first.inputs


def test_nothing_marked_is_inferred(tmp_path: Path) -> None:
    """Without marks the usual inputs are found."""
    workflow = Workflow.load(saved(tmp_path, text_to_image()))

    assert workflow.convention == "inference"
    names = {parameter.name for parameter in workflow.parameters}
    assert {"prompt", "negative_prompt", "seed", "steps", "cfg", "width", "height"} <= names


def test_a_sidecar_may_leave_out_what_the_graph_holds(tmp_path: Path) -> None:
    """Choices of the author's own are no claim about the server: the graph's value still runs."""
    graph = text_to_image()
    graph["3"]["inputs"]["sampler_name"] = "euler"
    sidecar = '[inputs.sampler]\ntargets = ["3.sampler_name"]\nchoices = ["ddim", "heun"]\n'
    known = {
        "KSampler": {
            "input": {"required": {"sampler_name": [["euler", "ddim", "heun"], {}]}},
            "output": ["LATENT"],
        }
    }
    workflow = Workflow.load(saved(tmp_path, graph, sidecar))

    bound = workflow.bind({}, rng=random.Random(1), catalog=NodeCatalog.from_json(known))

    assert bound.graph["3"]["inputs"]["sampler_name"] == "euler"


def test_what_comfyui_noted_in_a_graph_is_not_sent_back(tmp_path: Path) -> None:
    """`is_changed` in a saved graph would make the server believe that no file has changed."""
    graph = text_to_image()
    graph["5"]["is_changed"] = [float("nan")]
    workflow = Workflow.load(saved(tmp_path, graph))

    assert all("is_changed" not in node for node in workflow.graph.values())


def test_a_number_that_no_server_takes_is_named(tmp_path: Path) -> None:
    """NaN among the inputs is refused before anything is sent, unless it is replaced."""
    graph = text_to_image()
    graph["3"]["inputs"]["denoise"] = float("nan")
    workflow = Workflow.load(saved(tmp_path, graph))

    with pytest.raises(InvalidInputs, match=r"3\.denoise=NUMBER"):
        workflow.bind({}, rng=random.Random(1))
    assert workflow.bind({"3.denoise": 0.5}, rng=random.Random(1))


def test_a_sidecar_is_no_workflow(tmp_path: Path) -> None:
    """Who gives the sidecar instead of the workflow is told which file to give."""
    saved(tmp_path, text_to_image(), SIDECAR)

    with pytest.raises(WorkflowUnreadable, match=r"is a sidecar.*portrait\.json"):
        Workflow.load(tmp_path / "portrait.toml")


def editor_document(kind: str, node_id: int = 6) -> dict[str, Any]:
    return {
        "nodes": [
            {
                "id": node_id,
                "type": kind,
                "inputs": [{"name": "text", "type": "STRING", "widget": {"name": "text"}}],
                "outputs": [],
                "widgets_values": ["a fox"],
                "mode": 0,
            }
        ],
        "links": [],
        "extra": {"linearData": {"inputs": [[node_id, "text"]], "outputs": []}},
    }


@pytest.mark.parametrize(("kind", "convention"), [("CLIPTextEncode", "app_mode"), ("Note2", "x")])
def test_marks_beside_a_graph_must_be_of_that_graph(kind: str, convention: str) -> None:
    """The editor's document that a picture carries marks only the graph it belongs to."""
    embedded = Embedded(json.dumps(text_to_image()), json.dumps(editor_document(kind)), "PNG")
    source = Source.of(embedded, "x.png", None)

    told = source.told(None, strict=False)

    assert (told.editor is not None) == (convention == "app_mode")


def test_a_picture_with_a_broken_graph_still_has_its_workflow() -> None:
    """Where the graph in a picture cannot be read, the editor's document is used."""
    embedded = Embedded("{broken", json.dumps(editor_document("CLIPTextEncode")), "PNG")

    assert Source.of(embedded, "x.png", None).editor is not None


def test_an_editor_file_is_never_certain_without_a_catalogue(tmp_path: Path) -> None:
    """A sidecar may name inputs that only the server's nodes have."""
    file = tmp_path / "old.json"
    file.write_text(json.dumps(editor_document("CLIPTextEncode")), encoding="utf-8")
    sidecar = '[inputs.later]\ntargets = ["6.added_since"]\n'
    (tmp_path / "old.toml").write_text(sidecar, encoding="utf-8")

    assert Workflow.load(file).graph
