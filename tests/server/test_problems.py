"""What a caller is told when something goes wrong, and what is told to the log alone."""

from __future__ import annotations

import json
import logging

import httpx
import pytest
from fastapi import FastAPI, Request, Response
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.types import Receive, Scope, Send

from comfyserve import denials, errors, refusals
from comfyserve.errors import ComfyServeError
from comfyserve.server.problems import REQUEST_ID, STATUSES, Answered, told

SECRET = "/srv/secret/place"


def failing(error: Exception, *, late: bool = False) -> Answered:
    """An application that raises, at once or amid its answer."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if late:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        raise error

    return Answered(app)


async def ask(app: Answered | FastAPI) -> httpx.Response:
    """The answer of the application."""
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        return await client.get("/", headers={"Origin": "http://page"})


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (denials.InvalidRequest("no"), 422, "invalid_request"),
        (denials.MetadataFilterInvalid("no"), 422, "invalid_metadata_filter"),
        (denials.EditorFormatRefused(), 422, "workflow_format_ui"),
        (denials.PayloadTooLarge("A body", 7), 413, "payload_too_large"),
        (denials.TooManyStreams(8), 429, "too_many_streams"),
        (denials.ForbiddenOrigin("no"), 403, "forbidden_origin"),
        (denials.KeyLacksPermission("app", "do it", "Ask"), 403, "forbidden"),
        (denials.LinkExpired(), 403, "link_expired"),
        (denials.Unauthorized("no"), 401, "unauthorized"),
        (denials.RateLimited("1/m", 7), 429, "rate_limited"),
        (denials.TooManyJobs(1), 429, "too_many_jobs"),
        (denials.KeyNameTaken("app"), 409, "key_name_taken"),
        (denials.KeyNotFound("app"), 404, "key_not_found"),
        (denials.GraphRefused({}), 422, "invalid_workflow"),
        (errors.GraphInvalid("no"), 422, "invalid_workflow"),
        (errors.BackendUnreachable(SECRET, "refused"), 503, "upstream_unreachable"),
        (errors.BackendRefused(SECRET, "no key"), 502, "upstream_error"),
        (errors.OutputUnwritable(SECRET, "no space"), 507, "store_unavailable"),
        (refusals.NotFound("job", "7"), 404, "not_found"),
        (refusals.BlobNotFound(["blake3:00"]), 404, "blob_not_found"),
        (refusals.AssetInUse("a", "j"), 409, "asset_in_use"),
        (refusals.JobUnfinished("j", "running"), 409, "job_unfinished"),
        (refusals.HashMismatch("a", "b"), 409, "hash_mismatch"),
        (refusals.QueueFull(3), 429, "queue_full"),
        (refusals.IdempotencyKeyReused("k"), 422, "idempotency_key_reuse"),
        (refusals.InvalidCursor("c"), 422, "invalid_cursor"),
        (refusals.MissingAsset(["a"]), 422, "missing_asset"),
        (refusals.StoreUnavailable(SECRET, "locked"), 503, "store_unavailable"),
        (refusals.DiskCapReached(9), 507, "disk_cap_reached"),
        (refusals.LeaseLost("j", "h"), 500, "upstream_error"),
    ],
)
def test_every_error_has_its_status_and_code(
    error: ComfyServeError, status: int, code: str
) -> None:
    """The table gives each error one status, in the one body, without a word of our places."""
    answer = told(error)
    body = json.loads(bytes(answer.body))
    assert (answer.status_code, body["error"]["code"]) == (status, code)
    assert body["error"].keys() == {"code", "message", "details"}
    assert SECRET not in bytes(answer.body).decode()
    is_busy = status in (429, 503)
    assert ("retry-after" in answer.headers) is is_busy


@pytest.mark.parametrize(
    ("error", "headers"),
    [
        (denials.Unauthorized("no"), {"www-authenticate": "Bearer"}),
        (denials.RateLimited("1/m", 7), {"retry-after": "7"}),
        (denials.TooManyJobs(1), {"retry-after": "2"}),
        (denials.Forbidden("no"), {}),
    ],
)
def test_an_answer_says_what_to_do(error: ComfyServeError, headers: dict[str, str]) -> None:
    """How to say who asks, and when to come again, stand in headers that programs know."""
    answer = told(error)

    named = ("www-authenticate", "retry-after")
    assert {name: answer.headers[name] for name in named if name in answer.headers} == headers


def test_only_errors_that_a_request_can_end_with_have_a_status() -> None:
    """The table holds classes of ours alone, and statuses that are refusals or failures."""
    assert all(issubclass(kind, ComfyServeError) for kind in STATUSES)
    assert all(400 <= status < 600 for status in STATUSES.values())


async def test_the_unexpected_is_told_to_the_log_alone(caplog: pytest.LogCaptureFixture) -> None:
    """An unknown exception is 500 with a generic sentence; the log has all, under the same id."""
    with caplog.at_level(logging.ERROR):
        answer = await ask(failing(RuntimeError(SECRET)))
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "upstream_error")
    assert SECRET not in answer.text
    (record,) = caplog.records
    assert record.exc_info is not None
    assert getattr(record, "request_id", None) == answer.headers[REQUEST_ID]


async def test_a_failing_store_is_told_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """A 503 is generic for its caller, while the log names the place and the reason."""
    with caplog.at_level(logging.ERROR):
        answer = await ask(failing(refusals.StoreUnavailable(SECRET, "disk full")))
    assert answer.status_code == 503
    assert SECRET in caplog.text
    assert "disk full" in caplog.text


async def test_half_an_answer_is_never_made_to_look_whole() -> None:
    """What goes wrong once an answer has begun cuts it off, instead of ending it."""
    with pytest.raises(RuntimeError):
        await ask(failing(RuntimeError("late"), late=True))


async def test_pages_that_may_ask_can_read_errors() -> None:
    """An error within the guards still has what lets a page of another site read it, and one id."""
    app = FastAPI(
        middleware=[
            Middleware(Answered),
            Middleware(CORSMiddleware, allow_origins=["http://page"]),
            Middleware(Answered),
        ]
    )

    @app.get("/")
    async def fail(request: Request) -> Response:
        raise RuntimeError

    answer = await ask(app)
    assert answer.status_code == 500
    assert answer.headers["access-control-allow-origin"] == "http://page"
    assert len(answer.headers.get_list(REQUEST_ID)) == 1
