"""The nodes that denoise: they report every step, with a look at the picture so far."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from comfyserve.engine.folders import Folders
from comfyserve.engine.node import Context, Input, Node, Output, Result
from comfyserve.engine.nodes.choices import choice

if TYPE_CHECKING:
    from comfyserve.engine.model import Conditioning, Latent, Model, Samples

MAX_SEED = 2**64 - 1
MAX_STEPS = 10000


def ksampler(
    context: Context,
    model: Model,
    seed: int,
    steps: int,
    cfg: float,
    sampler_name: str,
    scheduler: str,
    positive: Conditioning,
    negative: Conditioning,
    latent_image: Latent,
    denoise: float,
) -> Result:
    """Denoise *latent_image*; *denoise* below 1 keeps that much less of the noise, and its form."""
    from comfyserve.engine.sampling import sample

    denoised = sample(
        model,
        latent_image,
        positive=positive,
        negative=negative,
        seed=seed,
        steps=steps,
        cfg=cfg,
        sampler=sampler_name,
        scheduler=scheduler,
        denoise=denoise,
        on_step=_report(context, model),
    )
    return Result((denoised,))


def ksampler_advanced(
    context: Context,
    model: Model,
    add_noise: str,
    noise_seed: int,
    steps: int,
    cfg: float,
    sampler_name: str,
    scheduler: str,
    positive: Conditioning,
    negative: Conditioning,
    latent_image: Latent,
    start_at_step: int,
    end_at_step: int,
    return_with_leftover_noise: str,
) -> Result:
    """Denoise from *start_at_step* to *end_at_step* of *steps*, with or without fresh noise."""
    from comfyserve.engine.sampling import sample

    denoised = sample(
        model,
        latent_image,
        positive=positive,
        negative=negative,
        seed=noise_seed,
        steps=steps,
        cfg=cfg,
        sampler=sampler_name,
        scheduler=scheduler,
        add_noise=add_noise == "enable",
        start_step=start_at_step,
        end_step=min(end_at_step, steps),
        force_full_denoise=return_with_leftover_noise == "disable",
        on_step=_report(context, model),
    )
    return Result((denoised,))


def _report(context: Context, model: Model) -> Callable[[int, int, Samples], None]:
    def on_step(step: int, steps: int, samples: Samples) -> None:
        context.progress(step, steps, model.preview(samples))

    return on_step


def _samplers(folders: Folders) -> Sequence[str]:
    from comfyserve.engine.sampling import SAMPLERS

    return SAMPLERS


def _schedulers(folders: Folders) -> Sequence[str]:
    from comfyserve.engine.sampling import SCHEDULERS

    return SCHEDULERS


def _seed(**more: Any) -> Input:
    options = {"default": 0, "min": 0, "max": MAX_SEED, "control_after_generate": True}
    return Input("INT", options | more)


_STEPS = {"default": 20, "min": 1, "max": MAX_STEPS}
_CFG = {"default": 8.0, "min": 0.0, "max": 100.0, "step": 0.1, "round": 0.01}

NODES = (
    Node(
        name="KSampler",
        run=ksampler,
        inputs={
            "model": Input("MODEL", {"tooltip": "The model that denoises."}),
            "seed": _seed(tooltip="Decides the noise; the same seed draws the same picture."),
            "steps": Input("INT", _STEPS | {"tooltip": "How many steps to denoise in."}),
            "cfg": Input("FLOAT", _CFG | {"tooltip": "How closely to follow the text."}),
            "sampler_name": Input(_samplers, {"tooltip": "How each step is taken."}),
            "scheduler": Input(_schedulers, {"tooltip": "How the noise falls over the steps."}),
            "positive": Input("CONDITIONING", {"tooltip": "What should be in the picture."}),
            "negative": Input("CONDITIONING", {"tooltip": "What should not be in the picture."}),
            "latent_image": Input("LATENT", {"tooltip": "The latent to start from."}),
            "denoise": Input(
                "FLOAT",
                {
                    "default": 1.0,
                    "min": 0.0,
                    "max": 1.0,
                    "step": 0.01,
                    "tooltip": "How much to change; lower keeps more of the latent given.",
                },
            ),
        },
        outputs=(Output("LATENT", "LATENT"),),
        display_name="KSampler",
        category="sampling",
        description="Denoises a latent, guided by what should and should not be in the picture.",
    ),
    Node(
        name="KSamplerAdvanced",
        run=ksampler_advanced,
        inputs={
            "model": Input("MODEL"),
            "add_noise": choice("enable", "disable"),
            "noise_seed": _seed(),
            "steps": Input("INT", _STEPS),
            "cfg": Input("FLOAT", _CFG),
            "sampler_name": Input(_samplers),
            "scheduler": Input(_schedulers),
            "positive": Input("CONDITIONING"),
            "negative": Input("CONDITIONING"),
            "latent_image": Input("LATENT"),
            "start_at_step": Input("INT", {"default": 0, "min": 0, "max": MAX_STEPS}),
            "end_at_step": Input("INT", {"default": MAX_STEPS, "min": 0, "max": MAX_STEPS}),
            "return_with_leftover_noise": choice("disable", "enable"),
        },
        outputs=(Output("LATENT", "LATENT"),),
        display_name="KSampler (Advanced)",
        category="sampling",
    ),
)
