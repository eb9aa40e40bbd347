"""The nodes that hand pictures over: saved, shown for a while, or sent through the socket."""

from __future__ import annotations

import io
import json
import random
import string
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from comfyserve.engine.folders import Folders, FolderType
from comfyserve.engine.node import Context, Input, Node, Pixels, Result
from comfyserve.engine.nodes.choices import choice
from comfyserve.engine.nodes.file_names import NumberedFiles
from comfyserve.engine.nodes.pictures import to_picture

if TYPE_CHECKING:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

WEBP_METHODS = {"default": 4, "fastest": 0, "slowest": 6}
EXIF_MODEL, EXIF_MAKE = 0x0110, 0x010F


def save_image(context: Context, images: Pixels, filename_prefix: str) -> Result:
    """Save each picture as a PNG in the output folder, with the graph inside."""
    return _save_pngs(context, images, filename_prefix, "output", compress_level=4)


def preview_image(context: Context, images: Pixels) -> Result:
    """Save each picture as a PNG in the temp folder, where it does not last."""
    prefix = "ComfyUI_temp_" + "".join(random.choices(string.ascii_lowercase, k=5))
    return _save_pngs(context, images, prefix, "temp", compress_level=1)


def save_animation(
    context: Context,
    images: Pixels,
    filename_prefix: str,
    fps: float,
    lossless: bool,
    quality: int,
    method: str,
) -> Result:
    """Save all pictures as one animated WebP of *fps* frames a second, with the graph inside."""
    files = _numbered(context, images, filename_prefix, "output")
    first, *others = [to_picture(each) for each in images]
    context.check_interrupted()
    encoded = io.BytesIO()
    first.save(
        encoded,
        "WEBP",
        save_all=True,
        append_images=others,
        duration=int(1000 / fps),
        lossless=lossless,
        quality=quality,
        method=WEBP_METHODS[method],
        exif=_exif(context, first),
    )
    saved = files.write(encoded.getvalue(), ".webp")
    return Result(ui={"images": [saved], "animated": [len(images) > 1]})


def send_images(context: Context, images: Pixels) -> Result:
    """Send each picture as a PNG through the caller's socket; nothing is saved."""
    for number, pixels in enumerate(images):
        context.progress(number, len(images))
        context.send_picture(_png(to_picture(pixels), None, compress_level=4), "image/png")
    return Result()


def always_new(folders: Folders) -> str:
    """A value that never comes again: these pictures are sent each time, cached or not."""
    return str(time.time_ns())


def _save_pngs(
    context: Context, images: Pixels, prefix: str, kind: FolderType, *, compress_level: int
) -> Result:
    files = _numbered(context, images, prefix, kind)
    texts = _png_texts(context)
    saved: list[Mapping[str, str]] = []
    for number, pixels in enumerate(images):
        context.check_interrupted()
        png = _png(to_picture(pixels), texts, compress_level=compress_level)
        saved.append(files.write(png, ".png", batch_number=number))
    return Result(ui={"images": saved})


def _numbered(context: Context, images: Pixels, prefix: str, kind: FolderType) -> NumberedFiles:
    height, width = images.shape[1:3]
    return NumberedFiles.at(context.folders, kind, prefix, width=width, height=height)


def _png(picture: Image.Image, texts: PngInfo | None, *, compress_level: int) -> bytes:
    encoded = io.BytesIO()
    picture.save(encoded, "PNG", pnginfo=texts, compress_level=compress_level)
    return encoded.getvalue()


def _png_texts(context: Context) -> PngInfo:
    from PIL.PngImagePlugin import PngInfo

    texts = PngInfo()
    for name, value in _inside(context):
        texts.add_text(name.encode("latin-1", "replace")[:79], json.dumps(value))
    return texts


def _exif(context: Context, picture: Image.Image) -> Image.Exif:
    """The graph as the camera's model, the rest from its make downwards: where ComfyUI looks."""
    exif = picture.getexif()
    (graph_name, graph), *others = _inside(context)
    exif[EXIF_MODEL] = f"{graph_name}:{json.dumps(graph)}"
    for below, (name, value) in enumerate(others):
        exif[EXIF_MAKE - below] = f"{name}:{json.dumps(value)}"
    return exif


def _inside(context: Context) -> Sequence[tuple[str, Any]]:
    """What is kept inside a saved picture, by name; `prompt` is ComfyUI's word for the graph."""
    return [("prompt", context.graph), *context.extra_pnginfo.items()]


NODES = (
    Node(
        name="SaveImage",
        run=save_image,
        inputs={
            "images": Input("IMAGE", {"tooltip": "The pictures to save."}),
            "filename_prefix": Input(
                "STRING",
                {
                    "default": "ComfyUI",
                    "tooltip": "How the names begin; may name a folder, and hold %width%,"
                    " %height%, %year%.. %second%, %batch_num% or %date:yyyy-MM-dd%.",
                },
            ),
        },
        display_name="Save Image",
        category="image",
        description="Saves pictures in the output folder, with the workflow inside.",
        output_node=True,
    ),
    Node(
        name="PreviewImage",
        run=preview_image,
        inputs={"images": Input("IMAGE")},
        display_name="Preview Image",
        category="image",
        description="Shows pictures without keeping them: they go to the temp folder.",
        output_node=True,
    ),
    Node(
        name="SaveAnimatedWEBP",
        run=save_animation,
        inputs={
            "images": Input("IMAGE"),
            "filename_prefix": Input("STRING", {"default": "ComfyUI"}),
            "fps": Input("FLOAT", {"default": 6.0, "min": 0.01, "max": 1000.0, "step": 0.01}),
            "lossless": Input("BOOLEAN", {"default": True}),
            "quality": Input("INT", {"default": 80, "min": 0, "max": 100}),
            "method": choice(*WEBP_METHODS),
        },
        display_name="SaveAnimatedWEBP",
        category="image/animation",
        output_node=True,
    ),
    Node(
        name="SaveImageWebsocket",
        run=send_images,
        inputs={"images": Input("IMAGE")},
        display_name="SaveImageWebsocket",
        category="api/image",
        output_node=True,
        fingerprint=always_new,
    ),
)
