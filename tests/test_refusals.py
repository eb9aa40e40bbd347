"""The errors about what lasts: each has its sentence, code and details."""

from __future__ import annotations

import json
import pickle
import re

import pytest

from comfyserve import refusals
from comfyserve.errors import ComfyServeError
from comfyserve.refusals import (
    AssetInUse,
    BlobNotFound,
    DataFolderLocked,
    IdempotencyKeyReused,
    IllegalMove,
    InvalidCursor,
    JobUnfinished,
    LeaseLost,
    NotFound,
    QueueFull,
    SchemaTooNew,
    SettingsInvalid,
    StoreUnavailable,
)

SENTENCES: list[tuple[ComfyServeError, str]] = [
    (SettingsInvalid(["A is wrong.", "B too."]), "A is wrong.\nB too."),
    (
        DataFolderLocked("data", 7),
        "The data folder data is in use by process 7. "
        "Stop it, or give this one a data folder of its own.",
    ),
    (
        DataFolderLocked("data"),
        "The data folder data is in use by another process. "
        "Stop it, or give this one a data folder of its own.",
    ),
    (
        SchemaTooNew("a.db", "0009", "0001"),
        "a.db was written by a newer comfyserve: its schema is '0009', and this version knows up "
        "to '0001'. Update comfyserve, or use another folder.",
    ),
    (
        StoreUnavailable("a.db", "database is locked"),
        "a.db could not be used, and nothing changed: database is locked.",
    ),
    (NotFound("job", "j"), "There is no job 'j', or no longer."),
    (
        BlobNotFound(["blake3:1", "blake3:2"]),
        "No bytes are kept with the hash blake3:1 or blake3:2. Upload them.",
    ),
    (AssetInUse("a", "j"), "Asset a is needed by job j, which is not over."),
    (JobUnfinished("j", "queued"), "Job j is queued. Cancel it first, or wait for its end."),
    (IllegalMove("j", "queued", "succeeded"), "Job j is queued and cannot become succeeded."),
    (LeaseLost("j", "s"), "Job j is no longer held by s, so nothing was written."),
    (QueueFull(3), "The queue is full: 3 jobs wait already. Try again later."),
    (
        IdempotencyKeyReused("k"),
        "The idempotency key 'k' was used before. List the jobs to find its.",
    ),
    (
        InvalidCursor("x"),
        "'x' is not a cursor. Use next_cursor of the page before as it is.",
    ),
]
KINDS = [kind for kind in ComfyServeError.__subclasses__() if kind.__module__ == refusals.__name__]


@pytest.mark.parametrize(("error", "sentence"), SENTENCES, ids=lambda x: type(x).__name__)
def test_a_refusal_says_what_happened(error: ComfyServeError, sentence: str) -> None:
    """Every error's text is whole sentences made of its fields; it travels as the one body."""
    body = json.loads(json.dumps(error.to_json()))["error"]

    assert str(error) == sentence
    assert body["code"] == type(error).code
    assert body["message"] == sentence
    assert body["details"] is None or isinstance(body["details"], dict)


@pytest.mark.parametrize("error", [error for error, _ in SENTENCES])
def test_a_refusal_survives_being_copied(error: ComfyServeError) -> None:
    """One that went through a process boundary has the same class, fields and text."""
    other = pickle.loads(pickle.dumps(error))

    assert type(other) is type(error)
    assert (vars(other), str(other)) == (vars(error), str(error))


def test_every_class_is_drawn_and_has_an_example() -> None:
    """The tree in the module's docstring names every class and no other, and so do the tests."""
    drawn = set(re.findall(r"^\s+\+ (\w+)", refusals.__doc__ or "", re.M))

    assert drawn == {kind.__name__ for kind in KINDS}
    assert {type(error) for error, _ in SENTENCES} == set(KINDS)


def test_codes_are_words_of_their_own() -> None:
    """No two of them share a code, and each is a lower case word that may travel."""
    codes = [kind.code for kind in KINDS]

    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", code) for code in codes)
