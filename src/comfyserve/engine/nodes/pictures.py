"""Picture files, and the nodes that read them from the engine's folders."""

from __future__ import annotations

import hashlib
import mimetypes
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from comfyserve.engine.folders import FOLDER_TYPES, Folders
from comfyserve.engine.node import Context, Input, Node, Output, Pixels, Result
from comfyserve.engine.nodes.choices import choice

if TYPE_CHECKING:
    from PIL import Image

Mask = NDArray[np.float32]
"""What to change, as ``[batch, height, width]``, 0 to 1 (ComfyUI's MASK)."""

CHANNELS = ("alpha", "red", "green", "blue")


def load_image(context: Context, image: str) -> Result:
    """Read a picture, or all frames of an animation, and its mask: 1 where it is transparent.

    Without transparency the mask is 64 x 64 zeros, whatever the size of the picture.
    """
    frames: list[Pixels] = []
    masks: list[Mask] = []
    for frame in _frames(find_picture(context.folders, image)):
        context.check_interrupted()
        pixels = from_picture(frame.convert("RGB"))
        if frames and pixels.shape != frames[0].shape:
            continue
        frames.append(pixels)
        masks.append(_transparency(frame))
    return Result((np.stack(frames), np.stack(masks)))


def load_mask(context: Context, image: str, channel: str) -> Result:
    """Read one *channel* of a picture as a mask; alpha is turned around: 1 is transparent."""
    first = next(_frames(find_picture(context.folders, image)))
    mask = _scaled(first.convert("RGBA").getchannel(channel[0].upper()))
    return Result(((1 - mask if channel == "alpha" else mask)[None],))


def find_picture(folders: Folders, name: str) -> Path:
    """The file that *name* stands for: ``a.png``, ``sub/a.png`` or ``a.png [temp]``.

    Raises FileNotFoundError when there is none, or when *name* leaves its folder.
    """
    kind = "input"
    for each in FOLDER_TYPES:
        if name.endswith(f" [{each}]"):
            kind, name = each, name.removesuffix(f" [{each}]")
    folder = os.path.abspath(folders.path(kind))
    path = os.path.abspath(os.path.join(folder, name))
    if not path.startswith(folder + os.sep) or not os.path.isfile(path):
        raise FileNotFoundError(f"the {kind} folder has no file {name!r}; upload it first")
    return Path(path)


def check_picture(folders: Folders, image: object) -> str | None:
    """Say what is wrong with the name of a picture; None when it is there, or not known yet."""
    if image is None:
        return None
    try:
        find_picture(folders, str(image))
    except FileNotFoundError:
        return f"Invalid image file: {image}"
    return None


def hash_picture(folders: Folders, image: str | None) -> str:
    """The content of the file, as a hash, so that a new picture of an old name is read again."""
    if image is None:  # its name comes through a link, which is known by what it comes from
        return ""
    with find_picture(folders, image).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def to_picture(pixels: Pixels) -> Image.Image:
    """One picture ``[height, width, 3]`` as Pillow holds it; values are cut off, not rounded."""
    from PIL import Image

    return Image.fromarray((np.nan_to_num(pixels) * 255).clip(0, 255).astype(np.uint8))


def from_picture(picture: Image.Image) -> Pixels:
    """An RGB picture as ``[height, width, 3]``."""
    return _scaled(picture)


def _frames(path: Path) -> Iterator[Image.Image]:
    """Each frame of the file, turned upright; only the first of an MPO, which is no animation."""
    from PIL import Image, ImageOps, ImageSequence

    with Image.open(path) as file:
        for frame in ImageSequence.Iterator(file):
            yield _eight_bits(ImageOps.exif_transpose(frame))
            if file.format == "MPO":
                return


def _eight_bits(frame: Image.Image) -> Image.Image:
    from PIL import Image

    if not frame.mode.startswith("I"):
        return frame
    return Image.fromarray((np.asarray(frame) / 257).clip(0, 255).astype(np.uint8))


def _transparency(frame: Image.Image) -> Mask:
    if "A" in frame.getbands() or "transparency" in frame.info:
        return 1 - _scaled(frame.convert("RGBA").getchannel("A"))
    return np.zeros((64, 64), np.float32)


def _scaled(picture: Image.Image) -> NDArray[np.float32]:
    return np.asarray(picture, np.float32) / np.float32(255)


def _input_files(folders: Folders) -> Sequence[str]:
    return sorted(file.name for file in folders.path("input").iterdir() if file.is_file())


def _input_pictures(folders: Folders) -> Sequence[str]:
    return [name for name in _input_files(folders) if _is_picture(name)]


def _is_picture(name: str) -> bool:
    kind, _ = mimetypes.guess_type(name, strict=False)
    return kind is not None and kind.startswith("image/")


NODES = (
    Node(
        name="LoadImage",
        run=load_image,
        inputs={"image": Input(_input_pictures, {"image_upload": True})},
        outputs=(Output("IMAGE", "IMAGE"), Output("MASK", "MASK")),
        display_name="Load Image",
        category="image",
        fingerprint=hash_picture,
        check=check_picture,
    ),
    Node(
        name="LoadImageMask",
        run=load_mask,
        inputs={
            "image": Input(_input_files, {"image_upload": True}),
            "channel": choice(*CHANNELS),
        },
        outputs=(Output("MASK", "MASK"),),
        display_name="Load Image (as Mask)",
        category="mask",
        fingerprint=hash_picture,
        check=check_picture,
    ),
)
