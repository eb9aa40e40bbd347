"""An asset's bytes as an answer: whole, in part, or not at all where the caller has them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from comfyserve.asset_library import AssetLibrary
from comfyserve.assets import Asset, safe_name
from comfyserve.refusals import BlobNotFound
from comfyserve.server.problems import problem

_RANGE: Final = re.compile(r"\s*bytes\s*=\s*(\d{0,18})\s*-\s*(\d{0,18})\s*", re.ASCII)

# Whatever the bytes are, as a page they may neither run nor load anything, nor stand in our origin.
_HARMLESS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": (
        "sandbox; default-src 'none'; img-src 'self' data:; media-src 'self' data:; "
        "style-src 'unsafe-inline'"
    ),
    "Cache-Control": "private, no-cache",
    "Referrer-Policy": "no-referrer",
    "Accept-Ranges": "bytes",
}

# What a browser shows by itself without taking it for a page.
_SHOWN: Final = re.compile(r"image/(?!svg)[\w.+-]+|video/[\w.+-]+|audio/[\w.+-]+|text/plain")
_TYPE: Final = re.compile(r"[\w.+-]+/[\w.+-]+(;[ -~]*)?", re.ASCII)


_SMALL: Final = 256 * 1024
"""Up to how many bytes are sent at once."""


@dataclass(frozen=True, slots=True)
class Part:
    """The bytes from *start* up to before *end*."""

    start: int
    end: int


class Unsatisfiable(Exception):
    """A range that begins after the last byte."""


def content_answer(request: Request, asset: Asset, library: AssetLibrary) -> Response:
    """The answer to a GET or HEAD of the asset's bytes."""
    headers = {**_HARMLESS, "ETag": etag_of(asset), "Content-Disposition": disposition(asset)}
    if _has_it(request, asset):
        return Response(status_code=304, headers=headers)
    try:
        part = _wanted_part(request, asset)
    except Unsatisfiable:
        beyond = {**headers, "Content-Range": f"bytes */{asset.size_bytes}"}
        said = f"The asset has {asset.size_bytes:,} bytes, so there are none in that range."
        return problem(416, "range_not_satisfiable", said, {"size": asset.size_bytes}, beyond)
    status, first, last = 200, 0, asset.size_bytes
    if part is not None:
        status, first, last = 206, part.start, part.end
        headers["Content-Range"] = f"bytes {first}-{last - 1}/{asset.size_bytes}"
    headers["Content-Length"] = str(last - first)
    headers["Content-Type"] = _told_type(asset.content_type)
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers)
    chunks = library.content(asset, first, last)
    return (_Content if last - first > _SMALL else _SmallContent)(chunks, status, headers)


def wanted_part(told: str | None, size: int) -> Part | None:
    """The part of *size* bytes that a Range header wants; None for all of them.

    Several ranges at once, and what is no range of bytes, get all. Raises `Unsatisfiable`.

    >>> wanted_part("bytes=-3", 10)
    Part(start=7, end=10)
    """
    found = _RANGE.fullmatch(told or "")
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        count = int(found[2])
        if not count or not size:
            raise Unsatisfiable
        return Part(max(0, size - count), size)
    start = int(found[1])
    if found[2] and int(found[2]) < start:
        return None
    if start >= size:
        raise Unsatisfiable
    return Part(start, min(int(found[2]) + 1, size) if found[2] else size)


def etag_of(asset: Asset) -> str:
    """The tag of the bytes, which never change: their hash."""
    return f'"{asset.hash}"'


def disposition(asset: Asset) -> str:
    """Under which name to save the bytes, and whether a browser may show them itself."""
    name = safe_name(PurePosixPath(asset.file_path or asset.id).name)
    plain = re.sub(r"[^ -~]|[\"\\%;]", "_", name)
    kind = "inline" if _SHOWN.fullmatch(asset.content_type) else "attachment"
    return f"{kind}; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def _told_type(kind: str) -> str:
    if not _TYPE.fullmatch(kind):
        return "application/octet-stream"
    # Without it browsers take text for that of an old Windows.
    is_plain_text = kind.startswith("text/") and ";" not in kind
    return f"{kind}; charset=utf-8" if is_plain_text else kind


def _has_it(request: Request, asset: Asset) -> bool:
    told = request.headers.get("If-None-Match")
    if told is None:
        return False
    tags = [tag.strip().removeprefix("W/") for tag in told.split(",")]
    return "*" in tags or etag_of(asset) in tags


def _wanted_part(request: Request, asset: Asset) -> Part | None:
    unless_changed = request.headers.get("If-Range")
    if unless_changed is not None and unless_changed.strip() != etag_of(asset):
        return None
    return wanted_part(request.headers.get("Range"), asset.size_bytes)


class _Content(StreamingResponse):
    """The bytes, as they are read; they are not read on for a caller who left."""

    def __init__(
        self,
        opening: AbstractAsyncContextManager[AsyncIterator[bytes]],
        status: int,
        headers: dict[str, str],
    ) -> None:
        super().__init__(_nothing(), status, headers)
        self._opening = opening

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with self._opening as chunks:
                self.body_iterator = chunks
                await super().__call__(scope, receive, send)
        except BlobNotFound:
            await _gone()(scope, receive, send)


class _SmallContent(Response):
    """The bytes at once, at none of the cost of watching whether the caller leaves meanwhile."""

    def __init__(
        self,
        opening: AbstractAsyncContextManager[AsyncIterator[bytes]],
        status: int,
        headers: dict[str, str],
    ) -> None:
        self.status_code = status
        self.background = None
        self.init_headers(headers)
        self._opening = opening

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with self._opening as chunks:
                self.body = b"".join([chunk async for chunk in chunks])
        except BlobNotFound:
            await _gone()(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def _gone() -> Response:
    return problem(404, "output_unavailable", "The bytes of this asset are gone for good.")


async def _nothing() -> AsyncIterator[bytes]:
    for chunk in list[bytes]():
        yield chunk
