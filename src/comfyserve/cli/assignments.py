"""What a person typed for the inputs and headers, taken apart; types come later."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import typer


@dataclass(frozen=True, slots=True)
class FromOption:
    """A value given by an option such as ``--image``, whose kind is certain."""

    value: str | int | Path


Assignments = Mapping[str, str | FromOption]
"""By input name: the text after the equals sign, or the value of an option."""


def assignments_from(
    words: Iterable[str], options: Mapping[str, str | int | Path | None]
) -> Assignments:
    """Read ``name=value`` words and add the *options* that were given.

    >>> dict(assignments_from(["steps=22", "prompt=a=b"], {"seed": None}))
    {'steps': '22', 'prompt': 'a=b'}
    """
    found: dict[str, str | FromOption] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name.strip():
            raise typer.BadParameter(f"{word!r} is not of the form NAME=VALUE.{_advice(word)}")
        _add(found, name.strip(), text)
    for name, value in options.items():
        if value is not None:
            _add(found, name, FromOption(value))
    return found


def headers_from(words: Iterable[str]) -> dict[str, str]:
    """Read ``Name:Value`` words.

    >>> headers_from(["X-Room: 12"])
    {'X-Room': '12'}
    """
    headers: dict[str, str] = {}
    for word in words:
        name, colon, value = word.partition(":")
        if not colon or not name.strip():
            raise typer.BadParameter(f"{word!r} is not of the form NAME:VALUE.")
        headers[name.strip()] = value.strip()
    return headers


def labels_from(words: Iterable[str]) -> dict[str, str]:
    """Read ``name=value`` words that stand for labels on jobs.

    >>> labels_from(["customer=7"])
    {'customer': '7'}
    """
    labels: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name.strip():
            raise typer.BadParameter(f"{word!r} is not of the form NAME=VALUE.")
        labels[name.strip()] = value
    return labels


def _add(found: dict[str, str | FromOption], name: str, value: str | FromOption) -> None:
    if name in found:
        raise typer.BadParameter(f"{name} is given twice.")
    found[name] = value


def _advice(word: str) -> str:
    if word.startswith("@"):
        return f" Did you mean image={word}?"
    return f' Did you mean prompt="{word}"?' if " " in word else ""
