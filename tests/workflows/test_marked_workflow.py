"""Marks and sidecars reach the workflow that people load."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from comfyserve.errors import InvalidInputs, WorkflowUnreadable
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
