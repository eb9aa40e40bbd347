"""A workflow from its file to a graph that is ready to run."""

from __future__ import annotations

import copy
import doctest
import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comfyserve.assets import InputFile, Upload
from comfyserve.errors import GraphInvalid, InvalidInputs, WorkflowUnreadable
from comfyserve.workflows import graph, node_catalog, parameters, workflow
from comfyserve.workflows.node_catalog import NodeCatalog
from comfyserve.workflows.parameters import LARGEST_FRESH_SEED, Choice, Integer, Seed, Text, Written
from comfyserve.workflows.workflow import Workflow

Load = Callable[[str], Workflow]
UPLOAD = Upload("in.png", content=b"x")
GRAPHS = Path(__file__).parent / "graphs"


@pytest.fixture
def rng() -> random.Random:
    return random.Random(7)


def problems(
    workflow: Workflow, inputs: Mapping[str, object], catalog: NodeCatalog | None = None
) -> dict[str, str]:
    """What is said of each input when a workflow is bound."""
    with pytest.raises(InvalidInputs) as caught:
        workflow.bind(inputs, rng=random.Random(7), catalog=catalog)
    return {problem.name: problem.message for problem in caught.value.problems}


def test_loads_a_file_by_its_path(tmp_path: Path) -> None:
    """A workflow is named after its file, whatever letters the path has."""
    file = tmp_path / "ein schönes Bild.json"
    file.write_bytes((GRAPHS / "text_to_image.json").read_bytes())
    loaded = Workflow.load(str(file))
    assert loaded.name == "ein schönes Bild"
    assert loaded.outputs == ("9",)
    assert loaded == Workflow.from_bytes(file.read_bytes(), "ein schönes Bild")


def test_a_missing_file_names_the_nearest(tmp_path: Path) -> None:
    """A wrong file name is answered with the right one."""
    (tmp_path / "portrait.json").touch()
    with pytest.raises(WorkflowUnreadable) as caught:
        Workflow.load(tmp_path / "portrat.json")
    assert str(caught.value).endswith("does not exist. Did you mean 'portrait.json'?")


def test_a_missing_folder_is_a_missing_file(tmp_path: Path) -> None:
    """Where the folder is missing too, that is no other error."""
    with pytest.raises(WorkflowUnreadable, match=r"does not exist\.$"):
        Workflow.load(tmp_path / "gone" / "a.json")


def test_a_folder_is_no_workflow(tmp_path: Path) -> None:
    """A folder is said to be one, with the workflows in it."""
    (tmp_path / "a.json").touch()
    with pytest.raises(WorkflowUnreadable, match=r"is a folder, not a workflow file\. It has a"):
        Workflow.load(tmp_path)


def test_a_name_that_cannot_be_is_one_error() -> None:
    """A path no file system takes is an unreadable workflow."""
    with pytest.raises(WorkflowUnreadable, match=r"cannot be read|does not exist"):
        Workflow.load("a\0b.json")


def test_errors_name_the_file(tmp_path: Path) -> None:
    """Whatever is wrong with a file is said of that file."""
    file = tmp_path / "broken.json"
    file.write_text('{"1": {"class_type": "A"}}', encoding="utf-8")
    with pytest.raises(GraphInvalid, match=r"broken\.json cannot run"):
        Workflow.load(file)


def test_binds_values_by_name_and_address(load: Load, rng: random.Random) -> None:
    """Values go where their parameter or address says, everything else stays."""
    original = load("text_to_image")
    bound = original.bind({"prompt": "a fox", "width": 640, "9.filename_prefix": "fox"}, rng=rng)
    expected = copy.deepcopy(original.graph)
    expected["6"]["inputs"]["text"] = "a fox"
    expected["5"]["inputs"]["width"] = 640
    expected["9"]["inputs"]["filename_prefix"] = "fox"
    expected["3"]["inputs"]["seed"] = bound.seeds["3.seed"]
    assert bound.graph == expected
    assert bound.files == ()
    assert bound.inputs == {
        "prompt": "a fox",
        "width": 640,
        "9.filename_prefix": "fox",
        "seed": bound.seeds["3.seed"],
    }


def test_one_prompt_reaches_every_encoder(load: Load, rng: random.Random) -> None:
    """A parameter with several targets fills them all."""
    bound = load("base_and_refiner").bind({"prompt": "a whale"}, rng=rng)
    texts = [bound.graph["4"]["inputs"][name] for name in ("text_g", "text_l")]
    assert [*texts, bound.graph["6"]["inputs"]["text"]] == ["a whale"] * 3


def test_reads_written_values_by_type(load: Load, rng: random.Random) -> None:
    """What a person wrote is read as the type it is for: a text of digits stays a text."""
    inputs = {"prompt": "22", "steps": "30", "cfg": "7.5", "seed": "5"}
    written = {name: Written(text) for name, text in inputs.items()}
    bound = load("text_to_image").bind(written, rng=rng)
    assert bound.inputs == {"prompt": "22", "steps": 30, "cfg": 7.5, "seed": 5}


def test_none_leaves_what_the_graph_has(load: Load, rng: random.Random) -> None:
    """An input of None is as if it were not given."""
    bound = load("text_to_image").bind({"prompt": None, "steps": None}, rng=rng)
    assert bound.graph["6"]["inputs"]["text"] == "a lighthouse at dusk"
    assert set(bound.inputs) == {"seed"}


@pytest.mark.parametrize("given_seed", [{}, {"seed": None}, {"seed": -1}, {"seed": Written("-1")}])
def test_seeds_are_fresh_unless_given(load: Load, given_seed: dict[str, object]) -> None:
    """Every run draws another seed, one for all samplers, and reports it by address."""
    original, rng = load("high_resolution_pass"), random.Random(7)
    first, second = (original.bind(given_seed, rng=rng) for _ in range(2))
    assert first.seeds["5.seed"] == first.seeds["9.seed"] == first.graph["9"]["inputs"]["seed"]
    assert first.seeds != second.seeds
    assert 0 <= first.seeds["5.seed"] <= LARGEST_FRESH_SEED
    assert first.inputs["seed"] == first.seeds["5.seed"]


def test_a_given_seed_is_used_and_reported(load: Load, rng: random.Random) -> None:
    """A seed that was given fills every sampler, zero as well."""
    bound = load("high_resolution_pass").bind({"seed": 0}, rng=rng)
    assert bound.seeds == {"5.seed": 0, "9.seed": 0}
    assert bound.graph["5"]["inputs"]["seed"] == 0


def test_an_address_overrides_one_seed_of_several(load: Load, rng: random.Random) -> None:
    """A seed given by address stays, the others are drawn."""
    bound = load("high_resolution_pass").bind({"9.seed": 3}, rng=rng)
    assert bound.seeds["9.seed"] == bound.graph["9"]["inputs"]["seed"] == 3
    assert bound.seeds["5.seed"] != 3


def test_seeds_that_do_nothing_stay(load: Load, rng: random.Random) -> None:
    """A sampler that adds no noise keeps its seed, unless it is drawn by address."""
    refiner = load("base_and_refiner")
    assert refiner.bind({}, rng=rng).graph["11"]["inputs"]["noise_seed"] == 0
    drawn = refiner.bind({"11.noise_seed": -1}, rng=rng)
    assert drawn.graph["11"]["inputs"]["noise_seed"] == drawn.seeds["11.noise_seed"] != 0


def test_fresh_seeds_keep_within_the_servers_limits(
    load: Load, catalog: NodeCatalog, rng: random.Random
) -> None:
    """A fresh seed fits the narrowest node it fills."""
    original = load("partner_node")
    for _ in range(20):
        seeds = original.bind({}, rng=rng, catalog=catalog).seeds
        assert seeds["2.seed"] == seeds["3.seed"] < 2**31


def test_uploads_become_files_to_bring(load: Load, rng: random.Random) -> None:
    """A file to upload waits for its name; a name the server has goes in at once."""
    original = load("image_to_image")
    brought, named = (original.bind({"image": it}, rng=rng) for it in (UPLOAD, "there/a.png"))
    assert brought.files == (InputFile((("10", "image"),), UPLOAD),)
    assert brought.graph["10"]["inputs"]["image"] == "example.png"
    assert named.files == ()
    assert named.graph["10"]["inputs"]["image"] == "there/a.png"


def test_a_drawn_mask_comes_after_its_image(load: Load, rng: random.Random) -> None:
    """A mask laid over an image is brought after it, and says which image that is."""
    mask = Upload("mask.png", content=b"m")
    bound = load("inpaint_with_drawn_mask").bind({"mask": mask, "image": UPLOAD}, rng=rng)
    place = ("2", "image")
    assert bound.files == (InputFile((place,), UPLOAD), InputFile((place,), mask, mask_of=place))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("promt", "x", "has no input 'promt'. Did you mean 'prompt'? It has prompt, negative_"),
        ("promt", "x", "any other value goes by its node and input, like 3.seed."),
        ("steps", "many", "steps takes a whole number, not 'many'."),
        ("image", UPLOAD, "has no input 'image'."),
        ("prompt", UPLOAD, "prompt takes text, not a file."),
        ("3.cgf", 3, "node 3 (KSampler) has no input 'cgf'. Did you mean 'cfg'?"),
        ("33.cfg", 3, "there is no node '33'. Did you mean '3.cfg'?"),
        ("3.positive", "x", "it is linked to node 6 (CLIPTextEncode). Set 6.text instead."),
        ("3.cfg", "x", "3.cfg takes a number, not 'x'."),
        ("9.filename_prefix", 3, "9.filename_prefix takes text, not 3."),
        (".", 3, "there is no node ''"),
        ("", 3, "has no input ''"),
    ],
)
def test_says_what_is_wrong_with_an_input(load: Load, name: str, value: object, said: str) -> None:
    """A name or value that does not fit is answered with what would."""
    assert said in problems(load("text_to_image"), {name: value})[name]


def test_tells_every_problem_at_once(load: Load, catalog: NodeCatalog) -> None:
    """All problems come together, one sentence for each input."""
    found = problems(
        load("text_to_image"),
        {"steps": 99999, "sampler": "eular", "promt": "x", "cfg": 5, "width": 8},
        catalog,
    )
    assert list(found) == ["steps", "sampler", "promt", "width"]
    assert found["steps"] == "steps is 99999; the most is 10000."
    assert "'euler'" in found["sampler"]
    assert found["width"] == "width is 8; the least is 16."


def test_two_inputs_for_one_place_are_refused(load: Load) -> None:
    """A value given twice, by name and by address, is a question back."""
    found = problems(load("text_to_image"), {"prompt": "a", "6.text": "b"})
    assert found["6.text"] == (
        "prompt and 6.text both set text of node 6 (CLIPTextEncode); give one of them."
    )


def test_the_authors_own_values_are_not_checked(catalog: NodeCatalog, rng: random.Random) -> None:
    """A value beyond the limits that the author left in the graph is the server's business."""
    document = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 99999, "height": 8}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
    }
    bound = Workflow.from_json(document).bind({"height": 16}, rng=rng, catalog=catalog)
    assert bound.graph["1"]["inputs"] == {"width": 99999, "height": 16}


def test_a_model_the_server_lacks_names_the_nearest(load: Load, rng: random.Random) -> None:
    """A missing model is told with the nearest names and how to choose another."""
    names = [f"model_{number}.safetensors" for number in range(30)] + ["tiny_sd15.safetensors"]
    spec = {"input": {"required": {"ckpt_name": [names]}}}
    few = NodeCatalog.from_json({"CheckpointLoaderSimple": spec})
    said = problems(load("text_to_image"), {}, few)["model"]
    assert said.startswith(
        "node 4 (CheckpointLoaderSimple) uses the ckpt_name 'tiny_random_sd15.safetensors', which "
        "this server does not have: the server has 31 to choose from; the nearest: 'tiny_sd15.s"
    )
    assert said.endswith(" model=NAME sets another.")
    chosen = load("text_to_image").bind({"model": names[0]}, rng=rng, catalog=few)
    assert chosen.graph["4"]["inputs"]["ckpt_name"] == names[0]


def test_a_model_is_found_whichever_way_its_slashes_lean(rng: random.Random) -> None:
    """A file made on Windows finds its model on Linux, and the other way round."""
    document = {
        "1": {"class_type": "UNETLoader", "inputs": {"unet_name": "flux\\dev.safetensors"}},
        "2": {"class_type": "SaveIt", "inputs": {"model": ["1", 0]}},
    }
    spec = {"input": {"required": {"unet_name": [["flux/dev.safetensors"]]}}}
    there = NodeCatalog.from_json({"UNETLoader": spec})
    bound = Workflow.from_json(document).bind({}, rng=rng, catalog=there)
    assert bound.graph["1"]["inputs"]["unet_name"] == "flux/dev.safetensors"


def test_addresses_reach_inner_nodes_and_dotted_names(rng: random.Random) -> None:
    """Ids of subgraph nodes, ids with dots and names with dots can all be addressed."""
    document = {
        "37:12": {"class_type": "Encode", "inputs": {"text": "a", "model.size": 3}},
        "a.b": {"class_type": "SaveIt", "inputs": {"x": ["37:12", 0], "quality": 80}},
    }
    inputs = {"37:12.text": "b", "37:12.model.size": 4, "a.b.quality": 90}
    bound = Workflow.from_json(document).bind(inputs, rng=rng)
    assert bound.graph["37:12"]["inputs"] == {"text": "b", "model.size": 4}
    assert bound.graph["a.b"]["inputs"]["quality"] == 90


def test_an_address_may_name_an_optional_widget(
    load: Load, catalog: NodeCatalog, rng: random.Random
) -> None:
    """An input that the file leaves out can be set where the server has it, sockets cannot."""
    document = copy.deepcopy(dict(load("text_to_image").graph))
    del document["3"]["inputs"]["denoise"]
    original = Workflow.from_json(document).described_by(catalog)
    assert original.bind({"3.denoise": 0.5}, rng=rng).graph["3"]["inputs"]["denoise"] == 0.5
    assert "the most is 1" in problems(original, {"3.denoise": 5})["3.denoise"]
    del document["3"]["inputs"]["negative"]
    socket = Workflow.from_json(document).described_by(catalog)
    assert "has no input 'negative'" in problems(socket, {"3.negative": "x"})["3.negative"]


def test_addresses_are_typed_by_the_catalogue(load: Load, catalog: NodeCatalog) -> None:
    """An addressed input has the type, limits and choices that the server gives it."""
    known = load("text_to_image").described_by(catalog)
    kinds = {
        name: type(known.find(name)) for name in ("3.steps", "3.seed", "3.scheduler", "6.text")
    }
    assert kinds == {"3.steps": Integer, "3.seed": Seed, "3.scheduler": Choice, "6.text": Text}
    assert known.find("3.nothing") is None
    assert known.find("nothing") is None


def test_describing_twice_is_free(load: Load, catalog: NodeCatalog) -> None:
    """A workflow that a catalogue describes already is the same workflow."""
    known = load("text_to_image").described_by(catalog)
    assert known.described_by(catalog) is known


def test_the_schema_lists_the_inputs(load: Load, catalog: NodeCatalog) -> None:
    """The inputs of a workflow are one JSON Schema object, ready to send."""
    schema = load("text_to_image").described_by(catalog).json_schema()
    assert json.loads(json.dumps(schema)) == schema
    assert schema["additionalProperties"] is False
    assert schema["properties"]["steps"]["maximum"] == 10000


VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.builds(Written, st.text(max_size=8))
    | st.just(UPLOAD)
)
NAMES = st.sampled_from(["prompt", "seed", "steps", "cfg", "mask", "image", "6.seed", "model"])


@settings(deadline=None, max_examples=100)
@given(st.dictionaries(NAMES | st.text(max_size=6), VALUES, max_size=4), st.integers())
def test_binding_never_changes_the_workflow(inputs: dict[str, object], entropy: int) -> None:
    """Whatever is bound, the workflow stays as it was, and only `InvalidInputs` is raised."""
    original = Workflow.load(GRAPHS / "inpaint_with_drawn_mask.json")
    before = json.dumps(original.graph)
    try:
        bound = original.bind(inputs, rng=random.Random(entropy))
    except InvalidInputs as error:
        assert all(problem.name in inputs for problem in error.problems)
    else:
        changed: dict[str, Any] = dict(bound.graph)
        changed["6"]["inputs"]["seed"] = "changed"
    assert json.dumps(original.graph) == before


@pytest.mark.parametrize("module", [graph, node_catalog, parameters, workflow])
def test_examples_in_docstrings_run(module: Any) -> None:
    """What the docstrings show is what happens."""
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
