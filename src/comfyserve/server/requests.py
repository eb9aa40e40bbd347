"""What a request brings: who asks, its query, its JSON body; refused where nobody could mean it."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from typing import Any, Final, NoReturn

from fastapi import Request
from starlette.requests import ClientDisconnect

from comfyserve.access import Caller, GraphRules
from comfyserve.denials import InvalidRequest, PayloadTooLarge, Unauthorized
from comfyserve.errors import did_you_mean
from comfyserve.host import Host
from comfyserve.server import guards
from comfyserve.server.links import Links
from comfyserve.settings import Settings
from comfyserve.workflows.graph import MAX_DEPTH, shown
from comfyserve.workflows.json_bounds import holds_more_than

KEY_HEADER: Final = "Idempotency-Key"
_LONGEST_KEY: Final = 255

_MOST_VALUES: Final = 1_000_000
"""Values in a JSON body, more than any graph has: each takes many times the bytes it came in."""


def host_of(request: Request) -> Host:
    """The house behind the doors."""
    host: Host = request.app.state.host
    return host


def settings_of(request: Request) -> Settings:
    """How this server is set up."""
    settings: Settings = request.app.state.settings
    return settings


def links_of(request: Request) -> Links:
    """The addresses of this server as the caller knows it, signed where keys are asked for."""
    is_keyless = caller_of(request).key is None
    return Links.of(guards.base_url(request), None if is_keyless else request.app.state.signer)


def caller_of(request: Request) -> Caller:
    """Who asks, as the door found out. Without keys everybody is the same, nameless caller.

    Raises `Unauthorized` where the door asked nobody, so that nothing opens by mistake.
    """
    caller: Caller | None = request.scope["state"].get("caller")
    if caller is None:
        raise Unauthorized("This takes a key of its own.")
    return caller


def graph_rules_of(request: Request) -> GraphRules:
    """Whose graphs the server runs."""
    rules: GraphRules = request.app.state.graph_rules
    return rules


def owner_of(request: Request) -> str:
    """Whose jobs and assets the request is about."""
    return caller_of(request).owner


def content_owner_of(request: Request) -> str | None:
    """Whose assets' bytes the request opens; None where a signed link opens just these."""
    return None if is_signed(request) else owner_of(request)


def is_signed(request: Request) -> bool:
    """It comes by a signed link, which says what may be seen, and not by whom."""
    return bool(request.scope["state"].get("is_signed"))


def idempotency_key_of(request: Request) -> str | None:
    """The key that makes the request one that happens once. Raises `InvalidRequest`."""
    key = request.headers.get(KEY_HEADER)
    if key is None:
        return None
    if not 1 <= len(key) <= _LONGEST_KEY:
        raise InvalidRequest(
            f"{KEY_HEADER} has {len(key)} characters, but needs 1 to {_LONGEST_KEY}."
        )
    return key


def refuse_unknown(names: Collection[str], known: Collection[str], where: str) -> None:
    """Raise `InvalidRequest` for the first of the *names* that nobody knows."""
    for name in names:
        if name not in known:
            hint = did_you_mean(name[:60], known)
            what = f"{where} has {shown(name)}, which means nothing here.{hint}"
            raise InvalidRequest(what, {"unknown": name[:200]})


async def read_object(request: Request, known: Collection[str]) -> Mapping[str, Any]:
    """The JSON object in the body, with *known* fields alone.

    Raises `InvalidRequest` for anything else, and `PayloadTooLarge`.
    """
    _refuse_other_types(request)
    document = parsed(await _read(request, settings_of(request).body_cap))
    if not isinstance(document, dict):
        raise InvalidRequest("The body has to be a JSON object, with the fields by name.")
    refuse_unknown(document, known, "The body")
    return document


def parsed(body: bytes) -> object:
    """The document in a JSON body, which holds only what JSON can say and any program can read:
    no NaN, no infinite number, no half of a character. Raises `InvalidRequest`."""
    if not body.strip():
        raise InvalidRequest("The body is empty, but JSON is needed.")
    if holds_more_than(_MOST_VALUES, body):
        raise InvalidRequest(f"The body holds more than {_MOST_VALUES:,} values.")
    try:
        document: object = json.loads(body, parse_constant=_refuse_constant, parse_float=_finite)
    except UnicodeDecodeError:
        raise InvalidRequest("The body is no UTF-8 text.") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InvalidRequest(f"The body is not valid JSON: {where}: {error.msg}.") from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError:
        # Python reads no integers of thousands of digits.
        raise InvalidRequest("The body holds a number that is too long to be read.") from None
    _refuse_deep(document)
    if b"\\u" in body:
        _refuse_half_characters(document)
    return document


async def _read(request: Request, most: int) -> bytes:
    announced = request.headers.get("Content-Length", "")
    if announced.isascii() and announced.isdigit() and int(announced[:20]) > most:
        raise PayloadTooLarge("A JSON body", most)
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > most:
                raise PayloadTooLarge("A JSON body", most)
    except ClientDisconnect:
        raise InvalidRequest("The request broke off.") from None
    return bytes(body)


def _refuse_other_types(request: Request) -> None:
    told = request.headers.get("Content-Type")
    if told is None:
        return
    kind = told.partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise InvalidRequest(
            f"The body has the type {shown(kind)}, but application/json is needed "
            "(with curl: --json)."
        )


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidRequest(f"The body holds {name}, which JSON does not know.")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise InvalidRequest(f"The body holds the number {shown(text)}, which is too large.")
    return number


def _refuse_deep(document: object) -> None:
    level = [document]
    for _ in range(MAX_DEPTH):
        deeper: list[object] = []
        for value in level:
            if isinstance(value, dict):
                deeper.extend(value.values())
            elif isinstance(value, list):
                deeper.extend(value)
        if not deeper:
            return
        level = [value for value in deeper if isinstance(value, dict | list)]
    raise _too_deep()


def _too_deep() -> InvalidRequest:
    return InvalidRequest(f"The body is nested more than {MAX_DEPTH} levels deep.")


def _refuse_half_characters(document: object) -> None:
    try:
        json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        problem = r"The body holds half of a character (such as \ud800), which no text can."
        raise InvalidRequest(problem) from None
