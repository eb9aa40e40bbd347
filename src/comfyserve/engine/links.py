"""Which nodes a node is linked to."""

from __future__ import annotations

from typing import Any

from comfyserve.engine.registry import Registry


def links(graph: dict[str, Any], node_id: str, registry: Registry) -> dict[str, tuple[str, int]]:
    """The links of a node by input: the node above and its slot.

    Inputs that the node does not declare pass validation unseen, so their links mean nothing.
    """
    node = graph[node_id]
    inputs = node.get("inputs")
    declared = registry[node["class_type"]].inputs
    return {
        name: (value[0], value[1])
        for name, value in (inputs.items() if isinstance(inputs, dict) else ())
        if name in declared and isinstance(value, list) and len(value) == 2
    }
