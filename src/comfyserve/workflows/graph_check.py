"""What a ComfyUI with these nodes certainly refuses in a graph, told before it is asked.

Whatever it may run passes: one good output is enough for it, inputs it does not know are nothing
to it, and what lists, limits and the nodes' own checks say may change at any time.

>>> catalog = NodeCatalog.from_json({"Save": {"output_node": True, "input": {
...     "required": {"images": ["IMAGE"]}}}})
>>> graph = {"9": {"class_type": "Save", "inputs": {}}}
>>> problems_of(graph, catalog)["9"][0].reason
'missing_input'
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

from comfyserve.errors import did_you_mean, nearest
from comfyserve.workflows.graph import Graph, shown
from comfyserve.workflows.node_catalog import NodeCatalog, NodeClass

WHOLE_GRAPH: Final = ""
"""The key of a problem that no single node has."""


@dataclass(frozen=True, slots=True)
class NodeProblem:
    """Why a node cannot run: at which input (*field*; None for the node itself), and a sentence.

    *reason* is for programs: ``missing_input``, ``unknown_node``, ``invalid_link``,
    ``invalid_node``, ``no_output``; where several backends are asked also ``missing_model``,
    ``missing_choice`` and ``no_backend``.
    """

    field: str | None
    reason: str
    message: str


Problems = dict[str, list[NodeProblem]]

MOST_NODES: Final = 100
"""How many nodes with problems are told; a graph with more is the work of a program."""

_MOST_HINTS: Final = 10
"""How many names are compared with all others, which is slow, to say what was meant."""


def problems_of(
    graph: Graph, catalog: NodeCatalog, also: Mapping[str, list[NodeProblem]] | None = None
) -> Problems:
    """The problems by node id for which *graph* would be refused; none where it might run.

    *also* are problems of nodes that somebody else knows of.
    """
    hints = _Hints()
    if unknown := dict(islice(_unknown_nodes(graph, catalog, hints), MOST_NODES)):
        return unknown
    checked = _Checked.of(graph, catalog, hints, also or {})
    if not checked.outputs:
        return {WHOLE_GRAPH: [NodeProblem(None, "no_output", _no_output(graph))]}
    if checked.runs_something():
        return {}
    return dict(islice(checked.problems_that_matter(), MOST_NODES))


@dataclass(slots=True)
class _Hints:
    """What may have been meant, for the first few names only."""

    given: dict[str, str] = field(default_factory=dict)

    def near(self, name: str, known: Iterable[str]) -> str:
        """The sentence that asks whether another name was meant; empty where none is near."""
        if name not in self.given and len(self.given) < _MOST_HINTS:
            self.given[name] = did_you_mean(name, islice(known, _MOST_COMPARED))
        return self.given.get(name, "")


_MOST_COMPARED: Final = 10_000


def _unknown_nodes(
    graph: Graph, catalog: NodeCatalog, hints: _Hints
) -> Iterator[tuple[str, list[NodeProblem]]]:
    """Nodes without a known class; one of them anywhere is enough for a refusal."""
    for node_id, entry in graph.items():
        kind = entry.get("class_type") if isinstance(entry, Mapping) else None
        if not isinstance(kind, str):
            problem = f"Node {shown(node_id)} has no class_type."
            yield node_id, [NodeProblem(None, "invalid_node", problem)]
        elif kind not in catalog:
            hint = hints.near(kind[:80], catalog.classes)
            problem = (
                f"Node {shown(node_id)} is a {shown(kind)}, which the server does not have.{hint}"
            )
            yield node_id, [NodeProblem(None, "unknown_node", problem)]


def _no_output(graph: Graph) -> str:
    if not graph:
        return "The graph has no nodes."
    return "No node of the graph saves or shows anything. Add one that does, such as SaveImage."


@dataclass(frozen=True, slots=True)
class _Checked:
    """What is wrong with each node by itself, which others it needs, and which are the outputs."""

    problems: Problems
    needs: Mapping[str, list[str]]
    outputs: list[str]

    @classmethod
    def of(
        cls,
        graph: Graph,
        catalog: NodeCatalog,
        hints: _Hints,
        also: Mapping[str, list[NodeProblem]],
    ) -> _Checked:
        problems: Problems = {}
        needs: dict[str, list[str]] = {}
        outputs: list[str] = []
        for node_id, entry in graph.items():
            kind = catalog.classes[entry["class_type"]]
            node = _Node(node_id, kind, entry.get("inputs"), graph, catalog, hints)
            if own := [*node.problems(), *also.get(node_id, ())]:
                problems[node_id] = own
            needs[node_id] = list(node.needs())
            if kind.is_output:
                outputs.append(node_id)
        return cls(problems, needs, outputs)

    def runs_something(self) -> bool:
        """Whether some output needs no node that has a problem."""
        needed_by: dict[str, list[str]] = {}
        for node_id, needs in self.needs.items():
            for need in needs:
                needed_by.setdefault(need, []).append(node_id)
        return not _reach(self.problems, needed_by).issuperset(self.outputs)

    def problems_that_matter(self) -> Iterator[tuple[str, list[NodeProblem]]]:
        """Those of the nodes that an output needs; the others are never looked at."""
        needed = _reach(self.outputs, self.needs)
        return ((node_id, own) for node_id, own in self.problems.items() if node_id in needed)


def _reach(starts: Iterable[str], ways: Mapping[str, list[str]]) -> set[str]:
    reached = set(starts)
    waiting = list(reached)
    while waiting:
        new = [node_id for node_id in ways.get(waiting.pop(), ()) if node_id not in reached]
        reached.update(new)
        waiting.extend(new)
    return reached


# ComfyUI takes every list for a link.
_LINK: Final = (list, tuple)


@dataclass(frozen=True, slots=True)
class _Node:
    id: str
    kind: NodeClass
    inputs: Any
    graph: Graph
    catalog: NodeCatalog
    hints: _Hints

    def problems(self) -> Iterator[NodeProblem]:
        if not isinstance(self.inputs, Mapping):
            yield NodeProblem(None, "invalid_node", f"{self} has no inputs.")
            return
        for name, info in self.kind.inputs.items():
            # What a dynamic input is made of depends on the other values.
            if name not in self.inputs:
                if info.required and not info.kind.startswith("COMFY_"):
                    yield self._missing(name)
            elif problem := self._link_problem(name, self.inputs[name]):
                yield NodeProblem(name, "invalid_link", problem)

    def needs(self) -> Iterator[str]:
        """The nodes that are looked at for this one's sake."""
        if isinstance(self.inputs, Mapping):
            for name in self.kind.inputs:
                value = self.inputs.get(name)
                if isinstance(value, _LINK) and len(value) == 2 and self._is_there(value[0]):
                    yield value[0]

    def _missing(self, name: str) -> NodeProblem:
        spare = [other for other in self.inputs if other not in self.kind.inputs]
        close = nearest(name, [other[:80] for other in spare[:_MOST_HINTS] if other], 1)
        meant = f" Is it what is called {close[0]!r} there?" if close else ""
        problem = f"{self} needs a value or a link for its input '{name}'.{meant}"
        return NodeProblem(name, "missing_input", problem)

    def _link_problem(self, name: str, value: object) -> str | None:
        if not isinstance(value, _LINK):
            return None
        if len(value) != 2:
            return (
                f"{self}: '{name}' has a list of {len(value)}, which is no link. A link is "
                '["node id", slot]; a list as a value is written {"__value__": [..]}.'
            )
        node_id, slot = value
        if not self._is_there(node_id):
            known = (other for other in self.graph if isinstance(other, str))
            hint = self.hints.near(str(node_id)[:80], known)
            return f"{self}: '{name}' is linked to node {shown(node_id)}, which is not there.{hint}"
        source = self.catalog.classes[self.graph[node_id]["class_type"]]
        if _is_certain(source) and not _is_slot(slot, len(source.outputs)):
            return (
                f"{self}: '{name}' is linked to output {shown(slot)} of node {shown(node_id)} "
                f"({source.name}), which has {len(source.outputs)}, counted from 0."
            )
        return None

    def _is_there(self, node_id: object) -> bool:
        return isinstance(node_id, str) and node_id in self.graph

    def __str__(self) -> str:
        return f"Node {shown(self.id)} ({self.kind.name})"


def _is_slot(slot: object, count: int) -> bool:
    # From the end, as Python counts, works too.
    return isinstance(slot, int) and -count <= slot < count


def _is_certain(source: NodeClass) -> bool:
    """Whether it has only the outputs it lists; custom nodes have ways to have any number."""
    return source.module.partition(".")[0] in ("nodes", "comfy_extras", "comfy_api_nodes")
