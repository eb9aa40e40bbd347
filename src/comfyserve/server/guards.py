"""Who may ask at all: by which name, from a page of which site, with how large a body.

A page of any site can make a browser send requests to this machine, and a name of any site may
point at it. So a request has to be for a name that is ours, and from a page only where that page
is ours or on the list; none of this concerns programs, which send no ``Origin``.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final
from urllib.parse import quote, urlsplit

from fastapi import Request, Response
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from comfyserve.access import GraphRules, has_keys
from comfyserve.denials import (
    AddressUnsafe,
    Forbidden,
    ForbiddenOrigin,
    InvalidRequest,
    PayloadTooLarge,
)
from comfyserve.server.problems import Answered
from comfyserve.settings import Settings

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
HEADERS: Final = (
    *("Authorization", "X-API-Key"),
    *("Content-Type", "Idempotency-Key", "Last-Event-ID", "Prefer"),
)
EXPOSED: Final = (
    *("Retry-After", "WWW-Authenticate"),
    *("Content-Range", "Accept-Ranges", "X-Comfy-Request-Id"),
    *("Location", "Idempotent-Replay", "Preference-Applied"),
)
MAX_AGE: Final = 600

_OWN_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_OPEN: Final = frozenset({"/healthz", "/readyz"})
_EVERYWHERE: Final = frozenset({"0.0.0.0", "::", ""})

_HEEDED: Final = frozenset(
    {
        b"host",
        *(b"origin", b"referer", b"sec-fetch-site", b"sec-fetch-mode"),
        *(b"forwarded", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-prefix"),
    }
)
"""The headers that decide who may ask, and under which address he knows us."""

_MOST_USUAL: Final = 64

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


async def refuse_unsafe(settings: Settings) -> None:
    """Raise `AddressUnsafe` where others would reach a server that asks nobody for a key."""
    if not may_be_keyless(settings) and not await has_keys(settings.data):
        raise AddressUnsafe(settings.host)


def may_be_keyless(settings: Settings) -> bool:
    """Whether to answer though nothing asks for a key: for this machine alone, or as it is
    meant."""
    return settings.insecure or is_loopback(settings.host)


def graph_rules(settings: Settings) -> GraphRules:
    """Whose graphs the server runs. Where only this machine reaches it, those of all."""
    is_open = settings.open_graphs or is_loopback(settings.host)
    return GraphRules(is_open, settings.allow_nodes, settings.deny_nodes)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def around(app: ASGIApp, settings: Settings) -> ASGIApp:
    """The application behind the guards, which answer by raising what is wrong.

    Where pages of other sites may ask at all, CORS goes around the guards, so that such a page
    also reads why it was refused.
    """
    guarded = Doorkeeper(BodyCap(app, settings.body_cap), settings)
    if not settings.allow_origins:
        return guarded
    return Cors(
        Answered(guarded),
        allow_origins=settings.allow_origins,
        allow_methods=METHODS,
        allow_headers=HEADERS,
        expose_headers=EXPOSED,
        max_age=MAX_AGE,
    )


class Cors(CORSMiddleware):
    """Lets pages of the listed sites read answers; what it refuses it refuses in our words."""

    def preflight_response(self, request_headers: Headers) -> Response:
        origin = request_headers.get("origin", "")
        if not self.is_allowed_origin(origin):
            raise ForbiddenOrigin(_foreign(origin[:200]))
        response = super().preflight_response(request_headers)
        if response.status_code >= 400:
            raise InvalidRequest(f"{bytes(response.body).decode()}.")
        return response


class Doorkeeper:
    """Refuses requests for a name that is not ours, or from a page that is neither ours nor on
    the list, and notes on the others the address that their caller knows us by."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        self._trusted = [ipaddress.ip_network(one) for one in settings.trusted_proxies]
        self._names = frozenset(_own_names(settings))
        self._domains = tuple(
            name.removeprefix("*") for name in settings.allow_hosts if name.startswith("*.")
        )
        self._origins = frozenset(settings.allow_origins)
        self._usual: dict[tuple[str, bytes], str] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self._check(scope)
        elif scope["type"] == "websocket":
            try:
                self._check(scope)
            except Forbidden as error:
                # Before a socket is accepted this is an answer with status 403.
                await send({"type": "websocket.close", "code": 1008, "reason": error.code})
                return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        """Programs say nothing but the host that they ask, which needs to be looked at once."""
        heeded = [pair for pair in scope["headers"] if pair[0] in _HEEDED]
        is_usual = len(heeded) == 1 and heeded[0][0] == b"host"
        key = scope["scheme"], heeded[0][1] if is_usual else b""
        base = self._usual.get(key) if is_usual else None
        if base is None:
            base = self._checked(scope)
            if is_usual and scope["path"] not in _OPEN and len(self._usual) < _MOST_USUAL:
                self._usual[key] = base
        scope.setdefault("state", {})["base_url"] = base

    def _checked(self, scope: Scope) -> str:
        headers = Headers(scope=scope)
        base = self._base_url(scope, headers)
        self._check_host(scope, headers)
        self._check_origin(headers, base)
        return base

    def _check_host(self, scope: Scope, headers: Headers) -> None:
        asked = headers.getlist("host")
        host = _without_port(asked[0]) if len(asked) == 1 else None
        if host is None or not self._is_ours(host):
            shown = ", ".join(asked)[:200]
            # Who watches a machine asks by whatever address it has just then.
            if scope["path"] in _OPEN and len(asked) == 1:
                return
            raise Forbidden(
                f"This server is not known as {shown!r}. If it should be, add that name to the "
                "setting allow_hosts."
            )

    def _is_ours(self, host: str) -> bool:
        return host in self._names or host.endswith(self._domains) or self._is_open_to(host)

    def _is_open_to(self, host: str) -> bool:
        """Whether *host* is an address and we listen on all of them: no name can point there."""
        return self._settings.host in _EVERYWHERE and _is_ip(host)

    def _check_origin(self, headers: Headers, base: str) -> None:
        origin = headers.get("origin")
        if origin is None:
            # A browser leaves it out where a page only shows something, but tells this much.
            site, mode = headers.get("sec-fetch-site"), headers.get("sec-fetch-mode")
            if site != "cross-site" or mode == "navigate":
                return
            origin = _origin_of(headers.get("referer", "")) or "a page of another site"
        known = origin.lower()
        # The scheme is no matter here: whoever ends TLS before us may not say so.
        is_own = known.partition("//")[2] == (headers.get("host") or "").lower()
        if not is_own and known != _origin_of(base) and known not in self._origins:
            raise ForbiddenOrigin(_foreign(origin[:200]))

    def _base_url(self, scope: Scope, headers: Headers) -> str:
        if self._settings.public_url is not None:
            return self._settings.public_url
        scheme: str = {"ws": "http", "wss": "https"}.get(scope["scheme"]) or scope["scheme"]
        host, prefix = headers.get("host") or "", ""
        if self._is_trusted(scope):
            scheme, host, prefix = _forwarded(headers, scheme, host)
        return f"{scheme}://{host}{prefix}"

    def _is_trusted(self, scope: Scope) -> bool:
        client = scope.get("client")
        return bool(self._trusted) and client is not None and _within(client[0], self._trusted)


class BodyCap:
    """Refuses JSON bodies that are too large, also where nobody said so before.

    Uploads are not for it: they have a limit of their own, and are written while they come.
    """

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if headers.get("content-type", "").lower().startswith("multipart/"):
            await self._app(scope, receive, send)
            return
        announced = headers.get("content-length", "0")
        if not announced.isdecimal() or int(announced[:20]) > self._most:
            raise self._refusal()
        come = 0

        async def counted() -> Message:
            nonlocal come
            message = await receive()
            come += len(message.get("body", b""))
            if come > self._most:
                raise self._refusal()
            return message

        await self._app(scope, counted, send)

    def _refusal(self) -> PayloadTooLarge:
        return PayloadTooLarge("A request's body", self._most)


def base_url(request: Request) -> str:
    """The address by which the caller knows this server, without a slash at its end.

    It is the setting `public_url`; else what a trusted proxy says; else what was asked for.
    """
    noted: str = request.scope["state"]["base_url"]
    return noted


def _own_names(settings: Settings) -> Iterable[str]:
    yield from _OWN_NAMES
    if settings.host not in _EVERYWHERE:
        yield settings.host
    else:
        yield socket.gethostname().lower()
    if settings.public_url is not None:
        yield urlsplit(settings.public_url).hostname or ""
    yield from (name for name in settings.allow_hosts if not name.startswith("*."))


def _forwarded(headers: Headers, scheme: str, host: str) -> tuple[str, str, str]:
    """Scheme, host and prefix as the proxy next to us tells them; what makes no sense is not
    taken. Of several proxies the last wrote last, and only he is known to be trusted."""
    told = _last_forwarded(headers.get("forwarded", ""))
    told_scheme = told.get("proto") or _last(headers.get("x-forwarded-proto", ""))
    told_host = told.get("host") or _last(headers.get("x-forwarded-host", ""))
    prefix = _last(headers.get("x-forwarded-prefix", "")).rstrip("/")
    if told_scheme.lower() in ("http", "https"):
        scheme = told_scheme.lower()
    if _without_port(told_host) is not None:
        host = told_host
    if not prefix.startswith("/") or prefix.startswith("//") or "\\" in prefix:
        prefix = ""
    return scheme, host, quote(prefix, safe="/%~")


def _last_forwarded(header: str) -> dict[str, str]:
    pairs = (pair.partition("=") for pair in _last(header).split(";"))
    return {name.strip().lower(): value.strip().strip('"') for name, _, value in pairs}


def _last(header: str) -> str:
    return header.rsplit(",", 1)[-1].strip()


@lru_cache(maxsize=256)
def _without_port(host: str) -> str | None:
    """The name in a ``Host`` header, lower case; None where there is none."""
    if not host or any(sign in host for sign in "/@?#\\ \t,"):
        return None
    try:
        parts = urlsplit(f"//{host}")
        return (parts.hostname or "").rstrip(".") if (parts.port or 1) > 0 else None
    except ValueError:
        return None


@lru_cache(maxsize=256)
def _origin_of(address: str) -> str:
    """Scheme, host and unusual port of an address; nothing where it has none."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return ""
    if not parts.netloc:
        return ""
    usual = {"http": ":80", "https": ":443"}.get(parts.scheme, "")
    return f"{parts.scheme}://{parts.netloc}".lower().removesuffix(usual)


def _foreign(origin: str) -> str:
    return (
        f"This server takes no requests from {origin}. If it should, add the site to the setting "
        "allow_origins."
    )


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _within(address: str, networks: Sequence[_Network]) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return any((mapped or found) in network for network in networks)
