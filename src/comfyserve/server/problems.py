"""What goes wrong, as a caller is told it: one table from errors to status codes, one body.

`told` makes the answer to an error; `Answered` is the middleware that sees to it that every
request gets an answer with an id, whatever happens.
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

from fastapi import Request, Response
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from comfyserve import denials, errors, refusals
from comfyserve.errors import ComfyServeError
from comfyserve.server.logs import path_of

Found = TypeVar("Found")

REQUEST_ID: Final = "X-Comfy-Request-Id"
_ID_HEADER: Final = REQUEST_ID.lower().encode()

_LOG: Final = logging.getLogger("comfyserve.server")

STATUSES: Final[Mapping[type[ComfyServeError], int]] = {
    denials.InvalidRequest: 422,
    denials.MetadataInvalid: 422,
    denials.EditorFormatRefused: 422,
    denials.GraphRefused: 422,
    denials.PayloadTooLarge: 413,
    denials.TooManyStreams: 429,
    denials.RateLimited: 429,
    denials.TooManyJobs: 429,
    denials.Unauthorized: 401,
    denials.KeyNameTaken: 409,
    denials.KeyNotFound: 404,
    denials.Forbidden: 403,
    denials.BackendNotFound: 404,
    denials.BackendAlreadyThere: 409,
    denials.BackendNotAdded: 422,
    denials.ServerStarting: 503,
    denials.ServerStopping: 503,
    errors.GraphInvalid: 422,
    errors.InvalidAddress: 422,
    errors.InvalidInputs: 422,
    errors.WorkflowUnreadable: 422,
    errors.GraphRejected: 422,
    errors.BackendUnreachable: 503,
    errors.BackendError: 502,
    errors.OutputUnwritable: 507,
    refusals.NotFound: 404,
    refusals.BlobNotFound: 404,
    refusals.AssetInUse: 409,
    refusals.JobUnfinished: 409,
    refusals.HashMismatch: 409,
    refusals.QueueFull: 429,
    refusals.IdempotencyKeyReused: 422,
    refusals.InvalidCursor: 422,
    refusals.MissingAsset: 422,
    refusals.StoreUnavailable: 503,
    refusals.DiskCapReached: 507,
    refusals.WorkflowNotFound: 404,
    refusals.WorkflowBroken: 409,
    refusals.WorkflowNameRefused: 409,
}
"""The status of each error; an error that is not here has that of its nearest ancestor, and one
without any is a 500."""

_RETRY_AFTER: Final[Mapping[type[ComfyServeError], int]] = {
    denials.TooManyStreams: 5,
    denials.TooManyJobs: 2,
    denials.ServerStarting: 1,
    denials.ServerStopping: 2,
    errors.BackendUnreachable: 5,
    refusals.QueueFull: 2,
    refusals.StoreUnavailable: 2,
}

# What these say names places of the server that are no business of its callers.
_GENERIC: Final[Mapping[type[ComfyServeError], tuple[str, str]]] = {
    errors.BackendUnreachable: ("upstream_unreachable", "No ComfyUI answers just now."),
    errors.BackendError: ("upstream_error", "ComfyUI did not do what was asked of it."),
    errors.OutputUnwritable: (
        "store_unavailable",
        "The server's disk does not take any bytes just now, and nothing was kept.",
    ),
    refusals.StoreUnavailable: (
        "store_unavailable",
        "The server cannot use its data just now, and nothing changed. Try again in a moment.",
    ),
}

UPSTREAM_ERROR: Final = "Something went wrong in the server. Its log says what, under this id."


def told(error: ComfyServeError) -> Response:
    """The answer to a request that ended with this error."""
    return problem(status_of(error), *words_of(error), _headers(error))


def status_of(error: Exception) -> int:
    """The status of an answer that tells this error."""
    return _of_its_kind(STATUSES, error) or 500


def words_of(error: Exception) -> tuple[str, str, Mapping[str, Any] | None]:
    """The code, the sentence and the details of an error as callers are told it."""
    if not isinstance(error, ComfyServeError) or _of_its_kind(STATUSES, error) is None:
        return "upstream_error", UPSTREAM_ERROR, None
    if isinstance(error, errors.GraphRejected):
        return error.code, error.reason, error.details
    if generic := _of_its_kind(_GENERIC, error):
        return *generic, None
    return error.code, str(error), error.details


def _headers(error: ComfyServeError) -> dict[str, str]:
    """What an answer says beside the error: when to come again, how to say who asks."""
    if isinstance(error, denials.Unauthorized):
        return {"WWW-Authenticate": "Bearer"}
    retry_after = retry_after_of(error)
    return {} if retry_after is None else {"Retry-After": str(retry_after)}


def retry_after_of(error: Exception) -> int | None:
    """In how many seconds what was refused may be asked for again; None where nobody knows."""
    own = error.retry_after if isinstance(error, denials.RateLimited) else None
    return own or _of_its_kind(_RETRY_AFTER, error)


def problem(
    status: int,
    code: str,
    message: str,
    details: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """An answer with our one error body."""
    body = {"error": {"code": code, "message": message, "details": details}}
    # Surrogates that came in a request are escaped, as no encoding takes them.
    content = json.dumps(body, separators=(",", ":"), default=str).encode("ascii")
    return Response(content, status, headers, "application/json")


async def told_http_error(request: Request, error: Exception) -> Response:
    """What the router has to say: no such route, or not with this method."""
    assert isinstance(error, HTTPException)
    code, message = _ROUTING.get(error.status_code, ("invalid_request", str(error.detail)))
    headers, methods = error.headers, ""
    if error.status_code == 405:
        methods = ", ".join(_methods_at(request))
        headers = {**(headers or {}), "Allow": methods}
    message = message.format(method=request.method, path=request.url.path[:200], methods=methods)
    return problem(error.status_code, code, message, None, headers)


_ROUTING: Final[Mapping[int, tuple[str, str]]] = {
    404: ("not_found", "There is nothing at {path}. /docs lists what there is."),
    405: ("method_not_allowed", "{path} cannot be asked with {method}, but with {methods}."),
}


def _methods_at(request: Request) -> list[str]:
    """All methods that the path takes: a route by itself knows its own alone."""
    routers: Iterable[Router] = request.app.state.routers
    routes = [one for router in routers for one in router.routes if isinstance(one, Route)]
    matching = [one for one in routes if one.matches(request.scope)[0] is not Match.NONE]
    return sorted({method for one in matching for method in one.methods or ()})


async def told_unreadable(request: Request, error: Exception) -> Response:
    """What FastAPI itself found wrong with a request."""
    return problem(422, "invalid_request", "The request does not have the form it needs.")


class Answered:
    """Gives every request an id and an answer: that of the error it ended with, if need be.

    It stands around everything, and once more within what adds to answers (such as who may read
    them), so that this is on those of errors, too. *watch* is told of every answered request its
    scope, its status, and the seconds it took.
    """

    def __init__(self, app: ASGIApp, watch: Callable[[Scope, int, float], None] | None = None):
        self._app = app
        self._watch = watch

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        if "request_id" in state:
            await self._answer_within(scope, receive, send)
            return
        request_id = state["request_id"] = secrets.token_hex(8)
        began, status = time.perf_counter(), 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message.get("headers", ()), (_ID_HEADER, request_id.encode())]
                message = {**message, "headers": headers}
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception as error:
            _log(scope, error)
            if status:
                # Half an answer must not look like a whole one: the connection is cut.
                raise
            await _answer_to(error)(scope, receive, send_with_id)
        finally:
            if self._watch is not None:
                self._watch(scope, status or 500, time.perf_counter() - began)

    async def _answer_within(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def noting(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except Exception as error:
            if has_begun:
                raise
            _log(scope, error)
            await _answer_to(error)(scope, receive, send)


def _answer_to(error: Exception) -> Response:
    if isinstance(error, ComfyServeError):
        return told(error)
    return problem(500, "upstream_error", UPSTREAM_ERROR)


def _log(scope: Scope, error: Exception) -> None:
    """Tell those who run the server what its callers are not told."""
    known = isinstance(error, ComfyServeError)
    status = _of_its_kind(STATUSES, error) if known else None
    if status is not None and status < 500:
        return
    _LOG.error(
        "%s %s failed: %s",
        scope["method"],
        path_of(scope),
        error if status is not None else type(error).__name__,
        exc_info=None if status is not None else error,
        extra={"request_id": scope.get("state", {}).get("request_id")},
    )


def _of_its_kind(table: Mapping[type[ComfyServeError], Found], error: Exception) -> Found | None:
    kinds = (kind for kind in type(error).__mro__ if issubclass(kind, ComfyServeError))
    for kind in kinds:
        if (found := table.get(kind)) is not None:
            return found
    return None
