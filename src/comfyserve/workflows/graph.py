"""A graph: read from what people saved, checked, searched, and copied with other inputs.

>>> graph = parse_graph('{"1": {"class_type": "PrimitiveInt", "inputs": {"value": 3}}}')
>>> with_inputs(graph, {("1", "value"): 4})["1"]["inputs"]
{'value': 4}
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, TypeGuard, TypeVar

from comfyserve.assets import HEAD_SIZE, InputPath, content_type
from comfyserve.errors import GraphInvalid, WorkflowUnreadable, did_you_mean
from comfyserve.workflows.json_bounds import MOST_VALUES, holds_more_than
from comfyserve.workflows.paths import found_at

Graph = Mapping[str, Any]
"""A workflow in ComfyUI's API format: node id -> ``{"class_type", "inputs"}``."""

Address = tuple[str, str]
"""One input of one node: ``(node id, input name)``; written ``3.cfg``."""

SomePath = TypeVar("SomePath", bound=InputPath)

MAX_BYTES = 64 * 2**20
MAX_NODES = 20_000
MAX_INPUTS = 200_000
MAX_DEPTH = 100


@dataclass(frozen=True, slots=True)
class Link:
    """Where an input gets its value from: output number *slot* of another node."""

    node_id: str
    slot: int

    @classmethod
    def read(cls, value: object) -> Link | None:
        """The link that *value* is, or None for a literal."""
        if not isinstance(value, list | tuple) or len(value) != 2:
            return None
        node_id, slot = value
        is_slot = isinstance(slot, int) and not isinstance(slot, bool)
        return cls(node_id, slot) if is_slot and isinstance(node_id, str) else None


@dataclass(frozen=True, slots=True)
class Node:
    """One node of a graph. *title* is what its author called it, empty if nothing."""

    id: str
    class_type: str
    inputs: Mapping[str, Any]
    title: str = ""

    def link(self, name: str) -> Link | None:
        """The link at the input *name*; None if it is a literal or not there."""
        return Link.read(self.inputs.get(name))

    def links(self) -> Iterator[tuple[str, Link]]:
        """Every linked input with its link, in the file's order."""
        for name, value in self.inputs.items():
            if link := Link.read(value):
                yield name, link

    def literals(self) -> Iterator[tuple[str, Any]]:
        """Every input that holds a value of its own."""
        for name, value in self.inputs.items():
            if Link.read(value) is None:
                yield name, value

    def __str__(self) -> str:
        return f"node {self.id} ({self.class_type})"


def parse_graph(data: bytes | str, source: str = "The workflow") -> Graph:
    """Read an API export, bare or wrapped in ``{"prompt": ..}``, and check it.

    *source* names the file in messages. Raises `WorkflowUnreadable` when *data* is no API
    export, saying what it is instead, and `GraphInvalid` when no server could run the graph.
    """
    return read_graph(read_document(data, source), source)


def read_graph(document: object, source: str = "The workflow") -> Graph:
    """The checked graph in a JSON document that was parsed already; see `parse_graph`."""
    graph = _unwrapped(document, source)
    check_graph(graph, source)
    return {node_id: _own_words(entry) for node_id, entry in graph.items()}


def _own_words(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What an author says of a node.

    ComfyUI adds ``is_changed`` to the graphs it saves, and would believe it when it comes back:
    a picture that was replaced since would not be read again.
    """
    return {key: entry[key] for key in ("class_type", "inputs", "_meta") if key in entry}


def read_document(data: bytes | str, source: str = "The workflow") -> object:
    """The JSON document in *data*, whatever it describes; see `parse_graph` for what it raises."""
    return _document(_text(data, source), source)


def is_editor_format(document: object) -> TypeGuard[Mapping[str, Any]]:
    """The document is what the editor saves; `ui_format.convert` makes a graph of it."""
    if not isinstance(document, Mapping) or not isinstance(document.get("nodes"), list):
        return False
    return isinstance(document.get("links"), list | Mapping)


def nodes_of(graph: Graph) -> dict[str, Node]:
    """The nodes of a checked graph by id, in the file's order."""
    return {node_id: _node(node_id, entry) for node_id, entry in graph.items()}


def upstream(nodes: Mapping[str, Node], starts: Iterable[str]) -> dict[str, int]:
    """*starts* and every node they depend on, with how many nodes deep each one stands.

    A node without links has depth 0, any other stands one deeper than what it needs. Nodes
    come in an order in which they could run. Links to nowhere, and those that would close a
    circle, are passed over.
    """
    depths: dict[str, int] = {}
    entered: set[str] = set()
    waiting = [node_id for node_id in starts if node_id in nodes]
    while waiting:
        node_id = waiting[-1]
        if node_id in depths:
            waiting.pop()
            continue
        entered.add(node_id)
        needs = [link.node_id for _, link in nodes[node_id].links() if link.node_id in nodes]
        missing = [need for need in needs if need not in depths and need not in entered]
        waiting.extend(missing)
        if not missing:
            depths[node_id] = 1 + max((depths.get(need, -1) for need in needs), default=-1)
    return depths


def with_inputs(graph: Graph, values: Mapping[SomePath, object]) -> Graph:
    """A copy of *graph* in which there are these values at the addresses, or deeper paths.

    Raises `GraphInvalid` for a path that leads nowhere.
    """
    copy, own = {node_id: _copied(entry) for node_id, entry in graph.items()}, set[InputPath]()
    for path, value in values.items():
        node_id, name, *deeper = path
        if not isinstance(node_id, str) or node_id not in copy:
            problem = f"there is no node {node_id} whose {name} could be set"
            raise GraphInvalid(problem, str(node_id))
        inputs = copy[node_id]["inputs"]
        if deeper and path[:2] not in own and name in inputs:
            inputs[name] = deepcopy(inputs[name])
            own.add(path[:2])
        holder = found_at(inputs, path[1:-1], path)
        if deeper:
            found_at(holder, path[-1:], path)
        holder[path[-1]] = value
    return copy


def _copied(entry: Any) -> Any:
    inputs = entry.get("inputs") if isinstance(entry, Mapping) else None
    return {**entry, "inputs": dict(inputs)} if isinstance(inputs, Mapping) else entry


def _node(node_id: str, entry: Mapping[str, Any]) -> Node:
    meta = entry.get("_meta")
    title = meta.get("title") if isinstance(meta, dict) else None
    return Node(
        node_id, entry["class_type"], entry["inputs"], title if isinstance(title, str) else ""
    )


def _text(data: bytes | str, source: str) -> str:
    if len(data) > MAX_BYTES:
        found = f"is larger than {MAX_BYTES // 2**20} MiB, which no workflow is"
        raise WorkflowUnreadable(source, found, "Is it the right file?")
    text = data if isinstance(data, str) else _decoded(data, source)
    if not text.strip("\ufeff \t\r\n\x00"):
        raise WorkflowUnreadable(source, "is empty", _EXPORT)
    return text.removeprefix("\ufeff")


def _decoded(data: bytes, source: str) -> str:
    encoding = _encoding(data)
    if encoding == "utf-8":
        _refuse_media(data, source)
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        found = f"is not valid {encoding.upper()} text: byte {error.start} is wrong"
        raise WorkflowUnreadable(source, found, "Save it as UTF-8") from None


def _encoding(data: bytes) -> str:
    for mark, encoding in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return encoding
    # Without a mark, the first character of a JSON document tells.
    if data[:1] in _JSON_STARTS and data[1:2] == b"\x00":
        return "utf-16-le"
    return "utf-16-be" if data[:1] == b"\x00" and data[1:2] in _JSON_STARTS else "utf-8"


_JSON_STARTS = (b"{", b"[", b" ", b"\r", b"\n", b"\t")
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def _refuse_media(data: bytes, source: str) -> None:
    mime = content_type(data[:HEAD_SIZE], "workflow.json")
    family = mime.partition("/")[0]
    looks_like_json = data.lstrip()[:1] in (b"{", b"[")
    if mime == "application/json" or family == "text" or looks_like_json:
        return
    if family in ("image", "video", "audio"):
        found = f"is {_ARTICLES[family]} file ({mime}), not a workflow in JSON"
        advice = f"If ComfyUI saved it, open it there, then {_EXPORT[0].lower()}{_EXPORT[1:]}"
        raise WorkflowUnreadable(source, found, advice)
    if mime == "application/octet-stream":
        raise WorkflowUnreadable(source, "holds bytes that are neither text nor JSON", _EXPORT)
    raise WorkflowUnreadable(source, f"is a file of type {mime}, not a workflow in JSON", _EXPORT)


_ARTICLES = {"image": "an image", "video": "a video", "audio": "an audio"}
_EXPORT = "Export the graph with ComfyUI's menu Workflow > Export (API)"


def _document(text: str, source: str) -> object:
    if holds_more_than(MOST_VALUES, text):
        raise WorkflowUnreadable(source, f"holds more than {MOST_VALUES:,} values, as none does")
    repeated: list[str] = []

    def as_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            repeated.extend(_repeated_nodes(pairs))
        return made

    try:
        document: object = json.loads(text, object_pairs_hook=as_object)
    except json.JSONDecodeError as error:
        found = f"is not valid JSON: line {error.lineno}, column {error.colno}: {error.msg.lower()}"
        raise WorkflowUnreadable(source, found) from None
    except RecursionError:
        raise _too_deep(source) from None
    except ValueError as error:  # a number of thousands of digits
        raise WorkflowUnreadable(source, f"is not usable JSON: {error}") from None
    if repeated:
        raise GraphInvalid(f"{source} names node {shown(repeated[0])} twice", repeated[0])
    _refuse_deep(document, source)
    return document


def _repeated_nodes(pairs: list[tuple[str, Any]]) -> Iterator[str]:
    seen: set[str] = set()
    for name, value in pairs:
        if name in seen and isinstance(value, dict) and "class_type" in value:
            yield name
        seen.add(name)


def _refuse_deep(document: object, source: str) -> None:
    waiting = [(document, 0)]
    while waiting:
        value, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise _too_deep(source)
        if isinstance(value, dict):
            waiting.extend((inner, depth + 1) for inner in value.values())
        elif isinstance(value, list):
            waiting.extend((inner, depth + 1) for inner in value)


def _too_deep(source: str) -> WorkflowUnreadable:
    return WorkflowUnreadable(source, f"is nested more than {MAX_DEPTH} levels deep")


def _unwrapped(document: object, source: str) -> Mapping[str, Any]:
    if not isinstance(document, Mapping):
        kind = _JSON_KINDS.get(type(document), type(document).__name__)
        raise WorkflowUnreadable(source, f"holds {kind}, not a graph of nodes", _EXPORT)
    for wrapper in ("prompt", "output"):
        inner = document.get(wrapper)
        if isinstance(inner, Mapping) and "class_type" not in inner:
            return _unwrapped_once(inner, source)
    return _unwrapped_once(document, source)


_JSON_KINDS: Mapping[type, str] = {
    list: "a list",
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}


def _unwrapped_once(document: Mapping[str, Any], source: str) -> Mapping[str, Any]:
    if is_editor_format(document):
        found = (
            f"is in the editor's save format ({len(document['nodes'])} nodes), not an API export"
        )
        raise WorkflowUnreadable(source, found, f"Open it in ComfyUI. {_EXPORT}")
    if any(isinstance(entry, Mapping) and "class_type" in entry for entry in document.values()):
        return document
    if not document:
        raise WorkflowUnreadable(source, "holds no node at all", _EXPORT)
    keys = ", ".join(shown(key) for key in list(document)[:5])
    more = ", .." if len(document) > 5 else ""
    found = f"is JSON but no graph: it has the keys {keys}{more} and no node with a class_type"
    raise WorkflowUnreadable(source, found, _EXPORT)


def check_graph(graph: Mapping[str, Any], source: str = "The workflow") -> None:
    """Raise `GraphInvalid` when no server could run *graph*."""
    if len(graph) > MAX_NODES:
        raise GraphInvalid(f"{source} has {len(graph)} nodes; {MAX_NODES} is the most")
    for node_id, entry in graph.items():
        _check_entry(node_id, entry, source)
    nodes = nodes_of(graph)
    if sum(len(node.inputs) for node in nodes.values()) > MAX_INPUTS:
        raise GraphInvalid(f"{source} has more than {MAX_INPUTS} inputs, which no server would run")
    for node in nodes.values():
        for name, link in node.links():
            if link.node_id not in nodes:
                problem = f"{source} cannot run: {name} of {node} is linked to node "
                problem += f"{shown(link.node_id)}, which is not in the graph"
                raise GraphInvalid(_with_hint(problem, link.node_id, nodes), node.id)
    if circle := _circle(nodes):
        path = " -> ".join([*circle[:8], "..", circle[0]] if len(circle) > 8 else circle)
        raise GraphInvalid(f"{source} cannot run: nodes feed each other in a circle: {path}")


def _check_entry(node_id: object, entry: object, source: str) -> None:
    if not isinstance(node_id, str):
        raise GraphInvalid(f"{source} cannot run: the node id {node_id!r} is not a string")
    if not isinstance(entry, Mapping):
        raise GraphInvalid(f"{source} cannot run: {shown(node_id)} is not a node", node_id)
    class_type = entry.get("class_type")
    if not isinstance(class_type, str) or not class_type:
        problem = f"{source} cannot run: node {shown(node_id)} has no class_type"
        raise GraphInvalid(problem, node_id)
    if not isinstance(entry.get("inputs"), Mapping):
        problem = f"{source} cannot run: node {shown(node_id)} ({class_type}) has no inputs"
        raise GraphInvalid(problem, node_id)


def _with_hint(problem: str, name: str, known: Iterable[str]) -> str:
    hint = did_you_mean(name[:60], known)
    return f"{problem}.{hint}" if hint else problem


def _circle(nodes: Mapping[str, Node]) -> list[str]:
    """One circle of nodes, first and last the same, or nothing."""
    done: set[str] = set()
    for start in nodes:
        path: list[str] = []
        on_path: set[str] = set()
        waiting: list[tuple[str, bool]] = [(start, False)]
        while waiting:
            node_id, leaving = waiting.pop()
            if leaving:
                path.pop()
                on_path.discard(node_id)
                done.add(node_id)
            elif node_id in on_path:
                return [*path[path.index(node_id) :], node_id]
            elif node_id not in done:
                path.append(node_id)
                on_path.add(node_id)
                waiting.append((node_id, True))
                waiting.extend((link.node_id, False) for _, link in nodes[node_id].links())
    return []


def shown(value: object, most: int = 80) -> str:
    """*value* as it is quoted in a sentence: never longer than *most* characters."""
    text = repr(value[:most]) if isinstance(value, str) else repr(value)
    if isinstance(value, str) and len(value) > most:
        return f"{text[:most]}..'"
    return text if len(text) <= most + 2 else f"{text[:most]}.."
