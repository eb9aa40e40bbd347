"""One input as its author marked it, and what a mark may point at in a graph."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from comfyserve.workflows.graph import Address, Link, Node, shown
from comfyserve.workflows.inference import Inferred
from comfyserve.workflows.node_catalog import NodeCatalog
from comfyserve.workflows.parameters import Media, Parameter

MOST_MARKS = 1000
MOST_TARGETS = 20_000
"""More than any form could show; they keep a hostile file from taking long."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What one convention says of one input.

    *name* is the author's own word, empty if there is none; then the name that the graph itself
    suggests is used, and *fallback* where it suggests nothing. *kind* is a parameter's kind that
    always holds, *likely* one that holds unless the graph tells more. Everything else that is
    None or empty was not said.
    """

    targets: tuple[Address, ...]
    why: str
    name: str = ""
    fallback: str = "input"
    label: str = ""
    description: str = ""
    kind: str = ""
    likely: str = ""
    default: Any = None
    minimum: int | float | None = None
    maximum: int | float | None = None
    choices: tuple[str | int | float, ...] | None = None
    advanced: bool | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """Everything that one convention says of a workflow; *warnings* are whole sentences."""

    convention: str
    marks: tuple[Mark, ...] = ()
    outputs: tuple[str, ...] = ()
    title: str = ""
    description: str = ""
    warnings: tuple[str, ...] = ()


class Subject:
    """The graph that marks are read for, with what is known of it."""

    def __init__(
        self, nodes: Mapping[str, Node], inferred: Inferred, catalog: NodeCatalog | None = None
    ) -> None:
        self.nodes = nodes
        self.inferred = inferred
        self.catalog = catalog
        self._found: dict[Address, list[Parameter]] = {}
        self._files: dict[str, Address] = {}
        for parameter in inferred.parameters:
            for target in parameter.targets:
                self._found.setdefault(target, []).append(parameter)
                if isinstance(parameter, Media):
                    self._files.setdefault(target[0], target)

    def settable(self, address: Address) -> bool:
        """There is a value of its own at *address*, or a server would take one there."""
        node_id, name = address
        node = self.nodes.get(node_id)
        if node is None:
            return False
        if name in node.inputs:
            return Link.read(node.inputs[name]) is None
        info = self.catalog.input(node.class_type, name) if self.catalog else None
        return info is not None and info.is_widget

    def value(self, address: Address) -> Any:
        """What the graph holds at a settable address, or what the server puts there."""
        node = self.nodes[address[0]]
        if address[1] in node.inputs:
            return node.inputs[address[1]]
        info = self.catalog.input(node.class_type, address[1]) if self.catalog else None
        return info.default if info else None

    def found_at(self, address: Address) -> list[Parameter]:
        """The inferred parameters that fill *address*."""
        return self._found.get(address, [])

    def behind(self, address: Address) -> Address | None:
        """*address* if it can be set, else the one value of the node that is linked there."""
        if self.settable(address):
            return address
        node = self.nodes.get(address[0])
        link = node.link(address[1]) if node else None
        return self.only_value(link.node_id, link.slot) if link else None

    def only_value(self, node_id: str, slot: int = 0) -> Address | None:
        """What comes out of a node at output *slot*: the file that it loads, or the one value
        it holds if nothing comes into it. What stands further down, like a mask, is no file."""
        source = self.nodes.get(node_id)
        if source is None or slot != 0:
            return None
        if file := self._files.get(node_id):
            return file
        literals = [(source.id, name) for name, _ in source.literals()]
        return literals[0] if len(literals) == 1 and not any(source.links()) else None

    def main_input(self, node_id: str) -> Address | None:
        """The one input of a node that a mark without an input's name must mean, if any."""
        node = self.nodes[node_id]
        settable = [(node_id, name) for name, _ in node.literals()]
        wanted = [
            address
            for address in settable
            if any(not found.advanced for found in self.found_at(address))
        ]
        for group in (wanted, settable):
            if len(group) == 1:
                return group[0]
        return next(((node_id, name) for name in _MAIN if (node_id, name) in settable), None)

    def own_title(self, node_id: str) -> str:
        """What the author called a node, if it is not just what such nodes are called."""
        node = self.nodes[node_id]
        known = self.catalog.get(node.class_type) if self.catalog else None
        title = node.title.strip()
        return "" if title in (node.class_type, known.title if known else "") else title

    def gives_output(self, node_id: str) -> bool:
        """The node is there, and nothing is known that keeps it from having results."""
        node = self.nodes.get(node_id)
        if node is None:
            return False
        known = self.catalog.get(node.class_type) if self.catalog else None
        return known is None or known.is_output


_MAIN = ("text", "prompt", "value", "string", "image", "video", "file", "audio", "seed")

MOST_NAME = 60


def public_name(words: str) -> str:
    """The name by which callers set an input: like an identifier, in lower case.

    >>> public_name("Style image (left)")
    'style_image_left'
    >>> public_name("2nd prompt")
    'input_2nd_prompt'
    """
    plain = unicodedata.normalize("NFKC", words[: 10 * MOST_NAME]).lower()
    name = re.sub(r"[\W_]+", "_", plain)[:MOST_NAME].strip("_")
    if not name:
        return ""
    name = name if name.isidentifier() else f"input_{name}"
    return name if name.isidentifier() else ""


def written(address: Address) -> str:
    """An address as people write it: ``3.cfg``."""
    return ".".join(address)


def plain(value: str) -> str:
    """A word of the file as it stands in a sentence, without quotation marks."""
    return shown(value)[1:-1]
