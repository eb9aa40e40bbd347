"""Following the links of a graph back to the values that a person would want to set.

A walk only finds; `inference` chooses names for what it found. It works on any graph that
`graph.parse_graph` accepted, and goes at most `FARTHEST` nodes far for each answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeGuard

from comfyserve.workflows.graph import Address, Graph, Link, Node, nodes_of, upstream
from comfyserve.workflows.node_catalog import NodeCatalog

Side = Literal["positive", "negative"]
Scalar = str | int | float | bool
Setting = Literal["seed", "steps", "cfg", "denoise", "sampler", "scheduler"]

# No workflow of a person comes near these; they keep a hostile one from taking long.
FARTHEST = 300
MOST = 100


@dataclass(frozen=True, slots=True)
class Leaf:
    """A value found at the end of links.

    *address* is where it stands; *consumer* is the input that uses it, which knows the limits.
    """

    address: Address
    value: Scalar
    consumer: Address


TextGroup = tuple[Leaf, ...]
"""The texts of one encoder: they are set together."""


class Walk:
    """One graph, ready to be asked where its values are."""

    def __init__(self, graph: Graph, catalog: NodeCatalog | None = None) -> None:
        self.nodes = nodes_of(graph)
        self.catalog = catalog or NodeCatalog()
        self._links = {node.id: [*node.links()] for node in self.nodes.values()}
        self.outputs = self._outputs()
        self.used_outputs = {link for links in self._links.values() for _, link in links}
        self.live = upstream(self.nodes, self._starts())

    def live_nodes(self) -> list[Node]:
        """The nodes that an output needs, in the file's order."""
        return [node for node in self.nodes.values() if node.id in self.live]

    def samplers(self) -> list[Node]:
        """The live nodes that denoise, those that others build on first."""
        found = [node for node in self.live_nodes() if _is_sampler(node)]
        return sorted(found, key=lambda node: self.live[node.id])[:MOST]

    def setting(self, sampler: Node, name: Setting) -> Leaf | None:
        """Where a sampler's setting stands: in itself or in the node that brings it."""
        names, via = _SETTINGS[name]
        if name == "seed" and sampler.inputs.get("add_noise") in ("disable", False):
            return None
        for node in (sampler, *self._behind(sampler, via)):
            for input_name in names:
                if leaf := self.value(node, input_name):
                    return leaf
        return None

    def sigmas(self, sampler: Node) -> Node | None:
        """The node that plans a custom sampler's steps, if it has one."""
        planners = self._behind(sampler, "sigmas")
        return next((node for node in planners if "steps" in node.inputs), None)

    def texts(self, sampler: Node, side: Side) -> list[TextGroup]:
        """The texts behind one side of a sampler, the main one first."""
        found: dict[TextGroup, None] = {}
        if side == "negative":
            # What comes out of a node's negative side is a negative, whatever takes it.
            for link in self._conditionings(sampler, "positive"):
                behind = self._texts_behind(link, "positive")
                found |= {group: None for end, group in behind if end == "negative"}
        for link in self._conditionings(sampler, side):
            behind = self._texts_behind(link, side)
            found |= {group: None for end, group in behind if end == side or side == "negative"}
        return list(found)

    def size(self, sampler: Node) -> Node | None:
        """The node that sets width and height of a sampler's latent; None if a picture does."""
        seen = {sampler.id}
        node: Node | None = sampler
        while node is not None and len(seen) < FARTHEST:
            node = self._latent_source(node)
            if node is None or node.id in seen:
                return None
            if "width" in node.inputs and "height" in node.inputs:
                return node
            seen.add(node.id)
        return None

    def model(self, sampler: Node) -> Leaf | None:
        """The file name of the model that a sampler uses, behind LoRAs and patches."""
        guiders = self._behind(sampler, "guider")
        for start in (sampler, *guiders):
            for node in self._behind(start, "model"):
                if leaf := self.model_of(node):
                    return leaf
        return None

    def model_of(self, node: Node) -> Leaf | None:
        """The model file that a loader node names, if it is one."""
        # What takes a model itself only adds to it.
        if "loader" not in node.class_type.lower() or node.link("model"):
            return None
        leaves = (self.value(node, name) for name in _MODEL_NAMES)
        return next((leaf for leaf in leaves if leaf and isinstance(leaf.value, str)), None)

    def value(self, node: Node, name: str) -> Leaf | None:
        """The number or word at an input, or at the primitive node it is linked to."""
        consumer = (node.id, name)
        seen: set[str] = set()
        while node.id not in seen and len(seen) < FARTHEST:
            seen.add(node.id)
            value = node.inputs.get(name)
            link = Link.read(value)
            if link is None:
                # A word that a number is linked to is a formula, or a number in disguise.
                formula = isinstance(value, str) and len(seen) > 1 and consumer[1] in _NUMBERS
                if formula or not _is_scalar(value):
                    return None
                return Leaf((node.id, name), value, consumer)
            node = self.nodes[link.node_id]
            following = self._value_input(node, consumer[1])
            if following is None:
                return None
            name = following
        return None

    def text(self, node: Node, name: str) -> Leaf | None:
        """The words at an input, or the best candidate among the nodes that write them."""
        value = node.inputs.get(name)
        if isinstance(value, str):
            return Leaf((node.id, name), value, (node.id, name))
        link = Link.read(value)
        if link is None:
            return None
        ranked = [*self._written_behind(link, (node.id, name))]
        return min(ranked, key=lambda entry: entry[0])[1] if ranked else None

    def own_texts(self, node: Node, side: Side = "positive") -> list[TextGroup]:
        """The texts a node holds or is linked to: one group, and one more for lyrics."""
        if isinstance(node.inputs.get(side), str):
            return [(Leaf((node.id, side), node.inputs[side], (node.id, side)),)]
        several = tuple(leaf for name in _ENCODER_TEXTS if (leaf := self.text(node, name)))
        names = (*_NEGATIVE_TEXTS, *_TEXTS) if side == "negative" else _TEXTS
        known = (given for name in names for given in node.inputs if last_part(given) == name)
        single = (leaf for name in known if (leaf := self.text(node, name)))
        group = several or tuple([leaf] if (leaf := next(single, None)) else [])
        lyrics = self.text(node, "lyrics")
        return [found for found in (group, (lyrics,) if lyrics else ()) if found]

    def _outputs(self) -> tuple[str, ...]:
        return tuple(node.id for node in self.nodes.values() if self._is_output(node))

    def _is_output(self, node: Node) -> bool:
        if known := self.catalog.get(node.class_type):
            return known.is_output
        return re.match(r"(Save|Preview)(?!.*Bridge)", node.class_type) is not None or (
            node.class_type in ("VHS_VideoCombine", "MaskPreview")
        )

    def _starts(self) -> list[str]:
        """Where a run ends: the outputs, and ends of a kind that the server may not have."""
        ends = self._ends()
        unknown = [node_id for node_id in ends if self._is_unknown(self.nodes[node_id])]
        starts = [*dict.fromkeys((*self.outputs, *unknown))]
        # Where no link leads to an output, what was meant still stands in the file.
        return starts if any(self._links[node_id] for node_id in starts) else ends

    def _is_unknown(self, node: Node) -> bool:
        return bool(self.catalog.classes) and node.class_type not in self.catalog

    def _ends(self) -> list[str]:
        needed = {link.node_id for node in self.nodes.values() for _, link in self._links[node.id]}
        return [node_id for node_id in self.nodes if node_id not in needed] or [*self.nodes]

    def _behind(self, node: Node, via: str) -> Iterator[Node]:
        """The nodes that bring *via* to *node*, nearest first, through what only passes it on."""
        seen = {node.id}
        waiting = [node]
        while waiting and len(seen) < FARTHEST:
            current = waiting.pop(0)
            if current is not node:
                yield current
            for name, link in self._followed(current):
                passes = name.startswith(via) or (current is not node and _passes_on(name))
                if passes and link.node_id not in seen:
                    seen.add(link.node_id)
                    waiting.append(self.nodes[link.node_id])

    def _followed(self, node: Node) -> list[tuple[str, Link]]:
        """The links that matter: only the chosen branch where a switch has been set."""
        links = self._links[node.id]
        chosen = self._chosen_branch(node)
        return links if chosen is None else [(name, link) for name, link in links if name == chosen]

    def _chosen_branch(self, node: Node) -> str | None:
        if "switch" not in node.class_type.lower():
            return None
        for name in ("switch", "boolean", "condition", "select", "index"):
            value = self.value(node, name)
            if value is None:
                continue
            if isinstance(value.value, bool):
                word = "true" if value.value else "false"
                return next((key for key in node.inputs if word in key.lower()), None)
            return next((key for key in node.inputs if re.search(rf"\D{value.value}$", key)), None)
        return None

    def _value_input(self, node: Node, wanted: str) -> str | None:
        if chosen := self._chosen_branch(node):
            return chosen
        names = (wanted, "value", "seed", "noise_seed", "int", "float", "number", "string")
        by_lower = {name.lower(): name for name in node.inputs}
        known = next((by_lower[name] for name in names if name in by_lower), None)
        links = [name for name, _ in self._links[node.id]]
        return known or (links[0] if len(links) == 1 == len(node.inputs) else None)

    def _conditionings(self, sampler: Node, side: Side) -> list[Link]:
        named = r"positive|conditioning|cond\d*$" if side == "positive" else r"negative"
        pattern = rf"{named}|text_embeds"
        for node in (sampler, *self._behind(sampler, "guider")):
            if any(
                re.match("positive|negative|cond|text_embeds", name)
                for name, _ in self._links[node.id]
            ):
                return [link for name, link in self._links[node.id] if re.match(pattern, name)]
        return []

    def _texts_behind(self, start: Link, start_side: Side) -> Iterator[tuple[Side, TextGroup]]:
        seen: set[tuple[Link, Side]] = set()
        waiting: list[tuple[Link, Side, bool]] = [(start, start_side, False)]
        while waiting and len(seen) < FARTHEST:
            link, side, leaving = waiting.pop()
            node = self.nodes[link.node_id]
            if leaving:
                yield from ((side, group) for group in self.own_texts(node, side))
            elif (link, side) not in seen and "zeroout" not in node.class_type.lower():
                seen.add((link, side))
                side = self._side(node, link.slot, side)
                # What it adds to comes before what it adds.
                waiting.append((link, side, True))
                behind = self._conditionings_into(node, side)
                waiting.extend((other, side, False) for other in reversed(behind))

    def _side(self, node: Node, slot: int, side: Side) -> Side:
        """Which side of a node that handles both comes out at *slot*."""
        sides = [name for name, _ in self._links[node.id] if _is_side(name, "positive")]
        if not sides or not any(_is_side(name, "negative") for name, _ in self._links[node.id]):
            return side
        known = self.catalog.get(node.class_type)
        if known is None:
            return side  # nobody knows where its outputs for the two sides are
        kinds = known.outputs
        conditionings = [index for index, kind in enumerate(kinds) if kind == "CONDITIONING"]
        if slot not in conditionings:
            return side
        return "positive" if slot == conditionings[0] else "negative"

    def _conditionings_into(self, node: Node, side: Side) -> list[Link]:
        links = self._followed(node)
        if sided := [link for name, link in links if _is_side(name, side)]:
            return sided
        other: Side = "negative" if side == "positive" else "positive"
        named = [
            link
            for name, link in links
            if (re.match("cond", name) or self._kind(node, name) == "CONDITIONING")
            and not _is_side(name, other)
        ]
        return named or [link for name, link in links if _passes_on(name)]

    def _kind(self, node: Node, name: str) -> str | None:
        info = self.catalog.input(node.class_type, name)
        return info.kind if info else None

    def _latent_source(self, node: Node) -> Node | None:
        links = self._followed(node)
        if node.class_type.lower().startswith("vaeencode"):
            return None
        latents = [link for name, link in links if re.search("latent|samples|image_embeds", name)]
        if not latents and any(re.search("pixels|image|video", name) for name, _ in links):
            return None
        passing = latents or [link for name, link in links if _passes_on(name)]
        return self.nodes[passing[0].node_id] if passing else None

    def _written_behind(self, start: Link, consumer: Address) -> Iterator[tuple[int, Leaf]]:
        seen: set[str] = set()
        waiting: list[str] = [start.node_id]
        while waiting and len(seen) < FARTHEST:
            node_id = waiting.pop()
            if node_id in seen:
                continue
            seen.add(node_id)
            node = self.nodes[node_id]
            names = self._written_inputs(node)
            for name in names:
                if isinstance(value := node.inputs[name], str):
                    rank = _rank(node, name, value, len(names))
                    yield rank, Leaf((node_id, name), value, consumer)
            waiting.extend(link.node_id for name in reversed(names) if (link := node.link(name)))

    def _written_inputs(self, node: Node) -> list[str]:
        """The inputs of a node that writes words which go into these words."""
        if chosen := self._chosen_branch(node):
            return [chosen]
        shows_only = re.search("show|display|preview", node.class_type.lower()) is not None
        return [
            name
            for name, value in node.inputs.items()
            if (_WRITTEN.match(last_part(name)) or (_passes_on(name) and Link.read(value)))
            and not (shows_only and isinstance(value, str))
        ]


# For each setting: its names in a sampler, and the link to the node that brings it otherwise.
_SETTINGS: Mapping[Setting, tuple[tuple[str, ...], str]] = {
    "seed": (("seed", "noise_seed", "rand_seed"), "noise"),
    "steps": (("steps",), "sigmas"),
    "cfg": (("cfg", "cfg_conds"), "guider"),
    "denoise": (("denoise",), "sigmas"),
    "sampler": (("sampler_name",), "sampler"),
    "scheduler": (("scheduler",), "sigmas"),
}

_NUMBERS = (
    *("seed", "noise_seed", "rand_seed", "steps", "cfg", "cfg_conds", "denoise"),
    *("width", "height", "batch_size"),
)
_MODEL_NAMES = ("ckpt_name", "unet_name", "model_name", "gguf_name", "model")

_TEXTS = ("prompt", "text", "positive_prompt", "user_prompt", "instruction", "caption", "tags")
_NEGATIVE_TEXTS = ("negative_prompt", "negative_text")
_ENCODER_TEXTS = ("text_g", "text_l", "clip_l", "clip_g", "t5xxl", "llama", "bert", "mt5xl")

_WRITTEN = re.compile(
    r"(prompt|text|string|value|caption|instruction|question|(positive|user|system)_prompt|str)"
    r"([_ ]?([a-z]|\d+))?$",
    re.IGNORECASE,
)


def _is_sampler(node: Node) -> bool:
    if node.link("guider"):
        return any(re.search("latent|samples|noise", name) for name, _ in node.links())
    plans = ("steps", "sigmas", "sampler_name", "sampler")
    return (node.link("positive") or node.link("text_embeds")) is not None and any(
        name in node.inputs for name in plans
    )


def last_part(name: str) -> str:
    """The name of an input without the dynamic combo's that brings it: ``model.prompt``."""
    return name.rpartition(".")[2]


def _is_side(name: str, side: Side) -> bool:
    return name.lower().startswith(side)


def _passes_on(name: str) -> bool:
    """Whether an input's name says that it is handed on as it is (reroutes, switches)."""
    return re.match(r"(any|value|input|source|on_true|on_false|\*)[_ ]?\d*$|$", name) is not None


def _is_scalar(value: object) -> TypeGuard[Scalar]:
    return isinstance(value, str | int | float | bool)


def _rank(node: Node, name: str, value: str, texts: int) -> int:
    """How unlikely it is that a person would want to set this text; the least is the best."""
    if name.lower().startswith("system") or re.match(r"\s*you are\b", value, re.IGNORECASE):
        return 4
    if not value.strip():
        return 3
    if texts > 1:
        return 2
    named = node.class_type.startswith("PrimitiveString") or "prompt" in node.title.lower()
    return 0 if named else 1
