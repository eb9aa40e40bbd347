"""Where the places that ComfyUI's editor shows lead to in the graph that runs.

The editor's ids are not those of the graph: what stands inside a subgraph is ``57:8`` there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from comfyserve.workflows.graph import Address
from comfyserve.workflows.mark import MOST_MARKS, Subject
from comfyserve.workflows.ui_graph import BYPASSED, MUTED

Held = Mapping[Address, tuple[Address, ...]]
"""What the editor's own places fill in the graph, as `ui_format.Converted` has it."""

NewIds = Mapping[str, Mapping[str, str]]
"""By subgraph, the nodes that go by another id in the graph than in the file."""

Saved = Mapping[str, Any]
"""A part of a file as it was saved: nothing about it is certain."""


class Editor:
    """A document of the editor as it was saved, and how its places lead into the graph."""

    def __init__(self, document: Saved, subject: Subject, held: Held, new_ids: NewIds) -> None:
        self.document = document
        self.subject = subject
        self.nodes = _by_id(document.get("nodes"))
        definitions = mapping(document.get("definitions")).get("subgraphs")
        self.subgraphs = _by_id(definitions)
        self._held = {
            place: tuple(target for target in filled if subject.settable(target))
            for place, filled in held.items()
        }
        self._new_ids = new_ids
        self._origins = dict(_origins(document.get("links")))
        self._fellows = {target: filled for filled in self._held.values() for target in filled}
        self._names: dict[str, list[str]] = {}
        for holder, name in held:
            self._names.setdefault(holder, []).append(name)
        self._by_last_id: dict[str, dict[str, None]] = {}
        for node_id in (*subject.nodes, *self._names):
            self._by_last_id.setdefault(node_id.rpartition(":")[2], {})[node_id] = None
        self._homes: dict[str, list[str]] = {}
        for graph_id, definition in self.subgraphs.items():
            for node_id in _by_id(definition.get("nodes")):
                self._homes.setdefault(node_id, []).append(graph_id)

    def hosts(self) -> Iterator[tuple[str, Saved, Saved]]:
        """The live nodes of the workflow that stand for a subgraph: id, node, definition."""
        for node_id, node in self.nodes.items():
            definition = self.definition(node_id)
            if definition is not None and node.get("mode") not in (MUTED, BYPASSED):
                yield node_id, node, definition

    def definition(self, node_id: str) -> Saved | None:
        """The subgraph that a node of the workflow stands for, if any."""
        kind = self.nodes.get(node_id, {}).get("type")
        return self.subgraphs.get(kind) if isinstance(kind, str) else None

    def filled_by(self, node_id: str, name: str) -> tuple[Address, ...]:
        """What a widget fills that the editor shows on a node of the workflow."""
        if self.definition(node_id) is None:
            return self._filled_at((node_id, name))
        shown_inside = (
            self.filled_inside_of(node_id, inner, widget)
            for inner, widget in proxies(self.nodes[node_id])
            if widget == name
        )
        found = self.filled_by_port(node_id, name)
        return found or next((targets for targets in shown_inside if targets), ())

    def filled_by_port(self, host_id: str, name: str) -> tuple[Address, ...]:
        """What an input of a subgraph fills; what feeds it, if a link comes in."""
        return self._held.get((host_id, name)) or self._feeding(host_id, name)

    def filled_inside_of(self, host_id: str, node_id: str, name: str) -> tuple[Address, ...]:
        """What a widget fills that stands directly inside the subgraph of *host_id*."""
        graph_id = identity(mapping(self.definition(host_id)).get("id"))
        new_id = self._new_ids.get(graph_id, {}).get(node_id, node_id)
        return self._filled_at((f"{host_id}:{new_id}", name))

    def filled_inside(self, node_id: str, name: str, graph_id: str = "") -> tuple[Address, ...]:
        """What a widget fills that stands in some subgraph, or in the one of *graph_id*."""
        homes = [graph_id] if graph_id else self._homes.get(node_id, [])
        for home in homes[:MOST_MARKS]:
            new_id = self._new_ids.get(home, {}).get(node_id, node_id)
            for inner in islice(self._by_last_id.get(new_id, {}), MOST_MARKS):
                if ":" in inner and (found := self._filled_at((inner, name))):
                    return found
        return ()

    def label(self, node_id: str, name: str) -> str:
        """What the author calls a widget of a node of the workflow, if anything."""
        for slot in items(self.nodes.get(node_id, {}).get("inputs"))[:MOST_MARKS]:
            if mapping(mapping(slot).get("widget")).get("name") == name:
                return own_label(mapping(slot), name)
        return ""

    def title(self, node_id: str) -> str:
        """The title that the author gave to a node of the workflow, if any."""
        node = self.nodes.get(node_id, {})
        title = text(node.get("title")).strip()
        return "" if title == node.get("type") else title

    def titled_elsewhere(self) -> Iterator[tuple[str, str, Mapping[str, tuple[Address, ...]]]]:
        """Nodes that do not run themselves: id, title, and what each of their inputs fills."""
        for node_id in self.nodes:
            if node_id not in self.subject.nodes and (title := self.title(node_id)):
                names = self._names.get(node_id, ())
                places = {name: self._held[node_id, name] for name in names}
                yield node_id, title, places

    def _filled_at(self, place: Address) -> tuple[Address, ...]:
        if found := self._held.get(place):
            return found
        if self.subject.settable(place):
            # An input of the subgraph that leads there may lead to others too.
            return self._fellows.get(place) or (place,)
        behind = self.subject.behind(place)
        return (behind,) if behind else ()

    def _feeding(self, host_id: str, name: str) -> tuple[Address, ...]:
        slots = (mapping(slot) for slot in items(self.nodes[host_id].get("inputs"))[:MOST_MARKS])
        slot = next((slot for slot in slots if slot.get("name") == name), {})
        origin, output = self._origins.get(identity(slot.get("link")), ("", 0))
        if held := self._held.get((origin, "value")):
            return held
        value = self.subject.only_value(origin, output)
        return (value,) if value else ()


def proxies(node: Saved) -> Iterator[tuple[str, str]]:
    """The inner widgets that a subgraph's node shows: inner node id, widget."""
    for entry in items(mapping(node.get("properties")).get("proxyWidgets"))[:MOST_MARKS]:
        if isinstance(entry, list) and len(entry) >= 2:
            inner, name = identity(entry[0]), text(entry[1])
            if inner and name and not name.startswith("$$"):
                yield inner, name


def own_label(slot: Saved, name: str) -> str:
    """The label of a slot, if it says more than the slot's *name*."""
    label = text(slot.get("label")).strip()
    return "" if label == name else label


def identity(value: object) -> str:
    """A saved id as the graph has it, empty for none."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    is_number = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**18
    return str(value) if is_number else ""


def text(value: object) -> str:
    """*value* if it is words."""
    return value if isinstance(value, str) else ""


def mapping(value: object) -> Saved:
    """*value* if it is an object."""
    return value if isinstance(value, Mapping) else {}


def items(value: object) -> list[Any]:
    """*value* if it is a list."""
    return value if isinstance(value, list) else []


def _by_id(saved: object) -> dict[str, Saved]:
    named = ((identity(mapping(entry).get("id")), mapping(entry)) for entry in items(saved))
    return {entry_id: entry for entry_id, entry in named if entry_id}


def _origins(links: object) -> Iterator[tuple[str, tuple[str, int]]]:
    """For each link its id, the id of the node it comes from, and which output that is."""
    for link in links.values() if isinstance(links, Mapping) else items(links):
        if isinstance(link, Mapping):
            parts = [link.get(key) for key in ("id", "origin_id", "origin_slot")]
        else:
            parts = items(link)[:3]
        if len(parts) == 3:
            output = parts[2] if isinstance(parts[2], int) else -1
            yield identity(parts[0]), (identity(parts[1]), output)
