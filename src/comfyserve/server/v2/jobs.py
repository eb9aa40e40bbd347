"""``/api/v2/jobs``: hand in a graph, ask how it goes, follow it, cancel it."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from fastapi import Request, Response

from comfyserve.denials import GraphRefused, ServerStopping
from comfyserve.host import Host
from comfyserve.job_queue import UsedKey
from comfyserve.jobs import JobFile
from comfyserve.refusals import (
    BlobNotFound,
    IdempotencyKeyReused,
    MissingAsset,
    NotFound,
    StoreUnavailable,
)
from comfyserve.server import operations, streams
from comfyserve.server.documents import answer, job_document
from comfyserve.server.links import V2
from comfyserve.server.requests import (
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
    key = idempotency_key_of(request)
    wanted = read_job_request(await read_object(request, FIELDS))
    host, owner, links = host_of(request), owner_of(request), links_of(request)
    if host.is_stopping:
        raise ServerStopping
    await host.asset_library.refuse_when_full()
    resolved = await host.asset_library.resolve(wanted.graph, owner)
    if problems := await host.check_graph(resolved.graph):
        raise GraphRefused(_node_errors(problems))
    if wanted.id is not None:
        await _refuse_used(host, wanted.id)
    try:
        standing = await host.job_queue.submit(
            resolved.graph,
            owner=owner,
            files=resolved.files,
            metadata=wanted.metadata,
            priority=wanted.priority,
            extra_data=wanted.extra_data or None,
            key=None if key is None else _used_key(request, key, wanted),
            job_id=wanted.id,
        )
    except BlobNotFound as error:
        raise _deleted_meanwhile(resolved.files, error) from None
    except StoreUnavailable:
        if wanted.id is not None:
            await _refuse_used(host, wanted.id)  # somebody else got it in this moment
        raise
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
            "jobs": [job_document(standing, links) for standing in page.items],
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
    """The graph that the job runs."""
    graph = await host_of(request).job_queue.graph(request.path_params["id"], owner_of(request))
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


async def _refuse_used(host: Host, id: str) -> None:
    """An id is good for one job, as a key is."""
    with suppress(NotFound):
        await host.job_queue.get(id)
        raise IdempotencyKeyReused(id)


def _node_errors(problems: Mapping[str, Any]) -> dict[str, list[dict[str, str]]]:
    return {
        node_id: [
            {"field": each.field, "reason": each.reason, "message": each.message} for each in found
        ]
        for node_id, found in problems.items()
    }


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


def _deleted_meanwhile(files: tuple[JobFile, ...], error: BlobNotFound) -> MissingAsset:
    gone = [file.asset_id or file.hash for file in files if file.hash in error.hashes]
    return MissingAsset(dict.fromkeys(gone))
