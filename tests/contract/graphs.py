"""The graphs that these tests hand in; all run on the built-in engine with its test nodes."""

from __future__ import annotations

from itertools import count
from typing import Any

Graph = dict[str, Any]

_FRESH = count(1)


def picture(prefix: str = "contract") -> Graph:
    """One picture of a color that no other job has."""
    image = {"width": 32, "height": 32, "batch_size": 1, "color": _fresh_color()}
    return {
        "1": {"class_type": "EmptyImage", "inputs": image},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": prefix}},
    }


def steps(number: int = 4, delay_ms: int = 30, *, previews: bool = False) -> Graph:
    """Steps with progress, then a picture."""
    ticks = {"steps": number, "delay_ms": delay_ms, "previews": previews, "seed": next(_FRESH)}
    return {"5": {"class_type": "TestProgress", "inputs": ticks}, **picture()}


def files(name: str, size: int, pattern: str = "comfy ", *, number: int = 1) -> Graph:
    """Files of that size, *pattern* over and over."""
    emitted = {"key": "files", "kind": "files", "name": name, "pattern": pattern, "size": size}
    inputs = {**emitted, "count": number, "seed": next(_FRESH)}
    return {"7": {"class_type": "TestEmit", "inputs": inputs}}


def bytes_of(pattern: str, size: int) -> bytes:
    """What `files` writes."""
    return (pattern.encode() * (size // len(pattern) + 1))[:size]


def sleep(seconds: float = 30.0) -> Graph:
    """A wait that an interrupt ends."""
    inputs = {"seconds": seconds, "interruptible": True, "seed": next(_FRESH)}
    return {"8": {"class_type": "TestSleep", "inputs": inputs}}


def failing(message: str) -> Graph:
    """A node that fails."""
    return {"9": {"class_type": "TestFail", "inputs": {"message": message}}}


def saved_again(image: object) -> Graph:
    """A file of the caller's as a picture that is inverted and saved."""
    saved = {"images": ["2", 0], "filename_prefix": "again"}
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": image}},
        "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "3": {"class_type": "SaveImage", "inputs": saved},
    }


def _fresh_color() -> int:
    return next(_FRESH) * 40503 % (1 << 24)
