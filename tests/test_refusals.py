"""The errors about what lasts and about requests: each has its sentence, code and details."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Iterator

import pytest

from comfyserve import denials, refusals
from comfyserve.denials import (
    AddressUnsafe,
    AddressUnusable,
    BackendAlreadyThere,
    BackendNotAdded,
    BackendNotFound,
    EditorFormatRefused,
    ExtraMissing,
    Forbidden,
    ForbiddenOrigin,
    GraphRefused,
    InvalidRequest,
    KeyLacksPermission,
    KeyNameTaken,
    KeyNotFound,
    LinkExpired,
    MetadataFilterInvalid,
    MetadataInvalid,
    PayloadTooLarge,
    RateLimited,
    ServerStarting,
    ServerStopping,
    TooManyJobs,
    TooManyStreams,
    Unauthorized,
)
from comfyserve.errors import ComfyServeError
from comfyserve.refusals import (
    AssetInUse,
    BlobNotFound,
    DataFolderLocked,
    DiskCapReached,
    ExtraDataLost,
    HashMismatch,
    IdempotencyKeyReused,
    IllegalMove,
    InvalidCursor,
    JobUnfinished,
    LeaseLost,
    ListenerTooSlow,
    MissingAsset,
    NotFound,
    QueueFull,
    SchemaTooNew,
    SettingsInvalid,
    StoreUnavailable,
    WorkflowBroken,
    WorkflowFolderMissing,
    WorkflowInFolder,
    WorkflowNameRefused,
    WorkflowNotFound,
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
        IdempotencyKeyReused("k", replays=True),
        "The idempotency key 'k' was used before, with other inputs, metadata or priority. "
        "Take a new key for these.",
    ),
    (
        InvalidCursor("x"),
        "'x' is not a cursor. Use next_cursor of the page before as it is.",
    ),
    (
        MissingAsset(["a", "b"], ["Node 1 has none."]),
        "Node 1 has none. There is no asset 'a', 'b', or no longer. Upload it anew.",
    ),
    (
        HashMismatch("blake3:1", "blake3:2"),
        "The bytes have the hash blake3:2, but blake3:1 was announced.",
    ),
    (
        DiskCapReached(20_000),
        "This server keeps 20,000 bytes at most. Delete jobs or assets first.",
    ),
    (
        ExtraDataLost("j"),
        "The job came with secrets in extra_data, which are never stored, and the server was "
        "restarted before the job ran. Submit it again.",
    ),
    (ListenerTooSlow("j"), "The events of job j came faster than they were taken."),
    (
        WorkflowNotFound("portrat", ["portrait"]),
        "No workflow is named 'portrat'. Did you mean 'portrait'?",
    ),
    (
        WorkflowBroken("portrait", "portrait.json is empty."),
        "The workflow 'portrait' cannot be run. portrait.json is empty.",
    ),
    (
        WorkflowNameRefused("a b", "A name for the same would be 'a-b'."),
        "A workflow cannot be named 'a b'. A name for the same would be 'a-b'.",
    ),
    (
        WorkflowInFolder("portrait", "Portrait.json"),
        "'portrait' is Portrait.json in the server's folder, which comes first. Change it there, "
        "or take another name.",
    ),
    (
        WorkflowFolderMissing("workflows", "does not exist"),
        "The workflows should be in workflows, but it does not exist.",
    ),
    (InvalidRequest("No limit is 0.", {"limit": 0}), "No limit is 0."),
    (MetadataFilterInvalid("Three at most."), "Three at most."),
    (MetadataInvalid("A label is empty."), "A label is empty."),
    (
        EditorFormatRefused(),
        "This is a workflow as ComfyUI's editor saves it, with 'nodes' and 'links'. Export it "
        "with 'Export (API)', or make a graph of it with 'comfyserve convert'.",
    ),
    (
        GraphRefused(
            {
                str(n): [{"field": "", "reason": "unknown_node", "message": f"No {n}."}]
                for n in "1234"
            }
        ),
        "No 1. No 2. No 3. And 1 more.",
    ),
    (PayloadTooLarge("A body", 1000), "A body may have 1,000 bytes at most."),
    (
        TooManyStreams(8),
        "8 streams are open already. Close one, or ask for the job itself.",
    ),
    (Forbidden("Not from there."), "Not from there."),
    (ForbiddenOrigin("Not from that page."), "Not from that page."),
    (
        KeyLacksPermission("app", "run graphs", "That takes another"),
        "The key 'app' may not run graphs. That takes another.",
    ),
    (LinkExpired(), "The time of this link is over. Ask anew for what named it."),
    (Unauthorized("Send a key."), "Send a key."),
    (RateLimited("60/m", 12), "This key's rate of 60/m is used up. Come again in 12 s."),
    (TooManyJobs(4), "This key may have 4 unfinished jobs at once. Wait for one to end."),
    (TooManyJobs(1), "This key may have 1 unfinished job at once. Wait for one to end."),
    (
        KeyNameTaken("app"),
        "There is a key 'app' already. Revoke it first, or choose another name.",
    ),
    (KeyNotFound("ap", near=["app"]), "There is no key 'ap'. Did you mean 'app'?"),
    (KeyNotFound("app", was_revoked=True), "The key 'app' was revoked before."),
    (BackendNotFound("gpu"), "There is no backend 'gpu'. 'comfyserve backends' lists all."),
    (
        BackendAlreadyThere(),
        "This backend is there already. To open its door otherwise, remove it first.",
    ),
    (
        BackendNotAdded("the connection was refused"),
        "No ComfyUI answers there (the connection was refused), so it was not added. Without "
        "check=true it is added all the same and used once it answers.",
    ),
    (
        ServerStarting(),
        "The server is still reading its workflows. Try again in a moment.",
    ),
    (ServerStopping(), "The server is about to stop. Try again in a moment."),
    (
        AddressUnsafe("0.0.0.0"),
        "Listening on 0.0.0.0 would let everybody who reaches it run anything. Make a key with "
        "'comfyserve keys create NAME', so that it asks for one, or listen on 127.0.0.1, or allow "
        "it with --insecure where something else guards the address.",
    ),
    (
        AddressUnusable("127.0.0.1", 80, "Permission denied."),
        "127.0.0.1 port 80 cannot be listened on: permission denied. Name another.",
    ),
    (
        ExtraMissing("server", "fastapi"),
        "This needs fastapi, which is not installed. Install it with "
        "pip install 'comfyserve[server]'.",
    ),
]
ROOMS = (denials, refusals)


def _below(kind: type[ComfyServeError]) -> Iterator[type[ComfyServeError]]:
    for narrower in kind.__subclasses__():
        yield narrower
        yield from _below(narrower)


KINDS = {
    room: {kind for kind in _below(ComfyServeError) if kind.__module__ == room.__name__}
    for room in ROOMS
}


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
    """The tree in a module's docstring names every class and no other, and so do the tests."""
    for room in ROOMS:
        drawn = set(re.findall(r"^\s+[+-] (\w+)", room.__doc__ or "", re.M))

        assert drawn == {kind.__name__ for kind in KINDS[room]}
        assert {type(error) for error, _ in SENTENCES} >= KINDS[room]


def test_codes_are_words_of_their_own() -> None:
    """No two share a code but where one is the other, and each is a word that may travel."""
    codes = [kind.code for room in ROOMS for kind in KINDS[room] if "code" in vars(kind)]

    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", code) for code in codes)
