"""What the built-in engine's model promises, shown with its real weights."""

from __future__ import annotations

import colorsys
import subprocess
import sys
from importlib import resources

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comfyserve.engine.model import PREVIEW_SIZE, EngineExtraMissing, Model, Vocabulary
from comfyserve.engine.node import Pixels
from comfyserve.engine.sampling import sample

HUES = {"red": 0.0, "yellow": 0.14, "green": 0.36, "blue": 0.59, "purple": 0.77}


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.load(threads=2)


@pytest.mark.parametrize("colour", HUES)
def test_draws_the_colour_that_was_asked_for(model: Model, colour: str) -> None:
    """The most frequent hue of a heart is the one its prompt names."""
    pictures = _drawn(model, f"a {colour} heart", batch=2)

    for picture in pictures:
        distance = abs((_modal_hue(picture) - HUES[colour] + 0.5) % 1 - 0.5)
        assert distance < 0.09


def test_background_is_white(model: Model) -> None:
    """What is drawn stands on white: the corners of a picture are bright."""
    (picture,) = _drawn(model, "red heart")

    corners = [picture[y : y + 16, x : x + 16] for y in (0, 112) for x in (0, 112)]

    assert min(float(corner.mean()) for corner in corners) > 0.9


def test_order_of_words_does_not_matter(model: Model) -> None:
    """The same words in another order give the same estimate."""
    noise = np.random.default_rng(1).standard_normal((1, 3, 32, 32), np.float32)

    one, other = (
        model.estimate(noise, 0.8, [model.encode_text(text)])[0]
        for text in ("blue apple", "apple, BLUE")
    )

    np.testing.assert_allclose(one, other, atol=1e-3)


def test_unknown_words_are_named(model: Model) -> None:
    """Words the model never saw are listed, each once; filler words are not worth a mention."""
    told = model.encode_text("a photorealistic red heart, zorblax zorblax with (fire:1.3)")

    assert told.known_words == ("red", "heart", "fire")
    assert told.unknown_words == ("photorealistic", "zorblax")


@pytest.mark.parametrize(
    ("text", "word"),
    [("rockets", "rocket"), ("cherry", "cherry"), ("kitty", "cat"), ("KITTENS", "cat")],
)
def test_plurals_and_synonyms_are_understood(model: Model, text: str, word: str) -> None:
    """A word is found by its singular or by what it commonly stands for."""
    assert model.encode_text(text).known_words == (word,)


@settings(deadline=None)
@given(text=st.text(max_size=300))
def test_any_text_can_be_encoded(text: str) -> None:
    """No text is refused; no word is both known and unknown."""
    told = _shared_model().encode_text(text)

    assert not set(told.known_words) & set(told.unknown_words)
    assert np.count_nonzero(told.indices) == len(told.known_words)


@pytest.mark.parametrize(("width", "height"), [(64, 64), (512, 768), (768, 512), (33, 200)])
def test_other_sizes_keep_their_shape(model: Model, width: int, height: int) -> None:
    """A picture has the size that was asked for; what is drawn sits unstretched in its middle."""
    latent = model.empty_latent(width, height, 1)
    black = model.limits()[0]
    latent.samples[:] = black

    (picture,) = model.decode(latent)

    assert picture.shape == (height, width, 3)
    dark = picture.mean(axis=2) < 0.5
    side = min(width, height)
    assert dark.any(axis=0).sum() == dark.any(axis=1).sum() == side


@pytest.mark.parametrize(("width", "height"), [(32, 32), (256, 256), (300, 200), (64, 400)])
def test_encoding_and_decoding_keep_a_picture(model: Model, width: int, height: int) -> None:
    """A smooth picture of any shape comes back nearly as it was, all of it."""
    across, down = np.linspace(0, 1, width), np.linspace(0, 1, height)
    channels = [np.tile(across, (height, 1)), np.tile(down[:, None], (1, width))]
    picture = np.stack([*channels, np.full((height, width), 0.5)], axis=-1).astype(np.float32)

    latent = model.encode(picture[None])
    (back,) = model.decode(latent)

    assert back.shape == picture.shape
    assert np.abs(back - picture).mean() < 0.06


def test_preview_is_one_small_picture(model: Model) -> None:
    """A preview shows the first picture of the samples, in the range of pixels."""
    samples = model.empty_latent(512, 512, 3).samples + np.float32(9)

    preview = model.preview(samples)

    assert preview.shape == (PREVIEW_SIZE, PREVIEW_SIZE, 3)
    assert preview.min() >= 0 and preview.max() == 1


def test_velocity_points_from_clean_to_noise(model: Model) -> None:
    """Going back along the velocity from time t arrives at the clean estimate."""
    noise = np.random.default_rng(2).standard_normal((2, 3, 32, 32), np.float32)
    told = model.encode_text("pizza")

    (clean,) = model.estimate(noise, 0.7, [told])
    velocity = model.velocity(noise, 0.7, told)

    np.testing.assert_allclose(noise - 0.7 * velocity, clean, atol=1e-4)


def test_estimates_do_not_depend_on_company(model: Model) -> None:
    """A picture's estimate is the same alone and in a batch with others and another prompt."""
    noise = np.random.default_rng(3).standard_normal((3, 3, 32, 32), np.float32)
    apple, ghost = model.encode_text("apple"), model.encode_text("ghost")

    together = model.estimate(noise, 0.6, [apple, ghost])
    alone = model.estimate(noise[2:], 0.6, [ghost])

    assert [part.shape for part in together] == [noise.shape, noise.shape]
    np.testing.assert_allclose(together[1][2:], alone[0], atol=1e-3)


def test_missing_onnxruntime_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without onnxruntime loading fails with a sentence that says what to install."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)

    with pytest.raises(EngineExtraMissing, match=r'pip install "comfyserve\[engine\]"'):
        Model.load()


def test_import_needs_no_onnxruntime() -> None:
    """The module can be imported where onnxruntime is not installed."""
    program = "import sys; sys.modules['onnxruntime'] = None; import comfyserve.engine.model"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=30)

    assert done.returncode == 0, done.stderr.decode()


def test_weights_are_small() -> None:
    """Weights and vocabulary together stay within 8 MB."""
    folder = resources.files("comfyserve.engine") / "weights"

    assert sum(len(file.read_bytes()) for file in folder.iterdir() if file.is_file()) <= 8_000_000


def test_wrong_vocabulary_is_refused() -> None:
    """A vocabulary without its fields is refused with the fields that it has."""
    with pytest.raises(ValueError, match="words"):
        Vocabulary.of({"words": ["heart"]})


_LOADED: list[Model] = []


def _shared_model() -> Model:
    """Hypothesis runs a test many times, and fixtures of a narrower scope are not for it."""
    if not _LOADED:
        _LOADED.append(Model.load(threads=1))
    return _LOADED[0]


def _drawn(model: Model, prompt: str, batch: int = 1) -> Pixels:
    """Pictures of 128 x 128 pixels."""
    latent = sample(
        model,
        model.empty_latent(128, 128, batch),
        positive=model.encode_text(prompt),
        negative=model.encode_text(""),
        seed=7,
        steps=14,
        cfg=4.0,
        sampler="dpmpp_2m",
        scheduler="karras",
        on_step=lambda step, steps, clean: None,
    )
    return model.decode(latent)


def _modal_hue(picture: Pixels) -> float:
    """The most frequent hue of the coloured pixels, 0 to 1."""
    coloured = picture[np.ptp(picture, axis=2) > 0.3]
    hues = [colorsys.rgb_to_hsv(*(float(c) for c in pixel))[0] for pixel in coloured]
    counts, edges = np.histogram(np.asarray(hues), bins=36, range=(-1 / 72, 1 + 1 / 72))
    counts[0] += counts[-1]
    counts[-1] = 0
    return float(edges[int(np.argmax(counts))] + 1 / 72)
