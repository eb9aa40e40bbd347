"""Subgraphs unfolded: every node that would run, each in its own place, with its values.

A *scope* is one use of a graph: the workflow itself, or one subgraph node and what is inside.
The same definition used twice makes two scopes, and its nodes run twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from comfyserve.errors import GraphInvalid
from comfyserve.workflows.graph import MAX_INPUTS, MAX_NODES, Address, shown
from comfyserve.workflows.node_catalog import NodeCatalog, NodeClass
from comfyserve.workflows.ui_graph import (
    BYPASSED,
    INPUT_NODE,
    MUTED,
    OUTPUT_NODE,
    Slot,
    UiDocument,
    UiGraph,
    UiLink,
    UiNode,
)
from comfyserve.workflows.ui_widgets import Widgets, is_control, read_widgets, widget_of

MAX_NESTING = 60
MAX_VALUES = 2_000_000


@dataclass(slots=True, eq=False)
class Scope:
    """One use of a graph. *host* is the node of *parent* that stands for it, *path* its ids.

    *given* are the values that the host holds for the graph's inputs, by their number;
    *overrides* those it holds for widgets inside, by node id and widget name.
    """

    graph: UiGraph
    path: tuple[str, ...] = ()
    host: UiNode | None = None
    parent: Scope | None = None
    inner: dict[str, Scope] = field(default_factory=dict)
    given: dict[int, Any] = field(default_factory=dict)
    overrides: dict[tuple[str, str], Any] = field(default_factory=dict)

    def id_of(self, node: UiNode) -> str:
        """The id under which *node* runs here: ``57:8``."""
        return ":".join((*self.path, node.id))

    def around(self) -> Iterator[Scope]:
        """This scope and those around it, inside first."""
        scope: Scope | None = self
        while scope is not None:
            yield scope
            scope = scope.parent


@dataclass(frozen=True, slots=True)
class Constant:
    """A value that stands where a link could; *holder* is the node and widget that hold it."""

    value: Any
    holder: Address


@dataclass(frozen=True, slots=True)
class Promoted:
    """What an input of a subgraph sets: a widget inside, or input *port* of another subgraph."""

    node: UiNode
    widget: str = ""
    port: int | None = None


@dataclass(slots=True)
class Unfolded:
    """A document with all its subgraphs opened."""

    document: UiDocument
    catalog: NodeCatalog | None
    root: Scope = field(init=False)
    nodes: list[tuple[Scope, UiNode]] = field(init=False)
    _wiring: dict[str, Wiring] = field(default_factory=dict)
    _promoted: dict[tuple[str, int], Promoted | None] = field(default_factory=dict)
    _widgets: dict[tuple[str, str], Widgets] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Open everything; raises `GraphInvalid` for a subgraph inside itself, or too much."""
        self.root = Scope(self.document.root)
        self.nodes, scopes = [], []
        for scope, node in self._walk():
            if node is None:
                scopes.append(scope)
            else:
                self.nodes.append((scope, node))
        for scope in reversed(scopes):  # what stands outside has the last word
            self._take_host_values(scope)

    def class_of(self, node: UiNode) -> NodeClass | None:
        return self.catalog.get(node.type) if self.catalog else None

    def definition(self, node: UiNode) -> UiGraph | None:
        """The subgraph that *node* stands for, if it is such a node."""
        return self.document.subgraphs.get(node.type)

    def wiring(self, graph: UiGraph) -> Wiring:
        if graph.id not in self._wiring:
            self._wiring[graph.id] = Wiring.of(graph)
        return self._wiring[graph.id]

    def widgets(self, scope: Scope, node: UiNode) -> Widgets:
        """What the node's widgets hold in the definition, whatever the host says."""
        key = (scope.graph.id, node.id)
        if key not in self._widgets:
            self._widgets[key] = read_widgets(node, self.class_of(node))
        return self._widgets[key]

    def values(self, scope: Scope, node: UiNode) -> dict[str, Any]:
        """What the node's widgets hold in this scope."""
        values = self.widgets(scope, node).values
        return {name: scope.overrides.get((node.id, name), values[name]) for name in values}

    def port_value(self, scope: Scope, port: int) -> Constant | None:
        """The value that input *port* of a subgraph has when no link comes in."""
        holder = (":".join(scope.path), scope.graph.inputs[port].name)
        while port not in scope.given:
            target = self._target(scope.graph, port)
            if target is None:
                return None
            if target.port is None:
                values = self.values(scope, target.node)
                if target.widget not in values:
                    return None
                return Constant(values[target.widget], holder)
            if (inside := scope.inner.get(target.node.id)) is None:
                return None
            scope, port = inside, target.port
        return Constant(scope.given[port], holder)

    def _walk(self) -> Iterator[tuple[Scope, UiNode | None]]:
        seen = slots = values = 0
        waiting = [(self.root, iter(self.root.graph.nodes.values()))]
        while waiting:
            scope, nodes = waiting[-1]
            if (node := next(nodes, None)) is None:
                waiting.pop()
                continue
            definition = self.definition(node)
            seen += 1
            slots += len(definition.inputs if definition else node.inputs)
            values += len(node.values) + len(node.proxies)
            if seen > MAX_NODES or slots > MAX_INPUTS or values > MAX_VALUES:
                most = f"{MAX_NODES} nodes, {MAX_INPUTS} inputs or {MAX_VALUES} values"
                raise GraphInvalid(f"{self.document.source} unfolds to more than {most}")
            if definition is None:
                yield scope, node
            elif scope is not self.root or node.mode not in (MUTED, BYPASSED):
                inside = self._open(scope, node, definition)
                waiting.append((inside, iter(definition.nodes.values())))
                yield inside, None

    def _open(self, scope: Scope, node: UiNode, definition: UiGraph) -> Scope:
        if any(around.graph is definition for around in scope.around()):
            problem = f"{self.document.source}: the subgraph {shown(definition.name)} holds itself"
            raise GraphInvalid(problem, scope.id_of(node))
        if len(scope.path) >= MAX_NESTING:
            problem = f"{self.document.source} nests subgraphs more than {MAX_NESTING} deep"
            raise GraphInvalid(problem, scope.id_of(node))
        inside = Scope(definition, (*scope.path, node.id), node, scope)
        scope.inner[node.id] = inside
        return inside

    def _take_host_values(self, scope: Scope) -> None:
        host = scope.host
        if host is None:
            return
        names = self.wiring(scope.graph).ports
        if isinstance(host.values, Mapping):
            by_name = {names[name]: value for name, value in host.values.items() if name in names}
            scope.given.update(by_name)
        elif scope.graph.held:
            self._take_held(scope, host.values)
        elif host.proxies:
            self._take_proxied(scope, host.proxies, host.values)
        else:
            self._take_in_order(scope, host.values)
        quarantined = host.quarantined.items()
        scope.given.update({names[name]: value for name, value in quarantined if name in names})

    def _take_in_order(self, scope: Scope, values: tuple[Any, ...]) -> None:
        ports = range(len(scope.graph.inputs))
        promoted = [port for port in ports if self._target(scope.graph, port)]
        spare = len(values) > len(promoted)
        at = 0
        for port in promoted:
            if at >= len(values):
                return
            if values[at] is not None:
                scope.given[port] = values[at]
            at += 1
            if spare and at < len(values) and is_control(values[at]):
                at += 1

    def _take_held(self, scope: Scope, values: tuple[Any, ...]) -> None:
        at = 0
        for held in scope.graph.held:
            if at >= len(values):
                return
            scope.overrides[held] = values[at]
            at += 1
            if at < len(values) and is_control(values[at]):
                at += 1

    def _take_proxied(
        self, scope: Scope, proxies: tuple[tuple[str, str], ...], values: tuple[Any, ...]
    ) -> None:
        promoted = self._ports_by_target(scope.graph)
        names = self.wiring(scope.graph).ports
        for (node_id, saved_name), value in zip(proxies, values, strict=False):
            widget = _without_ids(saved_name)
            port = names.get(widget) if node_id == "-1" else promoted.get((node_id, widget))
            inside = scope.inner.get(node_id)
            if value is None:
                continue
            if port is not None:
                scope.given[port] = value
            elif inside is None:
                scope.overrides[node_id, widget] = value
            elif (deeper := self.wiring(inside.graph).ports.get(widget)) is not None:
                inside.given[deeper] = value

    def _ports_by_target(self, graph: UiGraph) -> dict[tuple[str, str], int]:
        ports: dict[tuple[str, str], int] = {}
        for number in range(len(graph.inputs)):
            if (target := self._target(graph, number)) is None:
                continue
            definition = self.definition(target.node)
            name = target.widget
            if definition is not None and target.port is not None:
                name = definition.inputs[target.port].name
            ports.setdefault((target.node.id, name), number)
        return ports

    def _target(self, graph: UiGraph, port: int) -> Promoted | None:
        """The first widget inside that input *port* of a subgraph leads to, if any."""
        key = (graph.id, port)
        if key not in self._promoted:
            self._promoted[key] = None  # so that a definition inside itself comes to an end
            self._promoted[key] = self._find_target(graph, port)
        return self._promoted[key]

    def _find_target(self, graph: UiGraph, port: int) -> Promoted | None:
        wiring = self.wiring(graph)
        for link_id in wiring.from_port.get(port, ()):
            if link_id not in wiring.ends:
                continue
            node, slot = wiring.ends[link_id]
            if (definition := self.definition(node)) is not None:
                inner = self.wiring(definition).ports.get(node.inputs[slot].name)
                if inner is not None and self._target(definition, inner):
                    return Promoted(node, port=inner)
            elif widget := widget_of(node.inputs[slot], self.class_of(node)):
                return Promoted(node, widget)
        return None


@dataclass(frozen=True, slots=True)
class Wiring:
    """The lines of one graph by where they start and end.

    *ends* has the node and the number of the input where a link arrives; *ports* the numbers of
    the graph's inputs by name, *from_port* the links of each, *to_port* the link that feeds each
    of its outputs; *setters* the nodes that keep a value under a name.
    """

    ends: Mapping[str, tuple[UiNode, int]]
    ports: Mapping[str, int]
    from_port: Mapping[int, tuple[str, ...]]
    to_port: Mapping[int, UiLink]
    setters: Mapping[str, UiNode]

    @classmethod
    def of(cls, graph: UiGraph) -> Wiring:
        ends = {
            slot.link: (node, number)
            for node in graph.nodes.values()
            for number, slot in enumerate(node.inputs)
            if slot.link is not None
        }
        from_port: dict[int, tuple[str, ...]] = {}
        to_port: dict[int, UiLink] = {}
        for link_id, link in graph.links.items():
            if link.origin_id == INPUT_NODE:
                from_port.setdefault(link.origin_slot, (link_id,))
            if link.target_id == OUTPUT_NODE:
                to_port.setdefault(link.target_slot, link)
        for number, port in enumerate(graph.inputs):
            if known := tuple(link_id for link_id in port.links if link_id in graph.links):
                from_port[number] = known
        for number, port in enumerate(graph.outputs):
            if first := next((link for link in port.links if link in graph.links), None):
                to_port[number] = graph.links[first]
        ports = {port.name: number for number, port in reversed(list(enumerate(graph.inputs)))}
        setters = {
            name: node
            for node in graph.nodes.values()
            if node.type in SETTERS and (name := kept_name(node))
        }
        return cls(ends, ports, from_port, to_port, setters)


SETTERS = ("SetNode", "easy setNode")


def kept_name(node: UiNode) -> str:
    """The name under which a Set node keeps, or a Get node finds, a value."""
    values = node.values.values() if isinstance(node.values, Mapping) else node.values
    first = next(iter(values), None)
    return first if isinstance(first, str) else ""


def slots_of(node: UiNode, definition: UiGraph) -> tuple[Slot, ...]:
    """The input slots of a subgraph's node, one for each input of the subgraph."""
    saved: dict[str, list[Slot]] = {}
    for slot in node.inputs:
        saved.setdefault(slot.name, []).append(slot)
    return tuple(
        saved[port.name].pop(0) if saved.get(port.name) else Slot(port.name, port.kind)
        for port in definition.inputs
    )


def _without_ids(widget: str) -> str:
    """``12: 3: text`` is how old files write ``text`` of a node that stands deeper."""
    while True:
        head, colon, rest = widget.partition(":")
        if not colon or not head.strip().isdigit() or not rest.strip():
            return widget
        widget = rest.strip()
