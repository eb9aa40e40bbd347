"""Where an input of a node really gets its value from, past everything that only the editor knows.

Reroutes, Get and Set nodes, bypassed nodes and the borders of subgraphs are passed through; what
is left is an output of a node that runs, a constant, or nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from comfyserve.errors import GraphInvalid
from comfyserve.workflows.graph import shown
from comfyserve.workflows.ui_graph import BYPASSED, INPUT_NODE, MUTED, Slot, UiLink, UiNode
from comfyserve.workflows.ui_subgraphs import (
    SETTERS,
    Constant,
    Scope,
    Unfolded,
    kept_name,
    slots_of,
)

PRIMITIVE = "PrimitiveNode"
_GETTERS = ("GetNode", "easy getNode")
_PASSING = ("Reroute", "Reroute (rgthree)", *SETTERS)
_DECORATION = (
    "Note",
    "MarkdownNote",
    "Note Plus (mtb)",
    "Label (rgthree)",
    "Bookmark (rgthree)",
    "Fast Groups Muter (rgthree)",
    "Fast Groups Bypasser (rgthree)",
    "Fast Muter (rgthree)",
    "Fast Bypasser (rgthree)",
    "Fast Actions Button (rgthree)",
    "Mute / Bypass Repeater (rgthree)",
    "Mute / Bypass Relay (rgthree)",
    "Node Collector (rgthree)",
    "Random Unmuter (rgthree)",
)
_MOST_COMPARED = 500_000
_VIRTUAL = frozenset({PRIMITIVE, *_GETTERS, *_PASSING, *_DECORATION})


@dataclass(frozen=True, slots=True)
class Source:
    """Output number *slot* of a node that runs."""

    scope: Scope
    node: UiNode
    slot: int


Origin = Source | Constant | None


@dataclass(frozen=True, slots=True)
class _Input:
    """The question what stands behind an input; *kind* is the type that is asked for."""

    scope: Scope
    node: UiNode
    slot: int
    kind: str


@dataclass(frozen=True, slots=True)
class _Output:
    """The question what really comes out of an output."""

    scope: Scope
    node: UiNode
    slot: int
    kind: str


_Step = _Input | _Output


@dataclass(slots=True)
class Links:
    """Follows the links of one document. *complain* hears of links that lead nowhere."""

    unfolded: Unfolded
    complain: Callable[[str, str], None]
    _known: dict[tuple[int, str, int, str, bool], Origin] = field(default_factory=dict)
    _slots: dict[tuple[int, str], tuple[Slot, ...]] = field(default_factory=dict)
    _compared: int = 0

    def is_virtual(self, node: UiNode) -> bool:
        """The node lives in the editor only; no server ever sees it."""
        return node.type in _VIRTUAL and self.unfolded.class_of(node) is None

    def origin(self, scope: Scope, node: UiNode, slot: int) -> Origin:
        """What feeds input number *slot*, counted as in `slots`.

        Raises `GraphInvalid` where links lead in a circle.
        """
        step: _Step | Origin = _Input(scope, node, slot, self.slots(scope, node)[slot].kind)
        passed: dict[tuple[int, str, int, str, bool], None] = {}
        while isinstance(step, _Input | _Output):
            key = (id(step.scope), step.node.id, step.slot, step.kind, isinstance(step, _Input))
            if key in passed:
                problem = f"{self.unfolded.document.source} cannot run: the links of {node} "
                raise GraphInvalid(f"{problem}lead in a circle", scope.id_of(node))
            if key in self._known:
                step = self._known[key]
                break
            passed[key] = None
            step = self._behind(step) if isinstance(step, _Input) else self._out_of(step)
        self._known.update(dict.fromkeys(passed, step))
        return step

    def slots(self, scope: Scope, node: UiNode) -> tuple[Slot, ...]:
        """The inputs of a node in the editor's order: links first, then widgets."""
        key = (id(scope), node.id)
        if key not in self._slots:
            self._slots[key] = self._merged_slots(node)
        return self._slots[key]

    def _merged_slots(self, node: UiNode) -> tuple[Slot, ...]:
        if (definition := self.unfolded.definition(node)) is not None:
            return slots_of(node, definition)
        if (node_class := self.unfolded.class_of(node)) is None:
            return node.inputs
        saved = {slot.name: slot for slot in node.inputs}
        infos = sorted(node_class.inputs.values(), key=lambda info: info.has_widget)
        merged = {
            info.name: Slot(
                info.name,
                info.kind,
                saved[info.name].link if info.name in saved else None,
                info.name if info.has_widget else "",
            )
            for info in infos
        }
        return (*merged.values(), *(slot for slot in node.inputs if slot.name not in merged))

    def _behind(self, at: _Input) -> _Step | Origin:
        slot = self.slots(at.scope, at.node)[at.slot]
        if slot.link is None:
            return None
        link = at.scope.graph.links.get(slot.link)
        if link is None:
            self._lost(at, slot, f"link {shown(slot.link)[1:-1]}")
            return None
        return self._from(at, link, slot)

    def _from(self, at: _Input, link: UiLink, slot: Slot) -> _Step | Origin:
        if link.origin_id == INPUT_NODE and at.scope.parent is not None:
            return self._from_outside(at.scope, link.origin_slot, at.kind)
        origin = at.scope.graph.nodes.get(link.origin_id)
        if origin is None:
            self._lost(at, slot, f"node {shown(link.origin_id)[1:-1]}")
            return None
        return _Output(at.scope, origin, link.origin_slot, at.kind)

    def _from_outside(self, scope: Scope, port: int, kind: str) -> _Step | Origin:
        host, parent = scope.host, scope.parent
        if host is None or parent is None or port >= len(scope.graph.inputs) or port < 0:
            return None
        if self.slots(parent, host)[port].link is None:
            return self.unfolded.port_value(scope, port)
        return _Input(parent, host, port, kind)

    def _lost(self, at: _Input, slot: Slot, missing: str) -> None:
        problem = f"{shown(slot.name)[1:-1]} of {at.node} is linked to {missing}, "
        self.complain(f"{problem}which is not in the file", at.scope.id_of(at.node))

    def _out_of(self, at: _Output) -> _Step | Origin:
        node, virtual = at.node, self.is_virtual(at.node)
        if virtual and node.type == PRIMITIVE:
            return self._primitive(at.scope, node)
        if node.mode == MUTED:
            return None
        if node.mode == BYPASSED:
            return self._past(at)
        if (definition := self.unfolded.definition(node)) is not None:
            inside = at.scope.inner.get(node.id)
            link = self.unfolded.wiring(definition).to_port.get(at.slot)
            return self._inside(inside, link, at.kind) if inside and link else None
        if not virtual:
            return Source(at.scope, node, at.slot)
        if node.type in _GETTERS:
            return self._kept(at)
        passes = node.type in _PASSING and bool(node.inputs)
        return self._through(at.scope, node, at.kind) if passes else None

    def _inside(self, scope: Scope, link: UiLink, kind: str) -> _Step | Origin:
        if link.origin_id == INPUT_NODE:  # an input that goes straight to an output
            return self._from_outside(scope, link.origin_slot, kind)
        origin = scope.graph.nodes.get(link.origin_id)
        return _Output(scope, origin, link.origin_slot, kind) if origin else None

    def _primitive(self, scope: Scope, node: UiNode) -> Constant | None:
        if isinstance(node.values, tuple):
            saved = node.values[:1]
        else:
            saved = tuple(node.values.values())[:1]
        holder = (scope.id_of(node), "value")
        held = scope.overrides.get((node.id, "value"))
        if held is not None:
            return Constant(held, holder)
        return Constant(saved[0], holder) if saved else None

    def _kept(self, at: _Output) -> _Step | Origin:
        name = kept_name(at.node)
        for scope in at.scope.around():
            setter = self.unfolded.wiring(scope.graph).setters.get(name)
            if setter is not None and setter.inputs:
                return self._through(scope, setter, at.kind)
        problem = f"{at.node} gets {shown(name)}, which no Set node keeps"
        self.complain(problem, at.scope.id_of(at.node))
        return None

    def _through(self, scope: Scope, node: UiNode, kind: str) -> _Step | None:
        # The editor writes a primitive's value only into what is linked to it directly.
        link = scope.graph.links.get(node.inputs[0].link or "")
        origin = scope.graph.nodes.get(link.origin_id) if link else None
        if origin is not None and origin.type == PRIMITIVE and self.is_virtual(origin):
            return None
        return _Input(scope, node, 0, kind)

    def _past(self, at: _Output) -> _Step | Origin:
        slots = self.slots(at.scope, at.node)
        self._compared += len(slots)
        if self._compared > _MOST_COMPARED:
            problem = f"{self.unfolded.document.source}: too many links lead past {at.node}"
            raise GraphInvalid(problem, at.scope.id_of(at.node))
        number = _bypass(slots, at.slot, self._output_kind(at.node, at.slot), at.kind)
        if number is None:
            return None
        return _Input(at.scope, at.node, number, slots[number].kind)

    def _output_kind(self, node: UiNode, slot: int) -> str:
        definition = self.unfolded.definition(node)
        saved = definition.outputs if definition else node.outputs
        if 0 <= slot < len(saved):
            return saved[slot].kind
        node_class = self.unfolded.class_of(node)
        kinds = node_class.outputs if node_class else ()
        return kinds[slot] if 0 <= slot < len(kinds) else "*"


def _bypass(slots: tuple[Slot, ...], output: int, produced: str, wanted: str) -> int | None:
    """Which input stands for an output of a node that is passed by."""
    if not slots:
        return None
    if wanted == "*":
        return output if 0 <= output < len(slots) else 0

    def fits(slot: Slot) -> bool:
        return _connects(slot.kind, produced) and _connects(slot.kind, wanted)

    if 0 <= output < len(slots) and fits(slots[output]):
        return output
    exact = next((at for at, slot in enumerate(slots) if slot.kind == wanted), None)
    if exact is not None:
        return exact
    return next((at for at, slot in enumerate(slots) if fits(slot)), None)


def _connects(one: str, other: str) -> bool:
    if "*" in (one, other) or one.lower() == other.lower():
        return True
    return bool(set(one.lower().split(",")) & set(other.lower().split(",")))
