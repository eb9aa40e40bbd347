"""A sidecar written for a workflow as it is, with comments, to be edited by its author."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator

from comfyserve.workflows.declaration import declared_at
from comfyserve.workflows.graph import nodes_of
from comfyserve.workflows.mark import written
from comfyserve.workflows.parameters import Choice, Number, Parameter, Seed
from comfyserve.workflows.workflow import Workflow


def sidecar_text(workflow: Workflow, *, title: str = "", description: str = "") -> str:
    """A sidecar in TOML that lists every input of *workflow*.

    Read beside the same workflow, it makes the same inputs. *title* and *description* are what
    the author says already, if anything.
    """
    lines = [*_head(workflow, title, description)]
    for parameter in workflow.parameters:
        lines.extend(("", *_input(workflow, parameter)))
    return "\n".join(lines) + "\n"


def _head(workflow: Workflow, title: str, description: str) -> Iterator[str]:
    yield f"# How the workflow {_comment(workflow.name)} is offered. Keep this file beside it,"
    yield "# with the same name. What you leave out stays as the workflow and the server have it."
    yield ""
    name = workflow.name.replace("_", " ").strip()
    yield _said("title", title) or _hint("title", name[:1].upper() + name[1:])
    yield _said("description", description) or _hint("description", "What it makes.")
    yield "# public = false  # true: pages may show it to everybody"
    yield '# open = false    # true: callers may set any input by its address, like "3.cfg"'
    yield "# timeout = 600   # seconds that one run may take"
    outputs = [_value(node_id) for node_id in workflow.outputs]
    if outputs and all(outputs):
        yield f"outputs = [{', '.join(filter(None, outputs))}]  # nodes whose results people get"
    if workflow.parameters:
        yield ""
        yield "# Callers can set these inputs and no others by name: remove what they should not"
        yield "# see, and rename what they should see under another name."


def _input(workflow: Workflow, parameter: Parameter) -> Iterator[str]:
    if parameter.why:
        yield f"# {_comment(parameter.why)}"
    is_bare = re.fullmatch(r"[A-Za-z0-9_-]+", parameter.name)
    yield f"[inputs.{parameter.name if is_bare else json.dumps(parameter.name)}]"
    targets = [_value(written(target)) for target in parameter.targets]
    if all(targets):
        yield f"targets = [{', '.join(filter(None, targets))}]"
    yield f'type = "{parameter.kind}"'
    shown = parameter.name.replace("_", " ").capitalize()
    yield _said("label", parameter.label) or _hint("label", shown)
    if line := _said("description", parameter.description):
        yield line
    yield from _default(workflow, parameter)
    if isinstance(parameter, Number):
        yield from _limits(parameter)
    if isinstance(parameter, Choice) and parameter.choices:
        yield from _choices(workflow, parameter, parameter.choices)
    yield "advanced = true" if parameter.advanced else "# advanced = true  # folds it away"


def _default(workflow: Workflow, parameter: Parameter) -> Iterator[str]:
    if isinstance(parameter, Seed):
        yield "# A fresh seed is drawn for each run that is given none."
    elif parameter.default is not None:
        # Written down, a default would go into every place, whatever it holds now.
        held = [workflow.graph[node_id]["inputs"].get(name) for node_id, name in parameter.targets]
        is_held = all(value == parameter.default for value in held)
        line = _said("default", parameter.default) if is_held and _fits(parameter) else ""
        yield line or "# default: as the workflow has it"


def _fits(parameter: Parameter) -> bool:
    if isinstance(parameter, Choice):
        return not isinstance(parameter.default, bool)
    try:
        parameter.check(parameter.default)
    except ValueError:
        return False
    return True


def _limits(parameter: Number) -> Iterator[str]:
    for key, value in (("min", parameter.minimum), ("max", parameter.maximum)):
        if value is not None:
            yield _said(key, value) or f"# {key}: as the server has it"


def _choices(
    workflow: Workflow, parameter: Choice, choices: tuple[str | int | float, ...]
) -> Iterator[str]:
    values = [_value(choice) for choice in choices]
    listed = ", ".join(filter(None, values))
    if not _has_own_choices(workflow, parameter):
        # The server may get more of them: only a hint.
        yield (
            f"# choices = [{listed}]"
            if len(choices) <= 12 and all(values)
            else (f"# choices: the {len(choices)} that the server has")
        )
    elif all(values):
        yield f"choices = [{listed}]"


def _has_own_choices(workflow: Workflow, parameter: Choice) -> bool:
    nodes = nodes_of(workflow.graph)
    for target in parameter.targets:
        node = nodes[target[0]]
        served = declared_at(target, node.inputs.get(target[1]), node, workflow.catalog)
        if isinstance(served, Choice) and served.choices is not None:
            return set(parameter.choices or ()) < set(served.choices)
    return workflow.catalog is None


def _said(key: str, value: object) -> str:
    """The line that sets *key*; nothing for an empty value or one that TOML cannot hold."""
    text = _value(value)
    return f"{key} = {text}" if text and value != "" else ""


def _hint(key: str, value: str) -> str:
    return f"# {_said(key, _comment(value)) or key}"


_LARGEST = 2**63


def _value(value: object) -> str:
    """*value* as TOML writes it, or nothing."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, int):
        return str(value) if -_LARGEST <= value < _LARGEST else ""
    # A number like 1e+16 is a float in both languages, 1e16 too.
    return repr(value) if isinstance(value, float) and math.isfinite(value) else ""


def _string(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        return ""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _comment(words: str) -> str:
    """*words* on one line, without what a comment cannot hold."""
    kept = re.sub(r"[\x00-\x1f\x7f\ud800-\udfff\s]+", " ", words)
    return kept[:300].strip()
