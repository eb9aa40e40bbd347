"""What samplers and schedules promise, on a model with a known answer and on the real one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comfyserve.engine.model import Conditioning, Latent, Model, Samples
from comfyserve.engine.node import Interrupted, Pixels
from comfyserve.engine.sampling import SAMPLERS, SCHEDULERS, SIGMA_MAX, OnStep, sample, steps_of

NOWHERE = Conditioning("", np.zeros(0, np.int64), (), ())


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.load(threads=2)


@settings(deadline=None)
@given(
    scheduler=st.sampled_from(SCHEDULERS),
    steps=st.integers(1, 80),
    denoise=st.floats(0.05, 1.0),
)
def test_noise_levels_fall_to_zero(scheduler: str, steps: int, denoise: float) -> None:
    """A schedule has one level more than steps, falls all the way, and ends without noise."""
    levels = steps_of(scheduler, steps, denoise)

    assert len(levels) == steps + 1
    assert levels[0] <= SIGMA_MAX * (1 + 1e-9)
    assert np.all(np.diff(levels) < 0)
    assert levels[-1] == 0


@settings(deadline=None)
@given(scheduler=st.sampled_from(SCHEDULERS), steps=st.integers(1, 40), part=st.floats(0.1, 0.9))
def test_less_denoise_starts_lower(scheduler: str, steps: int, part: float) -> None:
    """With less denoise a schedule never starts at a higher level."""
    assert steps_of(scheduler, steps, part)[0] <= steps_of(scheduler, steps)[0]


def test_full_schedules_start_at_the_same_noise() -> None:
    """Whatever the scheduler, a picture from nothing starts at the highest level."""
    starts = [steps_of(scheduler, 20)[0] for scheduler in SCHEDULERS]

    np.testing.assert_allclose(starts, SIGMA_MAX, rtol=1e-6)


def test_unknown_scheduler_is_refused() -> None:
    """A scheduler that does not exist is refused with the names of those that do."""
    with pytest.raises(ValueError, match="karras"):
        steps_of("exponentially", 20)


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpmpp_2m", "ddim"])
def test_samplers_without_fresh_noise_follow_the_flow(sampler: str) -> None:
    """On data that is unit noise itself, where the flow is known, many steps end where it does."""
    start = np.random.default_rng(5).standard_normal((1, 3, 8, 8), np.float32)
    exact = start * SIGMA_MAX / np.sqrt(1 + SIGMA_MAX**2)

    ends = {steps: _flown(start, sampler, steps) for steps in (8, 128)}

    few, many = (float(np.abs(ends[steps] - exact).max()) for steps in (8, 128))
    assert many < 0.1
    assert many < few / 4


@pytest.mark.parametrize("sampler", ["heun", "dpmpp_2m"])
def test_second_order_samplers_are_more_exact(sampler: str) -> None:
    """With the same number of steps they end nearer to the exact answer than Euler's method."""
    start = np.random.default_rng(6).standard_normal((1, 3, 8, 8), np.float32)
    exact = start * SIGMA_MAX / np.sqrt(1 + SIGMA_MAX**2)

    euler, better = (np.abs(_flown(start, name, 30) - exact).max() for name in ("euler", sampler))

    assert better < euler / 2


@pytest.mark.parametrize("sampler", ["euler_ancestral", "dpmpp_3m_sde"])
def test_samplers_with_fresh_noise_keep_the_spread(sampler: str) -> None:
    """On data that is unit noise itself their results are unit noise again."""
    result = _exactly(Latent(np.zeros((4, 3, 32, 32), np.float32), 32, 32), sampler, 200)

    assert abs(float(result.std()) - 1) < 0.06
    assert abs(float(result.mean())) < 0.05


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_combination_draws(model: Model, sampler: str, scheduler: str) -> None:
    """Each sampler with each scheduler draws a red heart on white in eight steps."""
    (picture,) = _drawn(model, "red heart", sampler=sampler, scheduler=scheduler, steps=8)

    assert np.isfinite(picture).all()
    assert picture.min() >= 0 and picture.max() <= 1
    red, green, blue = picture[20:44, 20:44].mean(axis=(0, 1))
    assert red > green + 0.3 and red > blue + 0.3
    assert picture[:4, :4].mean() > 0.8


def test_seed_decides_the_picture(model: Model) -> None:
    """The same seed gives the same picture to the last bit, another seed another one."""
    first, again = (_drawn(model, "rocket", sampler="dpmpp_3m_sde", seed=11) for _ in range(2))
    other = _drawn(model, "rocket", sampler="dpmpp_3m_sde", seed=12)

    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).mean() > 0.01


def test_large_seeds_are_seeds(model: Model) -> None:
    """The largest seed that ComfyUI sends is as good as any."""
    assert np.isfinite(_drawn(model, "star", seed=2**64 - 1, steps=4)).all()


def test_pictures_of_a_batch_differ(model: Model) -> None:
    """A batch holds different pictures, and its first is the one drawn alone."""
    alone = _drawn(model, "house", sampler="euler_ancestral", seed=3)
    batch = _drawn(model, "house", sampler="euler_ancestral", seed=3, batch=3)

    np.testing.assert_allclose(batch[0], alone[0], atol=0.02)
    assert np.abs(batch[0] - batch[1]).mean() > 0.01
    assert np.abs(batch[1] - batch[2]).mean() > 0.01


def test_negative_prompt_takes_away(model: Model) -> None:
    """Naming a colour in the negative prompt leaves less of it in an open prompt's pictures."""
    plain = _drawn(model, "heart", batch=6)
    without = _drawn(model, "heart", batch=6, negative="red")

    assert _redness(without) < _redness(plain) - 0.02


def test_negative_prompt_needs_guidance(model: Model) -> None:
    """At cfg 1 only the prompt counts."""
    plain = _drawn(model, "heart", cfg=1.0)
    with_negative = _drawn(model, "heart", cfg=1.0, negative="red")

    np.testing.assert_array_equal(plain, with_negative)


@pytest.mark.parametrize("cfg", [1.0, 2.0, 4.0, 6.2, 8.0, 12.0])
def test_cfg_behaves_over_its_range(model: Model, cfg: float) -> None:
    """From cfg 1 to 12 a blue heart is blue and its background white."""
    (picture,) = _drawn(model, "blue heart", cfg=cfg, sampler="dpmpp_3m_sde")

    red, _, blue = picture[20:44, 20:44].mean(axis=(0, 1))
    assert blue > red + 0.2
    assert picture[:4].mean() > 0.85


def test_denoise_decides_how_much_is_kept(model: Model) -> None:
    """Image to image keeps the layout at small denoise and gives it up as denoise grows."""
    before = _drawn(model, "red apple", seed=1)
    start = model.encode(before)

    kept = [
        _likeness(before, _drawn(model, "blue car", latent=start, seed=2, denoise=denoise))
        for denoise in (0.1, 0.4, 0.7, 1.0)
    ]

    assert kept == sorted(kept, reverse=True)
    assert kept[0] > 0.9
    assert kept[0] > kept[-1] + 0.2


def test_no_denoise_changes_nothing(model: Model) -> None:
    """At denoise 0 the latent comes back as it was, and no step is reported."""
    start = model.encode(np.full((1, 64, 64, 3), 0.3, np.float32))
    heard: list[int] = []

    result = _sampled(model, start, denoise=0.0, on_step=lambda step, *_: heard.append(step))

    assert result is start
    assert heard == []


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_step_is_reported(model: Model, sampler: str) -> None:
    """Each step is reported once, counted from 1, with a clean estimate of the batch."""
    heard: list[tuple[int, int, tuple[int, ...]]] = []

    _sampled(
        model,
        model.empty_latent(64, 64, 2),
        sampler=sampler,
        steps=5,
        on_step=lambda step, steps, clean: heard.append((step, steps, clean.shape)),
    )

    assert heard == [(step, 5, (2, 3, 32, 32)) for step in range(1, 6)]


def test_what_a_report_raises_ends_the_work(model: Model) -> None:
    """An interrupt raised while a step is reported comes out at once."""
    heard: list[int] = []

    def stop(step: int, steps: int, clean: Samples) -> None:
        heard.append(step)
        if step == 3:
            raise Interrupted

    with pytest.raises(Interrupted):
        _sampled(model, model.empty_latent(64, 64, 1), steps=20, on_step=stop)
    assert heard == [1, 2, 3]


def test_two_parts_make_the_whole(model: Model) -> None:
    """Steps run in two parts, the noise handed on between them, end where one run does."""
    empty = model.empty_latent(64, 64, 1)

    whole = _sampled(model, empty, sampler="euler", steps=12)
    first = _sampled(model, empty, sampler="euler", steps=12, end_step=5, force_full_denoise=False)
    second = _sampled(model, first, sampler="euler", steps=12, add_noise=False, start_step=5)

    np.testing.assert_allclose(second.samples, whole.samples, atol=1e-3)


def test_an_early_end_can_be_cleaned(model: Model) -> None:
    """Stopped early, a latent keeps its noise unless full denoise is forced."""
    empty = model.empty_latent(64, 64, 1)

    noisy, clean = (
        _sampled(model, empty, sampler="euler", steps=12, end_step=3, force_full_denoise=forced)
        for forced in (False, True)
    )

    low, high = model.limits()
    assert np.abs(noisy.samples).max() > 3 * high - low
    assert clean.samples.min() >= low - 1e-3 and clean.samples.max() <= high + 1e-3


@dataclass(frozen=True)
class UnitNoise:
    """The exact estimator for data that is unit noise."""

    def estimate(
        self, samples: Samples, t: float, conditionings: list[Conditioning]
    ) -> list[Samples]:
        sigma = t / (1 - t)
        clean = samples * (1 + sigma) / (1 + sigma**2)
        return [clean.astype(np.float32) for _ in conditionings]

    def limits(self) -> tuple[float, float]:
        return -1e3, 1e3


def _flown(start: Samples, sampler: str, steps: int) -> Samples:
    return _exactly(Latent(start * np.float32(SIGMA_MAX), 8, 8), sampler, steps, add_noise=False)


def _exactly(latent: Latent, sampler: str, steps: int, add_noise: bool = True) -> Samples:
    result = sample(
        UnitNoise(),
        latent,
        positive=NOWHERE,
        negative=NOWHERE,
        seed=9,
        steps=steps,
        cfg=1.0,
        sampler=sampler,
        scheduler="karras",
        add_noise=add_noise,
        on_step=_unheard,
    )
    return result.samples


def _sampled(
    model: Model,
    latent: Latent,
    prompt: str = "heart",
    negative: str = "",
    *,
    seed: int = 7,
    steps: int = 12,
    cfg: float = 4.0,
    sampler: str = "dpmpp_2m",
    scheduler: str = "karras",
    denoise: float = 1.0,
    add_noise: bool = True,
    start_step: int = 0,
    end_step: int | None = None,
    force_full_denoise: bool = True,
    on_step: OnStep | None = None,
) -> Latent:
    return sample(
        model,
        latent,
        positive=model.encode_text(prompt),
        negative=model.encode_text(negative),
        seed=seed,
        steps=steps,
        cfg=cfg,
        sampler=sampler,
        scheduler=scheduler,
        denoise=denoise,
        add_noise=add_noise,
        start_step=start_step,
        end_step=end_step,
        force_full_denoise=force_full_denoise,
        on_step=on_step or _unheard,
    )


def _drawn(
    model: Model,
    prompt: str,
    *,
    negative: str = "",
    seed: int = 7,
    steps: int = 12,
    cfg: float = 4.0,
    sampler: str = "dpmpp_2m",
    scheduler: str = "karras",
    denoise: float = 1.0,
    batch: int = 1,
    latent: Latent | None = None,
) -> Pixels:
    """Pictures of 64 x 64 pixels."""
    result = _sampled(
        model,
        latent or model.empty_latent(64, 64, batch),
        prompt,
        negative,
        seed=seed,
        steps=steps,
        cfg=cfg,
        sampler=sampler,
        scheduler=scheduler,
        denoise=denoise,
    )
    return model.decode(result)


def _unheard(step: int, steps: int, clean: Samples) -> None:
    return None


def _redness(pictures: Pixels) -> float:
    """How much more red than the mean of green and blue there is."""
    red, green, blue = pictures.mean(axis=(0, 1, 2))
    return float(red - (green + blue) / 2)


def _likeness(one: Pixels, other: Pixels) -> float:
    """The correlation of two pictures' pixels."""
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])
