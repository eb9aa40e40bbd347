"""The job without a model that all rounds run: a picture of one color, inverted and saved."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from typing import Any

from PIL import Image

from bench.budgets import WrongResult


def graph(color: int) -> dict[str, Any]:
    """An image of one color, inverted and saved."""
    image = {"width": 64, "height": 64, "batch_size": 1, "color": color}
    return {
        "1": {"class_type": "EmptyImage", "inputs": image},
        **inverted_and_saved(["1", 0]),
    }


def inverted_and_saved(image: object) -> dict[str, Any]:
    """The nodes that come behind *image*."""
    return {
        "2": {"class_type": "ImageInvert", "inputs": {"image": image}},
        "3": {
            "class_type": "SaveImage",
            "inputs": {"images": ["2", 0], "filename_prefix": "bench"},
        },
    }


def colors() -> Iterator[int]:
    """Colors that never come twice, or the job is cached, and never near the one before."""
    return (number * 40503 % (1 << 24) for number in itertools.count(1))


def check(picture: bytes, color: int) -> None:
    """Raise `WrongResult` where *picture* is not the inverse of *color*."""
    expected = bytes(255 - part for part in parts_of(color))
    with Image.open(io.BytesIO(picture)) as image:
        seen = image.convert("RGB").tobytes()[:3]
    # ComfyUI's way from float to byte may lose one.
    if any(abs(ours - due) > 1 for ours, due in zip(seen, expected, strict=True)):
        raise WrongResult(f"color {color:06x} became {seen.hex()} where {expected.hex()} was due")


def parts_of(color: int) -> tuple[int, int, int]:
    """Red, green and blue."""
    return color >> 16, color >> 8 & 255, color & 255
