"""Events as JSON documents: the same event comes back, whatever is in it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyserve.events import (
    Event,
    Noted,
    NumberedEvent,
    OutputSaved,
    PreviewDrawn,
    ProgressMade,
    StatusChanged,
    from_json,
    numbered_from_json,
    to_json,
)
from comfyserve.jobs import JobError, JobStatus, Output, Preview, Progress, Timings

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
WHOLE = st.none() | st.integers(0, 2**53)
TEXTS = st.text(max_size=20)
SEQ = st.none() | st.integers(1, 10**6)
ERRORS = st.builds(
    JobError,
    TEXTS,
    TEXTS,
    st.none() | TEXTS,
    st.none() | TEXTS,
    st.none() | TEXTS,
    st.lists(TEXTS, max_size=3).map(tuple),
)
TIMINGS = st.builds(Timings, NUMBERS, NUMBERS, st.dictionaries(TEXTS, NUMBERS, max_size=3))
NUMBERED: st.SearchStrategy[NumberedEvent] = st.one_of(
    st.builds(
        StatusChanged,
        TEXTS,
        st.sampled_from(JobStatus),
        WHOLE,
        st.none() | ERRORS,
        st.booleans(),
        TIMINGS,
        SEQ,
    ),
    st.builds(OutputSaved, TEXTS, st.builds(Output, index=st.integers(0, 99)), SEQ),
    st.builds(
        Noted,
        TEXTS,
        st.sampled_from(["info", "warning"]),
        TEXTS,
        st.dictionaries(TEXTS, TEXTS, max_size=3),
        SEQ,
    ),
)
LIVE: st.SearchStrategy[Event] = st.one_of(
    st.builds(
        ProgressMade,
        TEXTS,
        st.builds(
            Progress,
            value=NUMBERS,
            nodes_done=st.integers(0, 99),
            current_node=st.none() | TEXTS,
            steps=WHOLE,
            remaining=st.none() | st.tuples(NUMBERS, NUMBERS),
        ),
    ),
    st.builds(PreviewDrawn, TEXTS, st.builds(Preview, st.none() | TEXTS, TEXTS, st.binary())),
)


@given(NUMBERED | LIVE)
def test_an_event_comes_back_from_its_document(event: Event) -> None:
    """Through JSON text and back, every event is the same."""
    assert from_json(json.loads(json.dumps(to_json(event)))) == event


@given(NUMBERED)
def test_events_that_last_come_back_as_such(event: NumberedEvent) -> None:
    """Those that are stored are read without the live ones."""
    assert numbered_from_json(json.loads(json.dumps(to_json(event)))) == event


def test_a_document_of_something_else_is_refused() -> None:
    """What is no event, or not one that lasts, is not taken for one."""
    live = to_json(ProgressMade("j", Progress()))

    for document in ({"kind": "nonsense"}, {}, live):
        with pytest.raises(KeyError):
            numbered_from_json(document)
