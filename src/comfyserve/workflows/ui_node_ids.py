"""Node ids made unique across a file, as the editor does when it opens one.

A subgraph that was copied has nodes of the same ids as its original. The editor gives the later
ones new ids, and these are the ones that a server sees and reports.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from comfyserve.workflows.ui_graph import UiDocument, UiGraph, UiLink, UiNode

NewIds = dict[str, str]
"""Old node id -> new node id, within one subgraph."""


def with_own_ids(document: UiDocument) -> UiDocument:
    """The document with no node id used twice, in links and promoted widgets too."""
    numbering = Numbering.before_subgraphs(document)
    changed = {graph.id: numbering.renumber(graph) for graph in document.subgraphs.values()}
    if not any(changed.values()):
        return document
    subgraphs = {
        graph_id: _patched(renamed(graph, changed[graph_id]), changed)
        for graph_id, graph in document.subgraphs.items()
    }
    return replace(
        document,
        root=_patched(document.root, changed),
        subgraphs=subgraphs,
        new_ids={graph_id: ids for graph_id, ids in changed.items() if ids},
    )


@dataclass(slots=True)
class Numbering:
    """The ids in use in a document, and the last number given."""

    used: set[str]
    last: int

    @classmethod
    def after(cls, document: UiDocument) -> Numbering:
        """The numbering that goes on after all nodes of the document."""
        numbering = cls.before_subgraphs(document)
        for graph in document.subgraphs.values():
            numbering.used.update(graph.nodes)
            numbering.last = max([numbering.last, *_numbers(graph)])
        return numbering

    @classmethod
    def before_subgraphs(cls, document: UiDocument) -> Numbering:
        """The numbering that knows the nodes of the workflow itself."""
        root = document.root
        return cls(set(root.nodes), max([document.last_node_id, *_numbers(root)]))

    def renumber(self, graph: UiGraph) -> NewIds:
        """New ids for the nodes of *graph* whose ids are in use; its ids are from then on."""
        new: NewIds = {}
        for node_id in graph.nodes:
            if node_id in self.used:
                new[node_id] = self._free()
            elif _is_number(node_id):
                self.last = max(self.last, int(node_id))
            self.used.add(new.get(node_id, node_id))
        return new

    def next(self) -> str:
        """The next free id, in use from then on."""
        node_id = self._free()
        self.used.add(node_id)
        return node_id

    def _free(self) -> str:
        self.last += 1
        while str(self.last) in self.used:
            self.last += 1
        return str(self.last)


def renamed(graph: UiGraph, new: NewIds) -> UiGraph:
    """*graph* with other ids for some of its nodes, in its links too."""
    if not new:
        return graph
    nodes = {
        new.get(node_id, node_id): replace(node, id=new.get(node_id, node_id))
        for node_id, node in graph.nodes.items()
    }
    links = {
        link_id: UiLink(
            new.get(link.origin_id, link.origin_id),
            link.origin_slot,
            new.get(link.target_id, link.target_id),
            link.target_slot,
        )
        for link_id, link in graph.links.items()
    }
    return replace(graph, nodes=nodes, links=links)


def _patched(graph: UiGraph, changed: Mapping[str, NewIds]) -> UiGraph:
    nodes = {node_id: _repointed(node, changed) for node_id, node in graph.nodes.items()}
    return replace(graph, nodes=nodes)


def _repointed(node: UiNode, changed: Mapping[str, NewIds]) -> UiNode:
    new = changed.get(node.type)
    if not new or not node.proxies:
        return node
    proxies = tuple((new.get(node_id, node_id), widget) for node_id, widget in node.proxies)
    return replace(node, proxies=proxies)


def _numbers(graph: UiGraph) -> list[int]:
    return [int(node_id) for node_id in graph.nodes if _is_number(node_id)]


def _is_number(node_id: str) -> bool:
    # Longer ones are no numbers to the editor either.
    return node_id.isascii() and node_id.isdigit() and len(node_id) <= 15
