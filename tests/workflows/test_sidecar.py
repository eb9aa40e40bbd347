"""The sidecar: what it may hold, what is told of mistakes, and how one is written."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyserve.errors import WorkflowUnreadable
from comfyserve.workflows.inference import Inferred, infer
from comfyserve.workflows.marks import Marked, read_marks
from comfyserve.workflows.node_catalog import NodeCatalog
from comfyserve.workflows.parameter_kinds import KINDS
from comfyserve.workflows.parameters import Anything, Choice, Integer, Parameter, Text
from comfyserve.workflows.sidecar import Sidecar, SidecarInput, read_sidecar
from comfyserve.workflows.sidecar_text import sidecar_text
from comfyserve.workflows.source import Source
from comfyserve.workflows.workflow import Workflow

Load = Callable[[str], Workflow]
GUIDE = Path(__file__).parents[2] / "docs" / "sidecar.md"
GRAPHS = sorted(path.stem for path in (Path(__file__).parent / "graphs").glob("*.json"))


def marked(workflow: Workflow, text: str, catalog: NodeCatalog | None = None) -> Marked:
    """The workflow with a sidecar beside it."""
    return read_marks(
        workflow.graph,
        inferred=infer(workflow.graph, catalog),
        catalog=catalog,
        sidecar=read_sidecar(text, "portrait.toml"),
    )


def refusal(text: str) -> str:
    with pytest.raises(WorkflowUnreadable) as caught:
        read_sidecar(text, "portrait.toml")
    return str(caught.value)


def test_every_key_is_read() -> None:
    """Each documented key arrives under its own name."""
    sidecar = read_sidecar(
        """
        title = "Portrait"
        description = "A face."
        public = true
        open = true
        timeout = 2.5
        outputs = ["9", 12]
        [inputs.steps]
        targets = ["3.steps", "57:8.steps"]
        type = "integer"
        label = "Steps"
        description = "How long."
        default = 20
        min = 1
        max = 50
        advanced = true
        [inputs.style]
        choices = ["oil", 3]
        """
    )

    assert sidecar == Sidecar(
        "The sidecar",
        title="Portrait",
        description="A face.",
        public=True,
        open=True,
        timeout=2.5,
        outputs=("9", "12"),
        inputs=(
            SidecarInput(
                "steps",
                targets=("3.steps", "57:8.steps"),
                type="integer",
                label="Steps",
                description="How long.",
                default=20,
                minimum=1,
                maximum=50,
                advanced=True,
            ),
            SidecarInput("style", choices=("oil", 3)),
        ),
    )


def test_an_empty_sidecar_says_nothing() -> None:
    """A file without keys is fine, a byte order mark too."""
    assert read_sidecar("\ufeff# nothing yet\n", "x.toml") == Sidecar("x.toml")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("titel = 'x'", "titel (line 1) is no key of a sidecar. Did you mean 'title'?"),
        ("title = 3", "title (line 1) is 3, not text in quotation marks"),
        ("public = 'yes'", "public (line 1) is 'yes', not true or false"),
        ("timeout = 0", "timeout (line 1) is 0, not a number of seconds above 0"),
        ("timeout = nan", "not a number"),
        ("outputs = '9'", "outputs (line 1) is '9', not a list of node ids"),
        ("outputs = []", "outputs (line 1) is empty"),
        ("inputs = 3", "inputs (line 1) is 3, not tables like [inputs.prompt]"),
        ("[inputs]\nsteps = 3", "inputs.steps (line 2) is 3, not a table like [inputs.steps]"),
        ("\n[inputs.steps]\nmaximum = 3", "inputs.steps.maximum (line 3) is no key"),
        ("[inputs.steps]\nmax = '3'", "inputs.steps.max (line 2) is '3', not a number"),
        ("[inputs.steps]\nmax = true", "inputs.steps.max (line 2) is True, not a number"),
        ("[inputs.steps]\nmin = 9\nmax = 3", "inputs.steps.min (line 2) is 9, which is more than"),
        ("[inputs.a]\nchoices = []", "inputs.a.choices (line 2) is empty"),
        ("[inputs.a]\nchoices = [[1]]", "inputs.a.choices (line 2) is [[1]], not a list of texts"),
        ("[inputs.a]\ntargets = '3.cfg'", "inputs.a.targets (line 2) is '3.cfg', not a list"),
        ("[inputs.a]\ntargets = []", "inputs.a.targets (line 2) is empty"),
        ("[inputs.a]\ntype = 'integr'", "it can be text, integer"),
        ("[inputs.a]\ntype = 'integr'", "Did you mean 'integer'?"),
        ("[inputs.a]\ndefault = [1]", "inputs.a.default (line 2) is [1], not text, a number"),
        ("[inputs.a]\ndefault = 1979-05-27", "inputs.a.default (line 2) is"),
        ("[inputs.a]\ntype = 'text'\nmin = 1", "inputs.a.min (line 3) belongs to numbers"),
        ("[inputs.a]\ntype = 'seed'\nchoices = [1]", "inputs.a.choices (line 3) belongs to"),
        ("[inputs.'My Name']", "is no name for an input"),
        ("[inputs.'My Name']", "'my_name'"),
        ("title = ", "is not valid TOML"),
        ("x = " + "[" * 5000, "TOML"),
        ("#" + " " * 2**20, "is longer than"),
    ],
)
def test_mistakes_are_named(text: str, told: str) -> None:
    """Each mistake is one error that names the file, the key and its line."""
    message = refusal(text)

    assert message.startswith("portrait.toml ")
    assert told in message


def test_all_mistakes_are_told_at_once() -> None:
    """Nobody has to mend a sidecar one error at a time."""
    message = refusal("titel = 'x'\ntimeout = -1\n[inputs.a]\nmax = 'x'")

    assert all(key in message for key in ("titel", "timeout", "inputs.a.max"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[inputs.a]\ntargets = ["3.cgf"]', "node 3 (KSampler) has no input cgf. Did you mean"),
        ('[inputs.a]\ntargets = ["3.cgf"]', "'3.cfg'"),
        ('[inputs.a]\ntargets = ["33.cfg"]', "there is no node 33. Did you mean '3.cfg'"),
        ('[inputs.a]\ntargets = ["3"]', "names '3'"),
        ('[inputs.a]\ntargets = ["3.model"]', "is linked to node 4; set 4.ckpt_name instead"),
        ("[inputs.promt]\nlabel = 'x'", "no input of that name. Did you mean 'prompt'?"),
        (
            '[inputs.a]\ntargets = ["3.cfg"]\n[inputs.b]\ntargets = ["3.cfg"]',
            "inputs.b.targets (line 4) names 3.cfg, which inputs.a fills already",
        ),
        ("[inputs.steps]\nmax = 5\ndefault = 9", "inputs.steps.default (line 3) does not fit"),
        ("[inputs.steps]\ndefault = 'x'", "inputs.steps.default (line 2) does not fit"),
        ("[inputs.prompt]\nmax = 3", "inputs.prompt.max (line 2) belongs to numbers"),
        (
            '[inputs.a]\ntargets = ["6.text"]\nchoices = ["x"]\ndefault = "y"',
            "it can be 'x'",
        ),
        ('outputs = ["99"]', "outputs (line 1) names node '99', which is not in the workflow"),
    ],
)
def test_what_does_not_fit_the_graph_is_named(load: Load, text: str, told: str) -> None:
    """A sidecar for another graph is an error that says what is near."""
    with pytest.raises(WorkflowUnreadable) as caught:
        marked(load("text_to_image"), text)

    assert str(caught.value).startswith("portrait.toml cannot be used: ")
    assert told in str(caught.value)


def test_a_guessed_graph_refuses_no_sidecar(load: Load) -> None:
    """While the names in a graph are uncertain, what is missing is only a warning."""
    workflow = load("text_to_image")
    text = 'outputs = ["9", "99"]\n[inputs.a]\ntargets = ["3.cgf"]\n[inputs.prompt]'

    found = read_marks(
        workflow.graph,
        inferred=infer(workflow.graph),
        sidecar=read_sidecar(text, "portrait.toml"),
        certain=False,
    )

    assert [parameter.name for parameter in found.parameters] == ["prompt"]
    assert found.outputs == ("9",)
    assert [warning.partition(" names")[0] for warning in found.warnings] == [
        "portrait.toml: inputs.a.targets",
        "portrait.toml: outputs",
    ]


def test_the_sidecar_replaces_what_was_found(load: Load) -> None:
    """Its inputs are all there are, in its order, each with what the sidecar says."""
    found = marked(
        load("text_to_image"),
        """
        title = "Lighthouse"
        outputs = ["9"]
        [inputs.detail]
        targets = ["3.steps"]
        label = "Detail"
        max = 30
        [inputs.prompt]
        """,
    )

    assert found.convention == "sidecar"
    assert (found.title, found.outputs) == ("Lighthouse", ("9",))
    assert [parameter.name for parameter in found.parameters] == ["detail", "prompt"]
    detail = found.parameters[0]
    assert isinstance(detail, Integer)
    assert (detail.targets, detail.label) == ((("3", "steps"),), "Detail")
    assert (detail.maximum, detail.default) == (30, 22)
    assert detail.why == "marked in the sidecar portrait.toml"


def test_a_default_goes_into_the_graph(load: Load) -> None:
    """A run that is given nothing uses the sidecar's default, in every place it fills."""
    workflow = load("text_to_image")

    found = marked(
        workflow, '[inputs.size]\ntargets = ["5.width", "5.height"]\ntype = "integer"\ndefault = 64'
    )

    size = found.graph["5"]["inputs"]
    assert (size["width"], size["height"]) == (64, 64)
    assert workflow.graph["5"]["inputs"]["width"] == 512
    assert found.parameters[0].default == 64


def test_limits_of_nodes_hold_as_well(load: Load, catalog: NodeCatalog) -> None:
    """The narrower of the author's and the server's limits counts; fan-outs keep all of them."""
    found = marked(
        load("text_to_image"),
        '[inputs.size]\ntargets = ["5.width", "3.steps"]\nmin = 4\nmax = 100000',
        catalog,
    )

    size = found.parameters[0]
    assert isinstance(size, Integer)
    assert (size.minimum, size.maximum) == (16, 10000)


def test_choices_that_the_server_lacks_are_left_out(load: Load, catalog: NodeCatalog) -> None:
    """An author's choice is offered only where it can run; if none can, the error comes later."""
    some = '[inputs.sampler]\nchoices = ["euler", "of_tomorrow"]'
    none = '[inputs.sampler]\nchoices = ["of_tomorrow"]'

    kept = [marked(load("text_to_image"), text, catalog).parameters[0] for text in (some, none)]

    assert all(isinstance(parameter, Choice) for parameter in kept)
    assert [getattr(parameter, "choices", None) for parameter in kept] == [
        ("euler",),
        ("of_tomorrow",),
    ]


def test_a_sidecar_without_inputs_leaves_them_alone(load: Load) -> None:
    """A title alone hides nothing."""
    workflow = load("text_to_image")

    found = marked(workflow, 'title = "Lighthouse"')

    assert found.convention == "inference"
    assert found.parameters == workflow.parameters


def test_seeds_that_are_not_listed_are_still_fresh(load: Load) -> None:
    """What hides the seed does not make every run the same."""
    hidden = marked(load("text_to_image"), "[inputs.prompt]")
    shown = marked(load("text_to_image"), "[inputs.prompt]\n[inputs.seed]")

    assert [seed.targets for seed in hidden.seeds] == [(("3", "seed"),)]
    assert shown.seeds == ()


def test_a_mask_may_share_its_image(load: Load) -> None:
    """An image and the mask drawn over it are two inputs of one place."""
    text = '[inputs.photo]\ntargets = ["2.image"]\n[inputs.where]\ntargets = ["2.image"]\n'

    found = marked(load("inpaint_with_drawn_mask"), f'{text}type = "mask"')

    photo, where = found.parameters
    assert (photo.kind, where.kind) == ("image", "mask")
    assert getattr(where, "mask_of", None) == ("2", "image")


def test_the_guide_tells_the_truth(load: Load) -> None:
    """The example of the guide loads, and the guide describes every key and type."""
    guide = GUIDE.read_text(encoding="utf-8")
    example = re.findall(r"```toml\n(.*?)```", guide, re.DOTALL)[0]

    found = marked(load("text_to_image"), example)
    keys = {*tomllib.loads(example), *re.findall(r"^(\w+) =", example, re.MULTILINE)}

    assert [parameter.name for parameter in found.parameters] == [
        *("prompt", "size", "sampler", "seed"),
    ]
    assert all(f"`{key}`" in guide for key in keys | set(KINDS))
    assert {"targets", "min", "max", "choices", "advanced", "default", "type"} <= keys


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("described", [False, True])
def test_a_written_sidecar_changes_nothing(
    load: Load, catalog: NodeCatalog, name: str, described: bool
) -> None:
    """Reading back what was written gives the same inputs, limits and graph."""
    workflow = load(name)
    known = catalog if described else None
    workflow = workflow.described_by(catalog) if described else workflow

    text = sidecar_text(workflow)
    found = marked(workflow, text, known)

    assert found.convention == "sidecar"
    assert [replace(p, why="") for p in found.parameters] == [
        replace(p, why="") for p in workflow.parameters
    ]
    assert found.outputs == workflow.outputs
    assert found.graph == workflow.graph


def test_a_written_sidecar_can_be_edited(load: Load) -> None:
    """It says why each input was chosen, and hints at the keys that are not set."""
    text = sidecar_text(load("text_to_image"), title="Light", description="A house.")

    document = tomllib.loads(text)
    assert (document["title"], document["description"]) == ("Light", "A house.")
    assert document["inputs"]["cfg"] == {"targets": ["3.cfg"], "type": "number", "default": 6.2}
    assert "# cfg of node 3 (KSampler)\n[inputs.cfg]" in text
    assert "# public = false" in text
    assert "A fresh seed is drawn" in text


def test_a_written_sidecar_keeps_values_that_differ() -> None:
    """An input that fills places of different values writes no default over them."""
    graph = {
        "1": {"class_type": "X", "inputs": {"a": "", "b": "words"}},
    }
    parameter = Text(name="a", targets=(("1", "a"), ("1", "b")), default="words")
    workflow = Workflow("x", graph, (parameter,), (), Source("x", graph, None, None))

    found = read_marks(
        graph, inferred=Inferred((), ()), sidecar=read_sidecar(sidecar_text(workflow))
    )

    assert found.graph == graph


HOSTILE_TEXT = st.text(st.characters(codec=None), max_size=40)
SCALARS = st.one_of(
    HOSTILE_TEXT,
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.lists(st.integers(), max_size=2),
)


@given(label=HOSTILE_TEXT, description=HOSTILE_TEXT, default=SCALARS, why=HOSTILE_TEXT)
def test_a_written_sidecar_is_always_toml(
    label: str, description: str, default: object, why: str
) -> None:
    """Whatever words and values a workflow holds, what is written can be read."""
    graph = {"1": {"class_type": "X", "inputs": {"a": "", "b": 1}}}
    first = Text(name="a", targets=(("1", "a"),), default=str(default), label=label, why=why)
    second = Anything(
        name="b", targets=(("1", "b"),), default=default, description=description, why=why
    )
    parameters: tuple[Parameter, ...] = (first, second)
    source = Source("x", graph, None, None)
    workflow = Workflow(label or "x", graph, parameters, (), source)

    sidecar = read_sidecar(sidecar_text(workflow, title=label))

    assert [made.name for made in sidecar.inputs] == ["a", "b"]


KEYS = st.sampled_from(
    ["title", "outputs", "timeout", "targets", "type", "default", "min", "max", "choices", "x"]
)
WRITTEN = st.one_of(
    st.integers().map(str),
    st.floats().map(repr),
    st.text(max_size=12).map(json.dumps),
    st.sampled_from(["true", "[]", '["3.steps"]', '["6.text"]', "[1, 2]", '"integer"', '"mask"']),
)
LINES = st.one_of(
    st.tuples(KEYS, WRITTEN).map(" = ".join),
    st.sampled_from(["[inputs.a]", "[inputs.steps]", "[inputs]", "[inputs.'x y']", "[[inputs]]"]),
    st.text(max_size=10),
)


@given(lines=st.lists(LINES, max_size=8))
def test_no_sidecar_breaks_anything(lines: list[str]) -> None:
    """A sidecar is used or refused with one error of ours."""
    graph = {
        "3": {"class_type": "KSampler", "inputs": {"steps": 3, "seed": 1}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "x"}},
    }
    try:
        found = read_marks(
            graph, inferred=Inferred((), ()), sidecar=read_sidecar("\n".join(lines), "s.toml")
        )
    except WorkflowUnreadable as error:
        assert str(error).startswith("s.toml ")
    else:
        assert set(found.graph) == {"3", "6"}
