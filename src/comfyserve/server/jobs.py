"""What comfyserve offers beside the official API: numbered events, jobs to forget, the nodes."""

from __future__ import annotations

from fastapi import Request, Response

from comfyserve.server import operations, streams
from comfyserve.server.requests import (
    caller_of,
    graph_rules_of,
    host_of,
    links_of,
    owner_of,
    refuse_unknown,
)
from comfyserve.server.routing import direct_router

router = direct_router("/api")


@router.delete("/jobs/{id}", **operations.DELETE_JOB)
async def delete_job(request: Request) -> Response:
    """Forget a job that is over, with its outputs."""
    await host_of(request).job_queue.delete(request.path_params["id"], owner_of(request))
    return Response(status_code=204)


@router.get("/jobs/{id}/events", **operations.FOLLOW_JOB)
async def follow_job(request: Request) -> Response:
    """What happened to the job and what happens, numbered, to its end."""
    refuse_unknown(request.query_params, ("after",), "The query")
    return await streams.our_events(
        request, request.path_params["id"], owner=owner_of(request), links=links_of(request)
    )


@router.get("/object_info", **operations.OBJECT_INFO)
async def object_info(request: Request) -> Response:
    """The nodes that the backends have."""
    graph_rules_of(request).require_sight(caller_of(request))
    host = host_of(request)
    if "no-cache" in request.headers.get("Cache-Control", ""):
        await host.fleet.refresh()
    return Response(await host.object_info(), media_type="application/json")
