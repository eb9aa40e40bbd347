"""What nodes a server has, read from its ``/object_info`` document.

Custom nodes write odd things there. Whatever makes no sense is left out; nothing raises.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from comfyserve.workflows.graph import Graph

UploadKind = Literal["image", "video", "audio"]


@dataclass(frozen=True, slots=True)
class InputInfo:
    """One input of a node class.

    *kind* is ComfyUI's type in capitals: ``INT``, ``STRING``, ``COMBO``, ``MODEL`` .. or ``*``.
    *choices* belong to a COMBO; None where the server does not list them beforehand.
    *controlled*: the editor keeps a second value for it, what to do with it after a run.
    *link_only*: the editor shows no widget for it. *branches* are the further inputs that each
    choice of a dynamic combo brings, named ``model.size``.
    """

    name: str
    kind: str
    required: bool = True
    default: Any = None
    minimum: int | float | None = None
    maximum: int | float | None = None
    step: int | float | None = None
    choices: tuple[str | int | float, ...] | None = None
    tooltip: str = ""
    multiline: bool = False
    multiselect: bool = False
    advanced: bool = False
    upload: UploadKind | None = None
    controlled: bool = False
    link_only: bool = False
    branches: Mapping[str, tuple[InputInfo, ...]] = field(default_factory=dict)

    @property
    def is_widget(self) -> bool:
        """A value of its own can be written into it, besides a link."""
        return self.kind in ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO") or bool(self.upload)

    @property
    def has_widget(self) -> bool:
        """The editor shows a widget for it, and saves the widget's value."""
        return not self.link_only and (self.is_widget or self.kind in _MORE_WIDGETS)


_MORE_WIDGETS = frozenset(
    {
        "AUDIO_RECORD",
        "BOUNDING_BOX",
        "BOUNDING_BOXES",
        "CHART",
        "COLOR",
        "COLORS",
        "COMFY_DYNAMICCOMBO_V3",
        "COMPOSITOR",
        "CURVE",
        "GALLERIA",
        "IMAGECROP",
        "LOAD_3D",
        "LOAD_3D_ANIMATION",
        "MARKDOWN",
        "PAINTER",
        "RANGE",
        "TEXTAREA",
        "WEBCAM",
    }
)


@dataclass(frozen=True, slots=True)
class NodeClass:
    """One kind of node; *is_paid* ones spend someone's credits, *module* says who brings it."""

    name: str
    inputs: Mapping[str, InputInfo]
    outputs: tuple[str, ...] = ()
    title: str = ""
    module: str = ""
    is_output: bool = False
    is_paid: bool = False


@dataclass(frozen=True, slots=True)
class NodeCatalog:
    """The node classes of one server by name.

    >>> object_info = {"Dice": {"input": {"required": {"n": ["INT", {"max": 9}]}}}}
    >>> NodeCatalog.from_json(object_info).input("Dice", "n").maximum
    9
    """

    classes: Mapping[str, NodeClass] = field(default_factory=dict)

    @classmethod
    def from_json(cls, object_info: Mapping[str, Any]) -> NodeCatalog:
        """Read the answer of ``GET /object_info``."""
        return cls(
            {
                name: _node_class(name, entry)
                for name, entry in _mapping(object_info).items()
                if isinstance(name, str) and isinstance(entry, Mapping)
            }
        )

    def __contains__(self, class_type: object) -> bool:
        return class_type in self.classes

    def get(self, class_type: str) -> NodeClass | None:
        """The node class of this name, if the server has it."""
        return self.classes.get(class_type)

    def input(self, class_type: str, name: str) -> InputInfo | None:
        """What is known of one input of a node class, if anything."""
        node_class = self.classes.get(class_type)
        return node_class.inputs.get(name) if node_class else None

    def missing_classes(self, graph: Graph) -> dict[str, tuple[str, ...]]:
        """The classes *graph* needs and the server lacks, each with the ids of its nodes."""
        missing: dict[str, list[str]] = {}
        for node_id, entry in graph.items():
            if entry["class_type"] not in self.classes:
                missing.setdefault(entry["class_type"], []).append(node_id)
        return {class_type: tuple(ids) for class_type, ids in missing.items()}


def _node_class(name: str, entry: Mapping[Any, Any]) -> NodeClass:
    return NodeClass(
        name=name,
        inputs={info.name: info for info in _inputs(_mapping(entry.get("input")))},
        outputs=tuple(_kind(kind) for kind in _list(entry.get("output"))),
        title=_text(entry.get("display_name")),
        module=_text(entry.get("python_module")),
        is_output=entry.get("output_node") is True,
        is_paid=entry.get("api_node") is True,
    )


_MAX_BRANCHING = 8


def _inputs(sections: Mapping[Any, Any], prefix: str = "", depth: int = 0) -> Iterator[InputInfo]:
    required = _mapping(sections.get("required"))
    for section in ("required", "optional"):
        for name, spec in _mapping(sections.get(section)).items():
            if isinstance(name, str) and (section == "required" or name not in required):
                info = _input(prefix + name, spec, required=section == "required")
                yield _branched(info, spec, depth) if depth < _MAX_BRANCHING else info


def _branched(info: InputInfo, spec: object, depth: int) -> InputInfo:
    if info.kind != "COMFY_DYNAMICCOMBO_V3" or len(parts := _list(spec)) < 2:
        return info
    options = [_mapping(option) for option in _list(_mapping(parts[1]).get("options"))]
    branches = {
        option["key"]: tuple(_inputs(_mapping(option.get("inputs")), f"{info.name}.", depth + 1))
        for option in options
        if isinstance(option.get("key"), str)
    }
    return replace(info, branches=branches, choices=tuple(branches))


def _input(name: str, spec: object, *, required: bool) -> InputInfo:
    parts = _list(spec)
    kind = parts[0] if parts else None
    options = _mapping(parts[1]) if len(parts) > 1 else {}
    return InputInfo(
        name=name,
        kind="COMBO" if isinstance(kind, list | tuple) else _kind(kind),
        required=required,
        default=options.get("default"),
        minimum=_number(options.get("min")),
        maximum=_number(options.get("max")),
        step=_number(options.get("step")),
        choices=_choices(kind, options),
        tooltip=_text(options.get("tooltip")),
        multiline=options.get("multiline") is True,
        # Old style lists put an object where v3 has a plain flag.
        multiselect=bool(options.get("multiselect") or options.get("multi_select")),
        advanced=options.get("advanced") is True,
        upload=_upload(options),
        controlled=_is_controlled(name, kind, options),
        link_only=options.get("forceInput") is True,
    )


def _is_controlled(name: str, kind: object, options: Mapping[Any, Any]) -> bool:
    flag = options.get("control_after_generate")
    if flag is None:
        return kind == "INT" and name in ("seed", "noise_seed")
    return bool(flag) and (kind in ("INT", "COMBO") or isinstance(kind, list | tuple))


def _kind(kind: object) -> str:
    if isinstance(kind, list | tuple):
        return "COMBO"
    return kind if isinstance(kind, str) and kind else "*"


def _choices(kind: object, options: Mapping[Any, Any]) -> tuple[str | int | float, ...] | None:
    if isinstance(kind, list | tuple):
        listed: object = kind
    elif kind == "COMBO" and "remote" not in options:
        listed = options.get("options")
    else:
        return None
    if not isinstance(listed, list | tuple):
        return None
    return tuple(choice for choice in listed if isinstance(choice, str | int | float))


def _upload(options: Mapping[Any, Any]) -> UploadKind | None:
    # A list of what the server made itself is no place to upload to.
    if options.get("image_folder", "input") != "input":
        return None
    kinds: tuple[UploadKind, ...] = ("image", "video", "audio")
    return next((kind for kind in kinds if options.get(f"{kind}_upload") is True), None)


def _number(value: object) -> int | float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if isinstance(value, int) or math.isfinite(value) else None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _mapping(value: object) -> Mapping[Any, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: object) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []
