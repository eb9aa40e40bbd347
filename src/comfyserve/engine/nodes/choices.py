"""The choices of a combo input that are the same whatever files there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from comfyserve.engine.folders import Folders
from comfyserve.engine.node import Input

MAX_RESOLUTION = 16384
"""The longest side, in pixels, that a node accepts (ComfyUI's own limit)."""


def choice(*names: str, options: Mapping[str, Any] | None = None) -> Input:
    """A required combo input that always offers *names*, in this order."""
    return Input(_always(names), options or {})


def _always(names: tuple[str, ...]) -> Callable[[Folders], Sequence[str]]:
    def choices(folders: Folders) -> Sequence[str]:
        return names

    return choices
