"""The nodes around the model: text in, noise out, and a picture at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from comfyserve.engine.folders import Folders
from comfyserve.engine.node import Interrupted, Pixels
from comfyserve.engine.nodes.loaders import CHECKPOINT, SHARED_MODEL
from tests.node_bench import Bench, noise

STEPS = 4


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(Folders(tmp_path))


class Drawing:
    """A small graph's links, as the executor would hand them from node to node."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        loader = bench.run("CheckpointLoaderSimple", ckpt_name=CHECKPOINT)
        self.model, self.clip, self.vae = loader.values
        self.words = bench.give("CLIPTextEncode", text="red heart", clip=self.clip)
        self.nothing = bench.give("CLIPTextEncode", text="", clip=self.clip)
        self.blank = bench.give("EmptyLatentImage", width=64, height=64, batch_size=1)

    def ksampler(self, **changes: Any) -> Any:
        """The latent that KSampler gives, with quick settings unless told otherwise."""
        given = self._settings() | {"seed": 1, "denoise": 1.0} | changes
        return self.bench.give("KSampler", **given)

    def advanced(self, latent: Any, start: int, end: int, noise: str, leftover: str) -> Any:
        """The latent that KSamplerAdvanced gives for a stretch of its steps."""
        return self.bench.give(
            "KSamplerAdvanced",
            **self._settings() | {"latent_image": latent},
            noise_seed=1,
            add_noise=noise,
            start_at_step=start,
            end_at_step=end,
            return_with_leftover_noise=leftover,
        )

    def pixels(self, latent: Any) -> Pixels:
        decoded: Pixels = self.bench.give("VAEDecode", samples=latent, vae=self.vae)
        return decoded

    def _settings(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "steps": STEPS,
            "cfg": 4.0,
            "sampler_name": "euler",
            "scheduler": "normal",
            "positive": self.words,
            "negative": self.nothing,
            "latent_image": self.blank,
        }


@pytest.fixture
def drawing(bench: Bench) -> Drawing:
    return Drawing(bench)


def test_sampler_reports_every_step_with_a_picture(drawing: Drawing) -> None:
    """Each step ticks once, in order, and shows how far the picture is."""
    drawing.ksampler()

    assert drawing.bench.ticks == [(step, STEPS) for step in range(1, STEPS + 1)]
    assert len(drawing.bench.previews) == STEPS
    for preview in drawing.bench.previews:
        assert preview.ndim == 3 and preview.shape[2] == 3
    assert not np.array_equal(drawing.bench.previews[0], drawing.bench.previews[-1])


def test_a_drawn_picture_has_the_size_asked_for(drawing: Drawing) -> None:
    """Decoding gives every picture of the batch, in the size of the empty latent."""
    blank = drawing.bench.give("EmptyLatentImage", width=96, height=40, batch_size=2)

    pixels = drawing.pixels(blank)

    assert pixels.shape == (2, 40, 96, 3)


def test_the_seed_decides_the_picture(drawing: Drawing) -> None:
    """The same seed draws the same picture, another seed another one."""
    once = drawing.pixels(drawing.ksampler())
    again = drawing.pixels(drawing.ksampler())
    other = drawing.pixels(drawing.ksampler(seed=2**64 - 1))

    assert_allclose(once, again)
    assert np.abs(once - other).mean() > 0.01


def test_an_interrupt_ends_the_sampling(drawing: Drawing) -> None:
    """The sampler stops at the tick at which the prompt was interrupted."""
    drawing.bench.interrupt_at = 2

    with pytest.raises(Interrupted):
        drawing.ksampler()

    assert drawing.bench.ticks == [(1, STEPS), (2, STEPS)]


def test_sampling_in_two_halves_is_sampling_at_once(drawing: Drawing) -> None:
    """KSamplerAdvanced may stop with noise left over and go on from there."""
    whole = drawing.advanced(drawing.blank, 0, 10000, "enable", "disable")
    half = drawing.advanced(drawing.blank, 0, 2, "enable", "enable")
    both = drawing.advanced(half, 2, 10000, "disable", "disable")

    assert_allclose(drawing.pixels(both), drawing.pixels(whole), atol=1e-3)
    assert np.abs(drawing.pixels(half) - drawing.pixels(whole)).mean() > 0.01


def test_encoding_and_decoding_keeps_the_picture(bench: Bench, drawing: Drawing) -> None:
    """A smooth picture survives the way into a latent and back, in its own size."""
    ramp = np.linspace(0.2, 0.8, 64, dtype=np.float32)
    image = np.broadcast_to(ramp[None, None, :, None], (1, 64, 64, 3)).copy()

    latent = bench.give("VAEEncode", pixels=image, vae=drawing.vae)

    assert_allclose(drawing.pixels(latent), image, atol=0.05)


def test_little_denoise_keeps_more_of_the_picture(bench: Bench, drawing: Drawing) -> None:
    """The lower denoise is, the closer the result stays to where it started."""
    start = bench.give(
        "VAEEncode", pixels=noise(1, 8, 8).repeat(8, 1).repeat(8, 2), vae=drawing.vae
    )
    before = drawing.pixels(start)

    little, much = (
        np.abs(drawing.pixels(drawing.ksampler(latent_image=start, denoise=each)) - before).mean()
        for each in (0.2, 1.0)
    )

    assert little < much


def test_unknown_words_are_told(bench: Bench, drawing: Drawing) -> None:
    """A word the model has never seen is named to the caller, and is no output."""
    bench.texts.clear()

    result = bench.run("CLIPTextEncode", text="red heart qwertzuiop", clip=drawing.clip)

    assert result.ui is None
    assert len(bench.texts) == 1
    assert "qwertzuiop" in bench.texts[0]
    assert "heart" not in bench.texts[0]


def test_all_graphs_share_one_model_until_it_is_let_go(bench: Bench) -> None:
    """The checkpoint is loaded once; after unloading it is loaded anew."""
    first = bench.run("CheckpointLoaderSimple", ckpt_name=CHECKPOINT).values

    again = bench.run("CheckpointLoaderSimple", ckpt_name=CHECKPOINT).values
    SHARED_MODEL.unload()
    reloaded = bench.run("CheckpointLoaderSimple", ckpt_name=CHECKPOINT).values

    assert {id(each) for each in (*first, *again)} == {id(first[0])}
    assert reloaded[0] is not first[0]
