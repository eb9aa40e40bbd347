"""Reading what callers send, and refusing it in the one shape that ComfyUI's clients know."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from aiohttp import web

DEEPEST = 200
"""Levels of nesting that a body may have."""


class Refused(Exception):
    """The request cannot be taken; answered as 400 with ``error`` and ``node_errors``."""

    def __init__(self, kind: str, message: str, details: str = "") -> None:
        self.kind = kind
        self.message = message
        self.details = details
        super().__init__(message)

    def answer(self) -> web.Response:
        error = {
            "type": self.kind,
            "message": self.message,
            "details": self.details,
            "extra_info": {},
        }
        return refusal(error, {})


def refusal(error: dict[str, Any], node_errors: dict[str, Any]) -> web.Response:
    return web.json_response({"error": error, "node_errors": node_errors}, status=400)


def done() -> web.Response:
    """The empty answer to a command."""
    return web.Response()


async def read_json(request: web.Request) -> Any:
    """The body as JSON. Raises `Refused` for anything that is not."""
    body = await request.read()
    if not body.strip():
        raise Refused("invalid_json", "The request has no body", "A JSON body was expected.")
    try:
        document = json.loads(body, parse_constant=_refuse_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise Refused("invalid_json", "The request body is not valid JSON", str(error)) from error
    _refuse_deep(document)
    return document


async def read_object(request: web.Request) -> dict[str, Any]:
    """The body as a JSON object. Raises `Refused` for anything that is not."""
    body = await read_json(request)
    if not isinstance(body, dict):
        found = type(body).__name__
        raise Refused("invalid_json", f"The request body must be a JSON object, not {found}")
    return body


def _refuse_deep(document: Any) -> None:
    """Refuse what can be read but not written again: every later answer would fail on it."""
    level = [document] if isinstance(document, dict | list) else []
    for _ in range(DEEPEST):
        inner = [each.values() if isinstance(each, dict) else each for each in level]
        level = [each for values in inner for each in values if isinstance(each, dict | list)]
        if not level:
            return
    raise Refused("invalid_json", f"The request body is nested deeper than {DEEPEST} levels")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text} is too large a number")
    return number


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
