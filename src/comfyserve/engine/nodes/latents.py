"""Nodes between pixels and latents, the small arrays a model denoises."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfyserve.engine.node import Context, Input, Node, Output, Pixels, Result
from comfyserve.engine.nodes.choices import MAX_RESOLUTION
from comfyserve.engine.nodes.loaders import SHARED_MODEL

if TYPE_CHECKING:
    from comfyserve.engine.model import Latent, Model


def empty_latent(context: Context, width: int, height: int, batch_size: int) -> Result:
    """Make *batch_size* blank latents for pictures of *width* x *height* pixels."""
    return Result((SHARED_MODEL.get().empty_latent(width, height, batch_size),))


def decode(context: Context, samples: Latent, vae: Model) -> Result:
    """Turn latents into pictures."""
    return Result((vae.decode(samples),))


def encode(context: Context, pixels: Pixels, vae: Model) -> Result:
    """Turn pictures into latents."""
    return Result((vae.encode(pixels),))


def _side(tooltip: str) -> Input:
    options = {"default": 512, "min": 16, "max": MAX_RESOLUTION, "step": 8, "tooltip": tooltip}
    return Input("INT", options)


NODES = (
    Node(
        name="EmptyLatentImage",
        run=empty_latent,
        inputs={
            "width": _side("How wide the pictures will be, in pixels."),
            "height": _side("How high the pictures will be, in pixels."),
            "batch_size": Input(
                "INT",
                {"default": 1, "min": 1, "max": 4096, "tooltip": "How many pictures to draw."},
            ),
        },
        outputs=(Output("LATENT", "LATENT"),),
        display_name="Empty Latent Image",
        category="latent",
        description="Makes blank latents for the sampler to draw on.",
    ),
    Node(
        name="VAEDecode",
        run=decode,
        inputs={
            "samples": Input("LATENT", {"tooltip": "The latents to turn into pictures."}),
            "vae": Input("VAE", {"tooltip": "The part of the checkpoint that draws pixels."}),
        },
        outputs=(Output("IMAGE", "IMAGE"),),
        display_name="VAE Decode",
        category="latent",
        description="Turns latents into pictures.",
    ),
    Node(
        name="VAEEncode",
        run=encode,
        inputs={"pixels": Input("IMAGE"), "vae": Input("VAE")},
        outputs=(Output("LATENT", "LATENT"),),
        display_name="VAE Encode",
        category="latent",
    ),
)
