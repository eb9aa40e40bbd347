"""The inputs of a hosted workflow, as its JSON Schema tells them: to show, and to type values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from comfyserve.cli.assignments import Assignments, FromOption
from comfyserve.workflows.parameter_kinds import KINDS
from comfyserve.workflows.parameters import Anything, Choice, Media, Number, Parameter


def parameters_of(schema: Mapping[str, Any]) -> tuple[Parameter, ...]:
    """The parameters that a workflow's *schema* tells; which inputs they fill it does not."""
    properties: Mapping[str, Mapping[str, Any]] = schema.get("properties") or {}
    return tuple(_parameter(name, told) for name, told in properties.items())


def typed_inputs(schema: Mapping[str, Any], assignments: Assignments) -> dict[str, object]:
    """What a person typed, as the values that the workflow takes.

    What is none of its inputs' values stays the text it is: the server says what is wrong with
    it. At an address, whose type only the server knows, JSON is read as what it is.
    """
    known = {parameter.name: parameter for parameter in parameters_of(schema)}
    return {
        name: given.value if isinstance(given, FromOption) else _typed(known.get(name), name, given)
        for name, given in assignments.items()
    }


def _parameter(name: str, told: Mapping[str, Any]) -> Parameter:
    kind = KINDS.get(str(told.get("x-kind")), Anything)
    further: dict[str, Any] = {}
    if issubclass(kind, Number):
        further = {"minimum": told.get("minimum"), "maximum": told.get("maximum")}
    elif issubclass(kind, Choice) and "enum" in told:
        further = {"choices": tuple(told["enum"])}
    title = str(told.get("title", ""))
    return kind(
        name=name,
        targets=(),
        default=told.get("default"),
        label="" if title == _usual_title(name) else title,
        description=str(told.get("description", "")),
        advanced=bool(told.get("x-advanced")),
        **further,
    )


def _usual_title(name: str) -> str:
    """What a schema says where nobody gave the input a label."""
    return name.replace("_", " ").capitalize()


def _typed(parameter: Parameter | None, name: str, text: str) -> object:
    match parameter:
        case None if "." in name:
            return Anything(name=name, targets=()).parse(text)
        case None:
            return text
        case Media():
            return _file(text)
        case Number():  # how far its limits are kept is the server's to say
            parameter = replace(parameter, minimum=None, maximum=None)
    try:
        return parameter.parse(text)
    except ValueError:
        return text


def _file(text: str) -> object:
    """A file's path, or the words by which a server knows one."""
    if text.startswith("@"):
        return Path(text[1:])
    if text.startswith("{"):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return text
    return text
