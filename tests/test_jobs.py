"""A job's status, and the values that tell of a job."""

from __future__ import annotations

import copy
import dataclasses
import json

import pytest

from comfyserve.assets import InputFile, Upload
from comfyserve.errors import JobFailed, NodeFailed, OutOfMemory
from comfyserve.jobs import Job, JobError, JobStatus, Preview, Timings

# As the blueprint tells it: from -> to.
MOVES = {
    "queued": {"running", "canceled", "failed", "expired"},
    "running": {"queued", "canceling", "succeeded", "failed"},
    "canceling": {"canceled", "succeeded", "failed"},
    "succeeded": set(),
    "failed": set(),
    "canceled": set(),
    "expired": set(),
}
PAIRS = [(before, after) for before in MOVES for after in MOVES]


def test_the_statuses_are_the_contracts() -> None:
    """The words a job's status can be are those of the Comfy API v2, and no others."""
    assert [status.value for status in JobStatus] == list(MOVES)


@pytest.mark.parametrize(("before", "after"), PAIRS, ids=[f"{a}-{b}" for a, b in PAIRS])
def test_a_job_moves_only_as_told(before: str, after: str) -> None:
    """A status may become exactly those others that the blueprint lists; never itself."""
    assert JobStatus(before).may_become(JobStatus(after)) is (after in MOVES[before])


@pytest.mark.parametrize("status", JobStatus)
def test_a_terminal_status_is_one_without_moves(status: JobStatus) -> None:
    """Nothing follows a terminal status, and something may follow every other."""
    assert status.is_terminal is (not MOVES[status.value])


def test_every_status_can_be_reached_and_left_to_an_end() -> None:
    """From `queued` every status can be reached, and from each of them some end."""
    reached = _reachable(JobStatus.QUEUED)

    assert reached | {JobStatus.QUEUED} == set(JobStatus)
    assert all(
        status.is_terminal or any(end.is_terminal for end in _reachable(status))
        for status in JobStatus
    )


def test_a_status_is_its_word_in_json() -> None:
    """A status travels as its plain word."""
    assert json.dumps({"status": JobStatus.CANCELING}) == '{"status": "canceling"}'
    assert f"{JobStatus.RUNNING}" == "running"


def test_a_job_whose_files_have_names_needs_no_files() -> None:
    """With the graph that names its uploaded files, a job keeps all else and has no files left."""
    file = InputFile(targets=(("1", "image"),), upload=Upload("a.png", content=b"x"))
    job = Job("id", {"1": {}}, files=(file,), seeds={"3.seed": 7}, extra_data={"a": 1})

    named = job.with_graph({"1": {"inputs": {"image": "comfyserve/x.png"}}})

    assert named == Job(
        "id",
        {"1": {"inputs": {"image": "comfyserve/x.png"}}},
        seeds={"3.seed": 7},
        extra_data={"a": 1},
    )
    assert job.files == (file,)


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Job)])
def test_a_job_cannot_be_changed(name: str) -> None:
    """A job is a value: whoever holds one sees no change made elsewhere."""
    job = Job("id", {})

    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(job, name, "other")


@pytest.mark.parametrize("kind", [JobFailed, NodeFailed, OutOfMemory])
def test_a_failure_travels_with_all_it_knows(kind: type[JobFailed]) -> None:
    """The travelling form of a failure has its code, its bare message, and where it was."""
    failure = kind(
        "too big",
        node_id="3",
        class_type="KSampler",
        exception_type="ValueError",
        traceback=("line 1", "line 2"),
    )

    error = JobError.of(failure)

    assert error == JobError(
        kind.code, "too big", "3", "KSampler", "ValueError", ("line 1", "line 2")
    )
    assert copy.deepcopy(error) == error


def test_a_preview_does_not_print_its_bytes() -> None:
    """A preview in a log line is one line, not a picture."""
    preview = Preview("3", "image/jpeg", b"\xff\xd8" * 10_000)

    assert repr(preview) == "Preview(node_id='3', content_type='image/jpeg')"


def test_timings_do_not_share_their_nodes() -> None:
    """Two timings made without nodes are equal, and neither sees the other's."""
    assert Timings() == Timings(0.0, 0.0, {})
    assert Timings().nodes is not Timings().nodes


def _reachable(start: JobStatus) -> set[JobStatus]:
    found: set[JobStatus] = set()
    waiting = [start]
    while waiting:
        status = waiting.pop()
        after = {other for other in JobStatus if status.may_become(other)} - found
        found |= after
        waiting.extend(after)
    return found
