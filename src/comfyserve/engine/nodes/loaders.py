"""The node that loads the engine's one checkpoint, shared by every graph that asks for it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from comfyserve.engine.node import Context, Node, Output, Result
from comfyserve.engine.nodes.choices import choice

if TYPE_CHECKING:
    from comfyserve.engine.model import Model

CHECKPOINT = "comfyserve-emoji-v1.safetensors"
"""The name graphs use for the model that comes with the engine."""


class SharedModel:
    """One `Model` for the whole process, loaded when first asked for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._model: Model | None = None

    def get(self) -> Model:
        """The model. Any thread may ask; the others wait while the first one loads it."""
        with self._lock:
            if self._model is None:
                from comfyserve.engine.model import Model

                self._model = Model.load()
            return self._model

    def unload(self) -> None:
        """Let go of the model; the next one who asks loads it again."""
        with self._lock:
            self._model = None


SHARED_MODEL = SharedModel()


def load_checkpoint(context: Context, ckpt_name: str) -> Result:
    """Give the model three times: as what denoises, what reads text, and what draws pixels."""
    model = SHARED_MODEL.get()
    return Result((model, model, model))


NODES = (
    Node(
        name="CheckpointLoaderSimple",
        run=load_checkpoint,
        inputs={
            "ckpt_name": choice(
                CHECKPOINT, options={"tooltip": "Which checkpoint to load; the engine has one."}
            )
        },
        outputs=(Output("MODEL", "MODEL"), Output("CLIP", "CLIP"), Output("VAE", "VAE")),
        display_name="Load Checkpoint",
        category="loaders",
        description="Loads the checkpoint that comes with the built-in engine.",
        unload=SHARED_MODEL.unload,
    ),
)
