"""The folders of an engine: what callers upload, what nodes save, and what is only shown."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

FolderType = Literal["input", "output", "temp"]
FOLDER_TYPES: tuple[str, ...] = get_args(FolderType)


@dataclass(frozen=True, slots=True)
class Folders:
    """The three folders ComfyUI calls ``input``, ``output`` and ``temp``, below one root."""

    root: Path

    def path(self, kind: str) -> Path:
        """The folder of that *kind*; it is there when this returns."""
        if kind not in FOLDER_TYPES:
            raise ValueError(f"{kind!r} is not one of {', '.join(FOLDER_TYPES)}")
        folder = self.root / kind
        folder.mkdir(parents=True, exist_ok=True)
        return folder
