"""The workflow inside a picture, video, sound or 3D file that ComfyUI saved.

Only what lies around the media is read: of a film of gigabytes, a few kilobytes.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import BinaryIO

from comfyserve.assets import HEAD_SIZE, content_type
from comfyserve.errors import WorkflowUnreadable
from comfyserve.workflows.containers.boxes import film_texts, heif_texts
from comfyserve.workflows.containers.documents import (
    MAX_JSON,
    glb_texts,
    json_texts,
    parsed,
    safetensors_texts,
    svg_texts,
)
from comfyserve.workflows.containers.matroska import matroska_texts
from comfyserve.workflows.containers.pictures import jpeg_texts, png_texts, webp_texts
from comfyserve.workflows.containers.sound import flac_texts, mp3_texts, ogg_texts
from comfyserve.workflows.containers.source import Broken, Source, Texts


@dataclass(frozen=True, slots=True)
class Embedded:
    """What ComfyUI wrote into a file: at least one of two texts, both JSON objects.

    *prompt* is the graph as it ran, in the API format; *workflow* is what the editor had open.
    They are as ComfyUI wrote them, so ``NaN`` and ``Infinity`` may stand in them, which
    `json.loads` takes. *container* is what the file is, in words: ``PNG picture``.
    """

    prompt: str | None
    workflow: str | None
    container: str

    @property
    def document(self) -> str:
        """The JSON to read the graph from: *prompt*, or else *workflow*."""
        return self.prompt or self.workflow or ""


def find_embedded(data: bytes | BinaryIO, source: str = "The file") -> Embedded | None:
    """Read the workflow that a media file carries; None if *data* is no such file.

    *data* is the content, or a seekable binary file, of which little is read; its position
    afterwards is anywhere. What it is, is told from the content alone. *source* names it in
    messages. Raises `WorkflowUnreadable` for a media file without a workflow, and for one too
    damaged to tell.
    """
    opened = Source(io.BytesIO(data) if isinstance(data, bytes) else data)
    container = _CONTAINERS.get(content_type(opened.peek(0, HEAD_SIZE)))
    if container is None:
        return None
    found: dict[str, str] = {}
    try:
        _collect(container.texts(opened), found)
    except Broken as damage:
        # What stood before the damage is whole.
        if not found:
            problem = f"is {container.name}, but a damaged one: {damage}"
            raise WorkflowUnreadable(source, problem, "Copy or download it again") from None
    if not found:
        problem = f"is {container.name} without a ComfyUI workflow inside"
        raise WorkflowUnreadable(source, problem, _LOST)
    return Embedded(found.get("prompt"), found.get("workflow"), container.name.partition(" ")[2])


@dataclass(frozen=True, slots=True)
class _Container:
    """What a file is in messages, with its article, and how its texts are read."""

    name: str
    texts: Callable[[Source], Texts]


_CONTAINERS = {
    "image/png": _Container("a PNG picture", png_texts),
    "image/webp": _Container("a WebP picture", webp_texts),
    "image/avif": _Container("an AVIF picture", heif_texts),
    "image/heic": _Container("a HEIF picture", heif_texts),
    "image/jpeg": _Container("a JPEG picture", jpeg_texts),
    "image/svg+xml": _Container("an SVG drawing", svg_texts),
    "video/mp4": _Container("an MP4 video", film_texts),
    "video/quicktime": _Container("a MOV video", film_texts),
    "video/webm": _Container("a WebM video", matroska_texts),
    "video/x-matroska": _Container("a Matroska video", matroska_texts),
    "audio/mp4": _Container("an M4A sound file", film_texts),
    "audio/flac": _Container("a FLAC sound file", flac_texts),
    "audio/ogg": _Container("an Ogg sound file", ogg_texts),
    "audio/mpeg": _Container("an MP3 sound file", mp3_texts),
    "model/gltf-binary": _Container("a GLB model", glb_texts),
    "application/x-comfyui-latent": _Container("a safetensors file", safetensors_texts),
    "application/x-safetensors": _Container("a safetensors file", safetensors_texts),
}

_LOST = (
    "Files lose it when they are edited, converted or sent through most chat apps: "
    "use the one that ComfyUI saved"
)


def _collect(texts: Texts, found: dict[str, str]) -> None:
    """Keep the first graph of each name; in a comment there may be one of each."""
    left = MAX_JSON
    for name, text in texts:
        graphs: Iterable[tuple[str, str]] = [(name, text)]
        if name == "comment":
            left -= len(text)
            graphs = json_texts(parsed(text)) if left >= 0 else ()
        for inner_name, graph in graphs:
            if inner_name != "comment" and _is_object(graph):
                found.setdefault(inner_name, graph.strip(_BLANK))
        if len(found) == 2:
            return


def _is_object(text: str) -> bool:
    # Other programs call a sentence "prompt".
    return text[:_MOST_BLANKS].lstrip(_BLANK).startswith("{")


_MOST_BLANKS = 1000
_BLANK = " \t\r\n\x00\ufeff"
