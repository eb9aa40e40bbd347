"""The header ``Prefer`` of a call: whether it waits for the job's end, and for how long.

>>> read_preference(["respond-async, wait=10"])
Preference(wait=10.0, is_async=True)
>>> read_preference(["return=minimal"])
Preference(wait=None, is_async=False)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from comfyserve.denials import InvalidRequest

LONGEST_WAIT: Final = 300.0
"""Seconds for which a call may wait; who asks for more waits as long."""

_USUAL_WAIT: Final = 60.0
"""Seconds for ``Prefer: wait``, which does not say how many."""


@dataclass(frozen=True, slots=True)
class Preference:
    """*wait* is for how many seconds to wait for the job's end; None for not at all."""

    wait: float | None = None
    is_async: bool = False

    @property
    def applied(self) -> str | None:
        """What is heeded of it, as the answer tells."""
        if self.wait is not None:
            return f"wait={self.wait:g}"
        return "respond-async" if self.is_async else None


def read_preference(headers: Iterable[str]) -> Preference:
    """What the headers ask for; what they name besides is passed over, as the standard wants.

    Raises `InvalidRequest` for a time that is none.
    """
    wait, is_async = None, False
    for one in ",".join(headers).split(","):
        word, has_value, value = one.partition(";")[0].partition("=")
        match word.strip().lower():
            case "wait" if wait is None:
                wait = _seconds(value.strip().strip('"')) if has_value else _USUAL_WAIT
            case "respond-async":
                is_async = True
    return Preference(wait, is_async)


def _seconds(text: str) -> float:
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise InvalidRequest(
            f"Prefer has wait={text[:40]!r}, but whole seconds are needed, such as wait=30."
        )
    return min(float(text), LONGEST_WAIT)
