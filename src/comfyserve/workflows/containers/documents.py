"""Files whose metadata is JSON already: GLB models, safetensors (``.latent``), SVG drawings."""

from __future__ import annotations

import json
from typing import Any

from comfyserve.workflows.containers.source import WANTED, Broken, Source, Texts, text
from comfyserve.workflows.json_bounds import MOST_VALUES, holds_more_than

MAX_JSON = 16 * 2**20
"""The most of a header or comment that is taken apart: memory grows to many times this."""


def glb_texts(source: Source) -> Texts:
    """The extras of a binary glTF file and of its asset."""
    head = source.read(0, 20)
    if head[16:] != b"JSON":
        raise Broken("its first part is not JSON")
    document = _json(source.read(20, int.from_bytes(head[12:16], "little")))
    asset = document.get("asset")
    for holder in (asset, document):
        if isinstance(holder, dict):
            yield from json_texts(holder.get("extras"))


def safetensors_texts(source: Source) -> Texts:
    """The metadata of a safetensors file, which is what a ``.latent`` file is."""
    size = int.from_bytes(source.read(0, 8), "little")
    yield from json_texts(_json(source.read(8, size)).get("__metadata__"))


def svg_texts(source: Source) -> Texts:
    """The JSON in the first metadata elements of an SVG drawing; no XML is interpreted."""
    drawing = text(source.read(0, source.size))
    at = drawing.find("<metadata")
    for _ in range(_MOST_ELEMENTS):
        if at < 0:
            return
        end = drawing.find("</metadata>", at)
        end = end if end > 0 else len(drawing)
        yield from json_texts(_metadata(drawing, at, end))
        at = drawing.find("<metadata", end)


def json_texts(value: object) -> Texts:
    """The graphs that a JSON object holds by name, as JSON or as text that is JSON."""
    if not isinstance(value, dict):
        return
    for name, inner in value.items():
        if name.lower() in WANTED and isinstance(inner, str):
            yield name.lower(), inner
        elif name.lower() in WANTED and isinstance(inner, dict):
            yield name.lower(), _written(inner)


def parsed(content: str | bytes) -> object:
    """What the JSON says; None if it is none, too long, or nested too deep."""
    if len(content) > MAX_JSON or holds_more_than(MOST_VALUES, content):
        return None
    try:
        value: object = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return value


def _written(value: dict[str, Any]) -> str:
    try:
        return json.dumps(value)
    except RecursionError:
        raise Broken("its JSON is nested too deep") from None


def _json(content: bytes) -> dict[str, Any]:
    document = parsed(content)
    if not isinstance(document, dict):
        raise Broken(f"its header is not a JSON object of at most {MAX_JSON // 2**20} MiB")
    return document


# ComfyUI puts its own first, and again into every drawing inside the drawing.
_MOST_ELEMENTS = 2


def _metadata(drawing: str, start: int, end: int) -> object:
    data = drawing.find("<![CDATA[", start, end)
    if data < 0:
        escaped = drawing[drawing.find(">", start) + 1 : end]
        return parsed(_unescaped(escaped))
    try:
        # Only JSON knows where it ends: a text in it may hold "]]>" or "</metadata>".
        begin = drawing.index("{", data)
        found, _ = json.JSONDecoder().raw_decode(drawing[begin : begin + MAX_JSON])
    except (ValueError, RecursionError):
        return None
    return dict(found) if isinstance(found, dict) else None


def _unescaped(content: str) -> str:
    for escaped, character in _ENTITIES:
        content = content.replace(escaped, character)
    return content


# The ampersand comes last, or it would make new entities.
_ENTITIES = (
    ("&quot;", '"'),
    ("&#34;", '"'),
    ("&apos;", "'"),
    ("&lt;", "<"),
    ("&gt;", ">"),
    ("&amp;", "&"),
)
