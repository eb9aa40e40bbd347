"""Old group nodes, read as the subgraphs that came after them.

A group node stands for the nodes that ``extra.groupNodes`` has under its name. Inside, links go
by the position of nodes; outside, the group has every input and output that they do not share among
themselves, and holds the values of all their widgets in one list.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from comfyserve.errors import GraphInvalid
from comfyserve.workflows.graph import MAX_INPUTS, shown
from comfyserve.workflows.node_catalog import NodeCatalog
from comfyserve.workflows.ui_graph import (
    INPUT_NODE,
    OUTPUT_NODE,
    Port,
    Slot,
    UiDocument,
    UiGraph,
    UiLink,
    UiNode,
    read_ui_graph,
    slot_kind,
)
from comfyserve.workflows.ui_node_ids import NewIds, Numbering, renamed
from comfyserve.workflows.ui_widgets import read_widgets, widget_of

_PREFIXES = ("workflow>", "workflow/")


def open_groups(document: UiDocument, catalog: NodeCatalog | None) -> UiDocument:
    """The document with a subgraph in the place of each group node.

    As in the editor, each gets the next free id, after the nodes inside it got theirs. Raises
    `GraphInvalid` or `WorkflowUnreadable` for a group that makes no sense.
    """
    if not document.groups:
        return document
    opening = _Opening(document, catalog, Numbering.after(document))
    root = opening.opened(document.root, ())
    new_ids = {**document.new_ids, "": opening.new_ids} if opening.new_ids else document.new_ids
    return replace(document, root=root, subgraphs=opening.subgraphs(), new_ids=new_ids)


@dataclass(slots=True)
class _Opening:
    """One document while its group nodes are opened."""

    document: UiDocument
    catalog: NodeCatalog | None
    numbering: Numbering
    new_ids: dict[str, str] = field(default_factory=dict)
    size: int = 0
    _known: dict[str, UiGraph] = field(default_factory=dict)
    _made: dict[str, UiGraph] = field(default_factory=dict)

    def subgraphs(self) -> dict[str, UiGraph]:
        """The definitions of the document, and one for each group node that was opened."""
        return {**self.document.subgraphs, **self._made}

    def opened(self, graph: UiGraph, around: tuple[str, ...]) -> UiGraph:
        """*graph* with its group nodes opened; *around* are the groups that it stands in."""
        kinds: dict[str, str] = {}
        hosts: NewIds = {}
        for node in graph.nodes.values():
            name = node.type[len(_PREFIXES[0]) :] if node.type.startswith(_PREFIXES) else ""
            if name in self.document.groups and node.type not in self.document.subgraphs:
                definition = self._instance(name, node, around)
                hosts[node.id] = self.numbering.next()
                kinds[hosts[node.id]] = definition.id
        if not around:
            self.new_ids = hosts
        renewed = renamed(graph, hosts)
        nodes = {
            node_id: replace(node, type=kinds[node_id]) if node_id in kinds else node
            for node_id, node in renewed.nodes.items()
        }
        return replace(renewed, nodes=nodes)

    def _instance(self, name: str, host: UiNode, around: tuple[str, ...]) -> UiGraph:
        source = self.document.source
        if name in around:
            raise GraphInvalid(f"{source}: the group {shown(name)} holds itself", host.id)
        definition = self._definition(name)
        self.size += len(definition.nodes) + len(definition.links) + 1
        if self.size > MAX_INPUTS or len(around) > _MAX_NESTING:
            raise GraphInvalid(f"{source} has too many group nodes within group nodes", host.id)
        ids = {node_id: self.numbering.next() for node_id in definition.nodes}
        held = tuple((ids[node_id], widget) for node_id, widget in definition.held)
        own = replace(renamed(definition, ids), id=f"{definition.id} {len(self._made)}", held=held)
        self._made[own.id] = own
        self._made[own.id] = self.opened(own, (*around, name))
        return self._made[own.id]

    def _definition(self, name: str) -> UiGraph:
        if name not in self._known:
            saved = self.document.groups[name]
            graph = _read(saved, name, self.document.source)
            self._known[name] = _Group(graph, saved, self.catalog).opened()
        return self._known[name]


_MAX_NESTING = 20


def _read(saved: Mapping[str, Any], name: str, source: str) -> UiGraph:
    nodes = saved.get("nodes")
    numbered = [
        {**node, "id": number} if isinstance(node, Mapping) else node
        for number, node in enumerate(nodes if isinstance(nodes, list) else [])
    ]
    return read_ui_graph({"nodes": numbered}, f"workflow>{name}", name, source)


@dataclass(slots=True)
class _Group:
    """One definition while its nodes are joined up."""

    graph: UiGraph
    saved: Mapping[str, Any]
    catalog: NodeCatalog | None
    links: dict[str, UiLink] = field(default_factory=dict)
    ends: dict[tuple[str, int], str] = field(default_factory=dict)
    inputs: list[Port] = field(default_factory=list)
    outputs: list[Port] = field(default_factory=list)
    names: dict[str, int] = field(default_factory=dict)

    def opened(self) -> UiGraph:
        """The definition as a subgraph."""
        self._join_inside()
        held = tuple(self._held())
        for widgets in (False, True):  # the group shows sockets first, converted widgets last
            for node in self.graph.nodes.values():
                self._join_inputs(node, widgets=widgets)
        inside = {(link.origin_id, link.origin_slot) for link in self.links.values()}
        hidden = inside - self._external()
        for node in self.graph.nodes.values():
            self._join_outputs(node, hidden)
        nodes = {node.id: self._relinked(node) for node in self.graph.nodes.values()}
        return replace(
            self.graph,
            nodes=nodes,
            links=self.links,
            inputs=tuple(self.inputs),
            outputs=tuple(self.outputs),
            held=held,
        )

    def _join_inside(self) -> None:
        for saved in _items(self.saved.get("links")):
            parts = _items(saved)[:4]
            if len(parts) < 4 or not all(_is_number(part) for part in parts):
                continue
            origin, origin_slot, target, target_slot = parts
            self._join(UiLink(str(origin), origin_slot, str(target), target_slot))

    def _join(self, link: UiLink) -> str:
        link_id = f"g{len(self.links)}"
        self.links[link_id] = link
        if link.target_id != OUTPUT_NODE:
            self.ends[link.target_id, link.target_slot] = link_id
        return link_id

    def _held(self) -> Iterator[tuple[str, str]]:
        for node in self.graph.nodes.values():
            if node.type == "PrimitiveNode":
                yield node.id, "value"
                continue
            converted = {slot.widget for slot in node.inputs if slot.widget}
            node_class = self.catalog.get(node.type) if self.catalog else None
            for name in read_widgets(node, node_class).values:
                if name not in converted and self._is_shown(node, "input", name):
                    self._public_name(node, name)
                    yield node.id, name

    def _join_inputs(self, node: UiNode, *, widgets: bool) -> None:
        node_class = self.catalog.get(node.type) if self.catalog else None
        for number, slot in enumerate(node.inputs):
            is_widget = bool(slot.widget or (node_class and widget_of(slot, node_class)))
            if is_widget is not widgets or (node.id, number) in self.ends:
                continue
            if self._is_shown(node, "input", slot.name):
                name = self._public_name(node, slot.name)
                link_id = self._join(UiLink(INPUT_NODE, len(self.inputs), node.id, number))
                self.inputs.append(Port(name, slot.kind, (link_id,)))

    def _join_outputs(self, node: UiNode, hidden: set[tuple[str, int]]) -> None:
        node_class = self.catalog.get(node.type) if self.catalog else None
        kinds = node_class.outputs if node_class else tuple(slot.kind for slot in node.outputs)
        for number, kind in enumerate(kinds):
            outside = (node.id, number) not in hidden
            if self._is_shown(node, "output", str(number), otherwise=outside):
                link_id = self._join(UiLink(node.id, number, OUTPUT_NODE, len(self.outputs)))
                self.outputs.append(Port("", slot_kind(kind), (link_id,)))

    def _external(self) -> set[tuple[str, int]]:
        entries = [_items(entry) for entry in _items(self.saved.get("external"))]
        return {(str(entry[0]), entry[1]) for entry in entries if len(entry) >= 2 and _ok(entry)}

    def _public_name(self, node: UiNode, name: str) -> str:
        """What the group calls an input: two of one name are told apart by their node's title."""
        config = _mapping(self._config(node, "input").get(name)).get("name")
        public = config if isinstance(config, str) and config else name
        key = public
        if public in self.names:
            prefix = node.title or node.type
            key = public = f"{prefix} {name}"
            if public in self.names:
                public = f"{prefix} {self.names[public]} {name}"
        self.names[key] = self.names.get(key, 1) + 1
        return public

    def _is_shown(self, node: UiNode, side: str, name: str, *, otherwise: bool = True) -> bool:
        visible = _mapping(self._config(node, side).get(name)).get("visible")
        return visible if isinstance(visible, bool) else otherwise

    def _config(self, node: UiNode, side: str) -> Mapping[str, Any]:
        config = _mapping(self.saved.get("config"))
        return _mapping(_mapping(config.get(node.id)).get(side))

    def _relinked(self, node: UiNode) -> UiNode:
        slots = tuple(
            Slot(slot.name, slot.kind, self.ends.get((node.id, number)), slot.widget)
            for number, slot in enumerate(node.inputs)
        )
        return replace(node, inputs=slots)


def _ok(entry: list[Any]) -> bool:
    return _is_number(entry[0]) and _is_number(entry[1])


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _items(value: object) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []
