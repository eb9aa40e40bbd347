"""The inputs a workflow declares: what each takes, what it fills, and what is wrong with a value.

>>> steps = Integer(name="steps", targets=(("3", "steps"),), default=20, minimum=1, maximum=100)
>>> steps.parse("22")
22
>>> steps.check(500)
Traceback (most recent call last):
    ...
ValueError: steps is 500; the most is 100.
"""

from __future__ import annotations

import json
import math
import random
import re
from dataclasses import dataclass
from typing import Any, ClassVar

from comfyserve.assets import Upload
from comfyserve.errors import did_you_mean, nearest
from comfyserve.workflows.graph import Address, shown
from comfyserve.workflows.json_bounds import MOST_VALUES, holds_more_than

LARGEST_FRESH_SEED = 2**53 - 1
"""The largest seed we draw: larger whole numbers do not survive a browser."""

_LONGEST_SEED = 100
_DIGITS = re.compile(r"\s*-?[0-9]{1,30}\s*")

LARGEST_SEED = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Written:
    """A value as a person wrote it, to be read as the type of the parameter it is for."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One declared input of a workflow.

    *targets* are the node inputs it fills, all with the same value. *default* is what the graph
    holds already. *why* says in one sentence how it was found. *advanced* ones may be folded
    away.
    """

    name: str
    targets: tuple[Address, ...]
    default: Any = None
    label: str = ""
    description: str = ""
    advanced: bool = False
    why: str = ""

    kind: ClassVar[str] = "any"

    def check(self, value: object) -> object:
        """*value* as it goes into the graph; ValueError with one sentence if it does not fit."""
        return value

    def parse(self, text: str) -> object:
        """The value that *text* stands for, checked; ValueError if it stands for none."""
        return self.check(text)

    def json_schema(self) -> dict[str, Any]:
        """The values it takes, as JSON Schema (draft 2020-12)."""
        schema = self._values() | {
            "title": self.label or self.name.replace("_", " ").capitalize(),
            "description": self.description,
            "default": self.default,
        }
        return {key: value for key, value in schema.items() if value not in (None, "")}

    def _values(self) -> dict[str, Any]:
        return {}

    def _refusal(self, takes: str, value: object) -> ValueError:
        if isinstance(value, Upload):
            return ValueError(f"{self.name} takes {takes}, not a file.")
        return ValueError(f"{self.name} takes {takes}, not {shown(value)}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Anything(Parameter):
    """An input of a type we know nothing of: any JSON value but a link to another node, which
    would change what the graph is."""

    def check(self, value: object) -> object:
        if _is_link(value):
            raise ValueError(f"{self.name} takes a value, not {shown(value)}: that is a link.")
        if not _is_json(value):
            raise self._refusal("a value that JSON can hold", value)
        return value

    def parse(self, text: str) -> object:
        if holds_more_than(MOST_VALUES, text):
            raise ValueError(f"{self.name} takes at most {MOST_VALUES:,} values.")
        try:
            return self.check(json.loads(text))
        except (ValueError, RecursionError):
            return text


@dataclass(frozen=True, slots=True, kw_only=True)
class Text(Parameter):
    """Words. *multiline* asks for a larger field."""

    multiline: bool = True

    kind: ClassVar[str] = "text"

    def check(self, value: object) -> str:
        if not isinstance(value, str):
            raise self._refusal("text", value)
        return value

    def _values(self) -> dict[str, Any]:
        return {"type": "string"} | ({"x-multiline": True} if self.multiline else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag(Parameter):
    """True or false."""

    kind: ClassVar[str] = "flag"

    def check(self, value: object) -> bool:
        if not isinstance(value, bool):
            raise self._refusal("true or false", value)
        return value

    def parse(self, text: str) -> bool:
        word = text.strip().lower()
        if word in ("true", "yes", "on", "1"):
            return True
        if word in ("false", "no", "off", "0"):
            return False
        raise self._refusal("true or false", text)

    def _values(self) -> dict[str, Any]:
        return {"type": "boolean"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Number(Parameter):
    """A number between two limits, both allowed.

    *step* is what a form should count by; like ComfyUI, nobody enforces it.
    """

    minimum: float | None = None
    maximum: float | None = None
    step: float | None = None

    kind: ClassVar[str] = "number"

    def check(self, value: object) -> int | float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._refusal("a number", value)
        if isinstance(value, float) and not math.isfinite(value):
            raise self._refusal("a number", value)
        return self._within_limits(value)

    def parse(self, text: str) -> int | float:
        number = _number(text)
        return self.check(text if number is None else number)

    def _within_limits(self, value: int | float) -> int | float:
        if self.minimum is not None and value < self.minimum:
            raise ValueError(f"{self.name} is {shown(value)}; the least is {_plain(self.minimum)}.")
        if self.maximum is not None and value > self.maximum:
            raise ValueError(f"{self.name} is {shown(value)}; the most is {_plain(self.maximum)}.")
        return value

    def _values(self) -> dict[str, Any]:
        limits = {"minimum": self.minimum, "maximum": self.maximum, "x-step": self.step}
        return {"type": "number"} | {key: _plain(v) for key, v in limits.items() if v is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Integer(Number):
    """A whole number between two limits, both allowed; 22.0 counts as 22."""

    kind: ClassVar[str] = "integer"

    def check(self, value: object) -> int:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._refusal("a whole number", value)
        self._within_limits(value)
        return value

    def parse(self, text: str) -> int:
        number = _number(text)
        return self.check(text if number is None else number)

    def _values(self) -> dict[str, Any]:
        # Named: a dataclass with slots is a second class, which a bare super() does not know.
        return Number._values(self) | {"type": "integer"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Seed(Integer):
    """A whole number that makes a run repeatable; None and -1 stand for a fresh one.

    The limits are those of every node it fills together. A seed may come as a string of digits,
    because browsers cannot hold the larger ones.
    """

    kind: ClassVar[str] = "seed"

    def check(self, value: object) -> int:
        """The seed; -1 asks for a fresh one."""
        if value is None:
            return -1
        if isinstance(value, str) and len(value) <= _LONGEST_SEED and _DIGITS.fullmatch(value):
            value = int(value)
        draws = isinstance(value, int | float) and not isinstance(value, bool) and value == -1
        return -1 if draws else Integer.check(self, value)

    def fresh(self, rng: random.Random) -> int:
        """A new seed that every target takes and a browser can hold."""
        least = max(0, math.ceil(self.minimum or 0))
        most = LARGEST_FRESH_SEED if self.maximum is None else self.maximum
        return rng.randint(least, max(least, min(LARGEST_FRESH_SEED, math.floor(most))))

    def _values(self) -> dict[str, Any]:
        values = Integer._values(self) | {"type": ["integer", "string", "null"], "minimum": -1}
        return values | {"x-seed": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice(Parameter):
    """One of several values; *choices* is None where nobody said which."""

    choices: tuple[str | int | float, ...] | None = None

    kind: ClassVar[str] = "choice"

    def check(self, value: object) -> str | int | float:
        if not isinstance(value, str | int | float):
            raise self._refusal("one of its choices", value)
        if self.choices is None or _among(value, self.choices):
            return value
        # A server on Windows lists its models with the other slash.
        if isinstance(value, str) and (same := _with_other_slash(value, self.choices)):
            return same
        raise ValueError(f"{self.name} cannot be {shown(value)}: {self.alternatives(value)}")

    def parse(self, text: str) -> str | int | float:
        for choice in self.choices or ():
            if str(choice) == text:
                return choice
        return self.check(text)

    def alternatives(self, value: object) -> str:
        """What could be chosen instead of *value*, in words."""
        names = [str(choice) for choice in self.choices or ()]
        if not names:
            return "the server has none to choose from."
        if len(names) <= 12:
            listed = ", ".join(repr(name) for name in names)
            return f"it can be {listed}.{did_you_mean(str(value)[:200], names)}"
        close = nearest(str(value)[:200], names, 3)
        if not close:
            return f"the server has {len(names)} to choose from, none of them like it."
        listed = ", ".join(repr(name) for name in close)
        return f"the server has {len(names)} to choose from; the nearest: {listed}."

    def _values(self) -> dict[str, Any]:
        return {} if self.choices is None else {"enum": list(self.choices)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Media(Parameter):
    """A file: an `Upload`, or the name of one that the server already has."""

    kind: ClassVar[str] = "file"

    def check(self, value: object) -> Upload | str:
        if isinstance(value, str) and not value:
            raise ValueError(f"{self.name} is empty; it takes {self._takes()}.")
        if not isinstance(value, Upload | str):
            raise self._refusal(self._takes(), value)
        return value

    def _takes(self) -> str:
        article = "an" if self.kind[0] in "aeiou" else "a"
        return f"{article} {self.kind} to upload, or the name of one that the server has"

    def _values(self) -> dict[str, Any]:
        return {"type": "string", "format": "binary", "contentMediaType": f"{self.kind}/*"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Image(Media):
    """A picture."""

    kind: ClassVar[str] = "image"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mask(Media):
    """A picture that says where: a file of its own, or laid over the image at *mask_of*."""

    mask_of: Address | None = None

    kind: ClassVar[str] = "mask"

    def check(self, value: object) -> Upload | str:
        if self.mask_of is not None and not isinstance(value, Upload):
            raise self._refusal("a mask to upload, which is laid over its image", value)
        return Media.check(self, value)

    def _values(self) -> dict[str, Any]:
        return {"type": "string", "format": "binary", "contentMediaType": "image/*"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Video(Media):
    """A video."""

    kind: ClassVar[str] = "video"


@dataclass(frozen=True, slots=True, kw_only=True)
class Audio(Media):
    """A sound."""

    kind: ClassVar[str] = "audio"


def _number(text: str) -> int | float | None:
    word = text.strip()
    if len(word) > 100 or "_" in word:
        return None
    for read in (int, float):
        try:
            return read(word)
        except ValueError:
            continue
    return None


def _plain(value: int | float) -> int | float:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _among(value: object, choices: tuple[str | int | float, ...]) -> bool:
    # 1 == True == 1.0 in Python; for a choice only numbers among themselves are alike.
    return any(
        value == choice and isinstance(value, bool) == isinstance(choice, bool)
        for choice in choices
    )


def _with_other_slash(value: str, choices: tuple[str | int | float, ...]) -> str | None:
    wanted = value.replace("\\", "/")
    alike = (choice for choice in choices if isinstance(choice, str))
    return next((choice for choice in alike if choice.replace("\\", "/") == wanted), None)


def _is_link(value: object) -> bool:
    """Whether a ComfyUI takes the value for a link: true and 0.0 are slots to it, too."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        return False
    return isinstance(value[0], str) and isinstance(value[1], int | float)


def _is_json(value: object) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True
