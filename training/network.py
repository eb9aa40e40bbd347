"""The network: words become a blurred draft, and a U-Net makes a picture of noise and draft."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MEAN, DEVIATION = 0.82, 0.28  # of all training pixels, 0 to 1
MAX_WORDS = 12

WIDTHS = (64, 128, 128)  # channels at 16x16, 8x8 and 4x4
WORD = 96
CONDITION = 192
DRAFT = 16  # pixels, half of the picture's


class Network(nn.Module):
    """Estimates the clean latent in ``x = (1 - t) * clean + t * noise``.

    Latents are ``(pixels - MEAN) / DEVIATION``, so clean and noise are about equally strong.
    ``words`` are indices ``[batch, MAX_WORDS]``, 0 where there is none, in any order; a row of
    zeros is the empty prompt.
    """

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.words = Words(vocabulary)
        self.time = nn.Sequential(
            nn.Linear(32, CONDITION), nn.SiLU(), nn.Linear(CONDITION, CONDITION)
        )
        self.enter = nn.Conv2d(12 + 3, WIDTHS[0], 3, padding=1)
        a, b, c = WIDTHS
        self.down = nn.ModuleList([Block(a, a), Block(a, a), Block(a, b), Block(b, b), Block(b, c)])
        self.middle = nn.ModuleList([Block(c, c), Attention(c), Block(c, c)])
        self.up = nn.ModuleList([Block(c, b), Block(b, b), Block(b, a), Block(a, a), Block(a, a)])
        self.look = Attention(b)
        self.norm = nn.GroupNorm(8, a)
        self.leave = nn.Conv2d(a, 12, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, x: Tensor, t: Tensor, words: Tensor) -> Tensor:
        t = t.view(-1, 1, 1, 1)
        power = (1 - t) ** 2 + t**2
        meaning = self.words(words)
        draft = self.words.draft(meaning)
        told = F.silu(meaning + self.time(_waves(t.flatten())))
        guess = self._unet(torch.cat([F.pixel_unshuffle(x / power.sqrt(), 2), draft], 1), told)
        return x * (1 - t) / power + guess * t / power.sqrt()

    def _unet(self, x: Tensor, told: Tensor) -> Tensor:
        x = x16 = self.down[1](self.down[0](self.enter(x), told), told)
        x = self.down[2](F.avg_pool2d(x, 2), told)
        x = x8 = self.look(self.down[3](x, told), told)
        x = self.down[4](F.avg_pool2d(x, 2), told)
        for layer in self.middle:
            x = layer(x, told)
        x = self.up[0](x, told)
        x = self.up[1](_double(x) + x8, told)
        x = self.up[2](x, told)
        x = self.up[3](_double(x) + x16, told)
        x = self.up[4](x, told)
        return F.pixel_shuffle(self.leave(F.silu(self.norm(x))), 2)


class Words(nn.Module):
    """One vector for a set of words, and a blurred draft of the picture that they mean.

    One round of attention without positions, so that the order of words does not matter. The
    draft costs next to nothing compared with the U-Net, so it can see every word thousands of
    times in minutes; the U-Net then need not learn what each word looks like.
    """

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.table = nn.Embedding(vocabulary + 1, WORD, padding_idx=0)
        nn.init.normal_(self.table.weight, std=1.0)
        self.query = nn.Parameter(torch.randn(1, 1, WORD))
        self.norm = nn.LayerNorm(WORD)
        self.qkv = nn.Linear(WORD, 3 * WORD)
        self.out = nn.Linear(WORD, WORD)
        self.leave = nn.Sequential(
            nn.Linear(2 * WORD, 2 * CONDITION), nn.SiLU(), nn.Linear(2 * CONDITION, CONDITION)
        )
        self.drawn = nn.Sequential(
            nn.Linear(CONDITION, 2 * CONDITION), nn.SiLU(), nn.Linear(2 * CONDITION, 3 * DRAFT**2)
        )

    def forward(self, words: Tensor) -> Tensor:
        there = (words > 0).to(self.query.dtype)
        x = torch.cat([self.query.expand(words.shape[0], -1, -1), self.table(words)], dim=1)
        mask = (1 - F.pad(there, (1, 0), value=1.0)) * -1e4
        q, k, v = (_heads(part, 4) for part in self.qkv(self.norm(x)).chunk(3, dim=-1))
        weights = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + mask[:, None, None]).softmax(-1)
        x = x + self.out((weights @ v).transpose(1, 2).flatten(2))
        weight = there.unsqueeze(-1)
        pooled = (x[:, 1:] * weight).sum(1) / weight.sum(1).clamp(min=1).sqrt()
        return self.leave(torch.cat([x[:, 0], pooled], dim=-1))

    def draft(self, meaning: Tensor) -> Tensor:
        """The latent picture ``[batch, 3, DRAFT, DRAFT]`` of what `forward` gave."""
        return self.drawn(meaning).view(-1, 3, DRAFT, DRAFT)


class Block(nn.Module):
    """Two convolutions with a skip; the condition scales and shifts what is between them."""

    def __init__(self, wide_in: int, wide_out: int) -> None:
        super().__init__()
        self.norm_in = nn.GroupNorm(8, wide_in)
        self.conv_in = nn.Conv2d(wide_in, wide_out, 3, padding=1)
        self.told = nn.Linear(CONDITION, 2 * wide_out)
        self.norm_out = nn.GroupNorm(8, wide_out)
        self.conv_out = nn.Conv2d(wide_out, wide_out, 3, padding=1)
        same = wide_in == wide_out
        self.skip = nn.Identity() if same else nn.Conv2d(wide_in, wide_out, 1)
        nn.init.zeros_(self.conv_out.weight)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        scale, shift = self.told(told)[:, :, None, None].chunk(2, dim=1)
        y = self.norm_out(self.conv_in(F.silu(self.norm_in(x)))) * (1 + scale) + shift
        return self.skip(x) + self.conv_out(F.silu(y))


class Attention(nn.Module):
    """Lets every place of a picture look at all others."""

    def __init__(self, wide: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, wide)
        self.qkv = nn.Conv2d(wide, 3 * wide, 1)
        self.out = nn.Conv2d(wide, wide, 1)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        batch, wide, high, broad = x.shape
        places = self.qkv(self.norm(x)).view(batch, 3 * wide, high * broad).transpose(1, 2)
        q, k, v = (_heads(part, 4) for part in places.chunk(3, dim=-1))
        seen = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return x + self.out(seen.transpose(1, 2).reshape(batch, wide, high, broad))


def _heads(x: Tensor, count: int) -> Tensor:
    """``[batch, places, wide]`` as ``[batch, count, places, wide / count]``."""
    batch, places, wide = x.shape
    return x.view(batch, places, count, wide // count).transpose(1, 2)


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def _waves(t: Tensor) -> Tensor:
    """The noise level as 32 sines and cosines of its logit, which spreads both ends."""
    t = t.clamp(1e-4, 1 - 1e-4)
    level = torch.log(t / (1 - t)) / 4
    angle = level[:, None] * torch.exp2(torch.arange(16, device=t.device) * 0.3 - 0.5)
    return torch.cat([angle.sin(), angle.cos()], dim=-1)
