"""Where something stands in a graph, down to any depth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfyserve.assets import InputPath
from comfyserve.errors import GraphInvalid


def value_at(graph: Mapping[str, Any], path: InputPath) -> Any:
    """What stands at *path*. Raises `GraphInvalid` where it leads nowhere."""
    node = graph.get(path[0]) if isinstance(path[0], str) else None
    return found_at(node.get("inputs") if isinstance(node, Mapping) else None, path[1:], path)


def written_path(path: InputPath) -> str:
    """A path as people read it.

    >>> written_path(("3", "files", 0, "name"))
    '3.files[0].name'
    """
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return "".join(parts).removeprefix(".")


def found_at(start: Any, keys: InputPath, path: InputPath) -> Any:
    """What stands in *start* below these keys, the last ones of *path*. Raises `GraphInvalid`."""
    found = start
    for key in keys:
        if not _has(found, key):
            raise _nowhere(path)
        found = found[key]
    return found


def _has(holder: object, key: str | int) -> bool:
    if isinstance(holder, Mapping):
        return key in holder
    return isinstance(holder, list | tuple) and isinstance(key, int) and 0 <= key < len(holder)


def _nowhere(path: InputPath) -> GraphInvalid:
    return GraphInvalid(f"there is no {written_path(path)} in the graph", str(path[0]))
