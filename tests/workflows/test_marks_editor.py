"""Marks that only the editor's save format has: App mode and the outside of subgraphs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyserve.workflows.graph import Address
from comfyserve.workflows.inference import infer
from comfyserve.workflows.marks import Marked, read_marks
from comfyserve.workflows.node_catalog import NodeCatalog
from comfyserve.workflows.ui_format import convert

INT = ["INT", {"default": 0, "min": 0, "max": 100}]
CATALOG = NodeCatalog.from_json(
    {
        "KSampler": {
            "input": {
                "required": {
                    "seed": ["INT", {"min": 0, "max": 99, "control_after_generate": True}],
                    "steps": ["INT", {"min": 1, "max": 50, "tooltip": "How long."}],
                    "cfg": ["FLOAT", {"default": 8.0}],
                    "positive": ["CONDITIONING"],
                    "latent_image": ["LATENT"],
                }
            },
            "output": ["LATENT"],
        },
        "CLIPTextEncode": {
            "input": {"required": {"text": ["STRING", {"multiline": True}]}},
            "output": ["CONDITIONING"],
        },
        "PrimitiveInt": {"input": {"required": {"value": INT}}, "output": ["INT"]},
        "VAEEncode": {"input": {"required": {"pixels": ["IMAGE"]}}, "output": ["LATENT"]},
        "LoadImage": {
            "input": {"required": {"image": [["in.png"], {"image_upload": True}]}},
            "output": ["IMAGE", "MASK"],
        },
        "SaveImage": {
            "input": {"required": {"images": ["LATENT"]}},
            "output_node": True,
        },
    }
)

ROOT = "aaaa-0000"
INSIDE = "bbbb-1111"


def slot(name: str, kind: str, link: int | None = None, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": kind, "link": link, **more}


def widget(name: str, kind: str, link: int | None = None, label: str = "") -> dict[str, Any]:
    labelled = {"label": label} if label else {}
    return slot(name, kind, link, widget={"name": name}, **labelled)


def node(node_id: int, kind: str, values: list[Any], *inputs: Any, **more: Any) -> dict[str, Any]:
    return {
        "id": node_id,
        "type": kind,
        "mode": 0,
        "inputs": list(inputs),
        "outputs": [{"name": "out", "type": "*", "links": []}],
        "widgets_values": values,
        **more,
    }


def subgraph(**labels: str) -> dict[str, Any]:
    """A sampler with its text, whose picture, text and steps come from outside."""

    def port(name: str, kind: str, link: int) -> dict[str, Any]:
        labelled = {"label": labels[name]} if name in labels else {}
        return {"name": name, "type": kind, "linkIds": [link], **labelled}

    return {
        "id": INSIDE,
        "name": "Paint",
        "inputs": [
            port("pixels", "IMAGE", 1),
            port("text", "STRING", 2),
            port("steps", "INT", 3),
        ],
        "outputs": [{"name": "LATENT", "type": "LATENT", "linkIds": [6]}],
        "nodes": [
            node(8, "CLIPTextEncode", ["a fox"], widget("text", "STRING", 2)),
            node(
                9,
                "KSampler",
                [7, "randomize", 20],
                slot("positive", "CONDITIONING", 4),
                slot("latent_image", "LATENT", 5),
                widget("steps", "INT", 3),
            ),
            node(10, "VAEEncode", [], slot("pixels", "IMAGE", 1)),
        ],
        "links": [
            {"id": n, "origin_id": o, "origin_slot": os, "target_id": t, "target_slot": ts}
            for n, o, os, t, ts in (
                (1, -10, 0, 10, 0),
                (2, -10, 1, 8, 0),
                (3, -10, 2, 9, 2),
                (4, 8, 0, 9, 0),
                (5, 10, 0, 9, 1),
                (6, 9, 0, -20, 0),
            )
        ],
    }


def document(
    linear: dict[str, Any] | None = None,
    labels: dict[str, str] | None = None,
    title: str = "",
    **properties: Any,
) -> dict[str, Any]:
    """A picture into a subgraph and out again, its steps from a node of the workflow."""
    host = node(
        57,
        INSIDE,
        ["a fox"],
        slot("pixels", "IMAGE", 1),
        widget("text", "STRING"),
        widget("steps", "INT", 2),
        properties=properties,
        **({"title": title} if title else {}),
    )
    return {
        "id": ROOT,
        "nodes": [
            node(1, "LoadImage", ["in.png", "image"], widget("image", "COMBO", label="Portrait")),
            node(2, "PrimitiveInt", [20], title="Effort"),
            host,
            node(3, "SaveImage", [], slot("images", "LATENT", 3)),
        ],
        "links": [
            [1, 1, 0, 57, 0, "IMAGE"],
            [2, 2, 0, 57, 2, "INT"],
            [3, 57, 0, 3, 0, "LATENT"],
        ],
        "definitions": {"subgraphs": [subgraph(**(labels or {}))]},
        "extra": {} if linear is None else {"linearData": linear},
    }


def marked(saved: dict[str, Any]) -> Marked:
    read = convert(saved, CATALOG)
    return read_marks(
        read.graph,
        inferred=infer(read.graph, CATALOG),
        catalog=CATALOG,
        editor=saved,
        held=read.held,
        new_ids=read.new_ids,
    )


def at(*addresses: str) -> tuple[Address, ...]:
    return tuple((node_id, name) for node_id, _, name in (a.partition(".") for a in addresses))


def targets(found: Marked) -> dict[str, tuple[Address, ...]]:
    return {parameter.name: parameter.targets for parameter in found.parameters}


@pytest.mark.parametrize(
    ("entry", "name", "target"),
    [
        (["1", "image"], "portrait", "1.image"),
        ([1, "image"], "portrait", "1.image"),
        ([f"{ROOT}:1:image", "image"], "portrait", "1.image"),
        ([f"{ROOT}:57:text", "text"], "prompt", "57:8.text"),
        (["57", "text"], "prompt", "57:8.text"),
        # Old files name the node inside, new ones may name its subgraph.
        (["8", "text"], "prompt", "57:8.text"),
        ([f"{INSIDE}:8:te%78t", "text"], "prompt", "57:8.text"),
        (["9", "seed"], "seed", "57:9.seed"),
        # What feeds a widget is what people see.
        (["57", "steps"], "steps", "2.value"),
        (["2", "value"], "steps", "2.value"),
    ],
)
def test_app_mode_picks_inputs(entry: list[Any], name: str, target: str) -> None:
    """Every way in which the editor names a widget leads to the node that runs."""
    found = marked(document({"inputs": [entry], "outputs": [3]}))

    assert found.convention == "app_mode"
    assert targets(found) == {name: at(target)}
    assert found.outputs == ("3",)
    assert not found.warnings


def test_app_mode_replaces_what_was_found() -> None:
    """What the author did not pick is hidden on purpose; hidden seeds are still drawn."""
    found = marked(document({"inputs": [["57", "text"]]}))

    assert list(targets(found)) == ["prompt"]
    assert [seed.targets for seed in found.seeds] == [at("57:9.seed")]


def test_app_mode_tells_what_it_says() -> None:
    """The description and label of an entry are kept; a label of the widget's own too."""
    options = {"height": 200, "description": "A face."}

    found = marked(document({"inputs": [["1", "image", options]]}))

    (portrait,) = found.parameters
    assert (portrait.label, portrait.description) == ("Portrait", "A face.")
    assert (portrait.kind, portrait.why) == ("image", "picked in App mode")


def test_app_mode_entries_in_order() -> None:
    """The form has the author's order."""
    entries = [["9", "seed"], ["1", "image"], ["57", "text"]]

    found = marked(document({"inputs": entries}))

    assert list(targets(found)) == ["seed", "portrait", "prompt"]


def test_one_place_is_one_input() -> None:
    """What is picked twice, by old and new ids, is offered once."""
    entries = [["57", "text"], ["8", "text"], [f"{ROOT}:57:text", "text"]]

    found = marked(document({"inputs": entries}))

    assert targets(found) == {"prompt": at("57:8.text")}


def test_dead_entries_are_dropped() -> None:
    """What is not there any more is told and left out."""
    entries = [
        ["99", "x"],
        ["57", "text"],
        ["1", "gone"],
        "junk",
        [None, None],
        [f"{INSIDE}:99:x", ""],
    ]

    found = marked(document({"inputs": entries, "outputs": [99, 3, "3", 1]}))

    assert targets(found) == {"prompt": at("57:8.text")}
    assert found.outputs == ("3",)
    assert found.warnings[0] == "App mode lists x of node 99, but nothing there can be set."
    assert len(found.warnings) == 5


def test_an_app_of_dead_entries_marks_nothing() -> None:
    """Another convention decides then."""
    assert marked(document({"inputs": [["99", "x"]], "outputs": []})).convention == "subgraph"


def test_labels_of_subgraphs_fill_in() -> None:
    """An input picked for App mode has the name that the subgraph's author gave it."""
    found = marked(document({"inputs": [["8", "text"]]}, {"text": "What to paint"}))

    (parameter,) = found.parameters
    assert (parameter.name, parameter.label) == ("what_to_paint", "What to paint")
    assert found.convention == "app_mode"


def test_the_outside_of_a_subgraph_marks_inputs() -> None:
    """Its labels are names, unlabelled inputs are called as the graph suggests, links followed."""
    found = marked(document(labels={"text": "Idea", "pixels": "Photo"}))

    assert found.convention == "subgraph"
    assert targets(found) == {
        "photo": at("1.image"),
        "idea": at("57:8.text"),
        "steps": at("2.value"),
        "seed": at("57:9.seed"),
    }
    photo, idea, steps, seed = found.parameters
    assert (photo.label, idea.label, steps.label) == ("Photo", "Idea", "")
    assert idea.why == "input Idea of the subgraph Paint (node 57)"
    # Not shown, but without it every run would be the same.
    assert seed.advanced
    assert not steps.advanced


def test_the_mask_of_a_picture_is_not_the_picture() -> None:
    """Only the first output of a loader is its file."""
    saved = document(labels={"pixels": "Where"})
    saved["links"][0][2] = 1

    assert "where" not in targets(marked(saved))


def test_widgets_shown_on_a_subgraph_mark_inputs() -> None:
    """Old files list inner widgets on the node that stands for the subgraph."""
    proxies = [["-1", "text"], ["9", "seed"], ["9", "control_after_generate"], ["9", "$$preview"]]

    found = marked(document(proxyWidgets=proxies))

    seed = next(p for p in found.parameters if p.name == "seed")
    assert not seed.advanced
    assert seed.why == "seed shown on the outside of the subgraph Paint (node 57)"


def test_seeds_that_are_not_shown_follow_the_one_that_is() -> None:
    """One seed makes a run repeatable, wherever the graph needs seeds."""
    saved = document(proxyWidgets=[["9", "seed"]])
    ports = (slot("pixels", "IMAGE", 4), widget("text", "STRING"), widget("steps", "INT", 5))
    saved["nodes"] += [
        node(58, INSIDE, ["a dog"], *ports, properties={}),
        node(4, "SaveImage", [], slot("images", "LATENT", 6)),
    ]
    saved["links"] += [
        [4, 1, 0, 58, 0, "IMAGE"],
        [5, 2, 0, 58, 2, "INT"],
        [6, 58, 0, 4, 0, "LATENT"],
    ]

    found = targets(marked(saved))

    assert found["seed"] == at("57:9.seed", "58:9.seed")
    assert "seed_2" not in found
    assert (found["prompt"], found["prompt_2"]) == (at("57:8.text"), at("58:8.text"))


def test_a_muted_subgraph_marks_nothing() -> None:
    """What does not run has no inputs."""
    saved = document()
    saved["nodes"][2]["mode"] = 2

    assert marked(saved).convention == "inference"


def test_a_title_on_a_subgraph_marks_its_input() -> None:
    """Title marks reach into subgraphs by the names of their inputs."""
    found = marked(
        {**document(title="$idea.text:What to paint"), "definitions": document()["definitions"]}
    )

    # The outside of the subgraph stands above titles, which fill in what it leaves out.
    idea = next(p for p in found.parameters if p.targets == at("57:8.text"))
    assert (idea.name, idea.description) == ("idea", "What to paint")


def test_a_primitive_of_the_editor_is_what_it_fills() -> None:
    """A node that lives in the editor only can be picked, and fills all its consumers."""
    saved = {
        "nodes": [
            node(1, "PrimitiveNode", [20, "fixed"], title="Effort"),
            node(2, "KSampler", [7, "fixed", 1], widget("steps", "INT", 1)),
            node(3, "KSampler", [7, "fixed", 1], widget("steps", "INT", 2)),
            node(4, "SaveImage", [], slot("images", "LATENT", 3)),
        ],
        "links": [[1, 1, 0, 2, 0, "INT"], [2, 1, 0, 3, 0, "INT"], [3, 3, 0, 4, 0, "LATENT"]],
        "extra": {"linearData": {"inputs": [["1", "value"]]}},
    }

    (parameter,) = marked(saved).parameters

    assert parameter.targets == at("2.steps", "3.steps")
    assert parameter.default == 20


def test_copied_nodes_keep_their_marks() -> None:
    """A node that the editor renumbers is still found under the id that the file has."""
    saved = document({"inputs": [[f"{INSIDE}:1:text", "text"]]})
    inner = saved["definitions"]["subgraphs"][0]
    inner["nodes"][0]["id"] = 1
    inner["links"][1]["target_id"] = inner["links"][3]["origin_id"] = 1

    (prompt,) = marked(saved).parameters

    assert prompt.name == "prompt"
    assert prompt.targets[0][0].startswith("57:")
    assert prompt.targets[0][0] != "57:1"


def test_a_note_describes_the_workflow() -> None:
    """A node titled MCP may live in the editor only."""
    saved = document()
    saved["nodes"].append(node(70, "MarkdownNote", ["Paints over a photo."], title="MCP"))

    assert marked(saved).description == "Paints over a photo."


JUNK: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-10, 60),
        st.floats(),
        st.sampled_from(["57", "8", "text", "-1", f"{ROOT}:57:text", f"{INSIDE}:8:%", "::", ""]),
        st.text(max_size=5),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.sampled_from(["inputs", "outputs", "name", "label", "widget", "id", "link"]),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=12,
)
PLACES = st.sampled_from(["extra", "linear", "definitions", "nodes", "ports", "proxies", "links"])


@given(place=PLACES, junk=JUNK)
def test_no_editor_file_breaks_marks(place: str, junk: Any) -> None:
    """The document beside a graph may hold anything: its marks are read or passed over."""
    saved = document({"inputs": [["57", "text"]], "outputs": [3]})
    read = convert(saved, CATALOG)
    match place:
        case "linear":
            saved["extra"]["linearData"] = {"inputs": junk, "outputs": junk}
        case "ports":
            saved["definitions"]["subgraphs"][0]["inputs"] = junk
        case "proxies":
            saved["nodes"][2]["properties"]["proxyWidgets"] = junk
        case _:
            saved[place] = junk

    found = read_marks(
        read.graph,
        inferred=infer(read.graph, CATALOG),
        catalog=CATALOG,
        editor=saved,
        held=read.held,
        new_ids=read.new_ids,
    )

    assert all(node_id in read.graph for p in found.parameters for node_id, _ in p.targets)
    assert set(found.outputs) <= set(read.graph)
