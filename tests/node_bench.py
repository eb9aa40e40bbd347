"""Where tests run one node at a time: a context that keeps what the node reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from comfyserve.engine.folders import Folders
from comfyserve.engine.node import Context, Interrupted, Pixels, Result
from comfyserve.engine.nodes import ALL

NODES = {node.name: node for node in ALL}
GRAPH = {"9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "größe"}}}
EDITOR = {"nodes": [{"id": 9, "title": "保存"}]}


@dataclass
class Bench:
    """A context that keeps what a node reports, and interrupts it after some ticks if told to."""

    folders: Folders
    node_id: str = "9"
    graph: Mapping[str, Any] = field(default_factory=lambda: GRAPH)
    extra_pnginfo: Mapping[str, Any] = field(default_factory=lambda: {"workflow": EDITOR})
    interrupt_at: int | None = None
    ticks: list[tuple[int, int]] = field(default_factory=list)
    previews: list[Pixels] = field(default_factory=list)
    sent: list[tuple[bytes, str]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    def progress(self, value: int, maximum: int, preview: Pixels | None = None) -> None:
        self.ticks.append((value, maximum))
        if preview is not None:
            self.previews.append(preview)
        self.check_interrupted()

    def check_interrupted(self) -> None:
        if self.interrupt_at is not None and len(self.ticks) >= self.interrupt_at:
            raise Interrupted

    def send_picture(self, encoded: bytes, mime: str) -> None:
        self.sent.append((encoded, mime))

    def send_text(self, text: str) -> None:
        self.texts.append(text)

    def run(self, node: str, **inputs: Any) -> Result:
        context: Context = self
        return NODES[node].run(context, **inputs)

    def give(self, node: str, **inputs: Any) -> Any:
        return self.run(node, **inputs).values[0]

    def file(self, saved: Mapping[str, str]) -> Path:
        return self.folders.path(saved["type"]) / saved["subfolder"] / saved["filename"]


def gray(*rows: list[float]) -> Pixels:
    """One picture whose three channels all hold *rows*."""
    return np.repeat(np.array(rows, np.float32)[None, :, :, None], 3, axis=3)


def noise(count: int, height: int, width: int) -> Pixels:
    return np.random.default_rng(7).random((count, height, width, 3), np.float32)
