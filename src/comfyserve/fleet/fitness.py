"""Why no backend would run a graph: what the nearest of them lacks, and what the others do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Final

from comfyserve.errors import did_you_mean
from comfyserve.fleet.member import Member
from comfyserve.workflows.graph import Graph, shown
from comfyserve.workflows.graph_check import (
    MOST_NODES,
    WHOLE_GRAPH,
    NodeProblem,
    Problems,
    problems_of,
)
from comfyserve.workflows.needs import Lack, Needs, is_model, lacks, needs_of, takes, text_of
from comfyserve.workflows.node_catalog import NodeCatalog

_MOST_BACKENDS: Final = 8
_MOST_LACKS: Final = 3
"""How many backends, and things that one lacks, are told in a sentence."""

_MOST_HINTS: Final = 5
_MOST_COMPARED: Final = 10_000
"""Values for which others are looked for that may have been meant, and among how many."""


def refusal(graph: Graph, members: Sequence[Member]) -> Problems:
    """The problems, by node id, for which none of the *members* would run the graph.

    Empty where one would, though it be down, or where nothing is known of any. The nodes' problems
    are those at the backend that lacks least; where backends differ, the graph as a whole has one
    that says what each of them lacks.
    """
    catalogs = {one.name: one.catalog for one in members if one.catalog is not None}
    distinct = {id(catalog): catalog for catalog in catalogs.values()}
    needs = needs_of(graph, distinct.values())
    found: dict[int, Problems] = {}
    for key, catalog in distinct.items():
        if not (problems := _problems(graph, needs, catalog)):
            return {}
        found[key] = problems
    if not found:
        return {}
    least = min(found, key=lambda key: sum(map(len, found[key].values())))
    nearest_one = _with_hints(found[least], graph, distinct[least])
    if len(found) == 1:
        return nearest_one
    told = _told_of_each(members, needs, found)
    return {WHOLE_GRAPH: [NodeProblem(None, "no_backend", told)], **nearest_one}


def _problems(graph: Graph, needs: Needs, catalog: NodeCatalog) -> Problems:
    absent = _absent_models(graph, catalog)
    if certain := problems_of(graph, catalog, absent):
        return certain
    found: Problems = {}
    for lack in lacks(needs, catalog):
        for node_id in _nodes_with(graph, lack):
            found.setdefault(node_id, []).append(_problem(node_id, lack))
    return dict(islice(found.items(), MOST_NODES))


def _absent_models(graph: Graph, catalog: NodeCatalog) -> Problems:
    """Nodes that would load a model which is not there."""
    found: Problems = {}
    for node_id, entry in graph.items():
        for name, value in entry["inputs"].items():
            if is_model(value) and takes(catalog, entry["class_type"], name, value) is False:
                lack = Lack(entry["class_type"], name, value)
                found.setdefault(node_id, []).append(_problem(node_id, lack))
    return found


def _nodes_with(graph: Graph, lack: Lack) -> Iterator[str]:
    for node_id, entry in graph.items():
        value = entry["inputs"].get(lack.input) if lack.input else None
        is_it = isinstance(value, str | int | float) and text_of(value) == lack.value
        if entry["class_type"] == lack.node_class and (lack.input is None or is_it):
            yield node_id


def _problem(node_id: str, lack: Lack) -> NodeProblem:
    reason, thing = ("missing_model", "model ") if is_model(lack.value) else ("missing_choice", "")
    return NodeProblem(
        lack.input,
        reason,
        f"Node {shown(node_id)} ({lack.node_class}) asks for the {thing}{shown(lack.value)} at "
        f"'{lack.input}', which the server does not have.",
    )


def _with_hints(problems: Problems, graph: Graph, catalog: NodeCatalog) -> Problems:
    """The same, the first few of missing values with what may have been meant."""
    left = _MOST_HINTS
    for node_id, found in problems.items():
        for place, problem in enumerate(found):
            if left and problem.field and problem.reason in ("missing_model", "missing_choice"):
                left -= 1
                entry = graph[node_id]
                info = catalog.input(entry["class_type"], problem.field)
                names = [str(one) for one in (info.choices or ())[:_MOST_COMPARED]] if info else []
                hint = did_you_mean(str(entry["inputs"][problem.field])[:200], names)
                found[place] = replace(problem, message=problem.message + hint)
    return problems


def _told_of_each(members: Sequence[Member], needs: Needs, found: dict[int, Problems]) -> str:
    parts: list[str] = []
    for number, member in enumerate(members, start=1):
        if member.catalog is None:
            parts.append(f"of backend {number} nothing is known yet")
        else:
            own = [_word(lack) for lack in lacks(needs, member.catalog)]
            wanting = _listed(own) or _first_message(found[id(member.catalog)])
            parts.append(f"backend {number} lacks {wanting}" if own else wanting)
    more = len(parts) - _MOST_BACKENDS
    rest = f"; and {more} more are no better" if more > 0 else ""
    told = "; ".join(parts[:_MOST_BACKENDS]) + rest
    return f"No backend has all that the graph needs: {told}."


def _word(lack: Lack) -> str:
    if lack.input is None:
        return f"the node {shown(lack.node_class)}"
    thing = "the model" if is_model(lack.value) else f"the {lack.input}"
    return f"{thing} {shown(lack.value)}"


def _first_message(problems: Problems) -> str:
    return next(iter(problems.values()))[0].message.rstrip(".")


def _listed(words: list[str]) -> str:
    if len(words) <= 1:
        return "".join(words)
    if len(words) > _MOST_LACKS:
        return f"{', '.join(words[:_MOST_LACKS])} and {len(words) - _MOST_LACKS} more"
    return f"{', '.join(words[:-1])} and {words[-1]}"
