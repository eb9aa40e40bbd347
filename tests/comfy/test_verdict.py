"""How a run ended, for every end a real server was recorded with."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from comfyserve.comfy.protocol import Failed, Interrupted, Message, Succeeded
from comfyserve.comfy.records import HistoryEntry, read_history
from comfyserve.comfy.verdict import blocked, failure
from comfyserve.errors import (
    JobBlocked,
    JobFailed,
    JobInterrupted,
    JobLost,
    NodeFailed,
    OutOfMemory,
)
from tests.comfy.recorded import heard
from tests.traces.recording import Recording, Run

JOB = "0b2f5c1e-0000-4000-8000-000000000000"


class End(NamedTuple):
    """How one recorded run ended, as the README of the recordings tells it."""

    trace: str
    class_type: str
    kind: type[JobFailed] | None
    node_id: str | None = None
    exception_type: str | None = None
    message: str = ""


def ran(class_type: str) -> Run:
    """The first run of the recording of odd nodes that has such a node."""
    runs = Recording.load("custom_nodes").runs
    return next(run for run in runs if class_type in _classes(run))


ENDS = [
    End("custom_nodes", "LabProgress", None),
    End("custom_nodes", "LabExpand", None),
    End("custom_nodes", "LabWeirdUi", None),
    End("custom_nodes", "LabFail", NodeFailed, "2", "RuntimeError", "boom: the node failed"),
    End("custom_nodes", "LabSleep", JobInterrupted),
]


@pytest.mark.parametrize("end", ENDS, ids=[end.class_type for end in ENDS])
@pytest.mark.parametrize("known", ["words and history", "words alone", "history alone"])
def test_each_recorded_end_is_understood(end: End, known: str) -> None:
    """Live messages, history, or both: each alone tells how the run ended."""
    run = ran(end.class_type)
    words = last_words("custom_nodes", run) if "words" in known else []
    entry = entry_of(run) if "history" in known else None

    why = failure(words, entry, has_outputs=False)

    assert type(why) is (end.kind or type(None))
    if why is not None:
        assert (why.node_id, why.exception_type) == (end.node_id, end.exception_type)
        assert why.message.startswith(end.message)


def test_every_recorded_run_ends_as_its_history_says() -> None:
    """Over all recordings, a run fails exactly where its history or its messages name a failure."""
    seen = 0
    for name in Recording.names():
        for run in Recording.load(name).runs:
            if run.entry is None:
                continue
            seen += 1
            told = {kind for kind, _ in run.entry["status"]["messages"]}
            entry = entry_of(run)
            assert entry is not None
            why = failure(last_words(name, run), entry, has_outputs=bool(entry.uis))

            if "execution_interrupted" in told:
                assert isinstance(why, JobInterrupted)
            elif "execution_error" in told:
                assert isinstance(why, NodeFailed)
            else:
                assert why is None or isinstance(why, JobBlocked)
    assert seen > 60


def test_every_recorded_failure_keeps_its_facts() -> None:
    """Node, class, exception, message and traceback of each failure come through unchanged."""
    seen: set[str] = set()
    for name in ("custom_nodes", "execution_error"):
        for run in Recording.load(name).runs:
            for kind, data in (run.entry or {}).get("status", {}).get("messages", []):
                if kind != "execution_error":
                    continue
                why = failure([], entry_of(run), has_outputs=True)
                assert why is not None
                assert why.node_id == data["node_id"]
                assert why.class_type == data["node_type"]
                assert why.exception_type == data["exception_type"]
                assert why.traceback == tuple(data["traceback"]) != ()
                assert why.message == (data["exception_message"].strip() or "it gave no message")
                seen.add(data["exception_type"])
    assert {"RuntimeError", "KeyError", "IndexError"} <= seen


def test_recorded_memory_exhaustion_is_told_apart() -> None:
    """The recorded out-of-memory error, and only it, is an `OutOfMemory`."""
    kinds = [
        type(failure(last_words("custom_nodes", run), entry_of(run), has_outputs=False))
        for run in Recording.load("custom_nodes").runs
        if "LabFail" in _classes(run)
    ]

    assert kinds == [NodeFailed, OutOfMemory, NodeFailed, NodeFailed]


def test_a_recorded_block_with_a_message_fails_a_job_without_outputs() -> None:
    """A block that left nothing is told with its node and reason; history alone hides it."""
    silent, loud = (r for r in Recording.load("custom_nodes").runs if "LabBlock" in _classes(r))
    words, entry = last_words("custom_nodes", loud), entry_of(loud)

    why = failure(words, entry, has_outputs=False)

    assert isinstance(why, JobBlocked)
    assert (why.node_id, why.class_type) == ("3", "SaveImage")
    assert str(why) == "Node 3 (SaveImage) failed: Execution Blocked: not allowed."
    assert failure(words, entry, has_outputs=True) is None
    assert [str(block) for block in blocked(words)] == [str(why)]
    assert failure([], entry, has_outputs=False) is None
    assert failure(last_words("custom_nodes", silent), entry_of(silent), has_outputs=False) is None
    assert blocked(last_words("custom_nodes", silent)) == []


def test_a_recorded_interrupt_names_the_next_node() -> None:
    """An interrupt is told with the node it came before, and is no node's failure."""
    run = ran("LabSleep")

    why = failure(last_words("custom_nodes", run), None, has_outputs=True)

    assert str(why) == "Someone else interrupted the job before node 3 (SaveImage)."


@pytest.mark.parametrize(
    ("exception_type", "message", "kind"),
    [
        ("torch.OutOfMemoryError", "Allocation on device", OutOfMemory),
        ("torch.cuda.OutOfMemoryError", "", OutOfMemory),
        ("MemoryError", "", OutOfMemory),
        ("RuntimeError", "CUDA out of memory. Tried to allocate 2 GiB", OutOfMemory),
        ("RuntimeError", "MPS backend Out Of Memory", OutOfMemory),
        ("RuntimeError", "shapes do not fit", NodeFailed),
        ("ValueError", "", NodeFailed),
    ],
)
def test_memory_is_told_from_type_or_message(
    exception_type: str, message: str, kind: type[NodeFailed]
) -> None:
    """Whatever name a device has for it, running out of memory is recognised."""
    why = failure([Failed(JOB, "3", "K", message, exception_type)], None, has_outputs=False)

    assert type(why) is kind
    assert str(why).endswith((".", "!", "?"))


def test_an_interrupt_counts_before_the_error_it_caused() -> None:
    """A node that raised because it was interrupted did not fail."""
    words: list[Message] = [
        Failed(JOB, "3", "K", "stopped", "ValueError"),
        Interrupted(JOB, "3", "K"),
    ]

    assert isinstance(failure(words, None, has_outputs=True), JobInterrupted)


def test_a_failure_beside_a_block_is_the_reason() -> None:
    """Where one output was blocked and another node raised, the error is told."""
    words = [
        Failed(JOB, "3", "SaveImage", "not allowed", "ExecutionBlocked"),
        Failed(JOB, "5", "K", "boom", "ValueError"),
    ]

    why = failure(words, None, has_outputs=True)

    assert isinstance(why, NodeFailed)
    assert why.node_id == "5"


def test_an_end_that_nobody_explains_is_never_a_success() -> None:
    """Without last words and without history a job is lost; a failed history stays a failure."""
    assert isinstance(failure([], None, has_outputs=True), JobLost)
    assert isinstance(failure([], HistoryEntry(False, {}, ()), has_outputs=True), JobFailed)
    assert failure([], HistoryEntry(True, {}, ()), has_outputs=False) is None
    assert failure([Succeeded(JOB)], None, has_outputs=False) is None


def last_words(name: str, run: Run) -> list[Message]:
    """What the owner heard last of a run: the messages that tell how it ended."""
    return [m for _, m in heard(name, run) if isinstance(m, Failed | Interrupted | Succeeded)]


def entry_of(run: Run) -> HistoryEntry | None:
    """The history of a recorded run, read."""
    return read_history({run.prompt_id: run.entry}, run.prompt_id)


def _classes(run: Run) -> set[str]:
    graph = run.body.get("prompt")
    return {n.get("class_type", "") for n in graph.values()} if isinstance(graph, dict) else set()
