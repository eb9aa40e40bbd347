"""What ComfyUI's editor saves, read into typed values: nodes, slots, links, subgraphs.

Ids are strings here, whatever the file has. Nothing is resolved yet: a link may lead nowhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from comfyserve.errors import GraphInvalid, WorkflowUnreadable
from comfyserve.workflows.graph import MAX_INPUTS, MAX_NODES, shown

INPUT_NODE = "-10"
OUTPUT_NODE = "-20"
"""The two nodes that stand for a subgraph's own inputs and outputs."""

MUTED = 2
BYPASSED = 4


@dataclass(frozen=True, slots=True)
class Slot:
    """One input or output of a node; *widget* names the widget an input slot stands for."""

    name: str
    kind: str
    link: str | None = None
    widget: str = ""


@dataclass(frozen=True, slots=True)
class UiLink:
    """A line in the editor, from output number *origin_slot* to input number *target_slot*."""

    origin_id: str
    origin_slot: int
    target_id: str
    target_slot: int


@dataclass(frozen=True, slots=True)
class Port:
    """One input or output of a subgraph, and the links that it has inside."""

    name: str
    kind: str
    links: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pack:
    """Who brings a node: the id of a pack in ComfyUI's registry, or a repository."""

    name: str
    version: str = ""

    def __str__(self) -> str:
        return f"{self.name} {self.version}".rstrip()


@dataclass(frozen=True, slots=True)
class UiNode:
    """One node as it was saved.

    *values* are its widgets' values in the order of its widgets, or by name. *named* has them
    by name too where the editor wrote that. *proxies* are the inner widgets that an old file
    shows on a subgraph, as ``(inner node id, widget name)``.
    """

    id: str
    type: str
    title: str
    mode: int
    inputs: tuple[Slot, ...]
    outputs: tuple[Slot, ...]
    values: tuple[Any, ...] | Mapping[str, Any]
    named: Mapping[str, Any]
    proxies: tuple[tuple[str, str], ...]
    quarantined: Mapping[str, Any]
    properties: Mapping[str, Any] = field(repr=False)

    @property
    def pack(self) -> Pack | None:
        """The pack that brings this node, if the file tells it and it is not ComfyUI itself."""
        name = _text(self.properties.get("cnr_id")) or _text(self.properties.get("aux_id"))
        if not name or name == "comfy-core":
            return None
        return Pack(name, _text(self.properties.get("ver")))

    def __str__(self) -> str:
        title = f" {shown(self.title)}" if self.title and self.title != self.type else ""
        return f"node {shown(self.id)[1:-1]}{title} ({shown(self.type)[1:-1]})"


@dataclass(frozen=True, slots=True)
class UiGraph:
    """The nodes and links of a workflow, or of one subgraph with its own inputs and outputs.

    *held* are the widgets inside, by node id and name, whose values an old group node holds.
    """

    id: str
    name: str
    nodes: Mapping[str, UiNode]
    links: Mapping[str, UiLink]
    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()
    held: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class UiDocument:
    """A whole file. *groups* are the definitions of old group nodes, as they were saved.

    *new_ids* has by subgraph (``""`` is the root) the nodes that go by another id than in the file.
    """

    source: str
    root: UiGraph
    subgraphs: Mapping[str, UiGraph]
    groups: Mapping[str, Mapping[str, Any]]
    last_node_id: int = 0
    new_ids: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def read_ui_document(document: Mapping[str, Any], source: str) -> UiDocument:
    """Read a file in the editor's save format.

    Raises `GraphInvalid` for two nodes of one id and for a file that is too large,
    `WorkflowUnreadable` where something has a wrong shape.
    """
    reader = _Reader(source)
    subgraphs = dict(reader.subgraphs(_definitions(document)))
    root = reader.graph(document, "", "the workflow")
    groups = _mapping(_mapping(document.get("extra")).get("groupNodes"))
    return UiDocument(
        source,
        root,
        subgraphs,
        {name: group for name, group in groups.items() if isinstance(group, Mapping)},
        _last_node_id(document),
    )


def read_ui_graph(saved: Mapping[str, Any], graph_id: str, name: str, source: str) -> UiGraph:
    """Read the nodes and links of one graph that stands alone."""
    return _Reader(source).graph(saved, graph_id, name)


@dataclass(slots=True)
class _Reader:
    """Reads one file, and counts what it reads."""

    source: str
    nodes: int = 0
    slots: int = 0

    def subgraphs(self, definitions: Iterable[object]) -> Iterator[tuple[str, UiGraph]]:
        seen: set[str] = set()
        for saved in definitions:
            if not isinstance(saved, Mapping) or (graph_id := _id(saved.get("id"))) is None:
                raise self._unreadable("has a subgraph without an id")
            if graph_id in seen:
                raise GraphInvalid(f"{self.source} defines the subgraph {shown(graph_id)} twice")
            seen.add(graph_id)
            name = _text(saved.get("name")) or graph_id
            yield graph_id, self.graph(saved, graph_id, name)

    def graph(self, saved: Mapping[str, Any], graph_id: str, name: str) -> UiGraph:
        nodes: dict[str, UiNode] = {}
        for entry in _items(saved.get("nodes")):
            node = self._node(entry, name)
            if node.id in nodes:
                problem = f"{self.source} has two nodes {shown(node.id)[1:-1]} in {shown(name)}"
                raise GraphInvalid(problem, node.id)
            nodes[node.id] = node
        return UiGraph(
            graph_id,
            name,
            nodes,
            self._links(saved.get("links"), name),
            self._ports(saved.get("inputs") if graph_id else None),
            self._ports(saved.get("outputs") if graph_id else None),
        )

    def _node(self, entry: object, graph: str) -> UiNode:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise GraphInvalid(f"{self.source} has more than {MAX_NODES} nodes")
        if not isinstance(entry, Mapping):
            raise self._unreadable(f"has {shown(entry)} where a node of {shown(graph)} should be")
        node_id, kind = _id(entry.get("id")), _text(entry.get("type"))
        if node_id is None:
            raise self._unreadable(f"has a node without an id in {shown(graph)}")
        if not kind:
            problem = f"{self.source}: node {shown(node_id)[1:-1]} has no type"
            raise GraphInvalid(problem, node_id)
        properties = _mapping(entry.get("properties"))
        values = entry.get("widgets_values")
        return UiNode(
            id=node_id,
            type=kind,
            title=_text(entry.get("title")),
            mode=_index(entry.get("mode")) or 0,
            inputs=self._slots(entry.get("inputs"), node_id),
            outputs=self._slots(entry.get("outputs"), node_id),
            values=_by_name(values) if isinstance(values, Mapping) else tuple(_items(values)),
            named=_by_name(_mapping(entry.get("widgets_values_named"))),
            proxies=tuple(_proxies(_items(properties.get("proxyWidgets")))),
            quarantined=_quarantined(_items(properties.get("proxyWidgetErrorQuarantine"))),
            properties=properties,
        )

    def _slots(self, saved: object, node_id: str) -> tuple[Slot, ...]:
        slots: list[Slot] = []
        for entry in _items(saved):
            if not isinstance(entry, Mapping):
                raise self._unreadable(
                    f"has {shown(entry)} where an input of node {shown(node_id)} should be"
                )
            widget = _text(_mapping(entry.get("widget")).get("name"))
            slots.append(
                Slot(
                    _text(entry.get("name")),
                    slot_kind(entry.get("type")),
                    _id(entry.get("link")),
                    widget,
                )
            )
        self._count(len(slots))
        return tuple(slots)

    def _links(self, saved: object, graph: str) -> dict[str, UiLink]:
        links: dict[str, UiLink] = {}
        for entry in _items(list(saved.values()) if isinstance(saved, Mapping) else saved):
            if entry is None:  # old editors left a hole for a line that was taken away
                continue
            link_id, link = _link(entry)
            if link_id is None or link is None:
                raise self._unreadable(f"has a link in {shown(graph)} that is none: {shown(entry)}")
            if links.setdefault(link_id, link) != link:
                raise GraphInvalid(f"{self.source} has two links {shown(link_id)[1:-1]}")
        self._count(len(links))
        return links

    def _ports(self, saved: object) -> tuple[Port, ...]:
        ports: list[Port] = []
        for entry in _items(saved):
            if not isinstance(entry, Mapping):
                raise self._unreadable(f"has {shown(entry)} where a subgraph's input should be")
            links = (_id(link) for link in _items(entry.get("linkIds")))
            inner = tuple(link for link in links if link is not None)
            ports.append(Port(_text(entry.get("name")), slot_kind(entry.get("type")), inner))
            self._count(1 + len(inner))
        return tuple(ports)

    def _count(self, slots: int) -> None:
        self.slots += slots
        if self.slots > 4 * MAX_INPUTS:
            raise GraphInvalid(f"{self.source} has more inputs, outputs and links than any graph")

    def _unreadable(self, found: str) -> WorkflowUnreadable:
        return WorkflowUnreadable(self.source, found, "Open it in ComfyUI and save it again")


def _definitions(document: Mapping[str, Any]) -> Iterator[object]:
    """The subgraphs a file defines, those that others define within themselves too."""
    waiting = _items(_mapping(document.get("definitions")).get("subgraphs"))[::-1]
    while waiting:
        saved = waiting.pop()
        yield saved
        within = _mapping(_mapping(saved).get("definitions"))
        waiting.extend(_items(within.get("subgraphs"))[::-1])


def _last_node_id(document: Mapping[str, Any]) -> int:
    saved = _index(document.get("last_node_id"))
    if saved is None:
        saved = _index(_mapping(document.get("state")).get("lastNodeId"))
    return saved if saved is not None and 0 <= saved < 10**15 else 0


def slot_kind(kind: object) -> str:
    """The type of a slot in words; a list of choices is a ``COMBO``."""
    if isinstance(kind, list | tuple):
        return "COMBO"
    return kind if isinstance(kind, str) and kind else "*"


def _link(entry: object) -> tuple[str | None, UiLink | None]:
    if isinstance(entry, Mapping):
        keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot")
        parts = [entry.get(key) for key in keys]
    elif isinstance(entry, list | tuple) and len(entry) >= 5:
        parts = list(entry[:5])
    else:
        return None, None
    link_id, origin, target = _id(parts[0]), _id(parts[1]), _id(parts[3])
    origin_slot, target_slot = _index(parts[2]), _index(parts[4])
    if origin is None or target is None or origin_slot is None or target_slot is None:
        return None, None
    return link_id, UiLink(origin, origin_slot, target, target_slot)


def _proxies(entries: Iterable[object]) -> Iterator[tuple[str, str]]:
    for entry in entries:
        node_id = _id(entry[0]) if isinstance(entry, list | tuple) and len(entry) >= 2 else None
        name = _text(entry[1]) if node_id is not None and isinstance(entry, list | tuple) else ""
        yield node_id or "", name


def _quarantined(entries: Iterable[object]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for entry in entries:
        saved = _mapping(entry)
        original = next(_proxies([saved.get("originalEntry")]))
        if original[0] == "-1" and saved.get("hostValue") is not None:
            values.setdefault(original[1], saved["hostValue"])
    return values


def _id(value: object) -> str | None:
    if isinstance(value, str):
        return value or None
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else None
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def _index(value: object) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _mapping(value: object) -> Mapping[Any, Any]:
    return value if isinstance(value, Mapping) else {}


def _by_name(values: Mapping[Any, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if isinstance(name, str)}


def _items(value: object) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []
