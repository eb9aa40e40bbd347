"""Budgets, what was measured against them, and the table of both."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Measured:
    """One budget and what was measured; *must* and *aim* are the most that is allowed, or the
    least where it is *at_least* that.

    *value* is None where this system cannot measure it. *detail* says how it came about.
    """

    what: str
    value: float | None
    unit: str
    must: float | None = None
    aim: float | None = None
    detail: str = ""
    at_least: bool = False

    @property
    def is_missed(self) -> bool:
        """A must was measured and is not met."""
        return self.must is not None and not self._meets(self.must)

    @property
    def verdict(self) -> str:
        """One word for the table."""
        if self.value is None:
            return "not measured"
        if self.must is None:
            return ""
        if self.is_missed:
            return "MISS"
        return "aim" if self.aim is not None and self._meets(self.aim) else "pass"

    def _meets(self, limit: float) -> bool:
        if self.value is None:
            return True
        return self.value >= limit if self.at_least else self.value <= limit


class WrongResult(Exception):
    """A job gave another result than it must; its time means nothing."""


def percentile(values: Sequence[float], percent: int) -> float:
    """The value that *percent* of *values* do not exceed.

    >>> percentile([1.0, 2.0, 3.0], 50)
    2.0
    """
    if percent == 50:
        return statistics.median(values)
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def show(results: Sequence[Measured], console: Console) -> None:
    """Print the table."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("what", overflow="fold")
    for name in ("measured", "must", "aim"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("how", overflow="fold", style="dim")
    for result in results:
        table.add_row(
            result.what,
            _amount(result.value, result.unit),
            _limit(result, result.must),
            _limit(result, result.aim),
            result.verdict,
            result.detail,
        )
    console.print(table)


def _limit(result: Measured, limit: float | None) -> str:
    least = ">= " if result.at_least and limit is not None else ""
    return least + _amount(limit, result.unit)


def _amount(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{value:.3g} {unit}"
