"""What is learned of how long jobs take: what counts, what is forgotten, what lasts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from itertools import count
from pathlib import Path

import pytest

from comfyserve import learned_times
from comfyserve.jobs import Timings, Usual, UsualTimes
from comfyserve.learned_times import UNKNOWN, LearnedTimes, kind_of, subject_of
from comfyserve.refusals import StoreUnavailable
from comfyserve.store import LearnedTime, Store
from tests.hosts import until

PORTRAIT = kind_of("portrait")
FAST, SLOW = "http://fast:8188", "http://slow:8188"
GRAPH = {
    "1": {"class_type": "Load", "inputs": {"name": "a.ckpt"}},
    "2": {"class_type": "Sample", "inputs": {"model": ["1", 0], "steps": 20}},
}


def took(seconds: float, **nodes: float) -> Timings:
    """What a run took in all, and in its nodes."""
    return Timings(running=seconds, nodes=nodes)


@pytest.fixture
def times() -> LearnedTimes:
    """Nothing is known yet, and every look at the clock is a second later."""
    return LearnedTimes(clock=count(1000.0).__next__)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with Store.open(tmp_path) as opened:
        yield opened


# Kinds of jobs


def test_graphs_that_only_differ_in_values_are_of_one_kind() -> None:
    """Another prompt, seed or model makes no other kind of job; another link or node does."""
    other_values = {**GRAPH, "1": {"class_type": "Load", "inputs": {"name": "b.ckpt"}}}
    other_link = {**GRAPH, "2": {"class_type": "Sample", "inputs": {"model": ["1", 1]}}}
    other_node = {**GRAPH, "2": {"class_type": "Resample", "inputs": {"model": ["1", 0]}}}

    assert subject_of(None, GRAPH) == subject_of(None, other_values)
    assert len({subject_of(None, one) for one in (GRAPH, other_link, other_node)}) == 3
    assert subject_of("portrait", GRAPH) == subject_of("portrait", other_node) == PORTRAIT


# Learning


def test_each_backend_has_its_own_times(times: LearnedTimes) -> None:
    """A backend where the job never ran is judged by the others, and one that is slow by itself."""
    times.learn(PORTRAIT, FAST, took(2.0))
    times.learn(PORTRAIT, SLOW, took(8.0))

    assert times.estimate(PORTRAIT, FAST) == 2.0
    assert times.estimate(PORTRAIT, SLOW) == 8.0
    assert times.estimate(PORTRAIT, "http://new:8188") == times.estimate(PORTRAIT) == 5.0
    assert times.usual(PORTRAIT, "http://new:8188").whole == times.usual(PORTRAIT).whole


def test_of_a_new_kind_of_job_the_average_is_expected(times: LearnedTimes) -> None:
    """Before anything ran a job is taken for one second, then for what all took on average."""
    before = times.estimate("graph:new"), times.usual("graph:new"), times.of_any_job
    times.learn(PORTRAIT, FAST, took(4.0))
    times.learn("graph:other", FAST, took(8.0))

    assert before == (UNKNOWN, UsualTimes(), None)
    assert times.estimate("graph:new") == 6.0
    assert times.usual("graph:new") == UsualTimes()


def test_the_more_runs_agree_the_narrower_is_the_spread(times: LearnedTimes) -> None:
    """One run says little of the next; many that are alike say much."""
    spreads = []
    for _ in range(20):
        times.learn(PORTRAIT, FAST, took(10.0, sampler=8.0))
        whole = times.usual(PORTRAIT, FAST).whole
        assert whole is not None and whole.mean == pytest.approx(10.0)
        spreads.append(whole.spread)

    assert spreads[0] == 5.0
    assert spreads == sorted(spreads, reverse=True)
    assert spreads[-1] < 0.5


def test_what_was_long_ago_is_forgotten(times: LearnedTimes) -> None:
    """After a change of the machine the new times are what counts, within a dozen runs."""
    for _ in range(50):
        times.learn(PORTRAIT, FAST, took(100.0))
    for _ in range(12):
        times.learn(PORTRAIT, FAST, took(10.0))

    assert 10.0 < times.estimate(PORTRAIT, FAST) < 20.0


def test_nodes_that_take_no_time_are_not_kept(times: LearnedTimes) -> None:
    """A node counts from a hundredth of the run."""
    times.learn(PORTRAIT, FAST, took(10.0, sampler=9.0, save=0.1, text=0.05))

    assert times.usual(PORTRAIT, FAST).nodes.keys() == {"sampler", "save"}
    assert times.usual(PORTRAIT, FAST).nodes["sampler"] == Usual(9.0, 4.5)


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1.0])
def test_a_time_that_cannot_be_is_not_learned(times: LearnedTimes, seconds: float) -> None:
    """A clock that was set back teaches nothing, of a run or of a node."""
    times.learn(PORTRAIT, FAST, took(seconds))
    assert times.of_any_job is None

    times.learn(PORTRAIT, FAST, took(2.0, sampler=seconds))
    assert times.usual(PORTRAIT, FAST).nodes == {}


# Bounds


def test_only_so_many_kinds_of_jobs_are_kept(times: LearnedTimes) -> None:
    """The kind that ran the longest time ago is forgotten first; the average of all stays."""
    most = learned_times.MOST_SUBJECTS
    for number in range(most):
        times.learn(f"graph:{number}", FAST, took(2.0))
    times.learn("graph:0", FAST, took(2.0))
    times.learn("graph:new", FAST, took(2.0))

    assert times.usual("graph:1").whole is None
    assert all(times.usual(f"graph:{kept}").whole for kept in ("new", 0, 2, most - 1))
    assert times.of_any_job is not None


def test_only_so_many_nodes_are_kept(times: LearnedTimes) -> None:
    """Of a graph with very many nodes the slowest are kept."""
    most = learned_times.MOST_NODES
    nodes = {f"node {number}": 1.0 + number for number in range(most + 10)}
    times.learn(PORTRAIT, FAST, took(90.0, **nodes))

    kept = times.usual(PORTRAIT, FAST).nodes
    assert len(kept) == most
    assert f"node {most + 9}" in kept and "node 0" not in kept


def test_only_so_many_backends_are_kept(times: LearnedTimes) -> None:
    """Where backends come and go, those that ran it the longest time ago are forgotten."""
    most = learned_times.MOST_BACKENDS
    for number in range(most + 1):
        times.learn(PORTRAIT, f"http://gpu{number}:8188", took(1.0 + number, sampler=1.0))

    latest = times.usual(PORTRAIT, f"http://gpu{most}:8188").whole
    assert latest is not None and latest.mean == most + 1
    assert times.usual(PORTRAIT, "http://gpu0:8188") == times.usual(PORTRAIT)
    assert times.usual(PORTRAIT, "http://gpu1:8188").whole == Usual(2.0, 1.0)


# Lasting


async def test_what_was_learned_outlasts_the_process(store: Store) -> None:
    """It is written at the latest when the process ends, and is there again after the start."""
    async with LearnedTimes.open(store.times) as times:
        times.learn(PORTRAIT, FAST, took(4.0, sampler=3.0))
        known = times.usual(PORTRAIT, FAST), times.estimate("graph:new")

    async with LearnedTimes.open(store.times) as again:
        assert (again.usual(PORTRAIT, FAST), again.estimate("graph:new")) == known
    assert known[0].whole == Usual(4.0, 2.0)


async def test_what_comes_together_is_written_together(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many jobs in a short time are one write, and where nothing ran nothing is written."""
    monkeypatch.setattr(learned_times, "SAVED_EVERY", 0.3)
    writes: list[int] = []
    save = store.times.save

    async def counted(rows: Sequence[LearnedTime]) -> None:
        writes.append(len(rows))
        await save(rows)

    monkeypatch.setattr(store.times, "save", counted)
    async with LearnedTimes.open(store.times) as times:
        for _ in range(50):
            times.learn(PORTRAIT, FAST, took(4.0))
            await asyncio.sleep(0)

        async def is_written() -> bool:
            return bool(writes)

        await until(is_written)
        times.learn(PORTRAIT, SLOW, took(4.0))

    # All jobs and this kind, each on that backend and anywhere; then the same of the other one.
    assert writes == [4, 4]


async def test_a_store_that_is_away_loses_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could not be written is written with what comes next."""
    monkeypatch.setattr(learned_times, "SAVED_EVERY", 0.01)
    save, refused = store.times.save, asyncio.Event()

    async def refuse(rows: object) -> None:
        refused.set()
        raise StoreUnavailable("The database", "its disk is away")

    async with LearnedTimes.open(store.times) as times:
        monkeypatch.setattr(store.times, "save", refuse)
        times.learn(PORTRAIT, FAST, took(4.0))
        async with asyncio.timeout(10):
            await refused.wait()
        monkeypatch.setattr(store.times, "save", save)
        times.learn(PORTRAIT, SLOW, took(6.0))

    async with LearnedTimes.open(store.times) as again:
        assert (again.estimate(PORTRAIT, FAST), again.estimate(PORTRAIT, SLOW)) == (4.0, 6.0)
