"""One node while it runs: its progress, its previews, and when it has to stop."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from comfyserve.engine.folders import Folders
from comfyserve.engine.messages import Message, Picture, Weight, event, text_frame
from comfyserve.engine.node import Interrupted, Pixels
from comfyserve.engine.prompt_queue import Prompt

PREVIEW_SIDE = 512
"""Length of a preview's longer side in pixels, however small the picture is."""


class Speaker(Protocol):
    """How a run is heard; *owner* None means everyone."""

    def say(self, message: Message, owner: str | None) -> None: ...

    def step(self, progress: Message, picture: Picture | None, owner: str | None) -> None: ...

    def show(self, picture: Picture, owner: str | None) -> None: ...

    def is_heard(self, owner: str | None) -> bool: ...


@dataclass(slots=True)
class Progress:
    """How far each node of a prompt is, as `progress_state` tells it: all so far, every time."""

    prompt_id: str
    nodes: dict[str, dict[str, Any]] = field(default_factory=dict)

    def start(self, node_id: str) -> dict[str, Any]:
        return self._set(node_id, 0.0, 1.0, "running")

    def step(self, node_id: str, value: float, maximum: float) -> dict[str, Any]:
        return self._set(node_id, value, maximum, "running")

    def finish(self, node_id: str) -> dict[str, Any]:
        """A node that never reported a step counts as one step."""
        maximum = self.nodes.get(node_id, {}).get("max", 1.0)
        return self._set(node_id, maximum, maximum, "finished")

    def _set(self, node_id: str, value: float, maximum: float, state: str) -> dict[str, Any]:
        self.nodes[node_id] = {
            "value": value,
            "max": maximum,
            "state": state,
            "node_id": node_id,
            "prompt_id": self.prompt_id,
            "display_node_id": node_id,
            "parent_node_id": None,
            "real_node_id": node_id,
        }
        return {"prompt_id": self.prompt_id, "nodes": self.nodes}


class NodeRun:
    """The `Context` of a running node."""

    def __init__(
        self,
        node_id: str,
        prompt: Prompt,
        folders: Folders,
        progress: Progress,
        speaker: Speaker,
        interrupted: Callable[[], bool],
        *,
        previews: bool,
    ) -> None:
        self.node_id = node_id
        self.graph: Mapping[str, Any] = prompt.graph
        self.extra_pnginfo: Mapping[str, Any] = prompt.extra_data.get("extra_pnginfo") or {}
        self.folders = folders
        self._prompt = prompt
        self._progress = progress
        self._speaker = speaker
        self._interrupted = interrupted
        self._previews = previews

    def progress(self, value: int, maximum: int, preview: Pixels | None = None) -> None:
        self.check_interrupted()
        owner = self._prompt.client_id
        state = self._progress.step(self.node_id, value, maximum)
        self._speaker.say(event("progress_state", state, Weight.PROGRESS), owner)
        step = {
            "value": value,
            "max": maximum,
            "prompt_id": self._prompt.prompt_id,
            "node": self.node_id,
        }
        picture = None
        if preview is not None and self._previews and self._speaker.is_heard(owner):
            picture = Picture.of(encode_preview(preview), "image/jpeg", self._about())
        self._speaker.step(event("progress", step, Weight.PROGRESS), picture, owner)

    def check_interrupted(self) -> None:
        if self._interrupted():
            raise Interrupted

    def send_picture(self, encoded: bytes, mime: str) -> None:
        picture = Picture.of(encoded, mime, self._about(), Weight.NEEDED)
        self._speaker.show(picture, self._prompt.client_id)

    def send_text(self, text: str) -> None:
        self._speaker.say(text_frame(self.node_id, text), self._prompt.client_id)

    def _about(self) -> dict[str, Any]:
        return {
            "node_id": self.node_id,
            "prompt_id": self._prompt.prompt_id,
            "display_node_id": self.node_id,
            "parent_node_id": None,
            "real_node_id": self.node_id,
        }


def encode_preview(pixels: Pixels) -> bytes:
    """A picture ``[height, width, 3]`` as a JPEG with `PREVIEW_SIDE` pixels on its longer side."""
    import numpy as np
    from PIL import Image

    picture = Image.fromarray((np.clip(pixels, 0, 1) * 255).astype(np.uint8))
    scale = PREVIEW_SIDE / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    encoded = io.BytesIO()
    picture.resize((width, height), Image.Resampling.BILINEAR).save(encoded, "JPEG", quality=85)
    return encoded.getvalue()


def as_json(ui: Mapping[str, Any]) -> dict[str, Any]:
    """What a node shows, as JSON will carry it; ValueError where it cannot (NaN, for one)."""
    plain: dict[str, Any] = json.loads(json.dumps(ui, allow_nan=False, default=str))
    return plain
