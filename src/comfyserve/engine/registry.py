"""The nodes that this engine offers, by name, and how `/object_info` describes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from typing import Any

from comfyserve.engine.errors import MissingParts
from comfyserve.engine.folders import Folders
from comfyserve.engine.node import Input, Node

COMBO = "COMBO"

# What the nodes are made with, by import name and by the name it is installed under.
PARTS = {"numpy": "numpy", "PIL": "pillow", "onnxruntime": "onnxruntime"}


class Registry(Mapping[str, Node]):
    """Node classes by their ``class_type``."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        self._nodes = {node.name: node for node in nodes}

    def __getitem__(self, name: str) -> Node:
        return self._nodes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)

    def object_info(self, folders: Folders) -> dict[str, Any]:
        """The whole `/object_info` document."""
        return {name: describe(node, folders) for name, node in self.items()}

    def choices(self, input_name: str, folders: Folders) -> list[str]:
        """Every choice that some node offers for an input of that name."""
        found: dict[str, None] = {}
        for node in self.values():
            declared = node.inputs.get(input_name)
            if declared is not None:
                found.update(dict.fromkeys(choices_of(declared, folders) or ()))
        return list(found)

    def unload(self) -> None:
        """Have every node give back what it keeps between runs."""
        for node in self.values():
            if node.unload is not None:
                node.unload()


def builtin_registry(*, test_nodes: bool) -> Registry:
    """The built-in nodes, and the test nodes if asked for. Raises `MissingParts`."""
    missing = [package for module, package in PARTS.items() if find_spec(module) is None]
    if missing:
        raise MissingParts(missing)
    # Imported here because the nodes pull in numpy, Pillow and onnxruntime.
    from comfyserve.engine.nodes import ALL as builtin

    offered = list(builtin)
    if test_nodes:
        from comfyserve.engine.test_nodes import ALL as made_for_tests

        offered += made_for_tests
    return Registry(offered)


def describe(node: Node, folders: Folders) -> dict[str, Any]:
    """One node in the shape of `/object_info`."""
    given: dict[str, dict[str, list[Any]]] = {"required": {}}
    for name, declared in node.inputs.items():
        section = given.setdefault("required" if declared.required else "optional", {})
        section[name] = input_spec(declared, folders)
    return {
        "input": given,
        "input_order": {section: list(inputs) for section, inputs in given.items()},
        "output": [output.type for output in node.outputs],
        "output_is_list": [False for _ in node.outputs],
        "output_name": [output.name for output in node.outputs],
        "name": node.name,
        "display_name": node.display_name or node.name,
        "description": node.description,
        "python_module": node.run.__module__,
        "category": node.category,
        "output_node": node.output_node,
        "deprecated": False,
        "experimental": False,
        "api_node": node.api_node,
    }


def input_spec(declared: Input, folders: Folders) -> list[Any]:
    """ComfyUI's pair for an input: its type or its choices, then its options if it has any."""
    choices = choices_of(declared, folders)
    kind = declared.type if choices is None else choices
    return [kind, dict(declared.options)] if declared.options else [kind]


def choices_of(declared: Input, folders: Folders) -> list[str] | None:
    """The choices of a combo as they are now, or None for any other input."""
    if isinstance(declared.type, str):
        return None
    return list(declared.type(folders))
