"""When `make bench` says that a budget is met, and that an answer was wrong."""

from __future__ import annotations

import itertools
import math

import pytest

from bench.budgets import Measured, WrongResult
from bench.rounds import in_turns, ratio, refuse_wrong


def test_a_budget_is_the_most_that_is_allowed() -> None:
    """At its aim a value is an aim, at its must a pass, above it a miss."""
    verdicts = [Measured("a", value, "ms", must=2, aim=1).verdict for value in (1, 2, 2.1)]

    assert verdicts == ["aim", "pass", "MISS"]


def test_a_budget_may_be_the_least() -> None:
    """Where more is better, less than the must is a miss."""
    verdicts = [
        Measured("a", value, "x", must=0.9, aim=0.97, at_least=True).verdict
        for value in (0.97, 0.9, 0.89)
    ]

    assert verdicts == ["aim", "pass", "MISS"]


def test_what_was_not_measured_is_no_miss() -> None:
    """A value that a system cannot tell is neither good nor bad."""
    assert not Measured("a", None, "ms", must=1).is_missed


async def test_a_wrong_answer_never_came() -> None:
    """A wrong answer of ours takes for ever, and voids the times where none may be wrong."""
    wrong = b"wrong"

    async def bare(number: int) -> bytes:
        return b""

    async def ours(number: int) -> bytes:
        return wrong if number == 4 else b""

    def check(content: bytes, number: int) -> None:
        if content == wrong:
            raise WrongResult(str(number))

    rounds = await in_turns(bare, ours, itertools.count(1), check, warm_up=0, measured=4)

    assert sum(math.isinf(each.ours) for each in rounds) == 1
    with pytest.raises(WrongResult):
        refuse_wrong(rounds)
    assert ratio([each for each in rounds if not math.isinf(each.ours)]) > 0
