"""``/api/v2/jobs``: hand in a graph, ask how it goes, follow it, cancel it."""

from __future__ import annotations

import hashlib
import json
import time

from fastapi import Request, Response

from comfyserve.job_queue import UsedKey
from comfyserve.server import operations, streams
from comfyserve.server.documents import answer, job_document
from comfyserve.server.links import V2
from comfyserve.server.requests import (
    caller_of,
    graph_rules_of,
    host_of,
    idempotency_key_of,
    links_of,
    owner_of,
    read_object,
    refuse_unknown,
    settings_of,
)
from comfyserve.server.routing import direct_router
from comfyserve.server.v2.job_lists import read_list_request
from comfyserve.server.v2.submissions import FIELDS, JobRequest, read_job_request

router = direct_router(f"{V2}/jobs")


@router.post("", **operations.POST_JOBS)
async def post_jobs(request: Request) -> Response:
    """Submit a workflow for execution."""
    refuse_unknown(request.query_params, (), "The query")
    key, rules, caller = idempotency_key_of(request), graph_rules_of(request), caller_of(request)
    rules.require_graphs(caller)
    wanted = read_job_request(await read_object(request, FIELDS))
    rules.require(caller, wanted.graph)
    standing = await host_of(request).intake.submit(
        wanted.graph,
        caller=caller,
        metadata=wanted.metadata,
        priority=wanted.priority,
        extra_data=wanted.extra_data,
        key=None if key is None else _used_key(request, key, wanted),
        job_id=wanted.id,
    )
    links = links_of(request)
    document = job_document(standing, links)
    return answer(document, 201, {"Location": links.job(standing.record.id)})


@router.get("", **operations.LIST_JOBS)
async def list_jobs(request: Request) -> Response:
    """List jobs, newest first."""
    wanted = read_list_request(request.query_params.multi_items())
    page = await host_of(request).job_queue.list(
        owner_of(request),
        statuses=wanted.statuses,
        workflow=wanted.workflow,
        labels=wanted.labels,
        cursor=wanted.cursor,
        limit=wanted.limit,
    )
    links = links_of(request)
    return answer(
        {
            "jobs": [job_document(standing, links, brief=True) for standing in page.items],
            "next_cursor": page.next_cursor,
            "truncated": page.next_cursor is not None,
        }
    )


@router.get("/{id}", **operations.GET_JOB)
async def get_job(request: Request) -> Response:
    """Job status (the polling workhorse)."""
    standing = await host_of(request).job_queue.get(request.path_params["id"], owner_of(request))
    return answer(job_document(standing, links_of(request)))


@router.get("/{id}/workflow", **operations.GET_JOB_WORKFLOW)
async def get_job_workflow(request: Request) -> Response:
    """The graph that the job runs; that of a workflow only for who may see graphs."""
    queue, job_id, owner = host_of(request).job_queue, request.path_params["id"], owner_of(request)
    if (await queue.get(job_id, owner)).record.workflow is not None:
        graph_rules_of(request).require_sight(caller_of(request))
    graph = await queue.graph(job_id, owner)
    return answer({"workflow": graph, "format": "api"})


@router.get("/{id}/events", **operations.GET_JOB_EVENTS)
async def get_job_events(request: Request) -> Response:
    """Live event stream (SSE)."""
    return await streams.v2_events(
        request, request.path_params["id"], owner=owner_of(request), links=links_of(request)
    )


@router.post("/{id}/cancel", **operations.CANCEL_JOB)
async def cancel_job(request: Request) -> Response:
    """Request cancellation."""
    queue = host_of(request).job_queue
    standing = await queue.cancel(request.path_params["id"], owner_of(request))
    return answer(job_document(standing, links_of(request)))


def _used_key(request: Request, key: str, wanted: JobRequest) -> UsedKey:
    """The key as it is kept. What is secret in a request is no part of its digest."""
    said = {"workflow": wanted.graph, "metadata": wanted.metadata, "priority": wanted.priority}
    content = json.dumps(said, sort_keys=True).encode("ascii")
    return UsedKey(
        owner=owner_of(request),
        route="POST /jobs",
        key=key,
        digest=hashlib.blake2b(content, digest_size=16).hexdigest(),
        expires_at=time.time() + settings_of(request).idempotency_retention,
    )
