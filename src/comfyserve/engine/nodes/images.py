"""Nodes that make, join and change pictures in pixels."""

from __future__ import annotations

import numpy as np

from comfyserve.engine.node import Context, Input, Node, Output, Pixels, Result
from comfyserve.engine.nodes.choices import MAX_RESOLUTION, choice
from comfyserve.engine.nodes.scaling import resize

BLEND_MODES = ("normal", "multiply", "screen", "overlay", "soft_light", "difference")


def empty(context: Context, width: int, height: int, batch_size: int, color: int) -> Result:
    """Make pictures of one *color*, a number ``0xRRGGBB``."""
    rgb = np.array([color >> 16 & 255, color >> 8 & 255, color & 255], np.float32) / 255
    pixels = np.empty((batch_size, height, width, 3), np.float32)
    pixels[:] = rgb
    return Result((pixels,))


def invert(context: Context, image: Pixels) -> Result:
    """Make light dark, and each color its opposite."""
    return Result((1 - image,))


def batch(context: Context, image1: Pixels, image2: Pixels) -> Result:
    """Put the pictures of both into one batch; the second takes the size of the first."""
    height, width = image1.shape[1:3]
    if image2.shape[1:3] != (height, width):
        image2 = resize(image2, width, height, "bilinear", center=True)
    return Result((np.concatenate([image1, image2]),))


def crop(context: Context, image: Pixels, width: int, height: int, x: int, y: int) -> Result:
    """Cut out *width* x *height* pixels from (*x*, *y*); less where the picture ends."""
    x = min(x, image.shape[2] - 1)
    y = min(y, image.shape[1] - 1)
    return Result((image[:, y : y + height, x : x + width],))


def blend(
    context: Context, image1: Pixels, image2: Pixels, blend_factor: float, blend_mode: str
) -> Result:
    """Mix the second picture into the first; it takes the size of the first.

    Raises ValueError when both are batches, of different lengths.
    """
    height, width = image1.shape[1:3]
    if image2.shape[1:3] != (height, width):
        image2 = resize(image2, width, height, "bicubic", center=True)
    if 1 not in (len(image1), len(image2)) and len(image1) != len(image2):
        raise ValueError(
            f"image1 has {len(image1)} pictures and image2 has {len(image2)}; "
            "blend as many as there are, or one with any number"
        )
    mixed = image1 * (1 - blend_factor) + _blended(image1, image2, blend_mode) * blend_factor
    return Result((mixed.clip(0, 1).astype(np.float32),))


def _blended(one: Pixels, two: Pixels, mode: str) -> Pixels:
    match mode:
        case "normal":
            return two
        case "multiply":
            return one * two
        case "screen":
            return 1 - (1 - one) * (1 - two)
        case "overlay":
            return np.where(one <= 0.5, 2 * one * two, 1 - 2 * (1 - one) * (1 - two))
        case "soft_light":
            darker = one - (1 - 2 * two) * one * (1 - one)
            lighter = one + (2 * two - 1) * (_softened(one) - one)
            return np.where(two <= 0.5, darker, lighter)
        case "difference":
            return one - two
    raise ValueError(f"{mode!r} is not one of {', '.join(BLEND_MODES)}")


def _softened(one: Pixels) -> Pixels:
    return np.where(one <= 0.25, ((16 * one - 12) * one + 4) * one, np.sqrt(one.clip(0)))


def blur(context: Context, image: Pixels, blur_radius: int, sigma: float) -> Result:
    """Blur with a Gaussian; *sigma* is measured in radii, not in pixels (ComfyUI's way)."""
    ramp = np.linspace(-1, 1, 2 * blur_radius + 1)
    weights = np.exp(-(ramp**2) / (2 * sigma**2))
    weights /= weights.sum()
    context.check_interrupted()
    across = _weighted(image, 2, weights.astype(np.float32))
    context.check_interrupted()
    return Result((_weighted(across, 1, weights.astype(np.float32)),))


def _weighted(image: Pixels, axis: int, weights: Pixels) -> Pixels:
    """The sum of shifted copies along *axis*: one half of a Gaussian, which is separable."""
    radius = len(weights) // 2
    around = [(radius, radius) if each == axis else (0, 0) for each in range(image.ndim)]
    padded = np.moveaxis(np.pad(image, around, "reflect"), axis, 0)
    length = image.shape[axis]
    total = np.zeros((length, *padded.shape[1:]), np.float32)
    for shift, weight in enumerate(weights):
        total += padded[shift : shift + length] * weight
    return np.moveaxis(total, 0, axis)


def pad_for_outpaint(
    context: Context, image: Pixels, left: int, top: int, right: int, bottom: int, feathering: int
) -> Result:
    """Put gray around pictures; the mask is 1 there and fades out over *feathering* pixels."""
    count, height, width, channels = image.shape
    size = (height + top + bottom, width + left + right)
    inner = (slice(top, top + height), slice(left, left + width))
    padded = np.full((count, *size, channels), 0.5, np.float32)
    padded[:, inner[0], inner[1]] = image
    mask = np.ones(size, np.float32)
    mask[inner] = 0
    if 0 < feathering * 2 < min(height, width):
        rows = _to_edge(height, before=top > 0, after=bottom > 0)
        columns = _to_edge(width, before=left > 0, after=right > 0)
        near = np.minimum(rows[:, None], columns[None, :])
        mask[inner] = ((feathering - near) / feathering).clip(0) ** 2
    return Result((padded, mask[None]))


def _to_edge(length: int, *, before: bool, after: bool) -> Pixels:
    """How far each pixel of a side is from an edge that gets padding (*length*: from none)."""
    place = np.arange(length, dtype=np.float32)
    far = np.full(length, length, np.float32)
    return np.minimum(place if before else far, length - place if after else far)


def _pixels(default: int, least: int = 0, step: int = 1) -> Input:
    return Input("INT", {"default": default, "min": least, "max": MAX_RESOLUTION, "step": step})


_IMAGE = (Output("IMAGE", "IMAGE"),)

NODES = (
    Node(
        name="EmptyImage",
        run=empty,
        inputs={
            "width": _pixels(512, 1),
            "height": _pixels(512, 1),
            "batch_size": Input("INT", {"default": 1, "min": 1, "max": 4096}),
            "color": Input(
                "INT", {"default": 0, "min": 0, "max": 0xFFFFFF, "step": 1, "display": "color"}
            ),
        },
        outputs=_IMAGE,
        display_name="EmptyImage",
        category="image",
    ),
    Node(
        name="ImageInvert",
        run=invert,
        inputs={"image": Input("IMAGE")},
        outputs=_IMAGE,
        display_name="Invert Image",
        category="image",
    ),
    Node(
        name="ImageBatch",
        run=batch,
        inputs={"image1": Input("IMAGE"), "image2": Input("IMAGE")},
        outputs=_IMAGE,
        display_name="Batch Images",
        category="image",
    ),
    Node(
        name="ImageCrop",
        run=crop,
        inputs={
            "image": Input("IMAGE"),
            "width": _pixels(512, 1),
            "height": _pixels(512, 1),
            "x": _pixels(0),
            "y": _pixels(0),
        },
        outputs=_IMAGE,
        display_name="Image Crop",
        category="image/transform",
    ),
    Node(
        name="ImageBlend",
        run=blend,
        inputs={
            "image1": Input("IMAGE"),
            "image2": Input("IMAGE"),
            "blend_factor": Input("FLOAT", {"default": 0.5, "min": 0.0, "max": 1.0, "step": 0.01}),
            "blend_mode": choice(*BLEND_MODES),
        },
        outputs=_IMAGE,
        display_name="ImageBlend",
        category="image/postprocessing",
    ),
    Node(
        name="ImageBlur",
        run=blur,
        inputs={
            "image": Input("IMAGE"),
            "blur_radius": Input("INT", {"default": 1, "min": 1, "max": 31, "step": 1}),
            "sigma": Input("FLOAT", {"default": 1.0, "min": 0.1, "max": 10.0, "step": 0.1}),
        },
        outputs=_IMAGE,
        display_name="ImageBlur",
        category="image/postprocessing",
    ),
    Node(
        name="ImagePadForOutpaint",
        run=pad_for_outpaint,
        inputs={
            "image": Input("IMAGE"),
            "left": _pixels(0, step=8),
            "top": _pixels(0, step=8),
            "right": _pixels(0, step=8),
            "bottom": _pixels(0, step=8),
            "feathering": _pixels(40),
        },
        outputs=(Output("IMAGE", "IMAGE"), Output("MASK", "MASK")),
        display_name="Pad Image for Outpainting",
        category="image",
    ),
)
