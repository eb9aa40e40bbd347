"""Inputs marked by nodes that exist for nothing else: those of ComfyUI-Deploy and comfy-pack."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice

from comfyserve.workflows.graph import Address, Node
from comfyserve.workflows.mark import MOST_MARKS, Mark, Reading, Subject


def read_deploy_nodes(subject: Subject) -> Reading:
    """What the nodes ``ComfyUIDeployExternal*`` say; one id on several nodes is one input."""
    marks: dict[str, Mark] = {}
    targets: dict[str, dict[Address, None]] = {}
    warnings: list[str] = []
    for node in subject.nodes.values():
        name = node.inputs.get("input_id")
        if not node.class_type.startswith(_DEPLOY) or not isinstance(name, str) or not name:
            continue
        mark = _deploy_mark(subject, node, name)
        if mark is None:
            warnings.append(f"{_sentence(node)} marks an input, but holds no value to set.")
        elif name in marks or len(marks) < MOST_MARKS:
            marks.setdefault(name, mark)
            targets.setdefault(name, {}).update(dict.fromkeys(mark.targets))
    merged = (replace(mark, targets=tuple(targets[name])) for name, mark in marks.items())
    outputs = _outputs(subject, r"ComfyDeploy(Std)?Output|ComfyDeployWebscoketImageOutput")
    return Reading("comfyui_deploy", tuple(merged), outputs, warnings=tuple(warnings))


def read_pack_nodes(subject: Subject) -> Reading:
    """What the nodes ``CPackInput*`` and ``CPackOutput*`` say."""
    used = {
        link.node_id: name
        for node in reversed(list(subject.nodes.values()))
        for name, link in node.links()
    }
    found = (node for node in subject.nodes.values() if node.class_type.startswith(_PACK))
    marks = [mark for node in found if (mark := _pack_mark(node, used))]
    return Reading("comfy_pack", tuple(marks[:MOST_MARKS]), _outputs(subject, "CPackOutput"))


_DEPLOY = "ComfyUIDeployExternal"
_PACK = "CPackInput"

_DEPLOY_KINDS: Mapping[str, str] = {
    "Text": "text",
    "TextAny": "text",
    "TextSingleLine": "text",
    "Number": "number",
    "NumberSlider": "number",
    "NumberInt": "integer",
    "NumberSliderInt": "integer",
    "Seed": "seed",
    "Boolean": "flag",
    "Enum": "choice",
}
_PACK_KINDS: Mapping[str, str] = {
    "String": "text",
    "Int": "integer",
    "Image": "image",
    "File": "file",
}


def _deploy_mark(subject: Subject, node: Node, name: str) -> Mark | None:
    target = _deploy_target(subject, node)
    if target is None:
        return None
    suffix = node.class_type.removeprefix(_DEPLOY)
    least, most = _limits(node, "min_value", "max_value", node.inputs.get("default_value"))
    return Mark(
        (target,),
        f"marked by {node}",
        name=name,
        label=_words(node, "display_name"),
        description=_words(node, "description"),
        likely=_DEPLOY_KINDS.get(suffix, ""),
        minimum=least,
        maximum=most,
        choices=_options(node.inputs.get("options")) if suffix == "Enum" else None,
    )


def _deploy_target(subject: Subject, node: Node) -> Address | None:
    if "default_value" in node.inputs:
        # A picture comes in by a link: then it is the file its loader opens.
        return subject.behind((node.id, "default_value")) or _web_address(subject, node)
    named = (name for name, _ in node.literals() if re.match(r"default_\w+", name))
    name = next((name for name in named if name != "default_value_url"), None)
    return (node.id, name) if name else _web_address(subject, node)


def _web_address(subject: Subject, node: Node) -> Address | None:
    """Where such a node takes a file's web address."""
    names = ("default_value_url", "lora_url", "input_id")
    return next(((node.id, name) for name in names if subject.settable((node.id, name))), None)


def _pack_mark(node: Node, used: Mapping[str, str]) -> Mark | None:
    literals = dict(node.literals())
    names = ("value", "image", "file_path", "file", "path", "text", "any", "input")
    field = next((name for name in names if name in literals), None)
    if field is None and len(literals) == 1:
        field = next(iter(literals))
    if field is None:
        return None
    suffix = node.class_type.removeprefix(_PACK)
    title = node.title.strip()
    least, most = _limits(node, "min", "max", literals[field])
    return Mark(
        ((node.id, field),),
        f"marked by {node}",
        name=title if title.isidentifier() else used.get(node.id, ""),
        fallback=suffix.lower() or "input",
        label="" if title.isidentifier() else title,
        likely=_PACK_KINDS.get(suffix, ""),
        minimum=least,
        maximum=most,
    )


def _limits(
    node: Node, low: str, high: str, value: object
) -> tuple[int | float | None, int | float | None]:
    """The limits a node was given, unless its own value does not keep them."""
    least, most = _number(node.inputs.get(low)), _number(node.inputs.get(high))
    held = _number(value)
    if least is not None and most is not None and least >= most:
        return None, None
    if held is not None and held != -1:
        least = None if least is not None and held < least else least
        most = None if most is not None and held > most else most
    return least, most


def _number(value: object) -> int | float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if abs(value) < 2**64 else None


def _words(node: Node, name: str) -> str:
    value = node.inputs.get(name)
    return value.strip() if isinstance(value, str) else ""


def _options(value: object) -> tuple[str | int | float, ...] | None:
    """The choices of an Enum: a JSON list, or one a line, or with commas between them."""
    if isinstance(value, str) and len(value) > _LONGEST_OPTIONS:
        return None
    try:
        listed: object = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        listed = None
    if not isinstance(listed, list):
        listed = re.split(r"[\n,]", value) if isinstance(value, str) else []
    options = (word.strip() if isinstance(word, str) else word for word in listed)
    kept = [word for word in options if isinstance(word, str | int | float) and word != ""]
    return tuple(dict.fromkeys(kept)) or None


_LONGEST_OPTIONS = 1_000_000
"""Letters of a list of choices."""


def _outputs(subject: Subject, pattern: str) -> tuple[str, ...]:
    return tuple(islice(_output_ids(subject, pattern), MOST_MARKS))


def _output_ids(subject: Subject, pattern: str) -> Iterator[str]:
    for node in subject.nodes.values():
        if re.match(pattern, node.class_type) and subject.gives_output(node.id):
            yield node.id


def _sentence(node: Node) -> str:
    return f"N{str(node)[1:]}"
