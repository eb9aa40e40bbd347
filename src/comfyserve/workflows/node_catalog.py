"""What nodes a server has, read from its ``/object_info`` document.

Custom nodes write odd things there. Whatever makes no sense is left out; nothing raises.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from comfyserve.workflows.graph import Graph

UploadKind = Literal["image", "video", "audio"]


@dataclass(frozen=True, slots=True)
class InputInfo:
    """One input of a node class.

    *kind* is ComfyUI's type in capitals: ``INT``, ``STRING``, ``COMBO``, ``MODEL`` .. or ``*``.
    *choices* belong to a COMBO; None where the server does not list them beforehand.
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

    @property
    def is_widget(self) -> bool:
        """A value of its own can be written into it, besides a link."""
        return self.kind in ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO") or bool(self.upload)


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


def _inputs(sections: Mapping[Any, Any]) -> Iterator[InputInfo]:
    for section in ("optional", "required"):
        for name, spec in _mapping(sections.get(section)).items():
            if isinstance(name, str):
                yield _input(name, spec, required=section == "required")


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
    )


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
