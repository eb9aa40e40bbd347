"""What the messages of a prompt add up to: recorded sessions first, then any that could be."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comfyserve.comfy.attempt import Attempt
from comfyserve.comfy.protocol import (
    Cached,
    Ended,
    Executed,
    Executing,
    Failed,
    Ignored,
    Interrupted,
    Message,
    NodeState,
    NodeStates,
    NodeText,
    Picture,
    QueueLength,
    Started,
    Step,
    Succeeded,
    Unreadable,
)
from comfyserve.jobs import Progress
from tests.comfy.recorded import heard
from tests.traces.recording import Recording, Run

JOB = "0b2f5c1e-0000-4000-8000-000000000000"
GRAPH: dict[str, Any] = {
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {}},
    "3": {
        "class_type": "KSampler",
        "inputs": {"steps": 8, "model": ["4", 0]},
        "_meta": {"title": "Draw"},
    },
    "9": {"class_type": "SaveImage", "inputs": {"images": ["3", 0]}},
}

RECORDED = [
    (name, run)
    for name in Recording.names()
    for run in Recording.load(name).runs
    if run.accepted and run.entry is not None and any(heard(name, run))
]
RUNS = pytest.mark.parametrize(
    ("name", "run"), RECORDED, ids=[f"{n}-{r.index}" for n, r in RECORDED]
)


@RUNS
def test_a_recorded_run_only_goes_forward(name: str, run: Run) -> None:
    """Through every recorded run the progress stays sound and never falls, message by message."""
    assert_sound(followed(name, run))


@RUNS
def test_a_recorded_run_counts_its_cached_nodes_at_once(name: str, run: Run) -> None:
    """The nodes that need not run are done as soon as they are told, and are counted once."""
    attempt = attempt_of(run)
    for at, message in heard(name, run):
        attempt.hear(message, at)
        if isinstance(message, Cached):
            cached = attempt.progress(at).nodes_done
            assert attempt.cached == set(message.nodes)
            assert cached == len(attempt.cached & nodes_of(run).keys())
            attempt.hear(message, at)
            assert attempt.progress(at).nodes_done == cached


def test_enough_runs_were_recorded() -> None:
    """The sessions above are many, and the ones that matter are among them."""
    names = {name for name, _ in RECORDED}

    assert len(RECORDED) > 50
    assert {"txt2img", "txt2img_cached", "custom_nodes", "ws_reconnect_midrun"} <= names


def test_a_whole_recorded_run_is_done_when_it_ends() -> None:
    """At the end of a run that was heard from its start, all nodes are done and all but 1 told."""
    [run] = Recording.load("txt2img").runs
    told = followed("txt2img", run)

    assert told[-1].nodes_done == told[-1].nodes_total == len(nodes_of(run))
    assert told[-1].value == 0.99
    assert any(progress.remaining for progress in told)
    assert {progress.current_node_class for progress in told} >= {
        "KSampler",
        "VAEDecode",
        "SaveImage",
    }
    steps = [(p.step, p.steps) for p in told if p.current_node_class == "KSampler" and p.step]
    assert sorted(set(steps)) == [(n, steps[0][1]) for n in range(1, (steps[0][1] or 0) + 1)]


def test_a_recorded_cached_run_is_done_at_once() -> None:
    """A run of which everything was cached is done with its second message."""
    run = Recording.load("txt2img_cached").runs[1]
    messages = [message for _, message in heard("txt2img_cached", run)]
    told = followed("txt2img_cached", run)

    at = messages.index(Cached(run.prompt_id, tuple(sorted(nodes_of(run), key=int))))
    assert at < 5
    assert (told[at - 1].value, told[at].value) == (0.0, 0.99)
    assert told[at].nodes_done == told[at].nodes_total


def test_a_recorded_expansion_counts_as_its_own_node() -> None:
    """The nodes inside an expanded node move that node, are never counted, and have its class."""
    runs = Recording.load("custom_nodes").runs
    run = next(
        run for run in runs if any(n["class_type"] == "LabExpand" for n in nodes_of(run).values())
    )
    attempt = attempt_of(run)

    told = followed("custom_nodes", run)

    assert {progress.current_node for progress in told} == {None, "1", "2", "3"}
    assert told[-1].nodes_done == told[-1].nodes_total == 3
    assert attempt.class_of("2.0.0.1") == "LabExpand"


def test_a_recorded_reconnect_loses_no_ground() -> None:
    """After a lost socket the nameless word on the running node goes on where it was."""
    run = Recording.load("ws_reconnect_midrun").runs[0]
    messages = heard("ws_reconnect_midrun", run)

    assert any(
        isinstance(message, Executing) and message.prompt_id is None for _, message in messages
    )
    assert_sound(followed("ws_reconnect_midrun", run))


@RUNS
def test_a_completed_run_is_whole(name: str, run: Run) -> None:
    """Once an attempt did all it had to, its picture is complete, whatever was missed."""
    attempt = attempt_of(run)
    for at, message in heard(name, run)[::3]:
        attempt.hear(message, at)

    done = attempt.completed(10_000.0)

    assert (done.value, done.nodes_done, done.remaining) == (1.0, len(nodes_of(run)), (0.0, 0.0))
    assert done.nodes_done == done.nodes_total
    assert done.elapsed >= 0
    assert attempt.progress(10_000.0).value == 1.0


def test_nothing_is_known_before_the_start() -> None:
    """While the prompt waits, nothing is done, no time has run, and nothing is promised."""
    attempt = Attempt(GRAPH, GRAPH, 100.0)
    changed = attempt.hear(QueueLength(3), 103.0)

    assert not changed
    assert attempt.progress(103.0) == Progress(nodes_total=3)
    assert (attempt.has_started, attempt.has_ended) == (False, False)
    assert (attempt.seconds_queued(104.0), attempt.seconds_running(104.0)) == (4.0, 0.0)


def test_the_times_are_those_of_the_clock() -> None:
    """Waiting, running and each node's time are told in seconds of the clock that was given."""
    attempt = fed(
        (1.0, Started(JOB)),
        (1.0, Cached(JOB, ("4",))),
        (2.0, Executing(JOB, "3", "3")),
        (7.0, Executing(JOB, "9", "9")),
        (8.0, Succeeded(JOB)),
        (9.0, Ended(JOB)),
        (20.0, Ended(JOB)),
    )

    assert attempt.seconds_queued(50.0) == 1.0
    assert attempt.seconds_running(50.0) == 8.0
    assert attempt.seconds_by_node == {"3": 5.0, "9": 2.0}
    assert attempt.last_words == [Succeeded(JOB)]
    assert attempt.has_ended
    assert attempt.completed(50.0).elapsed == 8.0


def test_a_clock_that_begins_at_zero_is_a_clock() -> None:
    """An attempt that ends at second 0 took no time, however late somebody asks."""
    attempt = Attempt(GRAPH, GRAPH, 0.0)
    attempt.hear(Ended(JOB), 0.0)

    assert attempt.completed(60.0).elapsed == 0.0
    assert attempt.seconds_running(60.0) == 0.0


def test_a_node_that_runs_again_adds_to_its_time() -> None:
    """A node entered twice, as an expanded one is, is told with the sum of both."""
    attempt = fed(
        (0.0, Executing(JOB, "3", "3")),
        (2.0, Executing(JOB, "9", "9")),
        (3.0, Executing(JOB, "3", "3")),
        (6.0, Ended(JOB)),
    )

    assert attempt.seconds_by_node == {"3": 5.0, "9": 1.0}


def test_the_picture_names_the_running_node() -> None:
    """The running node is told with its class, the title its author gave it, and its own count."""
    attempt = fed((0.0, Executing(JOB, "3", "3")), (1.0, Step(JOB, "3", 2.0, 8.0)))
    attempt.hear(NodeText("3", "warming up"), 1.5)

    progress = attempt.progress(2.0)

    assert progress == Progress(
        value=0.2,
        nodes_done=0,
        nodes_total=3,
        current_node="3",
        current_node_class="KSampler",
        current_node_title="Draw",
        step=2,
        steps=8,
        message="warming up",
        elapsed=2.0,
    )


@pytest.mark.parametrize("meta", [None, [], "title", {"title": None}, {"title": 3}, {}])
def test_a_title_that_is_none_is_left_out(meta: Any) -> None:
    """Whatever stands where a title should be, the picture is told without one."""
    attempt = Attempt({"1": {"class_type": "K", "_meta": meta}}, ["1"], 0.0)
    attempt.hear(Executing(JOB, "1", "1"), 1.0)

    assert attempt.progress(1.0).current_node_title is None


@pytest.mark.parametrize("steps", [10**400, -3, 0, True, "20", None, ["4", 0], 2.5])
def test_odd_steps_weigh_something_sane(steps: Any) -> None:
    """No value of `steps` in a graph makes the bar unsound."""
    attempt = Attempt({"1": {"inputs": {"steps": steps}}, "2": {}}, ["1", "2"], 0.0)

    told = [attempt.progress(0.0)]
    for node in ("1", "2"):
        attempt.hear(Executing(JOB, node, node), 1.0)
        told.append(attempt.progress(1.0))
    attempt.hear(Ended(JOB), 2.0)
    told.append(attempt.progress(2.0))

    assert_sound(told)
    assert told[-1].value == 0.99


def test_the_sampler_has_the_larger_share() -> None:
    """A node of eight steps moves the bar eight times as far as one of a single step."""
    attempt = fed((0.0, Executing(JOB, "3", "3")), (1.0, Executing(JOB, "9", "9")))

    assert attempt.progress(1.0).value == pytest.approx(8 / 10)


def test_the_rest_is_told_from_the_pace() -> None:
    """After a few steps the time that remains is a range around steps left times their pace."""
    attempt = fed(
        (0.0, Cached(JOB, ("4",))),
        (0.0, Executing(JOB, "3", "3")),
        *((float(step), Step(JOB, "3", step, 8.0)) for step in range(4)),
    )

    remaining, later = attempt.progress(3.0).remaining, attempt.progress(4.0).remaining

    assert remaining is not None and later is not None
    assert remaining[0] == pytest.approx(5.0)
    assert 5.0 <= remaining[1] <= 10.0
    assert later < remaining


def test_one_step_says_nothing_of_the_rest() -> None:
    """Nothing is promised from a single step, which may have loaded a model first."""
    attempt = fed((0.0, Executing(JOB, "3", "3")), (9.0, Step(JOB, "3", 1, 8)))

    assert attempt.progress(9.0).remaining is None


@pytest.mark.parametrize(
    ("message", "changes"),
    [
        (Started(JOB), True),
        (Executing(JOB, "3", "3"), True),
        (Step(None, None, 1, 2), True),
        (NodeText("3", "x"), True),
        (Ended(JOB), True),
        (Picture(JOB, "3", "image/jpeg", b""), False),
        (QueueLength(1), False),
        (Ignored("logs"), False),
        (Unreadable("broken"), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_only_words_on_the_run_change_the_picture(message: Message, changes: bool) -> None:
    """Previews, queue lengths and noise never ask for the picture to be told anew."""
    assert Attempt(GRAPH, GRAPH, 0.0).hear(message, 1.0) is changes


def test_a_graph_without_expected_nodes_still_has_a_picture() -> None:
    """Where nothing needs to run, the value stays 0 until the end makes it 1."""
    attempt = Attempt({}, [], 0.0)
    attempt.hear(Executing(JOB, "9", "9"), 1.0)

    assert attempt.progress(1.0).value == 0.0
    assert attempt.completed(2.0).value == 1.0


NODES = st.sampled_from(["3", "4", "9", "9.0.1", "unknown"])
COUNTS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-2, 30).map(float)
STATES = st.builds(NodeState, NODES, COUNTS, COUNTS, st.booleans())
MESSAGES: st.SearchStrategy[Message] = st.one_of(
    st.just(Started(JOB)),
    st.builds(Cached, st.just(JOB), st.lists(NODES, max_size=4).map(tuple)),
    st.builds(Executing, st.sampled_from([JOB, None]), NODES, NODES),
    st.builds(Step, st.just(JOB), NODES | st.none(), COUNTS, COUNTS),
    st.builds(Step, st.just(JOB), NODES, st.integers(0, 8).map(float), st.just(8.0)),
    st.builds(NodeStates, st.just(JOB), st.dictionaries(NODES, STATES, max_size=3)),
    st.builds(Executed, st.just(JOB), NODES, st.just({})),
    st.builds(NodeText, NODES, st.text(max_size=3)),
    st.builds(Picture, st.just(None), NODES | st.none(), st.just("image/png"), st.just(b"")),
    st.just(Succeeded(JOB)),
    st.just(Failed(JOB, "3", "KSampler", "boom", "ValueError")),
    st.just(Interrupted(JOB, None, None)),
    st.just(Ended(JOB)),
    st.just(QueueLength(1)),
)
WAITS = st.floats(0, 1000, allow_nan=False)


@settings(max_examples=60)
@given(st.lists(st.tuples(WAITS, MESSAGES), max_size=25))
def test_no_order_of_messages_makes_the_picture_unsound(told: list[tuple[float, Message]]) -> None:
    """Whatever is said in whatever order, the progress stays sound and never falls."""
    attempt, now, seen = Attempt(GRAPH, GRAPH, 0.0), 0.0, []
    for wait, message in told:
        now += wait
        attempt.hear(message, now)
        seen.append(attempt.progress(now))
    seen.append(attempt.completed(now))

    assert_sound(seen)
    assert seen[-1].value == 1.0
    assert all(seconds >= 0 for seconds in attempt.seconds_by_node.values())
    assert 0 <= attempt.seconds_running(now) <= now
    assert 0 <= attempt.seconds_queued(now) <= now


def assert_sound(told: Iterable[Progress]) -> None:
    """Nothing falls, nothing exceeds its whole, and every time is one that can be waited."""
    value, done, elapsed = 0.0, 0, 0.0
    for progress in told:
        assert value <= progress.value <= 1.0
        assert done <= progress.nodes_done <= progress.nodes_total
        assert progress.elapsed >= elapsed
        assert (progress.step is None) is (progress.steps is None)
        value, done, elapsed = progress.value, progress.nodes_done, progress.elapsed
        if progress.remaining is not None:
            least, most = progress.remaining
            assert 0 <= least <= most
            assert not math.isnan(most)


def attempt_of(run: Run) -> Attempt:
    """The attempt that a recorded run was."""
    return Attempt(nodes_of(run), nodes_of(run), 0.0)


def nodes_of(run: Run) -> dict[str, Any]:
    """The recorded graph as the server ran it."""
    assert run.entry is not None
    graph: dict[str, Any] = run.entry["prompt"][2]
    return graph


def followed(name: str, run: Run) -> list[Progress]:
    """The picture after each message of a recorded run, on the recording's own clock."""
    attempt, told = attempt_of(run), []
    for at, message in heard(name, run):
        attempt.hear(message, at)
        told.append(attempt.progress(at))
    return told


def fed(*messages: tuple[float, Message]) -> Attempt:
    """An attempt at `GRAPH` that heard these."""
    attempt = Attempt(GRAPH, GRAPH, 0.0)
    for at, message in messages:
        attempt.hear(message, at)
    return attempt
