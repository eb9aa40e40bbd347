"""Who asks: the door that wants to see a key once the server has any.

It notes the caller on each request, for `requests.caller_of`. A socket may show its key in its
first message instead, so one without any is let in, with no caller noted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Receive, Scope, Send

from comfyserve.access import Access, Caller
from comfyserve.denials import Unauthorized
from comfyserve.errors import ComfyServeError
from comfyserve.server.guards import may_be_keyless
from comfyserve.server.links import SIGNATURE, V2, WORKFLOWS
from comfyserve.server.problems import told
from comfyserve.settings import Settings

_OPEN: Final = frozenset({"/healthz", "/readyz", "/docs"})
_OPEN_BELOW: Final = "/docs/"

_SHOWN: Final = ((f"{V2}/assets/", "/content"), (f"{WORKFLOWS}/", "/thumbnail"))
"""How the paths begin and end of what pages show, and so ask for without a key."""

_BEARER: Final = "bearer "

_NO_KEYS_LEFT: Final = (
    "This server has no keys any more, and others reach it. Whoever runs it makes one with "
    "'comfyserve keys create NAME'."
)


class KeyDoor:
    """Lets in who may ask at all, and counts how often he does.

    The keys are those of *access*, which is asked for with every request, as they are known only
    once the host is open. What watches the server, and what the page of the docs is made of, is
    open to all; so is the content of an asset, or a thumbnail, to who has a signed link to it.
    """

    def __init__(self, app: ASGIApp, access: Callable[[], Access], settings: Settings) -> None:
        self._app = app
        self._access = access
        self._may_be_keyless = may_be_keyless(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path: str = scope["path"]
            if path not in _OPEN and not path.startswith(_OPEN_BELOW):
                await self._admit(scope)
        elif scope["type"] == "websocket" and (token := token_of(scope)) is not None:
            try:
                scope.setdefault("state", {})["caller"] = await self.caller(token)
            except ComfyServeError as error:
                await _refuse(error, scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def caller(self, token: str | None) -> Caller:
        """Who sends this key, or none where none is needed; one request of his is counted.

        Raises `Unauthorized` and `RateLimited`.
        """
        access = self._access()
        caller = await access.of(token)
        if caller.key is not None:
            await access.spend(caller)
        elif not self._may_be_keyless:
            raise Unauthorized(_NO_KEYS_LEFT)
        return caller

    async def _admit(self, scope: Scope) -> None:
        state, token = scope.setdefault("state", {}), token_of(scope)
        if token is None and (signature := _signature_of(scope)) is not None:
            await self._access().verify(scope["path"], signature)
            state["is_signed"] = True
            return
        state["caller"] = await self.caller(token)


def token_of(scope: Scope) -> str | None:
    """The key that a request shows, if it does.

    ``X-API-Key`` counts above ``Authorization: Bearer``, which a proxy may have for itself.
    """
    token = None
    for name, value in scope["headers"]:
        if name == b"x-api-key":
            return str(value, "latin-1").strip()
        if name == b"authorization" and token is None:
            told = str(value, "latin-1")
            if told[: len(_BEARER)].lower() == _BEARER:
                token = told[len(_BEARER) :].strip()
    return token


def _signature_of(scope: Scope) -> str | None:
    """What a signed link to an asset's content, or to a thumbnail, brings."""
    path, query = scope["path"], scope["query_string"]
    if not query or scope["method"] not in ("GET", "HEAD"):
        return None
    if not any(path.startswith(start) and path.endswith(end) for start, end in _SHOWN):
        return None
    told = parse_qs(query.decode("latin-1"), keep_blank_values=True).get(SIGNATURE)
    return told[0] if told else None


async def _refuse(error: ComfyServeError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a socket's handshake with the error."""
    if "websocket.http.response" in scope.get("extensions", {}):
        await told(error)(scope, receive, send)
    else:
        await send({"type": "websocket.close", "code": 1008, "reason": error.code})
