"""What a replay saw its client do."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from aiohttp import BodyPartReader, web


@dataclass(frozen=True, slots=True)
class Part:
    """One part of an uploaded form. `text` is its content if it is no file."""

    name: str
    filename: str | None
    size: int
    sha256: str
    text: str
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class SeenRequest:
    """One HTTP request. `path` is without query and /api; `at` counts seconds from the start."""

    at: float
    method: str
    path: str
    raw_path: str
    query: dict[str, str]
    headers: dict[str, str]
    json: Any = None
    form: tuple[Part, ...] = ()

    def part(self, name: str) -> Part:
        """The form part of this name; KeyError if there is none."""
        for part in self.form:
            if part.name == name:
                return part
        raise KeyError(name)

    def text(self, name: str, default: str = "") -> str:
        """The text of a form part, or *default*."""
        return next((part.text for part in self.form if part.name == name), default)


@dataclass(slots=True)
class SeenSocket:
    """One WebSocket the client opened: what it named itself and all it said on it."""

    at: float
    client_id: str
    headers: dict[str, str]
    said: list[str] = field(default_factory=list)

    @property
    def first(self) -> Any:
        """The first message, read as JSON; None if there was none yet."""
        return json.loads(self.said[0]) if self.said else None


async def read(request: web.Request, at: float) -> SeenRequest:
    """Read a request whole. A body that is not JSON leaves `json` None."""
    raw_path = request.path_qs
    form: tuple[Part, ...] = ()
    body: Any = None
    if request.content_type.startswith("multipart/"):
        form = await _form(request)
    elif request.can_read_body:
        try:
            body = json.loads(await request.text())
        except ValueError:
            body = None
    return SeenRequest(
        at=at,
        method=request.method,
        path=request.path.removeprefix("/api") or "/",
        raw_path=raw_path,
        query=dict(request.query),
        headers=dict(request.headers),
        json=body,
        form=form,
    )


async def _form(request: web.Request) -> tuple[Part, ...]:
    parts: list[Part] = []
    reader = await request.multipart()
    while (part := await reader.next()) is not None:
        if not isinstance(part, BodyPartReader):
            continue
        content = bytes(await part.read(decode=True))
        parts.append(
            Part(
                name=part.name or "",
                filename=part.filename,
                size=len(content),
                sha256=hashlib.sha256(content).hexdigest(),
                text="" if part.filename else content.decode(errors="replace"),
                content=content,
            )
        )
    return tuple(parts)
