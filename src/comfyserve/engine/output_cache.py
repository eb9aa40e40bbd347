"""What nodes gave last time, kept for as long as the graph that asks is the same one."""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import dataclass
from typing import Any

from comfyserve.engine.folders import Folders
from comfyserve.engine.links import links
from comfyserve.engine.node import Node, Result
from comfyserve.engine.registry import Registry
from comfyserve.engine.validation import literals, named_inputs


class OutputCache:
    """Results by the signature of what made them; only those of the last graph are kept."""

    def __init__(self) -> None:
        self._results: dict[str, Result] = {}

    def view(self, graph: dict[str, Any], registry: Registry, folders: Folders) -> CachedGraph:
        """The cache as *graph* sees it; what this graph does not use is let go of."""
        signatures = Signatures(graph, registry, folders).all()
        used = set(signatures.values())
        self._results = {key: kept for key, kept in self._results.items() if key in used}
        return CachedGraph(self._results, signatures)

    def clear(self) -> None:
        self._results = {}


@dataclass(frozen=True, slots=True)
class CachedGraph:
    """The cached results of one graph, by node id."""

    results: dict[str, Result]
    signatures: dict[str, str]

    def get(self, node_id: str) -> Result | None:
        return self.results.get(self.signatures.get(node_id, ""))

    def keep(self, node_id: str, result: Result) -> None:
        if node_id in self.signatures:
            self.results[self.signatures[node_id]] = result


class Signatures:
    """For each node a name for all that decides its result: class, inputs, files, all above it."""

    def __init__(self, graph: dict[str, Any], registry: Registry, folders: Folders) -> None:
        self._graph = graph
        self._registry = registry
        self._folders = folders
        self._done: dict[str, str] = {}

    def all(self) -> dict[str, str]:
        """Signatures by node id; nodes with broken links or in a cycle have none."""
        for node_id in self._graph:
            self._sign_from(node_id)
        return self._done

    def _sign_from(self, node_id: str) -> None:
        """Sign all above *node_id*, then it; iterative, as a graph may be very deep."""
        entered: set[str] = set()
        waiting = [node_id]
        while waiting:
            current = waiting[-1]
            above = [source for source in self._above(current) if source not in self._done]
            if current not in entered and above:
                entered.add(current)
                waiting += [source for source in above if source not in entered]
                continue
            waiting.pop()
            if current not in self._done and not above:
                self._done[current] = self._sign(current)

    def _above(self, node_id: str) -> list[str]:
        if node_id not in self._graph or not isinstance(self._graph[node_id].get("inputs"), dict):
            return [node_id]  # it needs itself: a node that cannot run is never signed
        return [source for source, _ in links(self._graph, node_id, self._registry).values()]

    def _sign(self, node_id: str) -> str:
        node = self._registry[self._graph[node_id]["class_type"]]
        inputs = self._graph[node_id]["inputs"]
        decides = dict(inputs)  # with those that the node does not declare, as ComfyUI does
        for name, (source, slot) in links(self._graph, node_id, self._registry).items():
            decides[name] = {"above": self._done[source], "slot": slot}
        everything = [node.name, decides, fingerprint(node, inputs, self._folders)]
        return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()


def fingerprint(node: Node, inputs: dict[str, Any], folders: Folders) -> str | None:
    """What besides its inputs decides a node's result; if that fails, nothing it gave holds."""
    if node.fingerprint is None:
        return None
    try:
        return node.fingerprint(folders, **literals(inputs, named_inputs(node.fingerprint, node)))
    except Exception:
        return uuid.uuid4().hex
