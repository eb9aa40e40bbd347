"""The file beside a workflow that says how to offer it: ``portrait.toml`` for ``portrait.json``.

>>> sidecar = read_sidecar('title = "Portrait"\\n[inputs.steps]\\ntargets = ["3.steps"]\\nmax = 50')
>>> sidecar.inputs[0].maximum
50

Every key is described in ``docs/sidecar.md``. Whatever is not one of them is an error.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from comfyserve.errors import WorkflowUnreadable, did_you_mean
from comfyserve.workflows.graph import shown
from comfyserve.workflows.mark import public_name
from comfyserve.workflows.parameter_kinds import KINDS

MOST_TEXT = 2**20
"""No sidecar is longer, in characters."""

Default = str | int | float | bool


@dataclass(frozen=True, slots=True)
class SidecarInput:
    """One ``[inputs.NAME]`` as it was written; None and empty stand for what was left out.

    *targets* are addresses such as ``3.steps``, not looked up yet.
    """

    name: str
    targets: tuple[str, ...] = ()
    type: str = ""
    label: str = ""
    description: str = ""
    default: Default | None = None
    minimum: int | float | None = None
    maximum: int | float | None = None
    choices: tuple[str | int | float, ...] | None = None
    advanced: bool | None = None


@dataclass(frozen=True, slots=True)
class Sidecar:
    """A sidecar whose keys and types are right.

    *public*: pages may show it to everybody. *open*: callers may set any input by its address.
    *timeout* is in seconds. *source* names the file in messages, *text* is what it holds.
    """

    source: str
    title: str = ""
    description: str = ""
    public: bool = False
    open: bool = False
    timeout: float | None = None
    outputs: tuple[str, ...] = ()
    inputs: tuple[SidecarInput, ...] = ()
    text: str = field(default="", repr=False, compare=False)

    def refusal(self, problems: Iterable[tuple[str, str]]) -> WorkflowUnreadable:
        """The error for what is wrong: pairs of a key, like ``inputs.steps.max``, and why."""
        said = [f"{_located(self.text, key)} {why}" for key, why in problems]
        found = "cannot be used: " + "; ".join(said[:20]) + ("; .." if len(said) > 20 else "")
        return WorkflowUnreadable(self.source, found)


def read_sidecar(text: str, source: str = "The sidecar") -> Sidecar:
    """Read a sidecar; *source* names it in messages.

    Raises `WorkflowUnreadable` with everything that is wrong in it.
    """
    if len(text) > MOST_TEXT:
        raise WorkflowUnreadable(source, f"is longer than {MOST_TEXT} characters")
    try:
        document = tomllib.loads(text.removeprefix("\ufeff"))
    except tomllib.TOMLDecodeError as error:
        raise WorkflowUnreadable(source, f"is not valid TOML: {error}") from None
    except (RecursionError, ValueError) as error:
        raise WorkflowUnreadable(source, f"is not usable TOML: {error}") from None
    table = _Table(document)
    table.refuse_unknown(_KEYS)
    sidecar = Sidecar(
        source,
        title=table.text("title"),
        description=table.text("description"),
        public=table.flag("public") or False,
        open=table.flag("open") or False,
        timeout=table.seconds("timeout"),
        outputs=table.ids("outputs"),
        inputs=table.inputs(),
        text=text,
    )
    if table.problems:
        raise sidecar.refusal(table.problems)
    return sidecar


_KEYS = ("title", "description", "public", "open", "timeout", "outputs", "inputs")
_INPUT_KEYS = (
    *("targets", "type", "label", "description", "default"),
    *("min", "max", "choices", "advanced"),
)


@dataclass(slots=True)
class _Table:
    """One table of the file, asked for its keys; what is wrong is noted."""

    values: Mapping[str, Any]
    prefix: str = ""
    problems: list[tuple[str, str]] = field(default_factory=list)

    def refuse_unknown(self, known: tuple[str, ...]) -> None:
        for key in self.values:
            if key not in known:
                listed = ", ".join(known)
                hint = did_you_mean(key[:60], known) or f" The keys are {listed}."
                self._note(key, f"is no key of a sidecar.{hint}".rstrip("."))

    def text(self, key: str) -> str:
        value = self.values.get(key, "")
        if not isinstance(value, str):
            self._wrong(key, value, "text in quotation marks")
            return ""
        return value

    def flag(self, key: str) -> bool | None:
        value = self.values.get(key)
        if value is None or isinstance(value, bool):
            return value
        self._wrong(key, value, "true or false")
        return None

    def number(self, key: str) -> int | float | None:
        value = self.values.get(key)
        if value is None or _is_number(value):
            return value
        self._wrong(key, value, "a number")
        return None

    def seconds(self, key: str) -> float | None:
        value = self.number(key)
        if value is not None and value <= 0:
            self._wrong(key, value, "a number of seconds above 0")
            return None
        return value

    def ids(self, key: str) -> tuple[str, ...]:
        """A list of node ids, which people write with quotation marks or without."""
        value = self.values.get(key)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(_is_id(item) for item in value):
            self._wrong(key, value, 'a list of node ids like ["9"]')
            return ()
        if not value:
            self._note(key, "is empty; leave it out, or name a node")
        return tuple(dict.fromkeys(str(item) for item in value))

    def addresses(self, key: str) -> tuple[str, ...]:
        value = self.values.get(key)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self._wrong(key, value, 'a list of node inputs like ["3.steps"]')
            return ()
        if not value:
            self._note(key, 'is empty; name a node input like "3.steps"')
        return tuple(dict.fromkeys(value))

    def choices(self, key: str) -> tuple[str | int | float, ...] | None:
        value = self.values.get(key)
        if value is None:
            return None
        is_list = isinstance(value, list)
        if not is_list or not all(isinstance(item, str) or _is_number(item) for item in value):
            self._wrong(key, value, "a list of texts or numbers")
            return None
        if not value:
            self._note(key, "is empty; list at least one value, or leave it out")
        return tuple(dict.fromkeys(value))

    def default(self, key: str) -> Default | None:
        value = self.values.get(key)
        if value is None or isinstance(value, str | bool) or _is_number(value):
            return value
        self._wrong(key, value, "text, a number, true or false")
        return None

    def kind(self, key: str) -> str:
        value = self.text(key)
        if value and value not in KINDS:
            listed = ", ".join(KINDS)
            hint = did_you_mean(value[:60], KINDS).rstrip(".")
            self._note(key, f"is {shown(value)}, which is no type; it can be {listed}.{hint}")
            return ""
        return value

    def inputs(self) -> tuple[SidecarInput, ...]:
        value = self.values.get("inputs", {})
        if not isinstance(value, Mapping):
            self._wrong("inputs", value, "tables like [inputs.prompt]")
            return ()
        return tuple(self._input(name, entry) for name, entry in value.items())

    def _input(self, name: str, entry: object) -> SidecarInput:
        path = f"inputs.{name}"
        if not isinstance(entry, Mapping):
            self._wrong(path, entry, f"a table like [inputs.{public_name(name) or 'prompt'}]")
            return SidecarInput(name)
        if name != public_name(name):
            better = public_name(name) or "prompt"
            why = "is no name for an input: small letters, digits and single _ make one"
            self._note(path, f"{why}, like {better!r}")
        table = _Table(entry, f"{path}.", self.problems)
        table.refuse_unknown(_INPUT_KEYS)
        made = SidecarInput(
            name,
            targets=table.addresses("targets"),
            type=table.kind("type"),
            label=table.text("label"),
            description=table.text("description"),
            default=table.default("default"),
            minimum=table.number("min"),
            maximum=table.number("max"),
            choices=table.choices("choices"),
            advanced=table.flag("advanced"),
        )
        table.check_limits(made)
        return made

    def check_limits(self, made: SidecarInput) -> None:
        low, high = made.minimum, made.maximum
        if low is not None and high is not None and low > high:
            self._note("min", f"is {low}, which is more than max, {high}")
        if made.choices is not None and made.type not in ("", "choice"):
            self._note("choices", f'belongs to the type "choice", not {made.type!r}')
        if (low, high) != (None, None) and made.type not in ("", "number", "integer", "seed"):
            key = "min" if low is not None else "max"
            self._note(key, f"belongs to numbers, not to the type {made.type!r}")

    def _wrong(self, key: str, value: object, wanted: str) -> None:
        self._note(key, f"is {shown(value)}, not {wanted}")

    def _note(self, key: str, why: str) -> None:
        self.problems.append((self.prefix + key, why))


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, int) or math.isfinite(value)


def _is_id(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool))


def _located(text: str, key: str) -> str:
    """The key as it stands in a sentence, with its line where that is plain to see."""
    name = f"{key[:80]}.." if len(key) > 82 else key
    line = _line(text.splitlines(), key)
    return f"{name} (line {line})" if line else name


def _line(lines: list[str], key: str) -> int | None:
    table, _, last = key.rpartition(".")
    start = 0
    if table:
        parts = (rf"[\"']?{re.escape(part)}[\"']?" for part in table.split("."))
        header = re.compile(r"\s*\[\s*" + r"\s*\.\s*".join(parts) + r"\s*\]")
        start = next((n for n, line in enumerate(lines, 1) if header.match(line)), -1)
        if start < 0:
            return None
    said = re.compile(rf"\s*[\"']?{re.escape(last)}[\"']?\s*=")
    opened = re.compile(rf"\s*\[\s*{re.escape(key)}\s*\]")
    for number, line in enumerate(lines[start:], start + 1):
        if said.match(line) or opened.match(line):
            return number
        if table and line.lstrip().startswith("["):
            return None
    return None
