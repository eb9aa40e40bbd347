"""``/api/workflows``: what is on offer, what a file would be, and what is put on offer."""

from __future__ import annotations

import asyncio
from typing import Final

from fastapi import Request, Response

from comfyserve.access import Caller
from comfyserve.catalog import Published, inspect, name_of
from comfyserve.refusals import NotFound
from comfyserve.server.documents import answer, encoded
from comfyserve.server.requests import (
    caller_of,
    graph_rules_of,
    host_of,
    is_signed,
    links_of,
    refuse_unknown,
)
from comfyserve.server.routing import direct_router
from comfyserve.server.workflows import operations
from comfyserve.server.workflows.files import read_workflow_file
from comfyserve.server.workflows.offered import offered, read_catalog
from comfyserve.server.workflows.shown import CACHED, Shown, has_tag, tagged, unchanged

router = direct_router("/api/workflows")

_MANY: Final = 200
"""Workflows whose list is made beside the event loop."""

_PICTURE: Final = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Content-Disposition": "inline",
    "Cross-Origin-Resource-Policy": "same-site",
}
_KEPT_LONG: Final = "private, max-age=31536000, immutable"


@router.get("", **operations.LIST_WORKFLOWS)
async def list_workflows(request: Request) -> Response:
    """The workflows on offer."""
    refuse_unknown(request.query_params, (), "The query")
    await read_catalog(host_of(request))
    shown = Shown.to(request)
    tag = shown.list_tag()
    if has_tag(request, tag):
        return unchanged(tag)
    seen = shown.seen()
    if len(seen.entries) > _MANY:
        content = await asyncio.to_thread(lambda: encoded(shown.list(seen)))
    else:
        content = encoded(shown.list(seen))
    return Response(content, 200, {"ETag": tag, **CACHED}, "application/json")


@router.post("/inspect", **operations.INSPECT_WORKFLOW)
async def inspect_workflow(request: Request) -> Response:
    """What a workflow's file would be here; nothing of it is kept."""
    refuse_unknown(request.query_params, ("name",), "The query")
    graph_rules_of(request).require_inspect(caller_of(request))
    file = await read_workflow_file(request)
    name = name_of((request.query_params.get("name") or file.stem)[:200])
    published = Published(name, file.content, file.sidecar)
    async with _few_at_a_time(request):
        found = await inspect(published, host_of(request).catalog.nodes)
    return answer(Shown.to(request).inspected(found))


@router.get("/{name}", **operations.GET_WORKFLOW)
async def get_workflow(request: Request) -> Response:
    """What a workflow takes and gives."""
    refuse_unknown(request.query_params, (), "The query")
    entry = await offered(host_of(request), caller_of(request), request.path_params["name"])
    return tagged(request, await Shown.to(request).detail(entry))


@router.put("/{name}", **operations.PUT_WORKFLOW)
async def put_workflow(request: Request) -> Response:
    """Put a workflow on offer, or another version of it."""
    refuse_unknown(request.query_params, (), "The query")
    host, caller, name = host_of(request), caller_of(request), request.path_params["name"]
    graph_rules_of(request).require_publish(caller)
    caller.require_run(name)
    await read_catalog(host)
    host.publishing.refuse_name(name)
    await host.asset_library.refuse_when_full()
    file = await read_workflow_file(request)
    async with _few_at_a_time(request):
        is_new = await host.publishing.publish(name, file.content, file.sidecar)
    document = await Shown.to(request).detail(host.catalog[name])
    location = {"Location": links_of(request).workflow(name)}
    return answer(document, 201 if is_new else 200, location)


@router.delete("/{name}", **operations.DELETE_WORKFLOW)
async def delete_workflow(request: Request) -> Response:
    """Offer a published workflow no longer; its jobs go on."""
    host, caller, name = host_of(request), caller_of(request), request.path_params["name"]
    graph_rules_of(request).require_publish(caller)
    await offered(host, caller, name)
    await host.publishing.withdraw(name)
    return Response(status_code=204)


@router.get("/{name}/thumbnail", **operations.GET_THUMBNAIL)
@router.head("/{name}/thumbnail", include_in_schema=False)
async def get_thumbnail(request: Request) -> Response:
    """What a workflow looks like."""
    host, name = host_of(request), request.path_params["name"]
    caller = Caller() if is_signed(request) else caller_of(request)
    entry = await offered(host, caller, name)
    version = entry.thumbnail_version[:16]
    is_this = request.query_params.get("v") == version
    headers = {**_PICTURE, "ETag": f'"{version}"'}
    headers["Cache-Control"] = _KEPT_LONG if is_this else CACHED["Cache-Control"]
    if entry.thumbnail is not None and has_tag(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    picture = await host.catalog.thumbnail(name)
    if picture is None:
        raise NotFound("thumbnail of the workflow", name)
    body = b"" if request.method == "HEAD" else picture.content
    headers["Content-Length"] = str(len(picture.content))
    return Response(body, 200, headers, picture.content_type)


def _few_at_a_time(request: Request) -> asyncio.Semaphore:
    """Large files are read a few at a time, as each takes many times its size."""
    few: asyncio.Semaphore = request.app.state.few_files
    return few
