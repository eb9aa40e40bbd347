"""How much of a run is left, where runs like it were seen before."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyserve.comfy.attempt import Attempt
from comfyserve.comfy.protocol import Ended, Executing, Step
from comfyserve.jobs import Usual, UsualTimes

JOB = "a-job"
GRAPH: dict[str, Any] = {"load": {}, "sample": {"inputs": {"steps": 10}}, "save": {}}
USUAL = UsualTimes(
    Usual(30.0, 1.0),  # as it was when another node took long; the nodes tell it better
    {"load": Usual(4.0, 1.0), "sample": Usual(10.0, 2.0), "save": Usual(2.0, 0.5)},
)
SECONDS = st.floats(0.0, 100.0)


def attempt(usual: UsualTimes = USUAL) -> Attempt:
    """A run that begins now, with its first node."""
    running = Attempt(GRAPH, GRAPH, 0.0, usual)
    running.hear(Executing(JOB, "load", "load"), 0.0)
    return running


def left(running: Attempt, now: float) -> tuple[float, float]:
    """What remains, which is known from the start."""
    remaining = running.progress(now).remaining
    assert remaining is not None
    return remaining


def test_what_remains_is_told_from_the_start() -> None:
    """All nodes are still to come, and they take what they took before, more or less."""
    least, most = left(attempt(), 0.0)

    assert least < 16.0 < most
    assert (least + most) / 2 == pytest.approx(16.0)


def test_what_remains_narrows() -> None:
    """The fewer nodes are left the less there is to stray, and at the end nothing is left."""
    running = attempt()
    told = [left(running, 0.0)]
    for node, now in (("sample", 4.0), ("save", 14.0)):
        running.hear(Executing(JOB, node, node), now)
        told.append(left(running, now))
    running.hear(Ended(JOB), 16.0)
    told.append(left(running, 16.0))

    widths = [most - least for least, most in told]
    assert widths == sorted(widths, reverse=True)
    assert told[-1] == (0.0, 0.0)
    for (least, most), expected in zip(told, (16, 12, 2, 0), strict=True):
        assert least <= expected <= most


def test_a_node_that_takes_longer_than_ever_is_not_done_before_it_is() -> None:
    """Past its usual time it may end at once, or not; what is behind it is still to come."""
    least, most = left(attempt(), 60.0)

    assert least == pytest.approx(12.0 - 4.25**0.5)
    assert most == pytest.approx(12.0 + 4.25**0.5 + 1.0)


def test_the_pace_of_steps_counts_more_than_the_past() -> None:
    """Where a sampler's steps are twice as slow as before, that is what its rest is told from."""
    running = attempt()
    running.hear(Executing(JOB, "sample", "sample"), 4.0)
    for step in range(5):
        running.hear(Step(JOB, "sample", step + 1, 10), 4.0 + 2.0 * (step + 1))

    least, most = left(running, 14.0)

    assert least == pytest.approx(10.0 + 2.0 - 0.5)
    assert most == pytest.approx(12.5 + 2.0 + 0.5)


def test_where_only_the_whole_is_known_it_is_told() -> None:
    """A graph whose nodes all take next to nothing has a time nevertheless."""
    running = attempt(UsualTimes(Usual(3.0, 1.0)))

    assert left(running, 1.0) == (1.0, 3.0)
    assert left(running, 9.0) == (0.0, 1.0)


@given(
    times=st.lists(SECONDS, min_size=3, max_size=3),
    means=st.lists(SECONDS, min_size=3, max_size=3),
    spreads=st.lists(SECONDS, min_size=4, max_size=4),
    known=st.sets(st.sampled_from(sorted(GRAPH))),
)
def test_what_remains_is_a_range_and_never_negative(
    times: list[float], means: list[float], spreads: list[float], known: set[str]
) -> None:
    """However long the nodes took before and take now, it is never less than nothing."""
    nodes = {
        node: Usual(mean, spread)
        for node, mean, spread in zip(GRAPH, means, spreads[:3], strict=True)
        if node in known
    }
    running = attempt(UsualTimes(Usual(sum(means), spreads[3]), nodes))
    now = 0.0
    for node, seconds in zip(GRAPH, times, strict=True):
        running.hear(Executing(JOB, node, node), now)
        for moment in (now, now + seconds / 2, now + seconds):
            least, most = left(running, moment)
            assert 0.0 <= least <= most
        now += seconds
