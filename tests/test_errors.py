"""Every error we raise: its code, its sentence, its place in the tree."""

from __future__ import annotations

import copy
import json
import pickle
import re
import traceback
from collections import defaultdict
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyserve import errors
from comfyserve.errors import (
    BackendAnswerInvalid,
    BackendError,
    BackendLost,
    BackendRefused,
    BackendUnreachable,
    ClientClosed,
    ComfyServeError,
    EngineUnavailable,
    FileUnavailable,
    GraphInvalid,
    GraphRejected,
    InputProblem,
    InvalidAddress,
    InvalidInputs,
    JobBlocked,
    JobCanceled,
    JobFailed,
    JobInterrupted,
    JobLost,
    JobRemoved,
    JobTimedOut,
    NoComfyserve,
    NodeFailed,
    OutOfMemory,
    OutputUnavailable,
    OutputUnwritable,
    RequestRefused,
    WorkflowUnreadable,
    did_you_mean,
    nearest,
)

URL = "http://gpu:8188"
NODE_ERRORS = {"3": {"class_type": "KSampler", "errors": [{"message": "too big"}]}}

SENTENCES: list[tuple[ComfyServeError, str]] = [
    (
        WorkflowUnreadable("a.json", "is empty", "Save it with 'Export (API)'"),
        "a.json is empty. Save it with 'Export (API)'.",
    ),
    (WorkflowUnreadable("a.json", "is not JSON."), "a.json is not JSON."),
    (GraphInvalid("Node 3 has no class_type", "3"), "Node 3 has no class_type."),
    (
        InvalidInputs([InputProblem("steps", "'x' is no number."), InputProblem("cfg", "Why?")]),
        "'x' is no number.\nWhy?",
    ),
    (
        InvalidAddress("ftp://x", "it has to begin with http:// or https:// and a host"),
        "'ftp://x' cannot be used as a server's address: "
        "it has to begin with http:// or https:// and a host.",
    ),
    (BackendError(URL, "the mask was not laid"), "http://gpu:8188: the mask was not laid."),
    (
        BackendUnreachable(URL, "the connection was refused", refused=True),
        "No ComfyUI answers at http://gpu:8188 (the connection was refused). "
        "Start it, or name another server with --server or COMFYSERVE_SERVER.",
    ),
    (
        BackendRefused(URL, "it answers 401; give a token"),
        "http://gpu:8188 will not let us in: it answers 401; give a token.",
    ),
    (
        BackendAnswerInvalid(URL, "GET /queue was answered with 500"),
        "http://gpu:8188 gave an answer that makes no sense: GET /queue was answered with 500. "
        "Is it a ComfyUI server, and is the address complete?",
    ),
    (BackendLost(URL, "no answer"), "http://gpu:8188 was lost while the job was there: no answer."),
    (
        GraphRejected(URL, "Prompt has no outputs", NODE_ERRORS),
        "http://gpu:8188 will not run this graph: Prompt has no outputs.",
    ),
    (
        BackendUnreachable(URL, "the connection was refused", what="comfyserve"),
        "No comfyserve answers at http://gpu:8188 (the connection was refused). "
        "Start it, or name another server with --server or COMFYSERVE_SERVER.",
    ),
    (
        RequestRefused(URL, "Come back tomorrow", "rate_limited", {"seconds": 5}),
        "http://gpu:8188 will not do that (rate_limited): Come back tomorrow.",
    ),
    (
        NoComfyserve(URL, "keeps no list of jobs"),
        "http://gpu:8188 is a ComfyUI, which keeps no list of jobs. "
        "Name a comfyserve with --server or COMFYSERVE_SERVER.",
    ),
    (
        FileUnavailable(URL, "a b.png"),
        "http://gpu:8188: it no longer has the file 'a b.png'.",
    ),
    (JobFailed("It ended, and nobody says why"), "It ended, and nobody says why."),
    (
        NodeFailed("bad shape", node_id="3", class_type="KSampler", exception_type="ValueError"),
        "Node 3 (KSampler) failed: ValueError: bad shape.",
    ),
    (NodeFailed("bad shape!", node_id="7.0.1"), "Node 7.0.1 failed: bad shape!"),
    (
        OutOfMemory("no room", node_id="3", class_type="KSampler"),
        "Node 3 (KSampler) failed: no room. "
        "Try a smaller size or batch, or free the server's memory.",
    ),
    (
        OutOfMemory("no room.\nTIPS: make it smaller.", node_id="3", class_type="KSampler"),
        "Node 3 (KSampler) failed: no room.\nTIPS: make it smaller.",
    ),
    (JobBlocked("Stop here", node_id="4"), "Node 4 failed: Stop here."),
    (JobInterrupted("Someone else interrupted the job"), "Someone else interrupted the job."),
    (JobRemoved("Someone else removed the job"), "Someone else removed the job."),
    (JobLost("The backend was lost"), "The backend was lost."),
    (OutputUnavailable("The backend made 'a.png'", job_id="j"), "The backend made 'a.png'."),
    (JobCanceled("j", outputs=("a",)), "Job j was canceled."),
    (JobTimedOut("j", 2.5), "Job j did not end within 2.5 s."),
    (ClientClosed("j"), "The client was closed while job j was still going on."),
    (OutputUnwritable("out/a.png", "no space left"), "out/a.png cannot be written: no space left."),
    (
        EngineUnavailable("onnxruntime is missing"),
        "The built-in engine could not be started: onnxruntime is missing.",
    ),
]
EXAMPLES = [error for error, _ in SENTENCES]
BY_CLASS = pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)

# Who shares a code means the same thing to a program, seen from another place.
SHARED_CODES = {
    "invalid_workflow": {"GraphInvalid", "GraphRejected"},
    "backend_lost": {"BackendLost", "JobLost"},
    "output_unavailable": {"FileUnavailable", "OutputUnavailable"},
}


@pytest.mark.parametrize(("error", "sentence"), SENTENCES, ids=lambda x: type(x).__name__)
def test_an_error_says_what_happened(error: ComfyServeError, sentence: str) -> None:
    """Every error's text is whole sentences made of its fields, with what to do where known."""
    assert str(error) == sentence


@BY_CLASS
def test_sentences_end_and_do_not_shout(error: ComfyServeError) -> None:
    """Every text ends like a sentence, and none begins with a label or blames anybody."""
    for line in str(error).splitlines():
        assert line[-1] in ".?!"
    assert ".." not in str(error)
    assert not re.search(r"\b(Error|ERROR|error):", str(error))


def test_every_class_has_an_example_here() -> None:
    """No error class is left out of the promises above."""
    assert {type(error) for error in EXAMPLES} == set(_below(ComfyServeError))


def test_the_drawn_tree_is_the_real_one() -> None:
    """The tree in the module's docstring names every class, under its parent, and no other."""
    assert _drawn_tree(errors.__doc__ or "") == _real_tree()


def test_the_tree_tells_what_each_class_tells() -> None:
    """Every line of the drawn tree says something of its class."""
    lines = [line for line in (errors.__doc__ or "").splitlines() if re.match(r"\s+[+\-·]", line)]

    assert len(lines) == len(set(_below(ComfyServeError)))
    assert all(re.fullmatch(r"\s+[+\-·] \w+(\s{2,}\S.+)?", line) for line in lines)


def test_a_code_names_one_thing() -> None:
    """No two classes share a code, but for those that mean the same to a program."""
    users: defaultdict[str, set[str]] = defaultdict(set)
    kinds: list[type[ComfyServeError]] = [ComfyServeError, *_below(ComfyServeError)]
    for kind in kinds:
        users[kind.code].add(kind.__name__)

    assert {code: names for code, names in users.items() if len(names) > 1} == SHARED_CODES


@BY_CLASS
def test_a_code_is_a_class_own_word(error: ComfyServeError) -> None:
    """Every class sets its own code, a lower case word that may travel in JSON and URLs."""
    assert "code" in vars(type(error))
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", error.code)


@BY_CLASS
def test_the_json_body_has_one_shape(error: ComfyServeError) -> None:
    """Every error becomes the same plain JSON: code, message, and details or null."""
    body = json.loads(json.dumps(error.to_json()))

    assert body.keys() == {"error"}
    assert body["error"].keys() == {"code", "message", "details"}
    assert body["error"]["code"] == type(error).code
    assert body["error"]["message"] == str(error)
    assert body["error"]["details"] is None or isinstance(body["error"]["details"], dict)


def test_details_hold_what_a_program_asks_for() -> None:
    """The details name the input, the node or the node errors that the sentence speaks of."""
    assert InvalidInputs([InputProblem("steps", "No.")]).details == {"inputs": {"steps": "No."}}
    assert GraphInvalid("No.", "3").details == {"node_id": "3"}
    assert GraphInvalid("No.").details is None
    assert GraphRejected(URL, "No.", NODE_ERRORS).details == {"node_errors": NODE_ERRORS}
    assert GraphRejected(URL, "No.").details is None
    assert NodeFailed("x", node_id="3", class_type="K", exception_type="E", job_id="j").details == {
        "job_id": "j",
        "node_id": "3",
        "class_type": "K",
        "exception_type": "E",
    }


@BY_CLASS
@pytest.mark.parametrize("way", ["copy", "deepcopy", "pickle", "pickle twice"])
def test_an_error_survives_being_copied(error: ComfyServeError, way: str) -> None:
    """A copy, also one that went through a process boundary, has the same class and fields."""
    match way:
        case "copy":
            other = copy.copy(error)
        case "deepcopy":
            other = copy.deepcopy(error)
        case "pickle":
            other = pickle.loads(pickle.dumps(error))
        case _:
            other = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(error))))

    assert type(other) is type(error)
    assert vars(other) == vars(error)
    assert other.args == error.args
    assert (str(other), repr(other)) == (str(error), repr(error))


@BY_CLASS
def test_a_copied_error_keeps_its_notes(error: ComfyServeError) -> None:
    """What was noted on an error travels with it."""
    noted = copy.copy(error)
    noted.add_note("while running portrait.json")

    other = pickle.loads(pickle.dumps(noted))

    assert other.__notes__ == ["while running portrait.json"]
    assert "while running portrait.json" in "".join(traceback.format_exception(other))


@given(st.text(min_size=1).filter(lambda text: text.strip() != ""))
def test_any_message_becomes_a_sentence(message: str) -> None:
    """Whatever a node said, the text holds it, and ends with a mark even after line ends."""
    text = str(NodeFailed(message, node_id="3", exception_type="ValueError"))

    assert message.strip() in text
    assert text[-1] in ".?!"


@pytest.mark.parametrize("said", ["", "  ", "\n"])
def test_a_node_that_said_nothing_still_failed_in_a_sentence(said: str) -> None:
    """An empty message leaves no dangling colon."""
    failed = NodeFailed(said, node_id="3", class_type="K", exception_type="ValueError")
    bare = JobBlocked(said, node_id="4")

    assert str(failed) == "Node 3 (K) failed: ValueError."
    assert str(bare) == "Node 4 failed."
    assert str(JobFailed(said)) == "The job failed."


def test_the_nearest_name_is_found_whatever_its_case() -> None:
    """A misspelt or miscased name leads to the right one, and nonsense leads nowhere."""
    known = ["seed", "steps", "Scheduler"]

    assert did_you_mean("stepz", known) == " Did you mean 'steps'?"
    assert did_you_mean("SCHEDULR", known) == " Did you mean 'Scheduler'?"
    assert did_you_mean("xyzzy", known) == ""
    assert did_you_mean("se", ["seed", "set"], at_most=2) == " Did you mean 'set' or 'seed'?"


@given(st.text(), st.lists(st.text(), max_size=20), st.integers(min_value=1, max_value=5))
def test_only_known_names_are_offered(name: str, known: list[str], at_most: int) -> None:
    """No more names than asked for are offered, and each is one of the known."""
    found = nearest(name, known, at_most)

    assert set(found) <= set(known)
    assert len(found) <= at_most


def _below(kind: type[ComfyServeError]) -> Iterator[type[ComfyServeError]]:
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield child
            yield from _below(child)


def _real_tree() -> set[tuple[str, str]]:
    kinds = _below(ComfyServeError)
    return {(base.__name__, kind.__name__) for kind in kinds for base in kind.__bases__}


def _drawn_tree(text: str) -> set[tuple[str, str]]:
    pairs: set[tuple[str, str]] = set()
    above: list[tuple[int, str]] = []
    for line in text.splitlines():
        found = re.match(r"(\s*)[*+\-·] (\w+)", line)
        if found is None:
            continue
        depth, name = len(found[1]), found[2]
        while above and above[-1][0] >= depth:
            above.pop()
        if above:
            pairs.add((above[-1][1], name))
        above.append((depth, name))
    return pairs
