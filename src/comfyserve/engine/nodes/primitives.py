"""Nodes that hold one value, so that several inputs can share it."""

from __future__ import annotations

from typing import Any

from comfyserve.engine.node import Context, Input, Node, Output, Result

WHOLE_LIMIT = 2**63 - 1


def give(context: Context, value: Any) -> Result:
    """Pass *value* on, as it was given."""
    return Result((value,))


def _primitive(name: str, type: str, display_name: str, **options: Any) -> Node:
    return Node(
        name=name,
        run=give,
        inputs={"value": Input(type, options)},
        outputs=(Output(type, type),),
        display_name=display_name,
        category="utils/primitive",
    )


NODES = (
    _primitive("PrimitiveString", "STRING", "String", multiline=False),
    _primitive("PrimitiveStringMultiline", "STRING", "String (Multiline)", multiline=True),
    _primitive(
        "PrimitiveInt",
        "INT",
        "Int",
        min=-WHOLE_LIMIT,
        max=WHOLE_LIMIT,
        control_after_generate=True,
    ),
    _primitive("PrimitiveFloat", "FLOAT", "Float", min=-WHOLE_LIMIT, max=WHOLE_LIMIT),
)
