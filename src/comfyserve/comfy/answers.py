"""Asking a server one thing and taking whatever comes back, for a checkup to read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from comfyserve.comfy.http import Http

SILENT: Final = (aiohttp.ClientError, OSError, TimeoutError)
"""What `ask` raises when no answer came."""

_LARGEST: Final = 128 << 20


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for a request, and after how many *seconds* it was there."""

    status: int
    headers: Mapping[str, str]
    text: str
    seconds: float

    @property
    def document(self) -> Mapping[str, Any] | None:
        """The JSON object that it is, if it is one."""
        try:
            document = json.loads(self.text)
        except (ValueError, RecursionError):
            return None
        return document if isinstance(document, dict) else None

    @property
    def is_comfyui(self) -> bool:
        """Whether this is how ComfyUI answers the first question."""
        system = (self.document or {}).get("system")
        return self.status == 200 and isinstance(system, dict) and bool(system)


async def ask(
    http: Http,
    method: str,
    address: str,
    *,
    headers: Mapping[str, str | None] | None = None,
    **options: Any,
) -> Answer:
    """Send a request to a whole *address* and read the answer, redirects not followed.

    *headers* are set over the session's own; None takes one away. Raises one of `SILENT`.
    """
    clock = asyncio.get_running_loop().time
    started = clock()
    sent = http.headers.copy()
    for name, value in (headers or {}).items():
        sent.popall(name, None)
        if value is not None:
            sent[name] = value
    async with http.session.request(
        method, address, headers=sent, allow_redirects=False, **options
    ) as response:
        body = bytearray()
        async for piece in response.content.iter_any():
            body += piece
            if len(body) > _LARGEST:
                break
        text = body.decode(errors="replace")
        return Answer(response.status, response.headers, text, clock() - started)
