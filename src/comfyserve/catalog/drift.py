"""Where a workflow no longer fits a backend: told from its node catalogue, before a caller sees.

>>> catalog = NodeCatalog.from_json({"Save": {"output_node": True, "input": {
...     "required": {"quality": ["INT", {"max": 9}]}}}})
>>> workflow = Workflow.from_json({"1": {"class_type": "Save", "inputs": {"quality": 20}}}, "photo")
>>> [(misfit.node, misfit.input, misfit.what) for misfit in misfits(workflow, catalog)]
[('1', 'quality', 'out_of_range')]
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Final

from comfyserve.errors import ComfyServeError, nearest
from comfyserve.workflows.graph import Graph, Link, Node, nodes_of, shown, upstream
from comfyserve.workflows.graph_check import problems_of
from comfyserve.workflows.node_catalog import InputInfo, NodeCatalog, NodeClass
from comfyserve.workflows.workflow import Workflow

MOST_MISFITS: Final = 50
"""The most that is told of one workflow and one backend."""

_MOST_NAMED: Final = 6


@dataclass(frozen=True, slots=True)
class Misfit:
    """One thing that a backend lacks, or takes no longer.

    *node* is the id of a node, empty for the workflow as a whole; *input* is one of its inputs.
    *what* is for programs: ``unknown_node``, ``missing_model``, ``missing_choice``,
    ``out_of_range``, what `graph_check.NodeProblem` tells, or ``unreadable`` where the workflow's
    file says something that cannot be so there. *nearest* are names to take instead, best first.
    """

    node: str
    input: str | None
    what: str
    message: str
    nearest: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Drift:
    """A misfit, with the workflow's name and the backend's."""

    workflow: str
    backend: str
    node: str
    input: str | None
    what: str
    message: str
    nearest: tuple[str, ...] = ()

    @classmethod
    def of(cls, workflow: str, backend: str, misfit: Misfit) -> Drift:
        return cls(
            workflow,
            backend,
            misfit.node,
            misfit.input,
            misfit.what,
            misfit.message,
            misfit.nearest,
        )


Nearest = Callable[[str, tuple[str, ...]], tuple[str, ...]]
"""The names that look most like one, of those there are."""


def remembering() -> Nearest:
    """A search for near names that looks only once for each: it takes long among thousands."""

    @lru_cache(maxsize=4096)
    def near(name: str, known: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(nearest(name[:200], known))

    return near


def misfits(
    workflow: Workflow, catalog: NodeCatalog, near: Nearest | None = None
) -> tuple[Misfit, ...]:
    """Everything for which the workflow, with the values that it holds, would not run whole.

    Files to upload do not count: they come with a job. Nothing raises.
    """
    try:
        graph = _graph(workflow, catalog)
    except ComfyServeError as error:
        return (Misfit("", None, "unreadable", str(error)),)
    return misfits_in(graph, catalog, near)


def misfits_in(
    graph: Graph, catalog: NodeCatalog, near: Nearest | None = None
) -> tuple[Misfit, ...]:
    """`misfits` for a graph with the values that it is to run with."""
    found = _Fit(graph, catalog, near or remembering()).misfits()
    return tuple(islice(found, MOST_MISFITS))


def _graph(workflow: Workflow, catalog: NodeCatalog) -> Graph:
    """The graph that would run there; a sidecar is held against it on the way."""
    if workflow.source.sidecar is not None:
        return workflow.described_by(catalog, strict=False).graph
    return workflow.source.told(catalog, strict=False).graph


@dataclass(frozen=True, slots=True)
class _Fit:
    """A graph held against a catalogue."""

    graph: Graph
    catalog: NodeCatalog
    near: Nearest

    def misfits(self) -> Iterator[Misfit]:
        yield from self._nodes()
        for node, node_class in self._running():
            for name, info in node_class.inputs.items():
                if name in node.inputs and not info.upload:
                    yield from self._value(node, name, info)

    def _nodes(self) -> Iterator[Misfit]:
        """What a ComfyUI with these nodes certainly refuses."""
        missing = self.catalog.missing_classes(self.graph)
        for class_type, ids in missing.items():
            close = self.near(class_type[:80], tuple(self.catalog.classes))
            users = f"node {ids[0]} needs" if len(ids) == 1 else f"nodes {_listed(ids)} need"
            message = f"There is no node {shown(class_type)}, which {users}.{_nearest(close)}"
            yield Misfit(ids[0], None, "unknown_node", message, close)
        if missing:
            return
        for node_id, problems in problems_of(self.graph, self.catalog).items():
            for problem in problems:
                yield Misfit(node_id, problem.field, problem.reason, problem.message)

    def _running(self) -> Iterator[tuple[Node, NodeClass]]:
        """The nodes of known classes that an output needs: no others are looked at."""
        nodes = nodes_of(self.graph)
        known = {node.id: self.catalog.get(node.class_type) for node in nodes.values()}
        ends = [node_id for node_id, kind in known.items() if kind is None or kind.is_output]
        live = upstream(nodes, ends)
        for node_id, node_class in known.items():
            if node_id in live and node_class is not None:
                yield nodes[node_id], node_class

    def _value(self, node: Node, name: str, info: InputInfo) -> Iterator[Misfit]:
        value = node.inputs[name]
        if Link.read(value):
            return
        if info.kind == "COMBO" and info.choices is not None and not info.multiselect:
            if _is_absent(value, info.choices):
                yield self._absent(node, name, value, info.choices)
        elif info.kind in ("INT", "FLOAT") and isinstance(value, int | float):
            yield from _outside(node, name, value, info)

    def _absent(
        self, node: Node, name: str, value: object, choices: tuple[str | int | float, ...]
    ) -> Misfit:
        names = tuple(map(str, choices))
        close = self.near(str(value)[:200], names)
        is_model = bool(_MODEL_FILE.search(str(value)))
        thing = "model" if is_model else name
        message = f"There is no {thing} {shown(value)}, which {node} asks for at {name}."
        if close:
            message += f" The nearest there are: {_listed(close)}."
        elif names:
            message += f" There are {_listed(names)}."
        else:
            message += " There are none at all."
        what = "missing_model" if is_model else "missing_choice"
        return Misfit(node.id, name, what, message, close)


def _is_absent(value: object, choices: tuple[str | int | float, ...]) -> bool:
    if isinstance(value, str):
        # A server on Windows lists its models with the other slash.
        wanted = value.replace("\\", "/")
        return all(wanted != str(choice).replace("\\", "/") for choice in choices)
    return isinstance(value, int | float) and value not in choices


_MODEL_FILE: Final = re.compile(r"\.(safetensors|sft|ckpt|pt|pth|bin|gguf|onnx|pkl)$", re.I)


def _outside(node: Node, name: str, value: float, info: InputInfo) -> Iterator[Misfit]:
    if isinstance(value, bool):
        return
    here = f"{node} has {shown(value)} for its input {name}; the"
    if info.minimum is not None and value < info.minimum:
        yield Misfit(node.id, name, "out_of_range", f"{_capital(here)} least is {info.minimum}.")
    if info.maximum is not None and value > info.maximum:
        yield Misfit(node.id, name, "out_of_range", f"{_capital(here)} most is {info.maximum}.")


def _nearest(close: tuple[str, ...]) -> str:
    return f" Did you mean {close[0]!r}?" if close else ""


def _listed(words: Iterable[str]) -> str:
    every = list(words)
    more = len(every) - _MOST_NAMED
    return ", ".join(every[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _capital(sentence: str) -> str:
    return f"{sentence[0].upper()}{sentence[1:]}"
