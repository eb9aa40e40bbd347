"""The API's description: `/openapi.json`, and the page that shows it, whole without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import FileResponse, Response

from comfyserve.refusals import NotFound
from comfyserve.server.documents import encoded
from comfyserve.server.guards import base_url
from comfyserve.server.requests import caller_of, host_of
from comfyserve.server.workflows.offered import read_catalog
from comfyserve.server.workflows.typed_paths import TypedPaths

CONTENT_SECURITY: Final = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",  # the viewer writes style attributes
        "img-src 'self' data: blob:",
        "media-src 'self' blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)

_STATIC: Final = Path(__file__).with_name("static")
_PARTS: Final = {
    "docs.js": "text/javascript",
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
}
_PAGE_HEADERS: Final = {
    "Content-Security-Policy": CONTENT_SECURITY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
_PART_HEADERS: Final = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache"}

router = APIRouter(include_in_schema=False)


@router.get("/docs")
async def docs() -> Response:
    """The page."""
    return FileResponse(_STATIC / "docs.html", headers=_PAGE_HEADERS, media_type="text/html")


@router.get("/docs/{part}")
async def docs_part(part: str) -> Response:
    """What the page consists of."""
    if part not in _PARTS:
        raise NotFound("part of the docs", part)
    return FileResponse(_STATIC / part, headers=_PART_HEADERS, media_type=_PARTS[part])


@router.get("/openapi.json")
async def openapi(request: Request) -> Response:
    """The description, with the address that its reader knows the server by, and a path for each
    workflow that he may run."""
    paths: TypedPaths = request.app.state.typed_paths
    catalog, caller = await read_catalog(host_of(request)), caller_of(request)
    revision = await paths.describe(catalog)
    names = [entry.name for entry in catalog.entries() if caller.may_run(entry.name)]
    base = base_url(request)

    def told() -> bytes:
        document = paths.added_to(request.app.openapi(), names)
        return encoded({**document, "servers": [{"url": base}]})

    content = await paths.kept((revision, base, *names), told)
    return Response(content, headers={"Cache-Control": "no-cache"}, media_type="application/json")
