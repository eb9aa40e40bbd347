"""The editor's save format made a graph: widgets, links, subgraphs, and what nobody can run."""

from __future__ import annotations

import copy
import doctest
import json
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comfyserve.errors import ComfyServeError, GraphInvalid, WorkflowUnreadable
from comfyserve.workflows import ui_format
from comfyserve.workflows.graph import MAX_NODES, check_graph
from comfyserve.workflows.node_catalog import NodeCatalog
from comfyserve.workflows.ui_format import convert
from comfyserve.workflows.workflow import Workflow

Document = dict[str, Any]

MODE = {
    "options": [
        {"key": "still", "inputs": {"required": {"size": ["INT", {"default": 64}]}}},
        {"key": "film", "inputs": {"required": {"length": ["INT", {}], "fps": ["INT", {}]}}},
    ]
}
CATALOG = NodeCatalog.from_json(
    {
        "Load": {"input": {"required": {"model": [["a", "b"]]}}, "output": ["MODEL", "CLIP"]},
        "Text": {
            "input": {"required": {"text": ["STRING", {}], "clip": ["CLIP"]}},
            "output": ["CONDITIONING"],
        },
        "Sample": {
            "input": {
                "required": {
                    "model": ["MODEL"],
                    "seed": ["INT", {}],
                    "steps": ["INT", {"default": 20}],
                    "positive": ["CONDITIONING"],
                },
                "optional": {"speed": [["fast", "slow"]]},
            },
            "output": ["LATENT"],
        },
        "Change": {"input": {"required": {"a": ["LATENT"], "b": ["MODEL"]}}, "output": ["LATENT"]},
        "Save": {
            "input": {"required": {"latent": ["LATENT"], "name": ["STRING", {"default": "out"}]}},
            "output_node": True,
        },
        "Picture": {
            "input": {
                "required": {"file": [["x.png"], {"image_upload": True}]},
                "optional": {"scale": ["FLOAT", {}]},
            },
            "output": ["IMAGE"],
        },
        "Many": {"input": {"required": {"list": ["COMBO", {}], "curve": ["CURVE", {}]}}},
        "Movie": {
            "input": {"required": {"mode": ["COMFY_DYNAMICCOMBO_V3", MODE], "name": ["STRING", {}]}}
        },
    }
)


def node(
    node_id: int,
    kind: str,
    inputs: Sequence[tuple[str, str, int | None]] = (),
    values: object = None,
    outputs: str = "",
    **more: object,
) -> Document:
    """A node as the editor saves it; an input whose type is in small letters is a widget's."""
    slots = [
        {"name": name, "type": kind.upper(), "link": link}
        | ({"widget": {"name": name}} if kind.islower() else {})
        for name, kind, link in inputs
    ]
    ends = [{"name": kind, "type": kind, "links": []} for kind in outputs.split()]
    made = {"id": node_id, "type": kind, "inputs": slots, "outputs": ends, "mode": 0}
    return made | ({} if values is None else {"widgets_values": values}) | more


def saved(nodes: list[Document], links: list[list[object]] | None = None, **more: Any) -> Document:
    """A document of these nodes; a link is ``[id, from, slot, to, slot]``."""
    return {"nodes": nodes, "links": [[*link, "*"] for link in links or []]} | more


def subgraph(
    graph_id: str,
    nodes: list[Document],
    links: list[tuple[int, int, int, int, int]],
    inputs: str = "",
    outputs: str = "",
) -> Document:
    """A definition; its inputs and outputs are ``name:TYPE`` and find their links by number."""
    keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot")
    made = [dict(zip(keys, link, strict=True)) for link in links]
    ports: dict[str, list[Document]] = {"inputs": [], "outputs": []}
    for side, text, end in (("inputs", inputs, "origin"), ("outputs", outputs, "target")):
        io_node = -10 if side == "inputs" else -20
        for number, port in enumerate(text.split()):
            name, _, kind = port.partition(":")
            ids = [
                link["id"]
                for link in made
                if (link[f"{end}_id"], link[f"{end}_slot"]) == (io_node, number)
            ]
            ports[side].append({"name": name, "type": kind, "linkIds": ids})
    return {"id": graph_id, "name": f"The {graph_id}", "nodes": nodes, "links": made} | ports


def inputs_of(document: Document, node_id: str, *, strict: bool = True) -> Document:
    """What the graph has at one node."""
    inputs: Document = convert(document, CATALOG, strict=strict).graph[node_id]["inputs"]
    return inputs


def test_widget_values_get_their_names() -> None:
    """Values are named in the order of the node's widgets, without what the editor adds."""
    document = saved([node(1, "Sample", values=[7, "randomize", 30, "slow"])])
    assert inputs_of(document, "1") == {"seed": 7, "steps": 30, "speed": "slow"}


def test_values_the_file_lacks_are_the_servers_defaults() -> None:
    """A widget that is newer than the file has its default, as in the editor."""
    document = saved([node(1, "Sample", values=[7])])
    assert inputs_of(document, "1") == {"seed": 7, "steps": 20, "speed": "fast"}


def test_values_saved_by_name() -> None:
    """Values under names are taken by name, further ones too, buttons and previews not."""
    values = {"speed": "slow", "seed": 3, "crf": 19, "preview": {}, "choose file to upload": "i"}
    document = saved([node(1, "Sample", values=values)])
    expected = {"seed": 3, "steps": 20, "speed": "slow", "crf": 19}
    assert inputs_of(document, "1") == expected


def test_the_upload_button_has_a_value_too() -> None:
    """The value of an upload button is passed over, and not given to the next widget."""
    document = saved([node(1, "Picture", values=["x.png", "image", 0.5])])
    assert inputs_of(document, "1") == {"file": "x.png", "scale": 0.5}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["still", 32, "n"], {"mode": "still", "mode.size": 32, "name": "n"}),
        (["film", 9, 24, "n"], {"mode": "film", "mode.length": 9, "mode.fps": 24, "name": "n"}),
        ([], {"mode": "still", "mode.size": 64, "name": ""}),
    ],
)
def test_a_dynamic_combo_brings_its_own_inputs(values: list[object], expected: Document) -> None:
    """The inputs of the chosen branch follow the choice, under its name."""
    assert inputs_of(saved([node(1, "Movie", values=values)]), "1") == expected


def test_values_of_former_widgets_are_left_out() -> None:
    """A value that was saved for an input which no longer has a widget goes to no other."""
    sections = {"required": {"a": ["INT", {}], "b": ["INT", {"forceInput": True}], "c": ["INT"]}}
    catalog = NodeCatalog.from_json({"Former": {"input": sections}})
    graph = convert(saved([node(1, "Former", values=[1, 2, 3])]), catalog, strict=True).graph
    assert graph["1"]["inputs"] == {"a": 1, "c": 3}


def test_lists_are_wrapped() -> None:
    """A list would be read as a link, so it is wrapped; a curve says that it is one."""
    document = saved([node(1, "Many", values=[["a", 0], [[0, 0], [1, 1]]])])
    assert inputs_of(document, "1") == {
        "list": {"__value__": ["a", 0]},
        "curve": {"__type__": "CURVE", "__value__": [[0, 0], [1, 1]]},
    }


def test_titles_and_packs_are_kept() -> None:
    """A node keeps its title, and says which pack brings it."""
    properties = {"cnr_id": "speedy", "ver": "1.2"}
    document = saved([node(1, "Save", title="Keep", properties=properties)])
    converted = convert(document, CATALOG)
    assert converted.graph["1"]["_meta"] == {"title": "Keep", "cnr_id": "speedy", "ver": "1.2"}
    assert str(converted.packs["Save"]) == "speedy 1.2"


def test_choices_in_a_text_stay() -> None:
    """A text with choices is left for each run to draw from."""
    text = "a {red|blue} fox // or two"
    document = saved([node(1, "Text", values=[text])])
    assert inputs_of(document, "1")["text"] == text


def test_links_pass_what_only_the_editor_has() -> None:
    """Reroutes and named values are passed through, notes are left out."""
    document = saved(
        [
            node(1, "Load", values=["a"], outputs="MODEL CLIP"),
            node(2, "Reroute", [("", "*", 10)], outputs="*"),
            node(3, "SetNode", [("CLIP", "CLIP", 11)], ["the clip"], outputs="*"),
            node(4, "GetNode", [], ["the clip"], outputs="CLIP"),
            node(5, "Text", [("clip", "CLIP", 12)], ["hi"]),
            node(6, "Note", values=["nothing"]),
        ],
        [[10, 1, 1, 2, 0], [11, 2, 0, 3, 0], [12, 4, 0, 5, 0]],
    )
    converted = convert(document, CATALOG, strict=True)
    assert set(converted.graph) == {"1", "5"}
    assert converted.graph["5"]["inputs"] == {"text": "hi", "clip": ["1", 1]}


def test_primitives_are_written_into_what_they_feed() -> None:
    """The value of a primitive node stands where its links go, and says where it came from."""
    document = saved(
        [
            node(1, "PrimitiveNode", values=[42, "fixed"], outputs="INT"),
            node(2, "Sample", [("seed", "int", 10)], [7, "fixed", 30]),
            node(3, "Sample", [("seed", "int", 11)], [8, "fixed", 30]),
        ],
        [[10, 1, 0, 2, 0], [11, 1, 0, 3, 0]],
    )
    converted = convert(document, CATALOG, strict=True)
    assert [converted.graph[n]["inputs"]["seed"] for n in "23"] == [42, 42]
    assert converted.held == {("1", "value"): (("2", "seed"), ("3", "seed"))}


@pytest.mark.parametrize(
    ("mode", "expected"),
    [(0, ["2", 0]), (2, None), (4, ["1", 0])],
    ids=["runs", "muted", "bypassed"],
)
def test_muted_and_bypassed_nodes(mode: int, expected: object) -> None:
    """What comes from a muted node is missing; a bypassed one hands its input on."""
    document = saved(
        [
            node(1, "Sample", values=[1, "fixed", 2], outputs="LATENT"),
            node(2, "Change", [("a", "LATENT", 10)], outputs="LATENT", mode=mode),
            node(3, "Save", [("latent", "LATENT", 11)], ["n"]),
        ],
        [[10, 1, 0, 2, 0], [11, 2, 0, 3, 0]],
    )
    assert inputs_of(document, "3").get("latent") == expected


@pytest.mark.parametrize(
    ("wanted", "expected"), [("LATENT", ["1", 0]), ("MODEL", ["2", 0]), ("*", ["1", 0])]
)
def test_a_bypass_goes_by_type(wanted: str, expected: object) -> None:
    """The input of the same number is taken if its type fits, else one of the wanted type."""
    document = saved(
        [
            node(1, "Sample", outputs="LATENT"),
            node(2, "Load", outputs="MODEL"),
            node(3, "Change", [("a", "LATENT", 10), ("b", "MODEL", 11)], outputs=wanted, mode=4),
            node(4, "Anything", [("x", wanted, 12)]),
        ],
        [[10, 1, 0, 3, 0], [11, 2, 0, 3, 1], [12, 3, 0, 4, 0]],
    )
    assert inputs_of(document, "4", strict=False) == {"x": expected}


def picture_maker(graph_id: str = "maker") -> Document:
    """A subgraph with a promoted text, a seed with two ends, and one output."""
    return subgraph(
        graph_id,
        [
            node(
                8, "Text", [("clip", "CLIP", 1), ("text", "string", 2)], ["inner"], "CONDITIONING"
            ),
            node(
                9,
                "Sample",
                [("positive", "CONDITIONING", 3), ("seed", "int", 4)],
                [5, "fixed", 30],
                "LATENT",
            ),
        ],
        [
            (1, -10, 0, 8, 0),
            (2, -10, 1, 8, 1),
            (3, 8, 0, 9, 0),
            (4, -10, 2, 9, 1),
            (5, 9, 0, -20, 0),
        ],
        inputs="clip:CLIP text:STRING seed:INT",
        outputs="latent:LATENT",
    )


def with_maker(host: Document, *more: Document) -> Document:
    """A document that uses `picture_maker` at node 2."""
    return saved(
        [
            node(1, "Load", values=["a"], outputs="MODEL CLIP"),
            host,
            node(3, "Save", [("latent", "LATENT", 11)], ["n"]),
        ],
        [[10, 1, 1, 2, 0], [11, 2, 0, 3, 0]],
        definitions={"subgraphs": [picture_maker(), *more]},
    )


def test_a_subgraph_is_opened() -> None:
    """Nodes inside run under both ids, and links cross the border both ways."""
    document = with_maker(node(2, "maker", [("clip", "CLIP", 10)], outputs="LATENT"))
    graph = convert(document, CATALOG, strict=True).graph
    assert set(graph) == {"1", "2:8", "2:9", "3"}
    assert graph["2:8"]["inputs"] == {"text": "inner", "clip": ["1", 1]}
    assert graph["3"]["inputs"]["latent"] == ["2:9", 0]


def test_values_on_the_outside_win() -> None:
    """A promoted widget has the value that the subgraph's node holds."""
    host = node(2, "maker", [("clip", "CLIP", 10)], ["outer", 77], "LATENT")
    converted = convert(with_maker(host), CATALOG, strict=True)
    assert converted.graph["2:8"]["inputs"]["text"] == "outer"
    assert converted.graph["2:9"]["inputs"]["seed"] == 77
    assert converted.held == {("2", "text"): (("2:8", "text"),), ("2", "seed"): (("2:9", "seed"),)}


def test_old_files_promote_by_node_and_widget() -> None:
    """A list of inner nodes and widgets names the values, for widgets without an input too."""
    proxies = [["9", "steps"], ["-1", "text"], ["9", "seed"]]
    properties = {"proxyWidgets": proxies}
    host = node(2, "maker", [], [12, "outer", None], "LATENT", properties=properties)
    graph = convert(with_maker(host), CATALOG, strict=True).graph
    assert graph["2:8"]["inputs"]["text"] == "outer"
    assert graph["2:9"]["inputs"] | {"speed": ""} == {
        "seed": 5,
        "steps": 12,
        "speed": "",
        "positive": ["2:8", 0],
    }


def test_subgraphs_within_subgraphs() -> None:
    """The value that stands furthest outside wins, and ids have one part for each level."""
    inner = node(4, "maker", [("text", "string", 1)], ["middle", 6], "LATENT")
    outer = subgraph(
        "outer",
        [inner],
        [(1, -10, 0, 4, 0), (2, 4, 0, -20, 0)],
        inputs="words:STRING",
        outputs="latent:LATENT",
    )
    for values, text in ([], "middle"), (["outside"], "outside"):
        graph = convert(
            with_maker(node(2, "outer", [], values, "LATENT"), outer), CATALOG, strict=True
        ).graph
        assert graph["2:4:8"]["inputs"] == {"text": text}
        assert graph["2:4:9"]["inputs"]["seed"] == 6
        assert graph["3"]["inputs"]["latent"] == ["2:4:9", 0]


def test_a_muted_subgraph_is_left_out_whole() -> None:
    """Nothing inside a muted or bypassed subgraph runs."""
    for mode in (2, 4):
        document = with_maker(node(2, "maker", [("clip", "CLIP", 10)], mode=mode))
        assert set(convert(document, CATALOG, strict=True).graph) == {"1", "3"}


def test_copied_subgraphs_get_ids_of_their_own() -> None:
    """Nodes whose ids another graph has used get the next free ones, as in the editor."""
    document = with_maker(node(2, "maker", outputs="LATENT"), picture_maker("copy"))
    document["nodes"].append(node(20, "copy", [], ["copied"], "LATENT"))
    converted = convert(document, CATALOG, strict=True)
    assert set(converted.graph) == {"1", "2:8", "2:9", "3", "20:21", "20:22"}
    assert converted.graph["20:21"]["inputs"]["text"] == "copied"
    assert converted.graph["20:22"]["inputs"]["positive"] == ["20:21", 0]
    assert converted.new_ids == {"copy": {"8": "21", "9": "22"}}


def grouped(kind: str) -> Document:
    """A document with an old group node of a text and a sampler."""
    group = {
        "nodes": [
            node(-1, "Text", [("clip", "CLIP", None)], ["inner"], "CONDITIONING"),
            node(-1, "Sample", [("positive", "CONDITIONING", None)], [1, "fixed", 2], "LATENT"),
        ],
        "links": [[0, 0, 1, 0, 5, "CONDITIONING"]],
        "external": [[1, 0, "LATENT"]],
    }
    values = ["grouped", 42, "randomize", 9, "slow"]
    return saved(
        [
            node(1, "Load", values=["a"], outputs="MODEL CLIP"),
            node(2, kind, [("clip", "CLIP", 10)], values, "LATENT"),
            node(3, "Save", [("latent", "LATENT", 11)], ["n"]),
        ],
        [[10, 1, 1, 2, 0], [11, 2, 0, 3, 0]],
        extra={"groupNodes": {"Draw": group}},
    )


@pytest.mark.parametrize("kind", ["workflow>Draw", "workflow/Draw"])
def test_old_group_nodes_are_opened(kind: str) -> None:
    """A group node is opened under the next free ids, with the values that it holds."""
    document = grouped(kind)
    converted = convert(document, CATALOG, strict=True)
    graph = converted.graph
    assert graph["6:4"]["inputs"] == {"text": "grouped", "clip": ["1", 1]}
    expected = {"seed": 42, "steps": 9, "speed": "slow", "positive": ["6:4", 0]}
    assert graph["6:5"]["inputs"] == expected
    assert graph["3"]["inputs"]["latent"] == ["6:5", 0]
    assert converted.new_ids == {"": {"2": "6"}}


def test_groups_within_groups() -> None:
    """A group node inside another is opened too, and one inside itself is refused."""
    groups = {
        "Outer": {"nodes": [node(-1, "workflow>Inner", values=[3, "fixed", 9])], "links": []},
        "Inner": {"nodes": [node(-1, "Sample", values=[1, "fixed", 2])], "links": []},
        "Me": {"nodes": [node(-1, "workflow>Me")], "links": []},
    }
    extra = {"groupNodes": groups}
    graph = convert(saved([node(1, "workflow>Outer")], extra=extra), CATALOG, strict=True).graph
    assert graph["5:4:3"]["inputs"] == {"seed": 3, "steps": 9, "speed": "fast"}
    with pytest.raises(GraphInvalid, match="the group 'Me' holds itself"):
        convert(saved([node(1, "workflow>Me")], extra=extra), CATALOG)


UNKNOWN = saved(
    [
        node(1, "Save", values=["n"]),
        node(7, "Sharpn", title="Crisp", properties={"cnr_id": "sharp-pack", "ver": "2.0"}),
    ]
)


def test_running_an_unknown_node_says_what_to_install() -> None:
    """The error names the node, its title, and the pack that the file tells."""
    with pytest.raises(GraphInvalid) as caught:
        convert(UNKNOWN, CATALOG, strict=True, source="a.json")
    assert caught.value.node_id == "7"
    assert str(caught.value) == (
        "a.json cannot run: node 7 'Crisp' (Sharpn) is of a kind that this server does not have. "
        "Install the pack sharp-pack 2.0."
    )


def test_reading_lists_unknown_nodes_as_warnings() -> None:
    """Where nothing is to run, an unknown node is a warning, and stays in the graph."""
    converted = convert(UNKNOWN, CATALOG)
    assert set(converted.graph) == {"1", "7"}
    assert [warning.node_id for warning in converted.warnings] == ["7"]
    assert str(converted.warnings[0]).startswith("Node 7 'Crisp' (Sharpn) is of a kind")


def test_reads_without_a_catalogue() -> None:
    """Without a catalogue the names in the file are used, and guesses are told."""
    document = saved(
        [
            node(1, "Odd", [("seed", "int", None), ("text", "string", None)], [1, "fixed", "hi"]),
            node(2, "Odder", values=[1, 2]),
            node(3, "Oddest", values=[4, "fixed"])
            | {"widgets_values_named": {"seed": 4, "control_after_generate": "fixed"}},
        ]
    )
    converted = convert(document, None)
    assert converted.graph["1"]["inputs"] == {"seed": 1, "text": "hi"}
    assert converted.graph["3"]["inputs"] == {"seed": 4}
    assert [warning.node_id for warning in converted.warnings] == ["2"]


def chain(kind: str, length: int) -> Document:
    """A line of nodes, each linked to the one before."""
    nodes = [
        node(n, kind, [("a", "LATENT", n)] if n else [], outputs="LATENT") for n in range(length)
    ]
    return saved(nodes, [[n, n - 1, 0, n, 0] for n in range(1, length)])


def nested(levels: int, width: int) -> Document:
    """Subgraphs that hold each other: *width* of the next on each of *levels*."""
    definitions = [
        subgraph(f"g{n}", [node(100 * n + w, f"g{n + 1}") for w in range(width)], [])
        for n in range(levels)
    ]
    definitions.append(subgraph(f"g{levels}", [node(1, "Save")], []))
    return saved([node(1, "g0")], definitions={"subgraphs": definitions})


BROKEN: dict[str, tuple[Document, str]] = {
    "two nodes of one id": (
        saved([node(1, "Save"), node(1, "Load")]),
        "a.json has two nodes 1 in 'the workflow'",
    ),
    "two subgraphs of one id": (
        saved([node(1, "Save")], definitions={"subgraphs": [picture_maker(), picture_maker()]}),
        "a.json defines the subgraph 'maker' twice",
    ),
    "a link that is not there": (
        saved([node(1, "Save", [("latent", "LATENT", 5)])]),
        "a.json cannot run: latent of node 1 (Save) is linked to link 5, which is not in the file",
    ),
    "a link from nowhere": (
        saved([node(1, "Save", [("latent", "LATENT", 5)])], [[5, 99, 0, 1, 0]]),
        "a.json cannot run: latent of node 1 (Save) is linked to node 99, which is not in the file",
    ),
    "a name nobody keeps": (
        saved(
            [node(1, "GetNode", values=["x"]), node(2, "Save", [("latent", "LATENT", 5)])],
            [[5, 1, 0, 2, 0]],
        ),
        "a.json cannot run: node 1 (GetNode) gets 'x', which no Set node keeps",
    ),
    "a subgraph in itself": (
        saved([node(1, "me")], definitions={"subgraphs": [subgraph("me", [node(5, "me")], [])]}),
        "a.json: the subgraph 'The me' holds itself",
    ),
    "subgraphs nested deep": (nested(70, 1), "a.json nests subgraphs more than 60 deep"),
    "subgraphs that multiply": (nested(12, 10), "a.json unfolds to more than 20000 nodes, "),
    "too many nodes": (chain("Reroute", MAX_NODES + 1), "a.json has more than 20000 nodes"),
    "reroutes in a circle": (
        saved(
            [
                node(1, "Reroute", [("", "*", 1)], outputs="*"),
                node(2, "Reroute", [("", "*", 2)], outputs="*"),
                node(3, "Save", [("latent", "LATENT", 3)]),
            ],
            [[1, 2, 0, 1, 0], [2, 1, 0, 2, 0], [3, 1, 0, 3, 0]],
        ),
        "a.json cannot run: the links of node 3 (Save) lead in a circle",
    ),
    "nodes in a circle": (
        saved(
            [
                node(1, "Change", [("a", "LATENT", 1)], outputs="LATENT"),
                node(2, "Change", [("a", "LATENT", 2)], outputs="LATENT"),
            ],
            [[1, 2, 0, 1, 0], [2, 1, 0, 2, 0]],
        ),
        "a.json cannot run: nodes feed each other in a circle: 1 -> 2 -> 1",
    ),
    "no node": (saved([]), "a.json holds no node that would run"),
    "only notes": (saved([node(1, "Note", values=["x"])]), "a.json holds no node that would run"),
    "a node that is none": (saved([]) | {"nodes": [5]}, "a.json has 5 where a node of"),
    "a node without an id": (saved([]) | {"nodes": [{"type": "A"}]}, "a.json has a node without"),
    "a node without a type": (saved([]) | {"nodes": [{"id": 1}]}, "a.json: node 1 has no type"),
    "an input that is none": (
        saved([node(1, "Save") | {"inputs": ["x"]}]),
        "a.json has 'x' where an input of node '1' should be",
    ),
    "a link that is none": (
        saved([node(1, "Save")]) | {"links": [[1, 2]]},
        "a.json has a link in 'the workflow' that is none: [1, 2]",
    ),
    "two links of one id": (
        saved([node(1, "Save")], [[1, 1, 0, 1, 0], [1, 1, 1, 1, 0]]),
        "a.json has two links 1",
    ),
}


@pytest.mark.parametrize(("document", "said"), BROKEN.values(), ids=BROKEN.keys())
def test_what_nobody_can_run_is_one_clear_error(document: Document, said: str) -> None:
    """Each thing that makes no sense is refused quickly, in one sentence that says what it is."""
    began = time.perf_counter()
    with pytest.raises((GraphInvalid, WorkflowUnreadable)) as caught:
        convert(document, CATALOG, strict=True, source="a.json")
    assert str(caught.value).startswith(said)
    assert time.perf_counter() - began < 10


@pytest.mark.parametrize("kind", ["Reroute", "Change"])
def test_long_chains_are_read(kind: str) -> None:
    """A chain of ten thousand nodes is no problem, neither of reroutes nor of others."""
    document = chain(kind, 10_000)
    document["nodes"].append(node(10_000, "Save", [("latent", "LATENT", 10_000)]))
    document["nodes"][0] = node(0, "Sample", outputs="LATENT")
    document["links"].append([10_000, 9_999, 0, 10_000, 0, "*"])
    graph = convert(document, CATALOG, strict=True).graph
    assert graph["10000"]["inputs"]["latent"] == ["0" if kind == "Reroute" else "9999", 0]


def test_bypassed_nodes_with_very_many_inputs_come_to_an_end() -> None:
    """Looking for the way past a node is bounded, whatever the file says."""
    slots = [(f"i{n}", f"K{n}", None) for n in range(20_000)]
    wide = node(1, "Wide", slots, outputs="X", mode=4)
    asking = node(2, "Asks", [(f"a{n}", f"W{n}", n) for n in range(2_000)])
    document = saved([wide, asking], [[n, 1, 0, 2, n] for n in range(2_000)])
    with pytest.raises(GraphInvalid, match="too many links lead past node 1"):
        convert(document, CATALOG)


SEEDS: list[Document] = [
    with_maker(node(2, "maker", [("clip", "CLIP", 10)], ["outer", 77], "LATENT")),
    with_maker(
        node(
            2, "maker", [], [1, "x"], properties={"proxyWidgets": [["9", "steps"], ["-1", "text"]]}
        )
    ),
    nested(2, 2),
    grouped("workflow>Draw"),
    UNKNOWN,
    *(document for document, _ in BROKEN.values() if len(document["nodes"]) < 10),
]
ODD: list[object] = [
    None,
    True,
    -1,
    0,
    2,
    4,
    10**30,
    1.5,
    float("nan"),
    "",
    "2",
    "maker",
    "-10",
    [],
    {},
    [[]],
]


def spots(value: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to everything inside a document."""
    if isinstance(value, dict):
        return [path] + [spot for key in value for spot in spots(value[key], (*path, key))]
    if isinstance(value, list):
        return [path] + [spot for at, v in enumerate(value) for spot in spots(v, (*path, at))]
    return [path]


def mutated(document: Document, choose: random.Random) -> Document:
    """The document with a few values replaced, removed, doubled, or put elsewhere."""
    changed = copy.deepcopy(document)
    for _ in range(choose.randint(1, 6)):
        inside = [spot for spot in spots(changed) if spot]
        if not inside:
            return changed
        *way, last = choose.choice(inside)
        other = choose.choice(spots(changed))
        holder: Any = changed
        for step in way:
            holder = holder[step]
        taken: Any = changed
        for step in other:
            taken = taken[step]
        match choose.randrange(4):
            case 0:
                holder[last] = choose.choice(ODD)
            case 1:
                del holder[last]
            case 2:
                holder[last] = copy.deepcopy(taken)
            case _ if isinstance(holder, list):
                holder.append(copy.deepcopy(holder[last]))
    return changed


@settings(max_examples=400, deadline=5000)
@given(st.sampled_from(SEEDS), st.integers(0, 2**32), st.booleans(), st.booleans())
def test_damaged_documents_are_read_or_refused(
    document: Document, seed: int, strict: bool, has_catalog: bool
) -> None:
    """Whatever is in a file, it ends soon, in a graph that could run or in one of our errors."""
    damaged = mutated(document, random.Random(seed))
    try:
        graph = convert(damaged, CATALOG if has_catalog else None, strict=strict).graph
    except ComfyServeError as error:
        assert str(error)
    else:
        check_graph(graph)


def test_a_workflow_from_an_editor_file_waits_for_the_catalogue(tmp_path: Path) -> None:
    """A file of the editor is a workflow at once, and certain once a server's nodes are known."""
    file = tmp_path / "fox.json"
    file.write_text(json.dumps(saved([node(1, "Sample", values=[7, "fixed", 30])])))
    loaded = Workflow.load(file)
    assert [warning.node_id for warning in loaded.warnings] == ["1"]
    described = loaded.described_by(CATALOG)
    assert described.graph["1"]["inputs"] == {"seed": 7, "steps": 30, "speed": "fast"}
    assert described.warnings == ()
    bound = loaded.bind({"1.steps": 4, "seed": 1}, rng=random.Random(1), catalog=CATALOG)
    assert bound.graph["1"]["inputs"] == {"seed": 1, "steps": 4, "speed": "fast"}


def test_describing_for_running_is_strict() -> None:
    """A workflow with an unknown node can be looked at, and refuses to be made ready to run."""
    looked_at = Workflow.from_json(UNKNOWN).described_by(CATALOG, strict=False)
    assert [warning.node_id for warning in looked_at.warnings] == ["7"]
    with pytest.raises(GraphInvalid, match="Install the pack sharp-pack"):
        looked_at.described_by(CATALOG)


def test_the_examples_hold() -> None:
    """The example in the docstring is true."""
    assert doctest.testmod(ui_format).failed == 0
