"""From a place in a graph to the parameter that fills it: its type, limits, choices and help."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypedDict

from comfyserve.workflows.graph import Address, Node
from comfyserve.workflows.node_catalog import InputInfo, NodeCatalog
from comfyserve.workflows.parameters import (
    LARGEST_SEED,
    Anything,
    Audio,
    Choice,
    Flag,
    Image,
    Integer,
    Mask,
    Number,
    Parameter,
    Seed,
    Text,
    Video,
)
from comfyserve.workflows.walk import Leaf, Scalar


@dataclass(frozen=True, slots=True)
class Found:
    """Places in a graph that one parameter should fill, and what to call it."""

    name: str
    leaves: tuple[Leaf, ...]
    why: str
    advanced: bool = False
    mask_of: Address | None = None

    @property
    def value(self) -> Scalar:
        """What the places hold; the first text that says something."""
        return next((leaf.value for leaf in self.leaves if leaf.value), self.leaves[0].value)

    def only(self, leaves: tuple[Leaf, ...]) -> Found:
        """The same with other places."""
        return replace(self, leaves=leaves)

    def also(self, leaves: tuple[Leaf, ...]) -> Found:
        """The same with more places."""
        return replace(self, leaves=(*self.leaves, *leaves))

    def named(self, name: str, *, advanced: bool) -> Found:
        """The same under its public name."""
        return replace(self, name=name, advanced=advanced)


def declared(find: Found, nodes: Mapping[str, Node], catalog: NodeCatalog | None) -> Parameter:
    """The parameter for what was found, with what the catalogue says of its nodes."""
    places = dict.fromkeys(place for leaf in find.leaves for place in (leaf.consumer, leaf.address))
    infos = _infos(places, nodes, catalog)
    targets = tuple(dict.fromkeys(leaf.address for leaf in find.leaves))
    common = _Common(
        name=find.name,
        targets=targets,
        description=next((info.tooltip for info in infos if info.tooltip), ""),
        advanced=find.advanced,
        why=find.why + _fan_out(len(targets)),
    )
    kind = find.name.rstrip("0123456789").removesuffix("_")
    if kind == "mask":
        default = None if find.mask_of else find.value
        return Mask(**common, default=default, mask_of=find.mask_of)
    return _typed(_KINDS[kind], common, find.value, infos)


def declared_at(
    address: Address, value: object, node: Node, catalog: NodeCatalog | None
) -> Parameter:
    """The parameter for one literal input of one node, named by its address."""
    node_id, name = address
    infos = _infos([address], {node_id: node}, catalog)
    common = _Common(
        name=f"{node_id}.{name}",
        targets=(address,),
        description=infos[0].tooltip if infos else "",
        advanced=True,
        why=f"{name} of {node}, by its address",
    )
    kind = _kind_of_info(infos[0]) if infos else _kind_of_value(value)
    if name in ("seed", "noise_seed", "rand_seed") and kind in (Integer, Number):
        kind = Seed
    return _typed(kind, common, value, infos)


class _Common(TypedDict):
    name: str
    targets: tuple[Address, ...]
    description: str
    advanced: bool
    why: str


_KINDS: Mapping[str, type[Parameter]] = {
    "prompt": Text,
    "negative_prompt": Text,
    "image": Image,
    "video": Video,
    "audio": Audio,
    "seed": Seed,
    "steps": Integer,
    "cfg": Number,
    "denoise": Number,
    "width": Integer,
    "height": Integer,
    "batch_size": Integer,
    "sampler": Choice,
    "scheduler": Choice,
    "model": Choice,
}


def _infos(
    places: Iterable[Address], nodes: Mapping[str, Node], catalog: NodeCatalog | None
) -> list[InputInfo]:
    known = catalog or NodeCatalog()
    found = (known.input(nodes[node_id].class_type, name) for node_id, name in places)
    return [info for info in found if info]


def _fan_out(count: int) -> str:
    return f"; fills {count} places" if count > 1 else ""


def _kind_of_info(info: InputInfo) -> type[Parameter]:
    if info.upload:
        return {"image": Image, "video": Video, "audio": Audio}[info.upload]
    if info.multiselect:
        return Anything
    kinds: dict[str, type[Parameter]] = {"INT": Integer, "FLOAT": Number, "STRING": Text}
    return (kinds | {"BOOLEAN": Flag, "COMBO": Choice}).get(info.kind, Anything)


def _kind_of_value(value: object) -> type[Parameter]:
    match value:
        case bool():
            return Flag
        case int() | float():
            # In JSON a FLOAT of 8.0 may well stand as 8.
            return Number
        case str():
            return Text
        case _:
            return Anything


def _typed(
    kind: type[Parameter], common: _Common, value: object, infos: list[InputInfo]
) -> Parameter:
    least = max((info.minimum for info in infos if info.minimum is not None), default=None)
    most = min((info.maximum for info in infos if info.maximum is not None), default=None)
    step = next((info.step for info in infos if info.step is not None), None)
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else None
    if kind is Seed:
        least, most = least or 0, LARGEST_SEED if most is None else most
        return Seed(**common, default=number, minimum=least, maximum=most)
    if kind is Integer:
        return Integer(**common, default=number, minimum=least, maximum=most, step=step)
    if kind is Number:
        return Number(**common, default=number, minimum=least, maximum=most, step=step)
    if kind is Choice:
        return Choice(**common, default=value, choices=_common_choices(infos))
    if kind is Text:
        return Text(**common, default=value, multiline=any(info.multiline for info in infos))
    return kind(**common, default=value)


def _common_choices(infos: list[InputInfo]) -> tuple[str | int | float, ...] | None:
    """What every place takes, in the order of the first."""
    lists = [info.choices for info in infos if info.choices is not None]
    if not lists:
        return None
    others = [set(choices) for choices in lists[1:]]
    return tuple(choice for choice in lists[0] if all(choice in other for other in others))
