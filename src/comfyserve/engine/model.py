"""The built-in engine's own model: words and noise in, an estimate of the clean picture out."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module, resources
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from comfyserve.engine.node import Pixels

if TYPE_CHECKING:
    from PIL import Image

Samples = NDArray[np.float32]
"""Latent pictures as ``[batch, channels, height, width]``, about as strong as unit noise."""

PREVIEW_SIZE = 128
"""How many pixels wide and high a preview is."""

_WEIGHTS = "comfyserve-emoji-v1.onnx"
_VOCABULARY = "comfyserve-emoji-v1.json"


class EngineExtraMissing(Exception):
    """The packages that run the model are not installed."""

    def __init__(self, package: str) -> None:
        self.package = package
        super().__init__(
            f"The built-in engine's model needs the package {package!r}, which is not installed. "
            'Install it with: pip install "comfyserve[engine]"'
        )


@dataclass(frozen=True, slots=True)
class Latent:
    """Pictures as the model sees them, and the size in pixels they are to be shown at.

    The model knows only squares. Of a picture that is none, `samples` hold the middle square;
    or, when *whole* is true (an encoded picture), all of it with white beside it.
    """

    samples: Samples
    width: int
    height: int
    whole: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Conditioning:
    """What the model is told: the words of a text that it knows, and those it does not."""

    text: str
    indices: NDArray[np.int64]
    known_words: tuple[str, ...]
    unknown_words: tuple[str, ...]


class Session(Protocol):
    """The part of an onnxruntime session that the model leans on."""

    def run(
        self, outputs: Sequence[str] | None, feed: Mapping[str, NDArray[np.generic]]
    ) -> Sequence[Samples]: ...


@dataclass(frozen=True, slots=True)
class Model:
    """The trained network and its vocabulary; safe to use from several threads.

    >>> model = Model.load()
    >>> model.encode_text("a RED heart, please").known_words
    ('red', 'heart')
    """

    session: Session = field(repr=False)
    vocabulary: Vocabulary = field(repr=False)

    @classmethod
    def load(cls, threads: int = 0) -> Model:
        """Read the packaged weights; *threads* 0 leaves the choice to onnxruntime.

        Raises `EngineExtraMissing` when onnxruntime or Pillow is not installed.
        """
        # onnxruntime would write an id into the person's home and report its use; it reads this
        # when it is imported.
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
        for package in ("PIL.Image", "onnxruntime"):
            try:
                import_module(package)
            except ImportError as error:
                raise EngineExtraMissing({"PIL.Image": "pillow"}.get(package, package)) from error
        onnxruntime = import_module("onnxruntime")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Idle threads must sleep: the same few cores also serve the requests.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        folder = resources.files("comfyserve.engine") / "weights"
        session = onnxruntime.InferenceSession(
            (folder / _WEIGHTS).read_bytes(), options, providers=["CPUExecutionProvider"]
        )
        document = json.loads((folder / _VOCABULARY).read_text(encoding="utf-8"))
        return cls(session, Vocabulary.of(document))

    def encode_text(self, text: str) -> Conditioning:
        """The words of *text* that the model knows, in whatever order; the rest is named only."""
        known, unknown = self.vocabulary.sort(text)
        known = known[: self.vocabulary.slots]
        indices = np.zeros(self.vocabulary.slots, np.int64)
        indices[: len(known)] = [self.vocabulary.indices[word] for word in known]
        return Conditioning(text, indices, known, unknown)

    def empty_latent(self, width: int, height: int, batch: int) -> Latent:
        """*batch* pictures of nothing yet, to be shown *width* x *height* pixels large."""
        side = self.vocabulary.size
        return Latent(np.zeros((batch, 3, side, side), np.float32), width, height)

    def encode(self, pixels: Pixels) -> Latent:
        """The pictures ``[batch, height, width, 3]`` (0 to 1) as the model sees them."""
        height, width = pixels.shape[1:3]
        rows, columns = self._places(width, height)
        size = columns.stop - columns.start, rows.stop - rows.start
        side = self.vocabulary.size
        square = np.ones((len(pixels), side, side, 3), np.float32)
        for page, picture in zip(square, pixels, strict=True):
            page[rows, columns] = _resized(picture[..., :3], size)
        samples = (square.transpose(0, 3, 1, 2) - self.vocabulary.mean) / self.vocabulary.deviation
        return Latent(np.ascontiguousarray(samples, np.float32), width, height, whole=True)

    def decode(self, latent: Latent) -> Pixels:
        """The pictures ``[batch, height, width, 3]`` (0 to 1), enlarged smoothly, on white."""
        width, height = latent.width, latent.height
        pixels = self._pixels(latent.samples)
        if latent.whole:
            rows, columns = self._places(width, height)
            return np.stack([_enlarged(p[rows, columns], (width, height)) for p in pixels])
        side = min(width, height)
        x, y = (width - side) // 2, (height - side) // 2
        shown = np.ones((len(pixels), height, width, 3), np.float32)
        for page, picture in zip(shown, pixels, strict=True):
            page[y : y + side, x : x + side] = _enlarged(picture, (side, side))
        return shown

    def preview(self, samples: Samples) -> Pixels:
        """The first of *samples* as one picture ``[PREVIEW_SIZE, PREVIEW_SIZE, 3]``, 0 to 1."""
        size = (PREVIEW_SIZE, PREVIEW_SIZE)
        return _resized(self._pixels(samples[:1])[0], size)

    def estimate(
        self, samples: Samples, t: float, conditionings: Sequence[Conditioning]
    ) -> list[Samples]:
        """The clean pictures that *samples* probably are, once for each of *conditionings*.

        *samples* are ``(1 - t) * clean + t * noise``. All are computed in one go, which is
        faster than one after the other. The estimates lie within what a picture can hold.
        """
        batch = len(samples)
        ways = len(conditionings)
        words = np.repeat(np.stack([c.indices for c in conditionings]), batch, axis=0)
        feed: dict[str, NDArray[np.generic]] = {
            "samples": np.tile(samples.astype(np.float32, copy=False), (ways, 1, 1, 1)),
            "t": np.full(batch * ways, t, np.float32),
            "words": words,
        }
        clean = self.session.run(None, feed)[0]
        return [clean[way * batch : (way + 1) * batch] for way in range(ways)]

    def velocity(self, samples: Samples, t: float, conditioning: Conditioning) -> Samples:
        """Where the flow leads at *t* (0 clean, 1 noise): ``noise - clean``, as estimated."""
        (clean,) = self.estimate(samples, t, [conditioning])
        return np.asarray((samples - clean) / max(t, 1e-4), np.float32)

    def limits(self) -> tuple[float, float]:
        """The latent values of black and of white."""
        mean, deviation = self.vocabulary.mean, self.vocabulary.deviation
        return -mean / deviation, (1 - mean) / deviation

    def _places(self, width: int, height: int) -> tuple[slice, slice]:
        """The rows and columns that a whole picture of this size takes up in the square."""
        side = self.vocabulary.size
        inner = (max(1, round(length * side / max(width, height))) for length in (height, width))
        rows, columns = (slice((side - long) // 2, (side - long) // 2 + long) for long in inner)
        return rows, columns

    def _pixels(self, samples: Samples) -> Pixels:
        pixels = samples.transpose(0, 2, 3, 1) * self.vocabulary.deviation + self.vocabulary.mean
        return np.asarray(np.clip(pixels, 0, 1), np.float32)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The words the model was trained with, and the numbers that belong to its weights."""

    indices: Mapping[str, int]
    synonyms: Mapping[str, str]
    silent: frozenset[str]
    slots: int
    size: int
    mean: float
    deviation: float

    @classmethod
    def of(cls, document: Mapping[str, object]) -> Vocabulary:
        """Read the packaged file's *document*; a ValueError says what is wrong with it."""
        match document:
            case {
                "words": [*words],
                "synonyms": {**synonyms},
                "silent": [*silent],
                "slots": int(slots),
                "size": int(size),
                "mean": float(mean),
                "deviation": float(deviation),
            }:
                return cls(
                    {str(word): index for index, word in enumerate(words, start=1)},
                    {str(word): str(known) for word, known in synonyms.items()},
                    frozenset(str(word) for word in silent),
                    slots,
                    size,
                    mean,
                    deviation,
                )
        raise ValueError(f"{_VOCABULARY} has not the expected fields: {', '.join(document)}")

    def sort(self, text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The known words of *text* as the model spells them, and the unknown ones; each once."""
        plain = re.sub(r":\d*\.?\d+", " ", re.sub("['\u2019]", "", text.lower()))
        known: dict[str, None] = {}
        unknown: dict[str, None] = {}
        for word in re.findall(r"[^\W_]+", plain):
            if word in self.silent:
                continue
            spelled = self._spelled(word)
            if spelled:
                known[spelled] = None
            else:
                unknown[word] = None
        return tuple(known), tuple(unknown)

    def _spelled(self, word: str) -> str | None:
        if word in self.indices or word in self.synonyms:
            return self.synonyms.get(word, word)
        endings = (("ies", "y"), ("ves", "f"), ("es", ""), ("s", ""))
        for ending, instead in endings:
            if word.endswith(ending) and len(word) > len(ending) + 1:
                stem = word.removesuffix(ending) + instead
                stem = self.synonyms.get(stem, stem)
                if stem in self.indices:
                    return stem
        return None


def _resized(picture: Pixels, size: tuple[int, int]) -> Pixels:
    """*picture* ``[height, width, 3]`` at *size* (width, height)."""
    from PIL import Image

    pixels = (np.clip(picture, 0, 1) * 255).round().astype(np.uint8)
    resized = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
    return _floats(resized)


def _floats(image: Image.Image) -> Pixels:
    return np.asarray(image, np.float32) / np.float32(255)


def _enlarged(picture: Pixels, size: tuple[int, int]) -> Pixels:
    """*picture* at *size* (width, height); edges are steepened where it grows a lot."""
    from PIL import Image, ImageFilter

    height, width = picture.shape[:2]
    if size[0] <= 2 * width:
        return _resized(picture, size)
    pixels = (picture * 255).round().astype(np.uint8)
    middle = 8 * width, 8 * height
    smooth = Image.fromarray(pixels).resize(middle, Image.Resampling.BICUBIC)
    # A steeper edge must not become a halo: nothing may leave the range of its surroundings.
    low = np.asarray(smooth.filter(ImageFilter.MinFilter(7)))
    high = np.asarray(smooth.filter(ImageFilter.MaxFilter(7)))
    steep = np.asarray(smooth.filter(ImageFilter.UnsharpMask(radius=5, percent=220, threshold=0)))
    bounded = Image.fromarray(np.clip(steep, low, high)).filter(ImageFilter.GaussianBlur(1))
    return _floats(bounded.resize(size, Image.Resampling.BICUBIC))
