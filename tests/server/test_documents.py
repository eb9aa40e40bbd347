"""What callers see of jobs, outputs, assets and events."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyserve.assets import Asset
from comfyserve.events import (
    Event,
    Noted,
    OutputSaved,
    PreviewDrawn,
    ProgressMade,
    StatusChanged,
)
from comfyserve.jobs import (
    JobError,
    JobRecord,
    JobStatus,
    Output,
    Preview,
    Progress,
    Standing,
    Timings,
)
from comfyserve.server import models
from comfyserve.server.documents import (
    asset_document,
    encoded,
    error_document,
    event_frame,
    job_document,
    moment,
    output_document,
)
from comfyserve.server.links import Links

LINKS = Links.of("https://pictures.example/studio/")
OUTPUT = Output(
    "9", "images", "a b.png", "image", "image/png", 12, "blake3:00", "blobs/00", id="an-asset"
)
RECORD = JobRecord(
    id="a-job",
    owner="",
    workflow=None,
    seeds={"3.seed": 7},
    inputs={},
    metadata=None,
    priority=2,
    pool="",
    status=JobStatus.RUNNING,
    attempts=1,
    backend="gpu",
    prompt_id="a-job",
    progress=None,
    error=None,
    outputs_reused=False,
    timings=Timings(),
    queue_deadline=None,
    created_at=100.0,
    started_at=101.5,
    completed_at=None,
    expires_at=1000.0,
    last_event=2,
    outputs=(OUTPUT,),
)


def test_a_job_has_all_that_the_contract_requires() -> None:
    """Every required key is there, also where its value is null."""
    waiting = replace(RECORD, status=JobStatus.QUEUED, started_at=None, outputs=(), backend=None)
    document = job_document(Standing(waiting, None, 1, (1.04, 12.5)), LINKS)
    required = models.Job.model_json_schema()["required"]
    assert set(required) <= document.keys()
    assert [document[name] for name in ("started_at", "completed_at", "progress", "error")] == (
        [None] * 4
    )
    assert document["queue_position"] == 1
    assert document["expected_wait"] == [1.0, 12.5]
    assert job_document(Standing(waiting), LINKS)["expected_wait"] is None


def test_a_list_shows_how_long_inputs_begin() -> None:
    """A page of jobs stays small whatever they were given; what is short is whole."""
    given = {"prompt": "fox " * 1000, "steps": 4, "seed": None, "points": [[1, 2]] * 1000}
    called = Standing(replace(RECORD, workflow="portrait", inputs=given))

    listed = job_document(called, LINKS, brief=True)["inputs"]

    assert job_document(called, LINKS)["inputs"] == given
    assert (listed["steps"], listed["seed"]) == (4, None)
    assert listed["prompt"].startswith("fox fox") and listed["prompt"].endswith(" …")
    assert max(len(listed["prompt"]), len(listed["points"])) <= 2000


def test_a_job_fits_its_model() -> None:
    """The document of a job is what the OpenAPI document promises, and nothing besides."""
    document = job_document(Standing(RECORD, Progress(0.5, 1, 2, remaining=(1.0, 2.0))), LINKS)
    models.Job.model_validate_json(encoded(document), strict=False)
    assert document.keys() <= models.Job.model_fields.keys()
    assert document["progress"].keys() == models.Progress.model_fields.keys()
    assert document["outputs"][0].keys() == models.Output.model_fields.keys()


def test_addresses_hold_behind_a_prefix() -> None:
    """Links of a job hold the prefix and no host; those of bytes are absolute."""
    document = job_document(Standing(RECORD), LINKS)
    assert document["urls"]["self"] == "/studio/api/v2/jobs/a-job"
    assert document["urls"]["events"] == "/studio/api/v2/jobs/a-job/events"
    assert document["urls"]["cancel"] == "/studio/api/v2/jobs/a-job/cancel"
    url = "https://pictures.example/studio/api/v2/assets/an-asset/content"
    assert document["outputs"][0]["url"] == url


def test_metrics_are_of_the_real_times() -> None:
    """Waiting and running are told in milliseconds, and null while they are not known."""
    assert job_document(Standing(RECORD), LINKS)["metrics"] == {
        "queue_ms": 1500,
        "execution_ms": None,
    }
    over = replace(RECORD, status=JobStatus.SUCCEEDED, completed_at=103.25)
    assert job_document(Standing(over), LINKS)["metrics"] == {
        "queue_ms": 1500,
        "execution_ms": 1750,
    }
    never = replace(RECORD, status=JobStatus.CANCELED, started_at=None, completed_at=101.0)
    assert job_document(Standing(never), LINKS)["metrics"] == {
        "queue_ms": 1000,
        "execution_ms": None,
    }


def test_metadata_come_back_as_they_came() -> None:
    """A text stays a text, labels stay labels, and nothing stays nothing."""
    text = job_document(Standing(replace(RECORD, metadata="mine")), LINKS)
    labels = job_document(Standing(replace(RECORD, metadata={"a": "b"})), LINKS)
    assert text["metadata"] == "mine"
    assert labels["metadata"] == {"a": "b"}
    assert "metadata" not in job_document(Standing(RECORD), LINKS)


def test_an_output_holds_as_long_as_its_job() -> None:
    """The address of an output expires with its job, and its zone is told."""
    document = output_document(OUTPUT, "a-job", 1000.0, LINKS)
    assert document["url_expires_at"] == "1970-01-01T00:16:40.000Z"
    assert document["job_id"] == "a-job"


def test_a_traceback_is_one_text() -> None:
    """Lines of a traceback come as one string; without any it is null."""
    error = JobError("node_execution_error", "no", traceback=("one\n", "two\n"))
    assert error_document(error)["traceback"] == "one\ntwo"
    assert error_document(replace(error, traceback=()))["traceback"] is None


def test_an_asset_for_ever_still_says_until_when_its_address_holds() -> None:
    """An asset without an end has none, but the required time of its address is there."""
    asset = Asset("id", "", "blake3:00", 1, "text/plain", 5.0)
    document = asset_document(asset, LINKS)
    assert document["expires_at"] is None
    assert document["url_expires_at"].endswith("Z")
    assert "job_id" not in document
    models.Asset.model_validate(document)
    assert asset_document(asset, LINKS, created_new=True)["created_new"] is True


@pytest.mark.parametrize(
    ("event", "name"),
    [
        (StatusChanged("a-job", JobStatus.QUEUED, 3, seq=1), "status"),
        (ProgressMade("a-job", Progress(0.1)), "progress"),
        (PreviewDrawn("a-job", Preview("3", "image/jpeg", b"\xff\xd8")), "preview"),
        (OutputSaved("a-job", OUTPUT, 2), "output"),
        (Noted("a-job", "info", "hello", {"backend": "gpu"}, 3), "log"),
    ],
)
def test_every_event_is_a_frame(event: Event, name: str) -> None:
    """Each kind of event has the contract's name, and data that JSON can say."""
    told, document = event_frame(event, LINKS, 1000.0)
    assert told == name
    assert json.loads(encoded(document)) == document


def test_the_last_status_says_why() -> None:
    """The terminal frame carries the error, what was reused and how long it took."""
    failed = StatusChanged("a-job", JobStatus.FAILED, error=JobError("out_of_memory", "too large"))
    _, document = event_frame(failed, LINKS, 1000.0)
    assert document["error"]["code"] == "out_of_memory"
    assert document["timings"] == {"queued": 0.0, "running": 0.0, "nodes": {}}
    _, running = event_frame(StatusChanged("a-job", JobStatus.RUNNING), LINKS, 1000.0)
    assert running.keys() == {"status", "queue_position"}


def test_a_preview_of_no_known_node_has_a_text_for_its_node() -> None:
    """The contract wants a text for node_id; it is empty where nobody said."""
    _, document = event_frame(PreviewDrawn("j", Preview(None, "image/png", b"x")), LINKS, 0.0)
    assert document == {"node_id": "", "content_type": "image/png", "data_base64": "eA=="}


@given(st.floats(allow_nan=False))
def test_any_time_can_be_told(seconds: float) -> None:
    """Whatever the number, a date-time with a zone comes of it."""
    assert moment(seconds).endswith("Z")
    assert len(moment(seconds)) == len("1970-01-01T00:00:00.000Z")


@given(st.text(st.characters(), max_size=20))
def test_any_text_can_be_sent(text: str) -> None:
    """Names with halves of characters, as ComfyUI may give, still make an answer."""
    content = encoded(output_document(replace(OUTPUT, name=text), "j", 1.0, LINKS))
    assert json.loads(content)["name"] == text


def test_what_json_cannot_say_is_not_sent() -> None:
    """A document with NaN raises rather than going out as something no program reads."""
    with pytest.raises(ValueError, match="JSON"):
        encoded({"value": math.nan})
