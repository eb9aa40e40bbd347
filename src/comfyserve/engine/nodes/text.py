"""Nodes that read, join and show text."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from comfyserve.engine.node import Context, Input, Node, Output, Result

if TYPE_CHECKING:
    from comfyserve.engine.model import Model


def encode_text(context: Context, text: str, clip: Model) -> Result:
    """Turn *text* into the conditioning that guides the model."""
    conditioning = clip.encode_text(text)
    if conditioning.unknown_words:
        # Said, not shown as ui: callers would take ui for an output of the graph.
        context.send_text(f"words the model does not know: {', '.join(conditioning.unknown_words)}")
    return Result((conditioning,))


def concatenate(context: Context, string_a: str, string_b: str, delimiter: str) -> Result:
    """Join two texts with *delimiter* between them."""
    return Result((f"{string_a}{delimiter}{string_b}",))


def preview_any(context: Context, source: Any = None) -> Result:
    """Show any value as text: texts as they are, numbers as Python writes them, else JSON."""
    return Result(ui={"text": [_readable(source)]})


def _readable(source: Any) -> str:
    if isinstance(source, str):
        return source
    if source is None or isinstance(source, int | float):
        return str(source)
    try:
        return json.dumps(source)
    except (TypeError, ValueError):  # a picture, a model..: whatever is no JSON
        return str(source)


NODES = (
    Node(
        name="CLIPTextEncode",
        run=encode_text,
        inputs={
            "text": Input(
                "STRING",
                {"multiline": True, "dynamicPrompts": True, "tooltip": "What to draw, in words."},
            ),
            "clip": Input("CLIP", {"tooltip": "The part of the checkpoint that reads text."}),
        },
        outputs=(Output("CONDITIONING", "CONDITIONING"),),
        display_name="CLIP Text Encode (Prompt)",
        category="conditioning",
        description="Turns words into the conditioning that guides the sampler.",
    ),
    Node(
        name="StringConcatenate",
        run=concatenate,
        inputs={
            "string_a": Input("STRING", {"multiline": True}),
            "string_b": Input("STRING", {"multiline": True}),
            "delimiter": Input("STRING", {"default": "", "multiline": False}),
        },
        outputs=(Output("STRING", "STRING"),),
        display_name="Concatenate",
        category="utils/string",
    ),
    Node(
        name="PreviewAny",
        run=preview_any,
        inputs={"source": Input("*")},
        display_name="Preview Any",
        category="utils",
        output_node=True,
    ),
)
