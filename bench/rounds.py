"""Two ways to run the same job in turns, so that a busy machine is as busy for both."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass

from bench.budgets import WrongResult, percentile

SETTLE_S = 0.005

Run = Callable[[int], Awaitable[bytes]]
"""Runs the job of one number; what it made."""

Check = Callable[[bytes, int], None]
"""Raises `WrongResult` where that is not what the number's job makes."""


@dataclass(frozen=True, slots=True)
class Round:
    """The milliseconds of two jobs that ran right after each other.

    *ours* is infinite where the answer was wrong: it never came.
    """

    bare: float
    ours: float


async def in_turns(
    bare: Run, ours: Run, numbers: Iterator[int], check: Check, *, warm_up: int, measured: int
) -> list[Round]:
    """Run both once in every round, either of them first as often as the other."""
    rounds = []
    for turn in range(warm_up + measured):
        if turn % 2:
            bare_ms = await timed(bare, next(numbers), check)
            ours_ms = await _timed_or_never(ours, next(numbers), check)
        else:
            ours_ms = await _timed_or_never(ours, next(numbers), check)
            bare_ms = await timed(bare, next(numbers), check)
        if turn >= warm_up:
            rounds.append(Round(bare_ms, ours_ms))
    return rounds


async def timed(run: Run, number: int, check: Check) -> float:
    """The milliseconds of one job, whose result is checked."""
    await asyncio.sleep(SETTLE_S)  # the job before leaves messages to all sockets
    start = time.perf_counter()
    made = await run(number)
    seconds = time.perf_counter() - start
    check(made, number)
    return seconds * 1000


async def _timed_or_never(run: Run, number: int, check: Check) -> float:
    try:
        return await timed(run, number, check)
    except WrongResult:
        return math.inf


def refuse_wrong(rounds: Sequence[Round]) -> Sequence[Round]:
    """The rounds. Raises `WrongResult` where an answer of ours was wrong: all times are void."""
    wrong = sum(math.isinf(each.ours) for each in rounds)
    if wrong:
        raise WrongResult(f"{wrong} of {len(rounds)} answers were wrong")
    return rounds


def p50_of_bare(rounds: Sequence[Round]) -> float:
    """The median of the bare jobs."""
    return percentile([each.bare for each in rounds], 50)


def p50_of_ours(rounds: Sequence[Round]) -> float:
    """The median of ours."""
    return percentile([each.ours for each in rounds], 50)


def ratio(rounds: Sequence[Round]) -> float:
    """How many times as long ours take, median by median."""
    return p50_of_ours(rounds) / p50_of_bare(rounds)
