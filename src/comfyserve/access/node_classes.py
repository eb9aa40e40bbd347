"""Which node classes the graphs that callers bring may use."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from comfyserve.denials import Forbidden
from comfyserve.workflows.graph import Graph, nodes_of


def refused_classes(graph: Graph, allow: Iterable[str] = (), deny: Iterable[str] = ()) -> list[str]:
    """The node classes in a checked graph that may not be used, each once, in the graph's order.

    *allow* and *deny* are patterns as in file names, where letter case counts: ``Load*``. What is
    denied is refused even where it is allowed; without *allow* all else may be used.

    >>> names = {"1": "LoadImage", "2": "RunPython"}
    >>> graph = {node_id: {"class_type": name, "inputs": {}} for node_id, name in names.items()}
    >>> refused_classes(graph, deny=["Run*"])
    ['RunPython']
    >>> refused_classes(graph, allow=["Run*"])
    ['LoadImage']
    """
    allowed, denied = tuple(allow) or ("*",), tuple(deny)
    names = dict.fromkeys(node.class_type for node in nodes_of(graph).values())
    return [name for name in names if not _fits(name, allowed) or _fits(name, denied)]


def require_classes(graph: Graph, allow: Iterable[str] = (), deny: Iterable[str] = ()) -> None:
    """Raise `Forbidden` unless every node class in the graph may be used."""
    if refused := refused_classes(graph, allow, deny):
        names = ", ".join(repr(name[:80]) for name in refused[:10])
        more = f" and {len(refused) - 10} more" if len(refused) > 10 else ""
        raise Forbidden(f"This server does not run graphs with {names}{more}. Leave them out.")


def _fits(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
