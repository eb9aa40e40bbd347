"""One HTTP session with a server: questions go out, answers come back as JSON or as our errors."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from comfyserve.errors import (
    BackendAnswerInvalid,
    BackendRefused,
    BackendUnreachable,
    InvalidAddress,
    RequestRefused,
)

CHUNK: Final = 1 << 18


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long each wait on a server may take, in seconds.

    *connect*: until a connection stands. *answer*: until a request is answered. *truth*: until a
    question about a job is answered. *stall*: between
    two pieces of a file. *silence*: without a message, until the server itself is asked.
    *poll*: between two questions to the server while there is no socket. *lost*: how long a
    server may refuse connections before its jobs count as lost with it; *away*: the same for one
    that cannot be reached, where the network may be to blame.
    """

    connect: float = 5.0
    answer: float = 30.0
    truth: float = 4.0
    stall: float = 60.0
    silence: float = 10.0
    poll: float = 1.0
    lost: float = 2.5
    away: float = 60.0


class Http:
    """The session; credentials go only to the server's own address and appear in no message.

    *what* is the word for the server where nobody answers.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str],
        token: str | None,
        verify_tls: bool,
        timeouts: Timeouts,
    ) -> None:
        base = _base_url(url)
        self._root = str(base.with_user(None)).rstrip("/")
        self.headers = CIMultiDict(headers)
        if token:
            self.headers["Authorization"] = f"Bearer {token.strip()}"
        elif base.user or base.password:
            self.headers.setdefault("Authorization", _basic(base.user or "", base.password or ""))
        self._check_headers()
        self._verify_tls = verify_tls
        self._timeouts = timeouts
        self.what = "ComfyUI"

    @property
    def url(self) -> str:
        """The server's address, without credentials."""
        return self._root

    def at(self, path: str) -> str:
        """The whole address of a *path*."""
        return self._root + path

    async def open(self) -> aiohttp.ClientSession:
        """Open the session, and one beside it for the socket, which it returns.

        They share their connections; `close` ends both.
        """
        connector = aiohttp.TCPConnector(ssl=self._verify_tls, limit=64)
        self.session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(
                total=self._timeouts.answer, sock_connect=self._timeouts.connect
            ),
        )
        # Tracing costs every request a little, and only the socket needs it.
        self._sockets = aiohttp.ClientSession(
            connector=connector, connector_owner=False, trace_configs=[_staying_here()]
        )
        return self._sockets

    async def close(self) -> None:
        """End the sessions and their connections."""
        await self._sockets.close()
        await self.session.close()

    async def json(self, method: str, path: str, **options: Any) -> Mapping[str, Any]:
        """Ask for a JSON object; anything else is a `BackendAnswerInvalid`."""
        return self.parsed(f"{method} {path}", *await self.ask(method, path, **options))

    async def ask(self, method: str, path: str, **options: Any) -> tuple[int, str]:
        """Send a request; the status and the text of its answer."""
        async with self.request(method, path, **options) as response:
            return response.status, await self.text(response)

    @asynccontextmanager
    async def request(
        self,
        method: str,
        path: str,
        *,
        also: Mapping[str, str] | None = None,
        **options: Any,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request and hand out the answer once it begins; `text` and `pieces` read it.

        *also* are headers besides the session's own.
        Raises `BackendUnreachable` when there is none, `BackendRefused` when the server wants
        credentials or sends us elsewhere, and `RequestRefused` where a comfyserve says why.
        """
        headers = CIMultiDict(self.headers, **also) if also else self.headers
        if self.session.closed:
            raise BackendUnreachable(self.url, "it is no longer in use", what=self.what)
        with self._troubles():
            response = await self.session.request(
                method, self._encoded(path), headers=headers, allow_redirects=False, **options
            )
        async with response:
            await self._check_admission(path, response)
            yield response

    async def text(self, response: aiohttp.ClientResponse) -> str:
        """The text of an answer, whatever encoding it claims: ComfyUI speaks UTF-8 alone."""
        return (await self.body(response)).decode(errors="replace")

    async def body(self, response: aiohttp.ClientResponse) -> bytes:
        """All bytes of an answer."""
        with self._troubles():
            return await response.read()

    async def pieces(self, response: aiohttp.ClientResponse) -> AsyncGenerator[bytes]:
        """The bytes of an answer as they arrive."""
        with self._troubles():
            async for piece in response.content.iter_any():
                yield piece

    def parsed(
        self, question: str, status: int, text: str, *, also: tuple[int, ...] = ()
    ) -> Mapping[str, Any]:
        """The JSON object that *text* is; a status other than 200 must be in *also*."""
        if status != 200 and status not in also:
            raise self.unexpected(question, status, text)
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            raise self.unexpected(question, status, text) from None
        if not isinstance(document, dict):
            raise self.unexpected(question, status, text)
        return document

    def unexpected(self, question: str, status: int, text: str) -> BackendAnswerInvalid:
        """The error for an answer that makes no sense; it quotes how the answer begins."""
        for secret in self._secrets():
            text = text.replace(secret, "***")
        seen = repr(" ".join(text.split())[:200]) if text.strip() else "nothing else"
        return BackendAnswerInvalid(self.url, f"{question} was answered with {status} and {seen}")

    def _encoded(self, path: str) -> URL:
        return URL(self.at(path), encoded=True)

    def _check_headers(self) -> None:
        for name, value in self.headers.items():
            if not name or re.search(r"[\x00-\x1f\x7f]", name + value):
                reason = f"the header {name!r} holds a character that no header may hold"
                raise InvalidAddress(self._root, reason)

    def _secrets(self) -> list[str]:
        """What an answer may repeat, as some proxies do, but no message of ours."""
        words = {word for value in self.headers.values() for word in (value, *value.split()[1:])}
        return sorted((word for word in words if len(word) > 3), key=len, reverse=True)

    async def _check_admission(self, path: str, response: aiohttp.ClientResponse) -> None:
        status = response.status
        if status in (401, 403) and (refusal := await self._own_words(response)):
            raise refusal
        # ComfyUI's own /view answers 403 for a subfolder outside: a fact about the file, not us.
        if status in (401, 407) or (status == 403 and path != "/view"):
            raise BackendRefused(self.url, _refusal(status))
        if 300 <= status < 400:
            raise BackendRefused(self.url, _elsewhere(response))

    @contextmanager
    def _troubles(self) -> Iterator[None]:
        """Where the connection fails or breaks off, it is a `BackendUnreachable`."""
        try:
            yield
        except (aiohttp.ClientError, OSError, TimeoutError, UnicodeError) as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: Exception) -> BackendUnreachable:
        if is_refusal(error):
            reason = "the connection was refused"
            return BackendUnreachable(self.url, reason, refused=True, what=self.what)
        if isinstance(error, TimeoutError):
            return BackendUnreachable(self.url, "no answer in time", what=self.what)
        return BackendUnreachable(self.url, _reason(error), what=self.what)

    async def _own_words(self, response: aiohttp.ClientResponse) -> RequestRefused | None:
        """Why a server that speaks our API, or the official one, lets us not in, as it says."""
        if response.content_type != "application/json":
            return None
        text = await self.text(response)
        for secret in self._secrets():
            text = text.replace(secret, "***")
        try:
            told = json.loads(text)["error"]
            code, reason = str(told["code"]), str(told["message"])[:500]
        except (ValueError, KeyError, TypeError, RecursionError):
            return None
        if response.status == 401:
            reason = f"{reason} {_GIVE_KEY}"
        return RequestRefused(self.url, reason, code)


_GIVE_KEY: Final = "Give the key as token: --token or COMFYSERVE_TOKEN on the command line."


def _staying_here() -> aiohttp.TraceConfig:
    """A socket's handshake follows redirects, and would take our headers along: stop it."""

    async def stop(_session: object, _context: object, told: object) -> None:
        if isinstance(told, aiohttp.TraceRequestRedirectParams):
            told.response.close()
            raise aiohttp.ClientConnectionError(_elsewhere(told.response))

    config = aiohttp.TraceConfig()
    config.on_request_redirect.append(stop)
    return config


def _elsewhere(response: aiohttp.ClientResponse) -> str:
    where = _without_secrets(response.headers.get("Location", "elsewhere"))[:200]
    return f"it sends us on to {where}; use that address"


def _basic(user: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


def _without_secrets(url: str) -> str:
    """An address without the parts that may hold a password or a key."""
    return re.split(r"[?#]", re.sub(r"^([a-z+.-]*:?//)?.*@", r"\1", url, flags=re.I | re.S))[0]


def _base_url(url: str) -> URL:
    shown = _without_secrets(url)
    try:
        base = URL(url if "://" in url else f"http://{url}")
        host = base.raw_host or ""
        host.encode("idna")
    except ValueError as error:  # UnicodeError is one, too
        raise InvalidAddress(shown, str(error)) from None
    if base.scheme not in ("http", "https") or not host:
        raise InvalidAddress(shown, "it has to begin with http:// or https:// and a host")
    return base.with_query(None).with_fragment(None)


def _reason(error: Exception) -> str:
    """Why a connection failed, without the library's own way of naming the address."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    said = str(cause)
    if "WRONG_VERSION_NUMBER" in said or "wrong version number" in said:
        return "it does not speak TLS; use http:// instead of https://"
    words = cause.strerror if isinstance(cause, OSError) else None
    return words or said or type(cause).__name__


def is_refusal(error: Exception) -> bool:
    """Whether a machine is there and says that no server listens."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    # Several addresses of one name are tried together; the joint error only has their words.
    return isinstance(cause, ConnectionRefusedError) or "refused" in str(cause).lower()


def _refusal(status: int) -> str:
    if status == 403:
        return "it answers 403; a proxy or the server's own host and origin check is in the way"
    return f"it answers {status}; give a token or a header that lets us in"
