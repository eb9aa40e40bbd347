"""What a comfyserve says, read as our words: the reverse of the documents that it writes."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyserve.client.wire import Frame, Frames, error_of, event_of, events_of, reference
from comfyserve.denials import EditorFormatRefused, GraphRefused, MetadataInvalid, ServerStopping
from comfyserve.errors import (
    ComfyServeError,
    GraphInvalid,
    GraphRejected,
    InputProblem,
    InvalidInputs,
    RequestRefused,
)
from comfyserve.events import (
    Event,
    Noted,
    OutputSaved,
    PreviewDrawn,
    ProgressMade,
    StatusChanged,
)
from comfyserve.jobs import JobError, JobStatus, Output, Preview, Progress, Timings
from comfyserve.refusals import (
    BlobNotFound,
    DiskCapReached,
    HashMismatch,
    IdempotencyKeyReused,
    MissingAsset,
    NotFound,
    QueueFull,
)
from comfyserve.server.documents import event_frame
from comfyserve.server.links import Links

JOB = "7f3d2c1b-9a8e-4d6f-b012-3c4d5e6f7a8b"
FOX = Output(
    node_id="9",
    key="images",
    name="füchse.png",
    type="image",
    content_type="image/png",
    size_bytes=3,
    hash="blake3:00",
    location="",
    subfolder="sub",
    temp=True,
    index=2,
    id="a",
)
ERROR = JobError(
    "node_execution_error", "no paint", "2", "TestFail", "RuntimeError", ("line 1\n", "line 2")
)
EVENTS: list[Event] = [
    StatusChanged(JOB, JobStatus.QUEUED, queue_position=3),
    StatusChanged(JOB, JobStatus.RUNNING, seq=2),
    StatusChanged(JOB, JobStatus.FAILED, error=ERROR, timings=Timings(1.5, 2.0, {"2": 0.5}), seq=7),
    StatusChanged(JOB, JobStatus.SUCCEEDED, outputs_reused=True, seq=8),
    ProgressMade(JOB, Progress(0.42, 3, 7, "3", "KSampler", "Paint", 4, 9, "so", 1.5, (2.0, 3.5))),
    ProgressMade(JOB, Progress()),
    PreviewDrawn(JOB, Preview("3", "image/jpeg", b"\xff\xd8\xff")),
    PreviewDrawn(JOB, Preview(None, "image/png", b"\x89PNG")),
    OutputSaved(JOB, FOX, seq=4),
    Noted(JOB, "warning", "lost and found", {"node": "3"}, seq=5),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_an_event_travels(event: Event) -> None:
    """What a server tells of an event is read as the same event."""
    name, document = event_frame(event, Links.of("http://127.0.0.1:8189"), 0.0)
    number = getattr(event, "seq", None)

    assert event_of(Frame(name, json.dumps(document), number), JOB) == event


def test_events_of_tomorrow_are_passed_over() -> None:
    """A kind of event that nobody knows yet is no error."""
    assert event_of(Frame("weather", "sunny"), JOB) is None


STREAM = (
    ": keepalive\n\n"
    'event: status\nid: 1\ndata: {"status": "queued"}\n\n'
    "event: progress\r\ndata: {}\r\n\r\n"
    "data: first\ndata: second\n\n"
    ":\n\nid: x\nevent: log\ndata: ü\n\n"
    "event: status\n\n"
    "event: lost\ndata: it ends before the frame does"
).encode()


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_a_stream_is_cut_into_frames(cuts: list[int]) -> None:
    """Frames are the same in whatever pieces a stream comes; the one it broke off in is none."""
    places = [0, *sorted(cuts), len(STREAM)]
    frames = Frames()

    found = [frame for start, end in pairwise(places) for frame in frames.feed(STREAM[start:end])]

    assert found == [
        Frame("status", '{"status": "queued"}', 1),
        Frame("progress", "{}"),
        Frame("message", "first\nsecond"),
        Frame("log", "ü"),
    ]


def test_a_frame_without_end_is_refused() -> None:
    """A server that never ends a frame does not fill the memory."""
    frames = Frames()

    with pytest.raises(ValueError, match="a frame has more than"):
        for _ in range(80):
            list(frames.feed(b"x" * (1 << 20)))


def test_a_job_as_events() -> None:
    """A job's document tells its outputs first, then how it stands, as a stream would have."""
    output = event_frame(OutputSaved(JOB, FOX), Links.of("http://h"), 0.0)[1]
    job = {
        "id": JOB,
        "status": "succeeded",
        "queue_position": None,
        "progress": {"value": 1.0, "nodes_done": 2, "nodes_total": 2},
        "outputs": [output],
        "error": None,
        "metrics": {"queue_ms": 1500, "execution_ms": None},
    }

    assert list(events_of(job)) == [
        OutputSaved(JOB, FOX),
        ProgressMade(JOB, Progress(1.0, 2, 2)),
        StatusChanged(JOB, JobStatus.SUCCEEDED, timings=Timings(queued=1.5)),
    ]


ERRORS: list[ComfyServeError] = [
    InvalidInputs([InputProblem("steps", "'x' is no number.")]),
    NotFound("job", JOB),
    QueueFull(256),
    DiskCapReached(10**9),
    HashMismatch("blake3:00", "blake3:11"),
    BlobNotFound(["blake3:00"]),
    IdempotencyKeyReused(JOB),
    EditorFormatRefused(),
    MetadataInvalid("The metadata have 17 labels; there may be 16."),
    ServerStopping(),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_travels(error: ComfyServeError) -> None:
    """An error that a server answers with is raised as the same class with the same sentence."""
    found = error_of("http://h", json.dumps(error.to_json()), ("job", JOB))

    assert type(found) is type(error)
    assert (str(found), found.details) == (str(error), error.details)


def test_a_graph_that_is_refused_is_rejected() -> None:
    """Whoever refuses a graph, callers know it as `GraphRejected`, with the nodes at fault."""
    problem = {"field": "model", "reason": "missing_input", "message": "model is missing."}

    for error in (GraphRefused({"3": [problem]}), GraphInvalid("model is missing.")):
        found = error_of("http://h", json.dumps(error.to_json()), ("job", JOB))

        assert isinstance(found, GraphRejected)
        assert str(found) == "http://h will not run this graph: model is missing."
    refused = error_of("http://h", json.dumps(GraphRefused({"3": [problem]}).to_json()), ("", ""))
    assert isinstance(refused, GraphRejected)
    assert refused.node_errors == {"3": {"errors": [problem]}}


def test_missing_assets_are_named() -> None:
    """Assets that a server misses are told with their ids, in its own words."""
    for error in (MissingAsset(["a"]), MissingAsset(["a"], ["One is no object."])):
        found = error_of("http://h", json.dumps(error.to_json()), ("job", JOB))

        assert isinstance(found, MissingAsset)
        assert found.missing_ids == ("a",)
        assert str(found) == str(error)


def test_an_error_of_tomorrow_keeps_its_code() -> None:
    """A code that nobody knows yet is one clear error, with the code and the sentence kept."""
    body = {"error": {"code": "insufficient_credits", "message": "No credits.", "details": None}}

    found = error_of("http://h", json.dumps(body), ("job", JOB))

    assert isinstance(found, RequestRefused)
    assert found.refusal == "insufficient_credits"
    assert str(found) == "http://h will not do that (insufficient_credits): No credits."


@pytest.mark.parametrize("text", ["", "<html>", "[]", "{}", '{"error": "no"}', '{"error": {}}'])
def test_what_is_no_error_body_is_not_taken_for_one(text: str) -> None:
    """An answer of somebody else, such as a proxy's page, is not read as an error."""
    with pytest.raises((ValueError, KeyError, TypeError)):
        error_of("http://h", text, ("job", JOB))


def test_a_reference_names_its_asset() -> None:
    """A reference is what the official API takes in a file's place; a mask tells its image."""
    asset = {"id": "a", "hash": "blake3:00"}

    assert reference(asset, "x.png") == {
        "__type": "core/ASSET",
        "info": {"id": "a", "hash": "blake3:00", "file_path": "x.png"},
    }
    assert reference(asset, "x.png", "there.png")["info"]["mask_of"] == "there.png"
