"""The values that a node's widgets have in a file of the editor, by the names the server uses.

The editor saves values in the order of its widgets, so their names come from the server's node
catalogue; without one, from what the file itself says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from comfyserve.workflows.node_catalog import InputInfo, NodeClass
from comfyserve.workflows.ui_graph import Slot, UiNode

CONTROLS = frozenset({"fixed", "increment", "decrement", "randomize", "increment-wrap"})
"""What the editor may do with a value after each run; no input of the node."""

_EDITOR_ONLY = frozenset({"control_after_generate", "control_filter_list", "upload", "audioUI"})


@dataclass(frozen=True, slots=True)
class Widgets:
    """*values* by name in the order of the widgets; not *certain* when names had to be guessed."""

    values: Mapping[str, Any]
    certain: bool = True


def read_widgets(node: UiNode, node_class: NodeClass | None) -> Widgets:
    """What the widgets of *node* hold; defaults of *node_class* for what the file leaves out."""
    if node_class is not None:
        return Widgets(_by_class(node, node_class))
    if isinstance(node.values, Mapping):
        return Widgets(_without_editor_only(node.values))
    if node.named:
        return Widgets(_without_editor_only(node.named))
    return _by_slots(node.values, [slot.widget for slot in node.inputs if slot.widget])


def widget_of(slot: Slot, node_class: NodeClass | None) -> str:
    """The name of the widget that an input slot stands for, or nothing."""
    if node_class is None:
        return slot.widget
    name = slot.widget or slot.name
    if info := node_class.inputs.get(name):
        return name if info.has_widget else ""
    base = node_class.inputs.get(name.partition(".")[0])
    return slot.widget if base is not None and base.branches else ""


def as_input(value: Any, kind: str = "") -> Any:
    """*value* as a graph holds it: a bare list would be read as a link."""
    if kind == "CURVE" and value is not None and not isinstance(value, Mapping):
        return {"__type__": "CURVE", "__value__": value}
    return {"__value__": list(value)} if isinstance(value, list | tuple) else value


def _by_class(node: UiNode, node_class: NodeClass) -> dict[str, Any]:
    infos = node_class.inputs.values()
    if isinstance(node.values, Mapping):
        return _by_name(node.values, infos)
    taking = _Taking(_without_former(node.values, infos))
    taking.take_all(info for info in infos if info.required)
    for info in infos:
        if info.upload:
            taking.skip()  # the upload button has a value too, and stands after required widgets
    taking.take_all(info for info in infos if not info.required)
    return taking.named


def _without_former(values: tuple[Any, ...], infos: Iterable[InputInfo]) -> tuple[Any, ...]:
    """*values* less those of inputs that had a widget when the file was saved, and now have none.

    A file tells of such only by how many values it has.
    """
    former: list[bool] = []
    for info in infos:
        if info.has_widget or info.link_only:
            former += [info.link_only] + [False] * info.controlled
    if len(former) != len(values):
        return values
    return tuple(value for value, is_former in zip(values, former, strict=True) if not is_former)


def _by_name(values: Mapping[str, Any], infos: Iterable[InputInfo]) -> dict[str, Any]:
    named: dict[str, Any] = {}
    for info in infos:
        if not info.has_widget:
            continue
        value = values[info.name] if info.name in values else _default(info)
        if value is not None or info.name in values:
            named[info.name] = value
        named.update(_by_name(values, _branch(info, value)))
    # Nodes that save by name often have widgets which depend on another widget's value.
    more = _without_editor_only(values)
    named.update({name: more[name] for name in more if name not in named and _plain(more[name])})
    return named


def _plain(value: object) -> bool:
    return isinstance(value, bool | int | float | str)


def _without_editor_only(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in values.items()
        if name not in _EDITOR_ONLY and "to upload" not in name
    }


@dataclass(slots=True)
class _Taking:
    """Hands saved values out one by one."""

    values: tuple[Any, ...]
    at: int = 0
    named: dict[str, Any] = field(default_factory=dict)

    def take_all(self, infos: Iterable[InputInfo]) -> None:
        for info in infos:
            if info.has_widget:
                self._take(info)

    def skip(self) -> None:
        self.at += 1

    def _take(self, info: InputInfo) -> None:
        saved = self.at < len(self.values)
        value = self.values[self.at] if saved else _default(info)
        if value is None and info.kind == "COMBO":
            value = _default(info)
        self.at += 1
        if saved or value is not None:
            self.named[info.name] = value
        self.take_all(_branch(info, value))
        if info.controlled and is_control(self._next()):
            self.skip()
            if info.kind == "COMBO":
                self.skip()  # what the editor filters the choices by

    def _next(self) -> Any:
        return self.values[self.at] if self.at < len(self.values) else None


def is_control(value: object) -> bool:
    """*value* says what the editor does with the value before it after each run."""
    return isinstance(value, str) and value in CONTROLS


def _branch(info: InputInfo, value: object) -> tuple[InputInfo, ...]:
    return info.branches.get(value, ()) if isinstance(value, str) else ()


def _default(info: InputInfo) -> Any:
    if info.default is not None:
        return info.default
    if info.choices:
        return info.choices[0]
    return _DEFAULTS.get(info.kind)


_DEFAULTS: Mapping[str, Any] = {"INT": 0, "FLOAT": 0, "STRING": "", "BOOLEAN": False}


def _by_slots(values: tuple[Any, ...], names: list[str]) -> Widgets:
    named: dict[str, Any] = {}
    at = 0
    for name in names:
        if at >= len(values):
            break
        named[name] = values[at]
        at += 1
        follows = values[at] if at < len(values) else None
        if _is_number(named[name]) and is_control(follows):
            at += 1
    rest = [value for value in values[at:] if value not in (None, "", "image")]
    return Widgets(named, certain=not rest and len(named) == len(names))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
