"""Every kind of node the built-in engine can run, named and shaped as in ComfyUI."""

from __future__ import annotations

from comfyserve.engine.node import Node
from comfyserve.engine.nodes import (
    images,
    latents,
    loaders,
    pictures,
    primitives,
    samplers,
    saving,
    scaling,
    text,
)

ALL: tuple[Node, ...] = (
    *samplers.NODES,
    *loaders.NODES,
    *text.NODES,
    *latents.NODES,
    *pictures.NODES,
    *saving.NODES,
    *scaling.NODES,
    *images.NODES,
    *primitives.NODES,
)
"""The nodes, in the order `/object_info` lists them."""
