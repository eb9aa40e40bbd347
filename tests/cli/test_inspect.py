"""What `inspect` tells of a workflow, as a table and as JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest

from comfyserve.cli.examples import example
from comfyserve.cli.input_table import inspection_lines
from comfyserve.cli.inspect import inspection, warnings_of
from comfyserve.cli.target import Known
from comfyserve.workflows.node_catalog import NodeCatalog
from comfyserve.workflows.sidecar import read_sidecar
from comfyserve.workflows.workflow import Workflow

URL = "http://gpu.example:8188"
CATALOG = NodeCatalog.from_json(
    {
        "KSampler": {
            "input": {
                "required": {
                    "model": ["MODEL"],
                    "seed": ["INT", {"min": 0, "max": 2**64 - 1}],
                    "steps": ["INT", {"min": 1, "max": 10000, "tooltip": "How many steps."}],
                    "cfg": ["FLOAT", {"min": 0.0, "max": 100.0}],
                    "sampler_name": [[f"sampler_{number}" for number in range(40)]],
                    "positive": ["CONDITIONING"],
                    "latent_image": ["LATENT"],
                }
            },
            "output": ["LATENT"],
        },
        "CLIPTextEncode": {"input": {"required": {"text": ["STRING", {"multiline": True}]}}},
        "SaveLatent": {"input": {"required": {"samples": ["LATENT"]}}, "output_node": True},
    }
)
LONG = "a fox \x1b[2J in the snow, " * 20
GRAPH: dict[str, Any] = {
    "1": {"class_type": "CLIPTextEncode", "inputs": {"text": LONG}},
    "2": {
        "class_type": "KSampler",
        "inputs": {
            "seed": 7,
            "steps": 20,
            "cfg": 6.5,
            "sampler_name": "sampler_3",
            "positive": ["1", 0],
            "latent_image": ["9", 0],
        },
    },
    "4": {"class_type": "SaveLatent", "inputs": {"samples": ["2", 0]}, "_meta": {"title": "Done"}},
    "9": {"class_type": "OwnNoise", "inputs": {"width": 640, "height": 480}},
}


def described() -> Workflow:
    return Workflow.from_json(GRAPH, "fox in snow", catalog=CATALOG)


def lines(width: int = 80, *, known: Known | None = None) -> list[str]:
    """The table for the workflow above."""
    asked = known or Known(URL, CATALOG)
    workflow = described() if asked.catalog else Workflow.from_json(GRAPH, "fox in snow")
    return [*inspection_lines(workflow, asked, [*warnings_of(workflow, asked.catalog)], width)]


def row(name: str, told: list[str]) -> str:
    """The row of that input, its spaces made one."""
    return " ".join(next(line for line in told if line.startswith(f"{name} ")).split())


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_table_fits(width: int) -> None:
    """No line is wider than the terminal, and none ends in spaces or steers it."""
    told = lines(width)

    assert max(map(len, told)) <= width
    assert all(line == line.rstrip() and line.isprintable() for line in told)


def test_a_row_tells_what_there_is_to_know() -> None:
    """Each input has its type, default, limits and places in one row, and why below."""
    told = lines()

    assert row("steps", told) == "steps integer 20 1 .. 10000 2.steps"
    assert row("cfg", told) == "cfg number 6.5 0 .. 100 2.cfg"
    assert row("sampler", told) == "sampler choice sampler_3 40 choices 2.sampler_name"
    assert row("prompt", told).startswith('prompt text "a fox')
    text = "\n".join(told)
    assert "    How many steps." in text
    assert "why: steps of node 2 (KSampler)" in text
    assert "choices: sampler_0, sampler_1," in text


def test_advanced_inputs_come_last_under_a_heading() -> None:
    """What may be folded away stands below its own heading."""
    told = lines()

    heading = told.index("ADVANCED")
    assert heading < told.index(next(line for line in told if line.startswith("sampler ")))
    assert heading > told.index(next(line for line in told if line.startswith("prompt ")))


def test_outputs_and_warnings_are_told() -> None:
    """Outputs stand with their node and title; a node that the server lacks is a warning."""
    told = lines()

    assert '4 (SaveLatent, "Done")' in told
    warning = " ".join(told[told.index("WARNINGS") + 1 :])
    assert "no OwnNoise, which node 9 needs" in warning


def test_an_author_who_chose_the_inputs_is_named() -> None:
    """Where the author marked inputs, it is told by which convention, with title and help."""
    sidecar = read_sidecar(
        'title = "Foxes"\ndescription = "Snow."\n[inputs.fox]\ntargets = ["1.text"]\n', "fox.toml"
    )
    workflow = Workflow.from_json(GRAPH, "fox", sidecar=sidecar)

    told = [*inspection_lines(workflow, Known(URL), (), 80)]

    assert told[1:4] == ["Foxes", "Snow.", "The inputs are those of the sidecar beside the file."]
    assert row("fox", told).startswith("fox text")


def test_many_warnings_do_not_bury_the_table() -> None:
    """Of many warnings some are shown, with how many there are and how to see them all."""
    many = [f"Node {number} is odd." for number in range(100)]

    told = [*inspection_lines(described(), Known(URL, CATALOG), many, 80)]

    assert "- Node 0 is odd." in told
    assert told[-1] == "- and 80 more; --json has them all"


def test_without_a_catalogue_the_table_says_so() -> None:
    """Without a server's nodes the inputs are there, and it is told what is missing."""
    told = lines(known=Known(URL))

    assert told[1].startswith("Without a server's nodes")
    assert row("steps", told) == "steps integer 20 - 2.steps"


def test_a_workflow_without_inputs_or_outputs() -> None:
    """Where nothing is found, a sentence says so, and what can be done all the same."""
    workflow = Workflow.from_json({"1": {"class_type": "Tick", "inputs": {}}})

    told = "\n".join(inspection_lines(workflow, Known(URL), (), 80))

    assert "No inputs were found" in told
    assert "No node gives a result" in told


def test_the_document_holds_the_schema_and_every_why() -> None:
    """The JSON has the schema of the inputs, where each goes and why, outputs and warnings."""
    workflow = described()

    told = inspection(workflow, Known(URL, CATALOG), [*warnings_of(workflow, CATALOG)])

    told = json.loads(json.dumps(told))
    assert told["nodes_from"] == URL
    assert (told["format"], told["convention"]) == ("api", "inference")
    assert told["schema"]["properties"]["steps"]["maximum"] == 10000
    steps = next(given for given in told["inputs"] if given["name"] == "steps")
    assert steps["fills"] == ["2.steps"]
    assert steps["why"] == "steps of node 2 (KSampler)"
    assert told["outputs"] == [{"node_id": "4", "class_type": "SaveLatent", "title": "Done"}]
    assert len(told["warnings"]) == 1


def test_an_example_is_told_whole() -> None:
    """A real example's inputs are all in the table."""
    workflow = Workflow.load(example("image_to_image.json"))

    told = list(inspection_lines(workflow, Known(URL), (), 80))

    for parameter in workflow.parameters:
        assert row(parameter.name, told).split()[1] == parameter.kind


def test_an_address_is_never_cut() -> None:
    """A place that its column cannot take whole stands below the row."""
    address = "a_very_long_node_id:12:34.sampler_name_of_the_second_pass"
    node_id, name = address.split(".")
    graph = {
        node_id: {"class_type": "Detail", "inputs": {name: "euler"}},
        "9": {"class_type": "SaveImage", "inputs": {"images": [node_id, 0]}},
    }
    sidecar = read_sidecar(f'[inputs.sampler]\ntargets = ["{address}"]\n', "x.toml")
    workflow = Workflow.from_json(graph, sidecar=sidecar)

    told = list(inspection_lines(workflow, Known(URL), (), 80))

    assert f"    fills: {address}" in told
