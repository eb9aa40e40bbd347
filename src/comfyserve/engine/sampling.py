"""From noise to pictures: noise schedules, samplers and guidance, in plain numpy.

Inside this module a noisy picture is ``clean + sigma * noise``. The model's own time is
``t = sigma / (1 + sigma)``; it is shown the picture divided by ``1 + sigma``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from comfyserve.engine.model import Conditioning, Latent, Samples

SAMPLERS = ("euler", "euler_ancestral", "heun", "dpmpp_2m", "dpmpp_3m_sde", "ddim")
SCHEDULERS = ("normal", "karras", "simple", "sgm_uniform")

SIGMA_MAX = 24.0
SIGMA_MIN = 0.03
FADE = 2.0  # the noise level at which half of the guidance is left
LONG_STEP = 0.5  # how far the logarithm of the noise may fall in a step of the third order
RESCALE = 0.3  # how much of the contrast that guidance adds is taken back

OnStep = Callable[[int, int, Samples], None]
"""Called after each step with its number from 1, how many there are, and the clean estimate."""


class Estimator(Protocol):
    """A model that says what clean pictures noisy ones probably are."""

    def estimate(
        self, samples: Samples, t: float, conditionings: list[Conditioning]
    ) -> list[Samples]: ...

    def limits(self) -> tuple[float, float]: ...


def sample(
    model: Estimator,
    latent: Latent,
    *,
    positive: Conditioning,
    negative: Conditioning,
    seed: int,
    steps: int,
    cfg: float,
    sampler: str,
    scheduler: str,
    denoise: float = 1.0,
    add_noise: bool = True,
    start_step: int = 0,
    end_step: int | None = None,
    force_full_denoise: bool = True,
    on_step: OnStep,
) -> Latent:
    """Draw what *positive* says and *negative* does not, from *latent* and the noise of *seed*.

    *denoise* below 1 keeps that much less of the way: *latent* is noised partly, and all *steps*
    lie on the rest. *start_step* and *end_step* run a part of the steps; without
    *force_full_denoise* the noise that is left then stays in the result. The same arguments give
    the same pictures, and each picture of a batch has its own noise. *on_step* may raise to stop.
    """
    levels = steps_of(scheduler, steps, denoise)
    if end_step is not None and end_step < len(levels) - 1:
        levels = levels[: max(end_step, 0) + 1]
        if force_full_denoise:
            levels = np.append(levels[:-1], 0.0)
    levels = levels[max(start_step, 0) :]
    if len(levels) < 2:
        return latent
    run = _Run(model, positive, negative, cfg, levels, _Noise(seed, len(latent.samples)), on_step)
    noisy = latent.samples.astype(np.float32)
    if add_noise:
        noisy = noisy + np.float32(levels[0]) * run.noise.first(noisy.shape[1:])
    run.noise.skip_to(start_step)
    return replace(latent, samples=_SAMPLERS[sampler](run, noisy))


def steps_of(scheduler: str, steps: int, denoise: float = 1.0) -> NDArray[np.float64]:
    """The noise levels to stop at: *steps* + 1 of them, falling, the last one 0.

    With *denoise* below 1 they are the end of a proportionally longer schedule; at 0 there is
    nothing to do and the answer is empty.
    """
    if scheduler not in _SCHEDULES:
        raise ValueError(f"{scheduler!r} is not one of {', '.join(SCHEDULERS)}")
    if denoise <= 0 or steps < 1:
        return np.zeros(0)
    total = max(steps, int(steps / min(denoise, 1.0)))
    return np.append(_SCHEDULES[scheduler](total), 0.0)[-(steps + 1) :]


def _karras(count: int) -> NDArray[np.float64]:
    root = 1 / 7
    return np.asarray(np.linspace(SIGMA_MAX**root, SIGMA_MIN**root, count) ** 7)


def _normal(count: int) -> NDArray[np.float64]:
    return _sigma(np.linspace(_time(SIGMA_MAX), _time(SIGMA_MIN), count))


def _simple(count: int) -> NDArray[np.float64]:
    return _sigma(_time(SIGMA_MAX) * np.arange(count, 0, -1) / count)


def _sgm_uniform(count: int) -> NDArray[np.float64]:
    return _sigma(np.linspace(_time(SIGMA_MAX), _time(SIGMA_MIN), count + 1)[:-1])


_SCHEDULES: dict[str, Callable[[int], NDArray[np.float64]]] = {
    "normal": _normal,
    "karras": _karras,
    "simple": _simple,
    "sgm_uniform": _sgm_uniform,
}


def _time(sigma: float) -> float:
    return sigma / (1 + sigma)


def _sigma(t: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(t / (1 - t))


class _Noise:
    """Noise of a seed: a stream of its own for each picture, so batches share their pictures."""

    def __init__(self, seed: int, batch: int) -> None:
        self.seed = seed
        self.batch = batch
        self.streams = self._open(0)

    def first(self, shape: tuple[int, ...]) -> Samples:
        return self._draw(self._open(0), shape)

    def skip_to(self, step: int) -> None:
        """Go on with noise that the steps before *step* have not used."""
        self.streams = self._open(1 + max(step, 0))

    def next(self, shape: tuple[int, ...]) -> Samples:
        return self._draw(self.streams, shape)

    def _open(self, part: int) -> list[np.random.Generator]:
        return [np.random.default_rng((self.seed, item, part)) for item in range(self.batch)]

    @staticmethod
    def _draw(streams: list[np.random.Generator], shape: tuple[int, ...]) -> Samples:
        return np.stack([stream.standard_normal(shape, np.float32) for stream in streams])


@dataclass(frozen=True, slots=True)
class _Run:
    """One call of `sample`: what the samplers share."""

    model: Estimator
    positive: Conditioning
    negative: Conditioning
    cfg: float
    levels: NDArray[np.float64]
    noise: _Noise
    on_step: OnStep

    def steps(self) -> Iterator[tuple[float, float]]:
        """Each step's noise level and the next one's."""
        for now, then in zip(self.levels[:-1], self.levels[1:], strict=True):
            yield float(now), float(then)

    def estimate(self, noisy: Samples, sigma: float) -> Samples:
        """The clean pictures, guided away from *negative*."""
        scaled = noisy / np.float32(1 + sigma)
        t = _time(sigma)
        if self.cfg == 1:
            (clean,) = self.model.estimate(scaled, t, [self.positive])
        else:
            wanted, other = self.model.estimate(scaled, t, [self.positive, self.negative])
            clean = _guided(wanted, other, self.cfg, sigma)
        return self.bounded(clean)

    def bounded(self, clean: Samples) -> Samples:
        """What a picture can hold of *clean*."""
        low, high = self.model.limits()
        return np.clip(clean, np.float32(low), np.float32(high))

    def report(self, step: int, clean: Samples) -> None:
        self.on_step(step, len(self.levels) - 1, clean)


def _guided(wanted: Samples, other: Samples, cfg: float, sigma: float) -> Samples:
    """Step over *wanted*, away from *other*; contrast that this adds is partly taken back.

    What is drawn is decided while there is much noise. Later, guidance would only sharpen the
    noise that is left, so it fades away with it.
    """
    fade = sigma**2 / (sigma**2 + FADE**2)
    guided = wanted + np.float32((cfg - 1) * fade) * (wanted - other)
    axes = (1, 2, 3)
    mean = guided.mean(axis=axes, keepdims=True)
    spread = guided.std(axis=axes, keepdims=True)
    ratio = np.minimum(wanted.std(axis=axes, keepdims=True) / np.maximum(spread, 1e-6), 1.0)
    kept = np.float32(1 - RESCALE) + np.float32(RESCALE) * ratio
    return np.asarray(mean + (guided - mean) * kept, np.float32)


def _euler(run: _Run, x: Samples) -> Samples:
    for step, (sigma, then) in enumerate(run.steps(), start=1):
        clean = run.estimate(x, sigma)
        x = clean + np.float32(then / sigma) * (x - clean)
        run.report(step, clean)
    return x


def _euler_ancestral(run: _Run, x: Samples) -> Samples:
    """Euler's step to a lower level than wanted, then fresh noise up to the wanted one."""
    for step, (sigma, then) in enumerate(run.steps(), start=1):
        clean = run.estimate(x, sigma)
        fresh = then * np.sqrt(1 - (then / sigma) ** 2)
        down = np.sqrt(then**2 - fresh**2)
        x = clean + np.float32(down / sigma) * (x - clean)
        if fresh > 0:
            x = x + np.float32(fresh) * run.noise.next(x.shape[1:])
        run.report(step, clean)
    return x


def _heun(run: _Run, x: Samples) -> Samples:
    """Euler's step, then again with the mean of the slopes at both of its ends."""
    for step, (sigma, then) in enumerate(run.steps(), start=1):
        clean = run.estimate(x, sigma)
        slope = (x - clean) / np.float32(sigma)
        ahead = x + np.float32(then - sigma) * slope
        if then > 0:
            slope = (slope + (ahead - run.estimate(ahead, then)) / np.float32(then)) / 2
            ahead = x + np.float32(then - sigma) * slope
        x = ahead
        run.report(step, clean)
    return x


def _dpmpp_2m(run: _Run, x: Samples) -> Samples:
    """DPM-Solver++(2M): the last estimate tells how the present one is changing."""
    before: Samples | None = None
    width_before = 0.0
    for step, (sigma, then) in enumerate(run.steps(), start=1):
        clean = run.estimate(x, sigma)
        if then == 0:
            x = clean
        else:
            width = np.log(sigma / then)
            ahead = clean
            if before is not None:
                ahead = clean + np.float32(width / width_before / 2) * (clean - before)
            x = ahead + np.float32(then / sigma) * (x - ahead)
            before, width_before = clean, width
        run.report(step, clean)
    return x


def _dpmpp_3m_sde(run: _Run, x: Samples) -> Samples:
    """DPM-Solver++(3M) with fresh noise in every step, as much as it takes away (eta 1)."""
    past: list[tuple[Samples, float]] = []  # the estimates before and the widths of their steps
    for step, (sigma, then) in enumerate(run.steps(), start=1):
        clean = run.estimate(x, sigma)
        if then == 0:
            x = clean
        else:
            width = float(np.log(sigma / then))
            fall = 2 * width
            share = np.float32(-np.expm1(-fall))
            ahead = run.bounded(clean + _bend(clean, past, width, fall) / share)
            x = (1 - share) * x + share * ahead
            fresh = then * np.sqrt(-np.expm1(-2 * width))
            x = x + np.float32(fresh) * run.noise.next(x.shape[1:])
            past = [(clean, width), *past[:1]]
        run.report(step, clean)
    return x


def _bend(clean: Samples, past: list[tuple[Samples, float]], width: float, fall: float) -> Samples:
    """What the first and second derivative of the estimate add to a step of *width*.

    A step that is long against the estimates' own change would shoot far beyond them, and then
    draw its own noise; the longer it is, the less of this counts.
    """
    if not past:
        return np.zeros_like(clean)
    trust = min(1.0, (LONG_STEP / width) ** 2)
    second = trust * (np.expm1(-fall) / fall + 1)
    (one, one_width), *older = past
    near = one_width / width
    slope = (clean - one) / np.float32(near)
    if not older:
        return np.asarray(second * slope, np.float32)
    ((two, two_width),) = older
    far = two_width / width
    change = slope - (one - two) / np.float32(far)
    third = second / fall - 0.5 * trust
    slope = slope + change * np.float32(near / (near + far))
    return np.asarray(second * slope - third / (near + far) * change, np.float32)


_SAMPLERS: dict[str, Callable[[_Run, Samples], Samples]] = {
    "euler": _euler,
    "euler_ancestral": _euler_ancestral,
    "heun": _heun,
    "dpmpp_2m": _dpmpp_2m,
    "dpmpp_3m_sde": _dpmpp_3m_sde,
    # Without added noise DDIM is Euler's method: both go straight at the estimate.
    "ddim": _euler,
}
