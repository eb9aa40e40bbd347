"""The editor's save format made a graph, as the editor itself would before it runs it.

>>> document = {
...     "nodes": [{"id": 1, "type": "Dice", "title": "Roll", "widgets_values": [6]}],
...     "links": [],
... }
>>> catalog = NodeCatalog.from_json({"Dice": {"input": {"required": {"sides": ["INT", {}]}}}})
>>> convert(document, catalog).graph
{'1': {'class_type': 'Dice', 'inputs': {'sides': 6}, '_meta': {'title': 'Roll'}}}

Texts with choices like ``{red|blue}`` stay as they are: the editor draws one at each run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from comfyserve.errors import GraphInvalid, WorkflowUnreadable, did_you_mean
from comfyserve.workflows.graph import Address, Graph, check_graph, shown
from comfyserve.workflows.node_catalog import NodeCatalog, NodeClass
from comfyserve.workflows.ui_graph import BYPASSED, MUTED, Pack, Slot, UiNode, read_ui_document
from comfyserve.workflows.ui_groups import open_groups
from comfyserve.workflows.ui_links import Links, Source
from comfyserve.workflows.ui_node_ids import with_own_ids
from comfyserve.workflows.ui_subgraphs import Constant, Scope, Unfolded
from comfyserve.workflows.ui_widgets import as_input, widget_of


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing of a node that could not be read, or could not run; a whole sentence."""

    node_id: str
    message: str

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True, slots=True)
class Converted:
    """The graph of a document.

    *warnings* is empty for a conversion that was strict. *packs* tells for each class of node who
    brings it, where the file does. *held* has the values that the editor shows on a subgraph or a
    primitive node: their address there -> the inputs of the graph that they fill. *new_ids* has by
    subgraph (``""`` is the workflow itself) the nodes that go by another id than in the file.
    """

    graph: Graph
    warnings: tuple[Finding, ...] = ()
    packs: Mapping[str, Pack] = field(default_factory=dict)
    held: Mapping[Address, tuple[Address, ...]] = field(default_factory=dict)
    new_ids: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def convert(
    document: Mapping[str, Any],
    catalog: NodeCatalog | None,
    *,
    strict: bool = False,
    source: str = "The workflow",
) -> Converted:
    """The graph that ComfyUI's editor would run for what it saved.

    *catalog* says which widgets a node has, and so how its values are called; without one, names
    are taken from the file as far as it has them. *strict* is for running: an unknown node, a link
    to nowhere or a value without a name raises `GraphInvalid`; else each is a warning and the rest
    is read. *source* names the file in messages.

    Raises `WorkflowUnreadable` for a wrong shape or when nothing in it would run, and
    `GraphInvalid` for what no server could run, such as a subgraph that holds itself.
    """
    saved = open_groups(with_own_ids(read_ui_document(document, source)), catalog)
    conversion = _Conversion(source, Unfolded(saved, catalog), strict)
    conversion.run()
    if not conversion.graph:
        raise WorkflowUnreadable(source, "holds no node that would run", "Is it the right file?")
    check_graph(conversion.graph, source)
    return Converted(
        conversion.graph,
        tuple(conversion.findings),
        conversion.packs,
        {holder: tuple(filled) for holder, filled in conversion.held.items()},
        saved.new_ids,
    )


@dataclass(slots=True)
class _Conversion:
    """One document on its way to a graph."""

    source: str
    unfolded: Unfolded
    strict: bool
    graph: dict[str, dict[str, Any]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    packs: dict[str, Pack] = field(default_factory=dict)
    held: dict[Address, list[Address]] = field(default_factory=dict)
    links: Links = field(init=False)

    def __post_init__(self) -> None:
        self.links = Links(self.unfolded, self._complain)

    def run(self) -> None:
        for scope, node in self.unfolded.nodes:
            if node.mode not in (MUTED, BYPASSED) and not self.links.is_virtual(node):
                self._add(scope, node)
        for entry in self.graph.values():
            self._drop_lost(entry["inputs"])

    def _add(self, scope: Scope, node: UiNode) -> None:
        node_id, node_class = scope.id_of(node), self.unfolded.class_of(node)
        if node_id in self.graph:
            raise GraphInvalid(f"{self.source} names node {shown(node_id)[1:-1]} twice", node_id)
        if node.pack:
            self.packs.setdefault(node.type, node.pack)
        if node_class is None and self.unfolded.catalog is not None:
            self._complain(self._unknown(node, self.unfolded.catalog), node_id)
        elif not self.unfolded.widgets(scope, node).certain:
            self._complain(f"the values of {node} have no names in the file", node_id)
        inputs = self._values(scope, node, node_class)
        inputs.update(self._linked(scope, node, node_class))
        meta = _meta(node, node_class)
        self.graph[node_id] = {"class_type": node.type, "inputs": inputs, "_meta": meta}

    def _values(self, scope: Scope, node: UiNode, node_class: NodeClass | None) -> dict[str, Any]:
        infos = node_class.inputs if node_class else {}
        return {
            name: as_input(value, infos[name].kind if name in infos else "")
            for name, value in self.unfolded.values(scope, node).items()
        }

    def _linked(self, scope: Scope, node: UiNode, node_class: NodeClass | None) -> dict[str, Any]:
        inputs: dict[str, Any] = {}
        for number, slot in enumerate(self.links.slots(scope, node)):
            if slot.link is None or not slot.name or _is_gone(slot, node_class):
                continue
            origin = self.links.origin(scope, node, number)
            if isinstance(origin, Source):
                inputs[slot.name] = [origin.scope.id_of(origin.node), origin.slot]
            elif isinstance(origin, Constant):
                inputs[slot.name] = as_input(origin.value)
                filled = self.held.setdefault(origin.holder, [])
                filled.append((scope.id_of(node), slot.name))
        return inputs

    def _drop_lost(self, inputs: dict[str, Any]) -> None:
        lost = [
            name
            for name, value in inputs.items()
            if isinstance(value, list) and value[0] not in self.graph
        ]
        for name in lost:
            del inputs[name]

    def _unknown(self, node: UiNode, catalog: NodeCatalog) -> str:
        problem = f"{node} is of a kind that this server does not have."
        if node.pack:
            return f"{problem} Install the pack {node.pack}."
        # The search takes long, and only the first of an error is shown.
        return problem + (did_you_mean(node.type[:60], catalog.classes) if self.strict else "")

    def _complain(self, problem: str, node_id: str) -> None:
        if self.strict:
            raise GraphInvalid(f"{self.source} cannot run: {problem}", node_id)
        message = f"{problem[0].upper()}{problem[1:]}"
        self.findings.append(Finding(node_id, message if message[-1] in ".?" else f"{message}."))


def _is_gone(slot: Slot, node_class: NodeClass | None) -> bool:
    """The link goes to a widget that nodes of this class no longer have."""
    known = node_class is not None and slot.name not in node_class.inputs
    return known and bool(slot.widget) and not widget_of(slot, node_class)


def _meta(node: UiNode, node_class: NodeClass | None) -> dict[str, str]:
    title = node.title or (node_class.title if node_class else "") or node.type
    known = {key: node.properties.get(key) for key in ("cnr_id", "aux_id", "ver")}
    return {"title": title} | {
        key: value for key, value in known.items() if isinstance(value, str) and value
    }
