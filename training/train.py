"""Trains the model: `python -m training.train --out DIRECTORY`; run it again to resume."""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from training.network import DEVIATION, DRAFT, MAX_WORDS, MEAN, Network, Words
from training.pictures import FONT, KEYWORDS, MARGIN, SIZE, Subject, subjects

BATCH = 32
LEARNING_RATE = 1.5e-3
WARMUP = 200
COOLDOWN = 0.35  # the last part of all steps, over which the learning rate falls to zero
DRAFT_STEPS = 5000
DRAFT_BATCH = 256
DRAFT_LEARNING_RATE = 2e-3
EMPTY_PROMPTS = 0.12
RECOLOURED = 0.25
MIRRORED = 0.1


def main() -> None:
    """Train the words, then the U-Net until `--steps`; a checkpoint is written now and then."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("training/runs/emoji"))
    parser.add_argument("--steps", type=int, default=2250)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--save-minutes", type=float, default=3.0)
    parser.add_argument("--font", type=Path, default=FONT)
    parser.add_argument("--keywords", type=Path, default=KEYWORDS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    data = Data.of(subjects(options.font, options.keywords))
    words_file = options.out / "words.json"
    words_file.write_text(json.dumps(list(data.vocabulary), ensure_ascii=False), encoding="utf-8")
    torch.manual_seed(options.seed)
    network = Network(len(data.vocabulary)).to(memory_format=torch.channels_last)
    size = sum(p.numel() for p in network.parameters())
    print(f"{len(data.subjects)} subjects, {len(data.vocabulary)} words, {size:,} parameters")
    clock = Clock()
    words_done = options.out / "words.pt"
    if words_done.exists():
        network.words.load_state_dict(torch.load(words_done, weights_only=True))
    else:
        _train_words(network.words, data, options.seed, clock)
        _save(network.words.state_dict(), words_done)
    _train_unet(network, data, options, clock)


def _train_words(words: Words, data: Data, seed: int, clock: Clock) -> None:
    """Teach the words what they look like, as small blurred pictures."""
    optimizer = torch.optim.AdamW(
        words.parameters(), lr=DRAFT_LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.0, fused=True
    )
    losses: list[float] = []
    for step in range(DRAFT_STEPS):
        rng = random.Random(seed * 1_000_003 - step - 1)
        rows, caption = data.captions(rng, DRAFT_BATCH)
        for group in optimizer.param_groups:
            group["lr"] = DRAFT_LEARNING_RATE * _pace(step, DRAFT_STEPS, cooldown=0.8)
        loss = (words.draft(words(caption)) - data.drafts[rows]).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
        if step % 250 == 249:
            clock.say(f"words {step + 1}", losses)


def _train_unet(network: Network, data: Data, options: argparse.Namespace, clock: Clock) -> None:
    """Teach the rest to take noise away, the words' part left as it is."""
    network.words.requires_grad_(False)
    average = copy.deepcopy(network)
    learning = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        learning, lr=LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.01, fused=True
    )
    checkpoint = options.out / "checkpoint.pt"
    step = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        network.load_state_dict(saved["network"])
        average.load_state_dict(saved["average"])
        optimizer.load_state_dict(saved["optimizer"])
        step, clock.before = saved["step"], saved["seconds"]
    saved_at = time.monotonic()
    losses: list[float] = []
    while step < options.steps:
        # A step's pictures and noise depend on the seed and on its number alone.
        rng = random.Random(options.seed * 1_000_003 + step)
        torch.manual_seed(options.seed * 1_000_003 + step)
        rows, caption = data.captions(rng, BATCH)
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * _pace(step, options.steps, COOLDOWN)
        losses.append(_learn(network, optimizer, data.latents(rng, rows), caption))
        step += 1
        _follow(average, network, min(0.999, (1 + step) / (30 + step)))
        if step % 50 == 0:
            clock.say(f"step {step}", losses)
        if time.monotonic() - saved_at > options.save_minutes * 60 or step == options.steps:
            saved_at = time.monotonic()
            state = {
                "network": network.state_dict(),
                "average": average.state_dict(),
                "optimizer": optimizer.state_dict(),
                "step": step,
                "seconds": clock.seconds(),
            }
            _save(state, checkpoint)


class Clock:
    """How long training took, over all its pieces."""

    def __init__(self) -> None:
        self.before = 0.0
        self.began = time.monotonic()

    def seconds(self) -> float:
        return self.before + time.monotonic() - self.began

    def say(self, what: str, losses: list[float]) -> None:
        mean = sum(losses) / len(losses)
        print(f"{what} loss {mean:.4f} minutes {self.seconds() / 60:.1f}", flush=True)
        losses.clear()


@dataclass(frozen=True)
class Data:
    """All subjects, ready to be drawn from."""

    subjects: list[Subject]
    originals: int
    cumulative: list[float]
    vocabulary: dict[str, int]
    drafts: Tensor

    @classmethod
    def of(cls, found: list[Subject]) -> Data:
        originals = sum(not subject.recoloured for subject in found)
        total = np.cumsum([subject.weight for subject in found[:originals]])
        words = set()
        for subject in found:
            words.update(subject.words, subject.keywords, *subject.others)
        vocabulary = {word: index for index, word in enumerate(sorted(words), start=1)}
        inner = slice(MARGIN, MARGIN + SIZE)
        pictures = np.stack([subject.pictures[0][:, inner, inner] for subject in found])
        drafts = F.avg_pool2d(_latent(pictures), SIZE // DRAFT)
        return cls(found, originals, [float(x) for x in total], vocabulary, drafts)

    def captions(self, rng: random.Random, batch: int) -> tuple[list[int], Tensor]:
        """The rows of *batch* subjects, and word indices ``[batch, MAX_WORDS]`` for them."""
        rows = [
            rng.randrange(self.originals, len(self.subjects))
            if rng.random() < RECOLOURED
            else rng.choices(range(self.originals), cum_weights=self.cumulative)[0]
            for _ in range(batch)
        ]
        words = np.zeros((batch, MAX_WORDS), np.int64)
        for place, row in zip(words, rows, strict=True):
            caption = [self.vocabulary[word] for word in _caption(self.subjects[row], rng)]
            place[: len(caption)] = caption[:MAX_WORDS]
        return rows, torch.from_numpy(words)

    def latents(self, rng: random.Random, rows: list[int]) -> Tensor:
        """Pictures of these rows as latents ``[batch, 3, SIZE, SIZE]``."""
        pictures = np.stack([_shown(self.subjects[row], rng) for row in rows])
        return _latent(pictures).contiguous(memory_format=torch.channels_last)


def _latent(pictures: NDArray[np.uint8]) -> Tensor:
    return (torch.from_numpy(pictures).float() / 255 - MEAN) / DEVIATION


def _shown(subject: Subject, rng: random.Random) -> NDArray[np.uint8]:
    """One of its pictures, slightly moved and perhaps mirrored."""
    picture = subject.pictures[rng.choices(range(len(subject.pictures)), (0.7, 0.3))[0]]
    x, y = (rng.choice((0, MARGIN, MARGIN, MARGIN, 2 * MARGIN)) for _ in range(2))
    picture = picture[:, y : y + SIZE, x : x + SIZE]
    return picture[:, :, ::-1] if subject.flips and rng.random() < MIRRORED else picture


def _caption(subject: Subject, rng: random.Random) -> list[str]:
    """What a person might have typed to get this picture."""
    if rng.random() < EMPTY_PROMPTS:
        return []
    kind = rng.random()
    if kind < 0.15 and subject.others:
        return list(rng.choice(subject.others))
    if kind < 0.23 and subject.keywords:
        return rng.sample(subject.keywords, min(len(subject.keywords), rng.randint(1, 2)))
    words = list(dict.fromkeys(subject.words))
    if len(words) > 2 and rng.random() < 0.15:
        words.remove(rng.choice(words))
    if kind < 0.35 and subject.keywords:
        words.append(rng.choice(subject.keywords))
    return words


def _pace(step: int, steps: int, cooldown: float) -> float:
    """Warm up, hold, and fall to zero over the last part."""
    left = (steps - step) / (steps * cooldown)
    return min((step + 1) / WARMUP, 1.0) * (0.5 - 0.5 * math.cos(math.pi * min(left, 1.0)))


def _learn(
    network: Network, optimizer: torch.optim.Optimizer, clean: Tensor, words: Tensor
) -> float:
    """One step; the error is weighed so that every noise level counts the same."""
    t = torch.sigmoid(torch.randn(BATCH) * 1.3 + 0.1).view(-1, 1, 1, 1)
    noisy = (1 - t) * clean + t * torch.randn_like(clean)
    estimate = network(noisy, t.flatten(), words)
    weight = ((1 - t) ** 2 + t**2) / t**2
    loss = (weight * (estimate - clean) ** 2).mean()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_([p for p in network.parameters() if p.grad is not None], 1.0)
    optimizer.step()
    return float(loss.detach())


def _save(state: dict[str, Any], path: Path) -> None:
    """Replace *path* in one move, so that a stop at any time leaves a whole file."""
    torch.save(state, path.with_suffix(".new"))
    os.replace(path.with_suffix(".new"), path)


@torch.no_grad()
def _follow(average: Network, network: Network, keep: float) -> None:
    for mean, new in zip(average.parameters(), network.parameters(), strict=True):
        mean.lerp_(new, 1 - keep)


if __name__ == "__main__":
    main()
