"""Marks in titles and by marker nodes, and which convention decides."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyserve.workflows.graph import Address, Graph
from comfyserve.workflows.inference import infer
from comfyserve.workflows.mark import public_name
from comfyserve.workflows.marks import Marked, read_marks
from comfyserve.workflows.node_catalog import NodeCatalog
from comfyserve.workflows.parameters import Choice, Number, Parameter
from comfyserve.workflows.sidecar import read_sidecar


def node(class_type: str, title: str = "", **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs, "_meta": {"title": title}}


def text_to_image(**titles: str) -> dict[str, Any]:
    """A small graph; *titles* are given by class type."""
    return {
        "1": node("KSampler", titles.get("KSampler", ""), seed=7, steps=20, positive=["2", 0]),
        "2": node("CLIPTextEncode", titles.get("CLIPTextEncode", ""), text="a fox"),
        "3": node("SaveImage", titles.get("SaveImage", ""), images=["1", 0], filename_prefix="x"),
        "4": node("LoadImage", titles.get("LoadImage", ""), image="in.png"),
        "5": node("KSampler", titles.get("KSampler", ""), seed=7, steps=20, positive=["2", 0]),
        "6": node("Note", titles.get("Note", ""), text="Paints foxes."),
    }


def marked(graph: Graph, catalog: NodeCatalog | None = None, sidecar: str = "") -> Marked:
    beside = read_sidecar(sidecar, "fox.toml") if sidecar else None
    return read_marks(graph, inferred=infer(graph, catalog), catalog=catalog, sidecar=beside)


def at(*addresses: str) -> tuple[Address, ...]:
    return tuple((node_id, name) for node_id, _, name in (a.partition(".") for a in addresses))


def targets(found: Marked) -> dict[str, tuple[Address, ...]]:
    return {parameter.name: parameter.targets for parameter in found.parameters}


def only(found: Marked) -> Parameter:
    (parameter,) = found.parameters
    return parameter


@pytest.mark.parametrize(
    ("class_type", "title", "expected"),
    [
        ("CLIPTextEncode", "$prompt.text!:What to paint", {"prompt": at("2.text")}),
        ("CLIPTextEncode", "$text", {"text": at("2.text")}),
        ("CLIPTextEncode", "$idea", {"idea": at("2.text")}),
        ("CLIPTextEncode", "  $Idea.text  ", {"idea": at("2.text")}),
        ("CLIPTextEncode", "$提示词.text", {"提示词": at("2.text")}),
        ("LoadImage", "$~image", {"image": at("4.image")}),
        ("LoadImage", "$photo.~image!:A face", {"photo": at("4.image")}),
        # The same name on several nodes is one input.
        ("KSampler", "$seed.seed", {"seed": at("1.seed", "5.seed")}),
        (
            "KSampler",
            "$steps.steps:How long, at least 5, $seed",
            {"steps": at("1.steps", "5.steps"), "seed": at("1.seed", "5.seed")},
        ),
        (
            "KSampler",
            "$steps,$seed",
            {"steps": at("1.steps", "5.steps"), "seed": at("1.seed", "5.seed")},
        ),
    ],
)
def test_titles_mark_inputs(
    class_type: str, title: str, expected: dict[str, tuple[Address, ...]]
) -> None:
    """Each form of a title mark names its input and what it fills."""
    found = marked(text_to_image(**{class_type: title}))

    assert found.convention == "titles"
    assert targets(found) == expected
    assert not found.warnings


def test_a_title_mark_tells_what_it_says() -> None:
    """The description is the author's, and the reason names the mark and its node."""
    parameter = only(marked(text_to_image(CLIPTextEncode="$idea.text:A fox, or so")))

    assert parameter.description == "A fox, or so"
    assert parameter.why == "title mark $idea.text on node 2"
    assert (parameter.kind, parameter.default) == ("text", "a fox")


def test_an_upload_mark_makes_a_file() -> None:
    """``~`` asks for a file even where nothing else shows that it is one."""
    graph = {
        "1": node("Custom", "$~clip_video.path", path="a.mp4"),
        "2": node("X", "$~face", face=""),
    }

    kinds = {parameter.name: parameter.kind for parameter in marked(graph).parameters}

    assert kinds == {"clip_video": "video", "face": "image"}


@pytest.mark.parametrize(
    "title", ["Costs $5", "$5 model", "$", "$$$", "$ prompt", "KSampler", "", "US$ prompt.text"]
)
def test_other_titles_are_no_marks(title: str) -> None:
    """A dollar sign alone marks nothing, and nobody is bothered about it."""
    found = marked(text_to_image(CLIPTextEncode=title))

    assert found.convention == "inference"
    assert not found.warnings


@pytest.mark.parametrize(
    ("title", "told"),
    [
        ("$prompt.txet", "The title mark $prompt.txet on node 2 names no input"),
        ("$prompt text", "The title of node 2 is no mark like $name.field"),
        ("$output.x", "marks it as an output, but it saves nothing"),
    ],
)
def test_title_marks_that_fit_nothing_are_warnings(
    catalog: NodeCatalog, title: str, told: str
) -> None:
    """A mark that cannot be followed never stops a workflow."""
    found = marked(text_to_image(CLIPTextEncode=title), catalog)

    assert found.convention == "inference"
    assert any(told in warning for warning in found.warnings)


def test_titles_mark_outputs_and_describe() -> None:
    """``$output`` chooses results, and the node titled MCP says what the workflow does."""
    graph = text_to_image(SaveImage="$output.picture", Note="MCP")
    graph["7"] = node("SaveImage", images=["1", 0])

    found = marked(graph)

    assert found.outputs == ("3",)
    assert found.description == "Paints foxes."
    assert found.convention == "inference"  # an output alone hides no input


def deploy(suffix: str, **inputs: Any) -> dict[str, Any]:
    return {"1": node(f"ComfyUIDeployExternal{suffix}", input_id="Level", **inputs)}


@pytest.mark.parametrize(
    ("suffix", "inputs", "kind", "target", "default"),
    [
        ("Text", {"default_value": "x"}, "text", "default_value", "x"),
        ("Number", {"default_value": 2}, "number", "default_value", 2),
        ("NumberInt", {"default_value": 2}, "integer", "default_value", 2),
        ("NumberSlider", {"default_value": 0.5}, "number", "default_value", 0.5),
        ("Boolean", {"default_value": True}, "flag", "default_value", True),
        ("Seed", {"default_value": -1}, "seed", "default_value", -1),
        ("Lora", {"default_lora_name": "a", "lora_url": ""}, "text", "default_lora_name", "a"),
        ("Image", {"default_value_url": "http://x/a.png"}, "text", "default_value_url", None),
        ("Image", {}, "text", "input_id", "Level"),
    ],
)
def test_deploy_nodes_mark_inputs(
    suffix: str, inputs: dict[str, Any], kind: str, target: str, default: object
) -> None:
    """Each kind of node says what it takes and where its value stands."""
    found = marked(deploy(suffix, **inputs))

    parameter = only(found)
    assert found.convention == "comfyui_deploy"
    assert (parameter.name, parameter.label) == ("level", "Level")
    assert (parameter.kind, parameter.targets) == (kind, (("1", target),))
    assert default is None or parameter.default == default


def test_a_deploy_node_says_more() -> None:
    """Label, help and limits are the author's; the reason names the node."""
    words = {"display_name": "How loud", "description": "In dB."}

    parameter = only(
        marked(deploy("NumberSlider", default_value=3, min_value=1, max_value=9, **words))
    )

    assert isinstance(parameter, Number)
    assert (parameter.label, parameter.description) == ("How loud", "In dB.")
    assert (parameter.minimum, parameter.maximum) == (1, 9)
    assert parameter.why == "marked by node 1 (ComfyUIDeployExternalNumberSlider)"


def test_limits_that_its_own_value_breaks_are_not_kept() -> None:
    """Limits that nobody ever set do not make the author's value wrong."""
    parameter = only(marked(deploy("Number", default_value=50, min_value=0, max_value=1)))

    assert isinstance(parameter, Number)
    assert (parameter.minimum, parameter.maximum) == (0, None)


def test_minus_one_asks_for_a_fresh_seed() -> None:
    """It is no value that could break the limits of a seed."""
    parameter = only(marked(deploy("Seed", default_value=-1, min_value=1, max_value=99)))

    assert isinstance(parameter, Number)
    assert (parameter.minimum, parameter.maximum) == (1, 99)


@pytest.mark.parametrize("options", ['["oil", "ink"]', "oil\nink\n", "oil, ink"])
def test_a_deploy_enum_has_choices(options: str) -> None:
    """The options may be JSON, lines, or have commas between them."""
    parameter = only(marked(deploy("Enum", default_value="oil", options=options)))

    assert isinstance(parameter, Choice)
    assert parameter.choices == ("oil", "ink")


def test_a_deploy_image_is_the_file_behind_it() -> None:
    """A picture that comes in by a link is uploaded where its loader opens it."""
    graph = deploy("Image", default_value=["2", 0]) | {
        "2": node("LoadImage", image="in.png"),
        "3": node("SaveImage", images=["1", 0]),
    }

    parameter = only(marked(graph))

    assert (parameter.name, parameter.kind, parameter.targets) == ("level", "image", at("2.image"))


def test_one_deploy_id_is_one_input() -> None:
    """Several nodes of one id are set together."""
    graph = deploy("Text", default_value="x") | {
        "2": node("ComfyUIDeployExternalText", input_id="Level", default_value="y")
    }

    assert targets(marked(graph)) == {"level": at("1.default_value", "2.default_value")}


def test_pack_nodes_mark_inputs_and_outputs() -> None:
    """A title that is a name counts, else the input that uses the value; the rest is a label."""
    graph = {
        "1": node("CPackInputString", "idea", value="a fox"),
        "2": node("CPackInputInt", "Int Input", value=20, min=1, max=50),
        "3": node("CPackInputImage", "Image Input", image="in.png"),
        "4": node("CPackInputFile", "File", file_path="a.bin"),
        "5": node("KSampler", steps=["2", 0], positive=["1", 0], seed=1),
        "6": node("CPackOutputImage", images=["5", 0]),
        "7": node("SaveImage", images=["5", 0]),
    }

    found = marked(graph)

    assert found.convention == "comfy_pack"
    assert found.outputs == ("6",)
    assert targets(found) == {
        "idea": at("1.value"),
        "steps": at("2.value"),
        "image": at("3.image"),
        "file": at("4.file_path"),
    }
    steps, image = found.parameters[1:3]
    assert isinstance(steps, Number)
    assert (steps.kind, steps.minimum, steps.maximum) == ("integer", 1, 50)
    assert (image.kind, image.label) == ("image", "Image Input")


def both() -> dict[str, Any]:
    """A graph with title marks, a ComfyUI-Deploy node and a comfy-pack node."""
    return {
        "1": node("KSampler", "$detail.steps", steps=["2", 0], positive=["4", 0], seed=3),
        "2": node(
            "ComfyUIDeployExternalNumberInt",
            "$detail.default_value",
            input_id="depth",
            display_name="Depth",
            description="Deeper is better.",
            default_value=9,
            min_value=2,
            max_value=30,
        ),
        "3": node("CPackInputString", "words", value="a fox"),
        "4": node("CLIPTextEncode", text=["3", 0]),
        "5": node("SaveImage", images=["1", 0]),
    }


def test_the_first_convention_decides() -> None:
    """Inputs that only a lower convention marks are not offered, but it fills in what it knows."""
    found = marked(both())

    detail = only(found)
    assert found.convention == "titles"
    assert (detail.name, detail.targets) == ("detail", at("2.default_value"))
    assert (detail.label, detail.description) == ("Depth", "Deeper is better.")
    assert isinstance(detail, Number)
    assert (detail.minimum, detail.maximum) == (2, 30)


def test_a_sidecar_wins_over_every_mark() -> None:
    """It decides the list, and what it leaves out comes from the marks below."""
    found = marked(both(), sidecar='[inputs.level]\ntargets = ["2.default_value"]\nmax = 20')

    level = only(found)
    assert found.convention == "sidecar"
    assert (level.name, level.label, level.description) == ("level", "Depth", "Deeper is better.")
    assert isinstance(level, Number)
    assert (level.minimum, level.maximum) == (2, 20)


def test_a_lower_limit_that_contradicts_is_passed_over() -> None:
    """A limit is filled in only where it leaves something to choose."""
    found = marked(both(), sidecar='[inputs.level]\ntargets = ["2.default_value"]\nmax = 1')

    level = only(found)
    assert isinstance(level, Number)
    assert (level.minimum, level.maximum) == (None, 1)
    assert "The workflow's own value does not fit: level is 9; the most is 1." in found.warnings


def test_a_sidecar_may_name_what_others_marked() -> None:
    """An input that a title marks needs no targets in the sidecar."""
    found = marked(both(), sidecar="[inputs.detail]\nadvanced = true")

    assert targets(found) == {"detail": at("2.default_value")}
    assert only(found).advanced


def test_marks_keep_what_the_server_knows(catalog: NodeCatalog) -> None:
    """A marked input has the limits and help of its node."""
    parameter = only(marked(text_to_image(KSampler="$detail.steps"), catalog))

    assert isinstance(parameter, Number)
    assert (parameter.minimum, parameter.maximum) == (1, 10000)
    assert parameter.description
    assert parameter.why == "title mark $detail.steps on node 1; fills 2 places"


def test_without_marks_inference_decides() -> None:
    """A graph nobody marked keeps what was found in it."""
    graph = text_to_image()
    inferred = infer(graph)

    found = marked(graph)

    assert (found.parameters, found.outputs) == (inferred.parameters, inferred.outputs)
    assert (found.convention, found.graph, found.seeds) == ("inference", graph, ())


def test_names_are_unique() -> None:
    """Two inputs of one name get numbers, and labels keep the author's spelling."""
    graph = {
        "1": node("CPackInputString", "Idea", value="a"),
        "2": node("CPackInputString", "idea", value="b"),
    }

    found = marked(graph)

    assert [(p.name, p.label) for p in found.parameters] == [("idea", "Idea"), ("idea_2", "")]


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("Style Image (left)", "style_image_left"),
        ("2nd prompt", "input_2nd_prompt"),
        ("提示词", "提示词"),
        ("model.size", "model_size"),
        ("  ", ""),
        ("__x__", "x"),
        ("!" * 10_000, ""),
    ],
)
def test_public_names(words: str, name: str) -> None:
    """Any words become a name that callers can write, or none."""
    assert public_name(words) == name


TITLES = st.one_of(
    st.text(max_size=30),
    st.lists(
        st.sampled_from(["$", "a", ".", "text", "~", "!", ":", ",", " ", "output", "é", "\n"]),
        max_size=20,
    ).map("".join),
)
VALUES = st.one_of(
    TITLES,
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.just(["2", 0]),
    st.lists(st.integers(), max_size=3),
)
CLASSES = st.sampled_from(
    [
        *("KSampler", "CLIPTextEncode", "LoadImage", "SaveImage", "CPackInputInt", "CPackInputAny"),
        *("ComfyUIDeployExternalEnum", "ComfyUIDeployExternalImage", "ComfyUIDeployExternalSeed"),
    ]
)
INPUTS = st.dictionaries(
    st.sampled_from(
        [
            *("text", "seed", "value", "image", "min", "max", "min_value", "max_value", "options"),
            *("input_id", "default_value", "display_name", "description", "positive"),
        ]
    ),
    VALUES,
    max_size=6,
)


@given(title=TITLES, class_type=CLASSES, inputs=INPUTS)
def test_no_mark_breaks_a_workflow(title: str, class_type: str, inputs: dict[str, Any]) -> None:
    """Whatever titles and marker nodes hold, the inputs are sound and their names unique."""
    graph = {"1": node(class_type, title, **inputs), "2": node("LoadImage", image="x")}

    found = marked(graph)

    names = [parameter.name for parameter in found.parameters]
    assert len(set(names)) == len(names)
    assert all(public_name(name) == name for name in names)
    assert all(node_id in graph for p in found.parameters for node_id, _ in p.targets)


def test_a_large_graph_of_marks_is_read_quickly() -> None:
    """Thousands of marked nodes cost well under a second or two, hostile titles too."""
    title = ", ".join(["$a.x"] * 500) + " " * 3000 + "\x00"
    graph = {str(n): node("X", title, **{f"i{k}": k for k in range(20)}) for n in range(2000)}
    graph |= {
        f"d{n}": node("ComfyUIDeployExternalText", input_id="a", default_value="x")
        for n in range(8000)
    }
    inferred = infer(graph)

    started = time.monotonic()
    found = read_marks(graph, inferred=inferred)

    assert time.monotonic() - started < 3
    assert [len(parameter.targets) for parameter in found.parameters] == [8000]
