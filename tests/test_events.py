"""What can happen to a job, as values."""

from __future__ import annotations

import copy
import dataclasses
from typing import get_args

import pytest

from comfyserve.events import Event, Noted, OutputSaved, PreviewDrawn, ProgressMade, StatusChanged
from comfyserve.jobs import JobStatus, Output, Preview, Progress

JOB = "0b2f5c1e-0000-4000-8000-000000000000"
OUTPUT = Output(
    node_id="9",
    key="images",
    name="a.png",
    type="image",
    content_type="image/png",
    size_bytes=3,
    hash="blake3:00",
    location="/out/a.png",
)
ONE_OF_EACH: list[Event] = [
    StatusChanged(JOB, JobStatus.QUEUED, queue_position=2),
    ProgressMade(JOB, Progress(value=0.5)),
    PreviewDrawn(JOB, Preview("3", "image/jpeg", b"jpeg")),
    OutputSaved(JOB, OUTPUT),
    Noted(JOB, "info", "The connection was lost.", {"reason": "1006"}),
]


@pytest.mark.parametrize("status", JobStatus)
def test_only_a_terminal_status_is_the_last_event(status: JobStatus) -> None:
    """A listener may stop at the status that ends the job, and at no other."""
    assert StatusChanged(JOB, status).is_last is status.is_terminal


@pytest.mark.parametrize("event", ONE_OF_EACH[1:], ids=lambda event: type(event).__name__)
def test_nothing_else_is_ever_the_last_event(event: Event) -> None:
    """Progress, previews, outputs and notes never end a job."""
    assert event.is_last is False


def test_the_numbered_events_are_those_that_last() -> None:
    """Status, outputs and notes have a number to resume after; progress and previews have none."""
    numbered = {
        kind for kind in get_args(Event) if "seq" in (f.name for f in dataclasses.fields(kind))
    }

    assert numbered == {StatusChanged, OutputSaved, Noted}
    assert {type(event) for event in ONE_OF_EACH} == set(get_args(Event))


@pytest.mark.parametrize("event", ONE_OF_EACH, ids=lambda event: type(event).__name__)
def test_events_are_values(event: Event) -> None:
    """Every event names its job, equals its copy, and prints no bytes of a picture."""
    assert event.job_id == JOB
    assert copy.deepcopy(event) == event
    assert "data=" not in repr(event)
