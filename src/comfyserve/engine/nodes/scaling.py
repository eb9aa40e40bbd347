"""Pictures in another size: five ways to resample, each as PyTorch and ComfyUI compute it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from comfyserve.engine.node import Context, Input, Node, Output, Pixels, Result
from comfyserve.engine.nodes.choices import MAX_RESOLUTION, choice

METHODS = ("nearest-exact", "bilinear", "area", "bicubic", "lanczos")


def scale(
    context: Context, image: Pixels, upscale_method: str, width: int, height: int, crop: str
) -> Result:
    """Bring pictures to *width* x *height*; a side of 0 follows the other one."""
    if width == 0 and height == 0:
        return Result((image,))
    old_height, old_width = image.shape[1:3]
    if width == 0:
        width = max(1, round(old_width * height / old_height))
    elif height == 0:
        height = max(1, round(old_height * width / old_width))
    return Result((resize(image, width, height, upscale_method, center=crop == "center"),))


def scale_by(context: Context, image: Pixels, upscale_method: str, scale_by: float) -> Result:
    """Make both sides of every picture *scale_by* times as long."""
    width = max(1, round(image.shape[2] * scale_by))
    height = max(1, round(image.shape[1] * scale_by))
    return Result((resize(image, width, height, upscale_method),))


def resize(image: Pixels, width: int, height: int, method: str, *, center: bool = False) -> Pixels:
    """Resample *image* to *width* x *height* pixels by one of `METHODS`.

    With *center* the longer sides are cut first, evenly, so that shapes keep their proportions.
    """
    if center:
        image = _cut_to_aspect(image, width, height)
    if method == "lanczos":
        return _lanczos(image, width, height)
    taps = _TAPS[method]
    narrow = _resample(image, 2, *taps(image.shape[2], width))
    return _resample(narrow, 1, *taps(image.shape[1], height))


def _cut_to_aspect(image: Pixels, width: int, height: int) -> Pixels:
    old_height, old_width = image.shape[1:3]
    old_aspect, aspect = old_width / old_height, width / height
    x = max(0, round((old_width - old_width * (aspect / old_aspect)) / 2))
    y = max(0, round((old_height - old_height * (old_aspect / aspect)) / 2))
    return image[:, y : old_height - y, x : old_width - x]


def _lanczos(image: Pixels, width: int, height: int) -> Pixels:
    from PIL import Image

    from comfyserve.engine.nodes.pictures import from_picture, to_picture

    return np.stack(
        [
            from_picture(to_picture(each).resize((width, height), Image.Resampling.LANCZOS))
            for each in image
        ]
    )


Taps = tuple[NDArray[np.intp], NDArray[np.float32]]
"""Which old pixels make each new one, and their weights: both ``[new, taps]``."""


def _resample(
    image: Pixels, axis: int, places: NDArray[np.intp], weights: NDArray[np.float32]
) -> Pixels:
    if places.shape == (image.shape[axis], 1):  # the size it has, by a method that blends nothing
        return image
    shape = [1] * image.ndim
    shape[axis] = len(places)
    total: Pixels | None = None
    for tap in range(places.shape[1]):
        part = image.take(places[:, tap], axis) * weights[:, tap].reshape(shape)
        total = part if total is None else np.add(total, part, out=total)
    assert total is not None  # every method has at least one tap
    return total


def _nearest(old: int, new: int) -> Taps:
    centers = np.arange(new, dtype=np.float32) + np.float32(0.5)
    step = np.float32(old / new)  # single precision decides which way a tie falls in PyTorch
    places = np.floor(centers * step).astype(np.intp).clip(0, old - 1)
    return places[:, None], np.ones((new, 1), np.float32)


def _bilinear(old: int, new: int) -> Taps:
    source = ((np.arange(new) + 0.5) * old / new - 0.5).clip(0)
    first = np.floor(source).astype(np.intp)
    share = source - first
    places = np.stack([first, first + 1], 1).clip(0, old - 1)
    return places, np.stack([1 - share, share], 1).astype(np.float32)


def _bicubic(old: int, new: int) -> Taps:
    source = (np.arange(new) + 0.5) * old / new - 0.5
    first = np.floor(source).astype(np.intp)
    around = np.arange(-1, 3)
    distance = np.abs(around - (source - first)[:, None])
    return (first[:, None] + around).clip(0, old - 1), _cubic(distance).astype(np.float32)


def _cubic(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    slope = -0.75  # PyTorch's choice; Pillow uses -0.5
    near = ((slope + 2) * distance - (slope + 3)) * distance**2 + 1
    far = ((slope * distance - 5 * slope) * distance + 8 * slope) * distance - 4 * slope
    return np.where(distance <= 1, near, far)


def _area(old: int, new: int) -> Taps:
    start = np.arange(new) * old // new
    end = -(-(np.arange(1, new + 1) * old) // new)
    steps = np.arange(int((end - start).max()))
    inside = steps < (end - start)[:, None]
    places = (start[:, None] + steps).clip(0, old - 1)
    return places, (inside / (end - start)[:, None]).astype(np.float32)


_TAPS: dict[str, Callable[[int, int], Taps]] = {
    "nearest-exact": _nearest,
    "bilinear": _bilinear,
    "area": _area,
    "bicubic": _bicubic,
}


def _side() -> Input:
    return Input("INT", {"default": 512, "min": 0, "max": MAX_RESOLUTION, "step": 1})


NODES = (
    Node(
        name="ImageScale",
        run=scale,
        inputs={
            "image": Input("IMAGE"),
            "upscale_method": choice(*METHODS),
            "width": _side(),
            "height": _side(),
            "crop": choice("disabled", "center"),
        },
        outputs=(Output("IMAGE", "IMAGE"),),
        display_name="Upscale Image",
        category="image/upscaling",
    ),
    Node(
        name="ImageScaleBy",
        run=scale_by,
        inputs={
            "image": Input("IMAGE"),
            "upscale_method": choice(*METHODS),
            "scale_by": Input("FLOAT", {"default": 1.0, "min": 0.01, "max": 8.0, "step": 0.01}),
        },
        outputs=(Output("IMAGE", "IMAGE"),),
        display_name="Upscale Image By",
        category="image/upscaling",
    ),
)
