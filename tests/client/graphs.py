"""Graphs of the engine's test nodes, for tests of the client and the command line."""

from __future__ import annotations

import random
from typing import Any

Graph = dict[str, dict[str, Any]]


def emitting(content: str = "fox ", size: int = 400, **inputs: Any) -> Graph:
    """Writes one file of *size* bytes; another seed each time, so that it really runs."""
    return {
        "1": {
            "class_type": "TestEmit",
            "inputs": {
                "key": "files",
                "kind": "files",
                "name": "fox.bin",
                "pattern": content,
                "size": size,
                "seed": random.randrange(2**40),
                **inputs,
            },
        }
    }


def ticking(steps: int = 3, delay_ms: int = 10, **inputs: Any) -> Graph:
    """Reports *steps* steps, one each *delay_ms*."""
    seed = random.randrange(2**40)
    values = {"steps": steps, "delay_ms": delay_ms, "seed": seed, **inputs}
    return {"7": {"class_type": "TestProgress", "inputs": values}}


def failing(message: str = "no more paint") -> Graph:
    """Writes a file, then fails."""
    return {
        **emitting(),
        "2": {"class_type": "TestFail", "inputs": {"message": message, "value": ["1", 0]}},
    }


def inverting() -> Graph:
    """Turns a picture into its negative."""
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": "none.png"}},
        "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "3": {
            "class_type": "SaveImage",
            "inputs": {"images": ["2", 0], "filename_prefix": "negative"},
        },
    }
