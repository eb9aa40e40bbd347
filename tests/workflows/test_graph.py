"""Reading graphs: what is one, what is not, and what is said then."""

from __future__ import annotations

import codecs
import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comfyserve.errors import GraphInvalid, WorkflowUnreadable
from comfyserve.workflows.graph import (
    MAX_DEPTH,
    MAX_INPUTS,
    MAX_NODES,
    Link,
    nodes_of,
    parse_graph,
    shown,
    upstream,
    with_inputs,
)

SMALL: dict[str, Any] = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8}, "_meta": {"title": "A"}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "é"}},
}


@pytest.mark.parametrize("document", [SMALL, {"prompt": SMALL, "client_id": "x"}])
def test_reads_an_export_bare_or_wrapped(document: dict[str, Any]) -> None:
    """An API export is read alike whether it is bare or the body of a request."""
    assert parse_graph(json.dumps(document)) == SMALL


def test_reads_what_the_frontend_hands_out() -> None:
    """The pair of ``workflow`` and ``output`` that the frontend makes is read by its output."""
    pair = {"workflow": {"nodes": [], "links": []}, "output": SMALL}
    assert parse_graph(json.dumps(pair)) == SMALL


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]
)
def test_reads_every_encoding_that_editors_save(encoding: str) -> None:
    """Text in any Unicode encoding is read, with a byte order mark or without."""
    assert parse_graph(json.dumps(SMALL, ensure_ascii=False).encode(encoding)) == SMALL


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "portrait.json is empty."),
        (b" \n\t", "portrait.json is empty."),
        (codecs.BOM_UTF8, "portrait.json is empty."),
        (b'{\n  "1": {,}\n}', "portrait.json is not valid JSON: line 2, column 9"),
        (b'{"1": {"class_type": "A", "inputs": {}}', "line 1, column 40"),
        (b"1girl, masterpiece", "portrait.json is not valid JSON: line 1, column 2"),
        (b'{"a": "\xff"}', "is not valid UTF-8 text: byte 7 is wrong. Save it as UTF-8."),
        (b"[1, 2]", "portrait.json holds a list, not a graph of nodes."),
        (b"null", "portrait.json holds null, not a graph"),
        (b"3", "portrait.json holds a number, not a graph"),
        (b"{}", "portrait.json holds no node at all."),
        (b'{"prompt": {}}', "portrait.json holds no node at all."),
        (b'{"a": 1, "b": 2}', "it has the keys 'a', 'b' and no node with a class_type"),
        (b'{"nodes": [{}, {}], "links": []}', "in the editor's save format (2 nodes)"),
        (b"\x89PNG\r\n\x1a\n" + bytes(20), "is an image file (image/png), not a workflow in JSON"),
        (b"\x00\x00\x00\x20ftypisom" + bytes(20), "is a video file (video/mp4)"),
        (b"fLaC" + bytes(20), "is an audio file (audio/flac)"),
        (b"PK\x03\x04" + bytes(20), "is a file of type application/zip"),
        (b"\x01\x02\x03\x00\x04", "holds bytes that are neither text nor JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "is not usable JSON"),
    ],
)
def test_says_what_a_file_is_instead(data: bytes, said: str) -> None:
    """Whatever is no workflow is named for what it is, in one error."""
    with pytest.raises(WorkflowUnreadable) as caught:
        parse_graph(data, "portrait.json")
    assert said in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"[]", b'{"nodes": [], "links": []}', b"\x89PNG\r\n\x1a\n"])
def test_says_how_to_get_a_workflow(data: bytes) -> None:
    """Who brings something else is told where ComfyUI exports what we read."""
    with pytest.raises(WorkflowUnreadable, match=r"Workflow > Export \(API\)"):
        parse_graph(data, "portrait.json")


@pytest.mark.parametrize(
    ("graph", "said", "node_id"),
    [
        ({"1": {"inputs": {}}, "2": SMALL["1"]}, "node '1' has no class_type", "1"),
        ({"1": {"class_type": 3, "inputs": {}}}, "node '1' has no class_type", "1"),
        ({"1": {"class_type": "A"}}, "node '1' (A) has no inputs", "1"),
        ({"1": {"class_type": "A", "inputs": []}}, "node '1' (A) has no inputs", "1"),
        ({**SMALL, "extra": 3}, "'extra' is not a node", "extra"),
        (
            {"10": {"class_type": "A", "inputs": {"x": ["1O", 0]}}},
            "x of node 10 (A) is linked to node '1O', which is not in the graph. Did you mean",
            "10",
        ),
    ],
)
def test_refuses_graphs_that_cannot_run(graph: dict[str, Any], said: str, node_id: str) -> None:
    """A broken node is named, with what is wrong with it."""
    with pytest.raises(GraphInvalid) as caught:
        parse_graph(json.dumps(graph), "a.json")
    assert said in str(caught.value)
    assert caught.value.node_id == node_id


@pytest.mark.parametrize(
    ("links", "circle"),
    [({"1": "1"}, "1 -> 1"), ({"1": "2", "2": "3", "3": "2"}, "2 -> 3 -> 2")],
)
def test_shows_the_circle(links: dict[str, str], circle: str) -> None:
    """Nodes that wait for each other are shown as the circle they make."""
    graph = {
        node_id: {"class_type": "A", "inputs": {"x": [to, 0]}} for node_id, to in links.items()
    }
    with pytest.raises(GraphInvalid, match=f"in a circle: {circle}"):
        parse_graph(json.dumps(graph))


def test_refuses_two_nodes_with_one_id() -> None:
    """A file that names a node twice is not read as if it named it once."""
    node = '"7": {"class_type": "A", "inputs": {}}'
    with pytest.raises(GraphInvalid, match="names node '7' twice"):
        parse_graph(f"{{{node}, {node}}}")


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 5_000, 200_000])
def test_refuses_deep_nesting(depth: int) -> None:
    """Deeply nested JSON is one error, never a crash."""
    deep = '{"1": {"class_type": "A", "inputs": {"x": ' + "[" * depth + "]" * depth + "}}}"
    with pytest.raises(WorkflowUnreadable, match="nested more than 100 levels deep"):
        parse_graph(deep)


def test_refuses_values_without_end() -> None:
    """A text whose values would take gigabytes is refused before they are read."""
    small = '{"1": {"class_type": "A", "inputs": {"x": [' + "{}," * 1_000_000 + "{}]}}}"
    with pytest.raises(WorkflowUnreadable, match="holds more than 2,000,000 values"):
        parse_graph(small)


def test_refuses_more_nodes_than_anybody_has() -> None:
    """A graph beyond the limits is refused for its size."""
    node = {"class_type": "A", "inputs": {}}
    with pytest.raises(GraphInvalid, match="has 20001 nodes"):
        parse_graph(json.dumps(dict.fromkeys(map(str, range(MAX_NODES + 1)), node)))
    wide = {"class_type": "A", "inputs": dict.fromkeys(map(str, range(MAX_INPUTS + 1)), 0)}
    with pytest.raises(GraphInvalid, match="more than 200000 inputs"):
        parse_graph(json.dumps({"1": wide}))


def test_reads_long_chains_quickly() -> None:
    """Ten thousand nodes in one chain are read in a moment, without recursion."""
    chain = {
        str(i): {"class_type": "A", "inputs": {"x": [str(i - 1), 0]} if i else {}}
        for i in range(10_000)
    }
    began = time.monotonic()
    graph = parse_graph(json.dumps(chain))
    assert upstream(nodes_of(graph), ["9999"])["9999"] == 9_999
    assert time.monotonic() - began < 10


@settings(deadline=None, max_examples=150)
@given(st.binary(max_size=400) | st.text(max_size=200))
def test_any_bytes_end_in_a_graph_or_an_error_of_ours(data: bytes | str) -> None:
    """No content makes reading fail in any other way."""
    try:
        graph = parse_graph(data, "x.json")
    except (WorkflowUnreadable, GraphInvalid) as error:
        assert str(error)
    else:
        assert nodes_of(graph)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["1", "2", "class_type", "inputs", "prompt", "nodes", "_meta"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(deadline=None, max_examples=120)
@given(JSON)
def test_any_json_ends_in_a_graph_or_an_error_of_ours(document: object) -> None:
    """Neither does any JSON, however like a graph it looks."""
    try:
        graph = parse_graph(json.dumps(document))
    except (WorkflowUnreadable, GraphInvalid) as error:
        assert str(error)
    else:
        assert all(node.class_type for node in nodes_of(graph).values())


@pytest.mark.parametrize(
    ("value", "link"),
    [
        (["4", 1], Link("4", 1)),
        (["4", 0, 0], None),
        (["4"], None),
        ([4, 0], None),
        (["4", True], None),
        (["4", "0"], None),
        ("4", None),
        ({"__value__": ["4", 0]}, None),
    ],
)
def test_tells_links_from_values(value: object, link: Link | None) -> None:
    """Only a pair of a node id and a slot is a link."""
    assert Link.read(value) == link


def test_nodes_know_their_links_and_values() -> None:
    """A node tells what it is linked to from what it holds."""
    node = nodes_of(SMALL)["2"]
    assert [*node.links()] == [("images", Link("1", 0))]
    assert [*node.literals()] == [("filename_prefix", "é")]
    assert str(node) == "node 2 (SaveImage)"
    assert nodes_of(SMALL)["1"].title == "A"


def test_upstream_is_in_running_order() -> None:
    """What a node needs comes before it, however the file orders them."""
    graph = {
        "a": {"class_type": "A", "inputs": {"x": ["b", 0], "y": ["c", 0]}},
        "b": {"class_type": "A", "inputs": {"x": ["c", 0]}},
        "c": {"class_type": "A", "inputs": {}},
        "d": {"class_type": "A", "inputs": {"x": ["a", 0]}},
    }
    assert upstream(nodes_of(graph), ["a"]) == {"c": 0, "b": 1, "a": 2}
    assert [*upstream(nodes_of(graph), ["a"])] == ["c", "b", "a"]


def test_upstream_endures_broken_graphs() -> None:
    """Circles and links to nowhere do not stop the search."""
    graph = {
        "a": {"class_type": "A", "inputs": {"x": ["b", 0], "y": ["gone", 0]}},
        "b": {"class_type": "A", "inputs": {"x": ["a", 0], "z": ["b", 0]}},
    }
    assert set(upstream(nodes_of(graph), ["a", "nobody"])) == {"a", "b"}


def test_setting_inputs_leaves_the_original_alone() -> None:
    """A graph with other inputs is a copy down to each input."""
    before = json.dumps(SMALL)
    changed = with_inputs(SMALL, {("1", "width"): 16})
    changed["2"]["inputs"]["filename_prefix"] = "x"
    assert changed["1"]["inputs"] == {"width": 16, "height": 8}
    assert json.dumps(SMALL) == before


def test_setting_an_input_of_no_node_is_refused() -> None:
    """An address without a node is an error that names it."""
    with pytest.raises(GraphInvalid, match="there is no node 9 whose width could be set"):
        with_inputs(SMALL, {("9", "width"): 16})


@given(st.text() | st.integers() | st.lists(st.integers()))
def test_quoted_values_stay_short(value: object) -> None:
    """A value in a message never makes it unreadable."""
    assert len(shown(value)) <= 90
