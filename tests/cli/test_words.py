"""What the command line reads from words, and the words it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer

from comfyserve import errors
from comfyserve.cli.assignments import FromOption, assignments_from, headers_from
from comfyserve.cli.event_lines import event_line, result_line
from comfyserve.cli.examples import example
from comfyserve.cli.exit_codes import code_for
from comfyserve.cli.inputs import inputs_for
from comfyserve.cli.progress_words import clock, printable, time_left, what_runs
from comfyserve.cli.report import summary
from comfyserve.client.job_handle import FinishedJob
from comfyserve.events import Event, Noted, OutputSaved, PreviewDrawn, ProgressMade, StatusChanged
from comfyserve.jobs import JobError, JobStatus, Output, Preview, Progress, Timings
from comfyserve.workflows.parameters import Written
from comfyserve.workflows.workflow import Workflow

JOB = "0b2f5c1e-0000-4000-8000-000000000000"
FOX = Output("9", "images", "fox.png", "image", "image/png", 3, "blake3:00", "out/füchse.png")


def test_an_equals_sign_may_be_part_of_a_value() -> None:
    """Only the first equals sign divides a name from its value."""
    assert assignments_from(["prompt=a=b", "3.cfg=7", "negative_prompt="], {}) == {
        "prompt": "a=b",
        "3.cfg": "7",
        "negative_prompt": "",
    }


def test_options_are_inputs_by_another_name() -> None:
    """An option that was given counts like an assignment; one that was not, does not."""
    given = assignments_from([], {"prompt": "fox", "seed": None, "image": Path("in.png")})

    assert given == {"prompt": FromOption("fox"), "image": FromOption(Path("in.png"))}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a fox in snow"], 'prompt="a fox in snow"'),
        (["@in.png"], "image=@in.png"),
        (["=5"], "NAME=VALUE"),
        (["seed=1", "seed=2"], "seed is given twice"),
    ],
)
def test_a_word_that_is_no_assignment_is_refused(words: list[str], said: str) -> None:
    """A word that cannot be read says what was probably meant."""
    with pytest.raises(typer.BadParameter, match=said):
        assignments_from(words, {})


def test_an_input_and_its_option_are_not_both_given() -> None:
    """`prompt=..` and `--prompt` together are a mistake, not a guess."""
    with pytest.raises(typer.BadParameter, match="prompt is given twice"):
        assignments_from(["prompt=a"], {"prompt": "b"})


def test_headers_are_names_and_values() -> None:
    """A header's value may hold colons; one without a colon is refused."""
    assert headers_from(["Authorization: Basic a:b"]) == {"Authorization": "Basic a:b"}
    with pytest.raises(typer.BadParameter, match="NAME:VALUE"):
        headers_from(["Authorization"])


def test_a_file_is_meant_only_where_the_workflow_takes_one() -> None:
    """`@name` is a path for a picture and plain text for a text."""
    workflow = Workflow.load(example("image_to_image.json"))
    given = assignments_from(
        ["image=@in.png", "prompt=@home", "steps=5", "nothing=1"],
        {"negative_prompt": "@", "seed": 7},
    )

    assert inputs_for(workflow, given) == {
        "image": Path("in.png"),
        "prompt": Written("@home"),
        "steps": Written("5"),
        "nothing": Written("1"),
        "negative_prompt": "@",
        "seed": 7,
    }


def test_a_picture_without_the_sign_is_left_to_the_client() -> None:
    """`image=name` may be a file here or one the server has."""
    workflow = Workflow.load(example("image_to_image.json"))

    assert inputs_for(workflow, {"image": "in.png"}) == {"image": "in.png"}


def test_says_what_runs() -> None:
    """The title counts most, then the class; a node's own message comes last."""
    progress = Progress(current_node="3", current_node_class="KSampler", step=3, steps=22)

    assert what_runs(progress) == "KSampler, step 3 of 22"
    assert what_runs(Progress(current_node="3")) == "3"
    assert what_runs(Progress()) == ""
    titled = Progress(current_node="3", current_node_title="Draw", message="warming\nup " * 20)
    assert what_runs(titled).startswith("Draw, warming up ")
    assert len(what_runs(titled)) < 80


def test_says_times_like_a_clock() -> None:
    """Seconds are shown as minutes and hours, and a range only if it is one."""
    assert [clock(seconds) for seconds in (0, 59.6, 3600, -1)] == [
        "0:00",
        "1:00",
        "1:00:00",
        "0:00",
    ]
    assert time_left(None) == ""
    assert time_left((20, 35)) == "0:20 to 0:35 left"
    assert time_left((20.1, 20.2)) == "0:20 left"


def test_nothing_steers_the_terminal() -> None:
    """Control characters from a server never reach the terminal."""
    assert printable("a\x1b[2Jb\r\nü") == "a [2Jb  ü"


@pytest.mark.parametrize(
    ("event", "fields"),
    [
        (
            StatusChanged(JOB, JobStatus.QUEUED, queue_position=2, seq=1),
            {"event": "status", "status": "queued", "queue_position": 2, "seq": 1},
        ),
        (
            StatusChanged(JOB, JobStatus.FAILED, error=JobError("job_failed", "no")),
            {"event": "status", "status": "failed"},
        ),
        (ProgressMade(JOB, Progress(value=0.5)), {"event": "progress", "value": 0.5}),
        (
            PreviewDrawn(JOB, Preview("3", "image/jpeg", b"12345")),
            {"event": "preview", "node_id": "3", "size_bytes": 5},
        ),
        (OutputSaved(JOB, FOX), {"event": "output", "path": "out/füchse.png", "size_bytes": 3}),
        (Noted(JOB, "warning", "lost"), {"event": "note", "level": "warning", "message": "lost"}),
    ],
)
def test_every_event_is_a_line_of_json(event: Event, fields: dict[str, object]) -> None:
    """Each event is one line of ASCII JSON with its name and its job."""
    line = event_line(event)

    told = json.loads(line)
    assert line.isascii()
    assert "\n" not in line
    assert told["job_id"] == JOB
    assert fields.items() <= told.items()


def test_the_result_says_it_all() -> None:
    """The last line holds the status, the paths, the seeds and the times; or the error."""
    line = result_line(
        JobStatus.SUCCEEDED,
        job_id=JOB,
        outputs=[FOX],
        seeds={"3.seed": 7},
        outputs_reused=True,
        timings=Timings(1.0, 2.0, {"3": 1.5}),
    )

    told = json.loads(line)
    assert told["event"] == "result"
    assert (told["status"], told["seeds"], told["outputs_reused"]) == (
        "succeeded",
        {"3.seed": 7},
        True,
    )
    assert [output["path"] for output in told["outputs"]] == ["out/füchse.png"]
    assert told["timings"] == {"queued": 1.0, "running": 2.0, "nodes": {"3": 1.5}}
    failed = json.loads(result_line(JobStatus.FAILED, error=errors.JobFailed("no paint")))
    assert failed["error"]["code"] == "job_failed"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.JobFailed("no"), 1),
        (errors.GraphRejected("http://x", "no"), 1),
        (errors.InvalidAddress("ftp://x", "it is none"), 2),
        (errors.OutputUnwritable("x", "full"), 1),
        (errors.InvalidInputs([]), 2),
        (errors.WorkflowUnreadable("x.json", "is empty"), 2),
        (errors.GraphInvalid("a loop"), 2),
        (errors.BackendUnreachable("http://x", "refused"), 3),
        (errors.BackendRefused("http://x", "401"), 3),
        (errors.BackendAnswerInvalid("http://x", "<html>"), 3),
        (errors.JobCanceled(JOB), 130),
    ],
)
def test_each_kind_of_error_has_its_exit_code(error: errors.ComfyServeError, code: int) -> None:
    """Scripts can tell a failure from a mistake and from a server that is not there."""
    assert code_for(error) == code


def test_the_last_sentence_tells_what_matters() -> None:
    """A person reads how long it took, the seed, and whether anything really ran."""
    job = FinishedJob(JOB, (), {}, {"3.seed": 7, "4.seed": 7}, True, Timings(0.5, 2.0))

    assert summary(job) == (
        "done in 2.5 s; seed 7; nothing ran again: the server had it all from before; "
        "the workflow saved nothing"
    )


def test_a_missing_example_is_said() -> None:
    """An example that is not installed is an error with a path."""
    with pytest.raises(errors.WorkflowUnreadable, match=r"none\.json is missing"):
        example("none.json")
