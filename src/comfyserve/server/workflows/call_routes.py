"""``/api/workflows/{name}/jobs`` and ``/validate``: call a workflow, or ask about a call."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from dataclasses import replace
from typing import Final

from fastapi import Request, Response

from comfyserve.jobs import Standing
from comfyserve.server import streams
from comfyserve.server.documents import answer, encoded, job_document
from comfyserve.server.requests import (
    caller_of,
    host_of,
    idempotency_key_of,
    links_of,
    owner_of,
    read_object,
    refuse_unknown,
)
from comfyserve.server.routing import direct_router
from comfyserve.server.streams import EventStream, Streams
from comfyserve.server.workflows import calls, operations
from comfyserve.server.workflows.call_bodies import (
    CallBody,
    is_form,
    read_form_call,
    read_json_call,
)
from comfyserve.server.workflows.calls import Submitted
from comfyserve.server.workflows.media_assets import CallAssets
from comfyserve.server.workflows.offered import offered
from comfyserve.server.workflows.preferences import Preference, read_preference
from comfyserve.server.workflows.validation import FIELDS, validate

router = direct_router("/api/workflows")

_REPLAYED: Final = {"Idempotent-Replay": "true"}


@router.post("/{name}/jobs", **operations.CALL_WORKFLOW)
async def call_workflow(request: Request) -> Response:
    """Run a workflow with these inputs."""
    refuse_unknown(request.query_params, (), "The query")
    preference = read_preference(request.headers.getlist("Prefer"))
    is_stream = _wants_stream(request)
    if not is_stream and preference.wait is None:
        submitted = await _submit(request)
        return _told(request, submitted, preference)
    with _place(request, held=not is_stream):
        submitted = await _submit(request)
        if is_stream:
            return _stream(request, submitted)
        over = await _until_over(request, submitted.standing, preference.wait or 0)
        return _told(request, replace(submitted, standing=over), preference)


@router.post("/{name}/validate", **operations.VALIDATE_CALL)
async def validate_call(request: Request) -> Response:
    """What would come of a call, without making it."""
    refuse_unknown(request.query_params, (), "The query")
    host, caller = host_of(request), caller_of(request)
    entry = await offered(host, caller, request.path_params["name"])
    document = await read_object(request, FIELDS)
    return answer(await validate(host, caller, entry, document))


async def _submit(request: Request) -> Submitted:
    """The job that the call asks for."""
    host, caller, name = host_of(request), caller_of(request), request.path_params["name"]
    async with CallAssets(host, caller) as assets:
        body = await _read(request, name, assets)
        return await calls.submit(host, caller, name, body.inputs, body.wish, assets)


async def _read(request: Request, name: str, assets: CallAssets) -> CallBody:
    host, caller, key = host_of(request), caller_of(request), idempotency_key_of(request)
    entry = await offered(host, caller, name)
    await host.intake.refuse_early()
    workflow = await host.catalog.described(name)
    if is_form(request):
        may_address = calls.may_use_addresses(host, caller, entry)
        return await read_form_call(request, key, workflow, assets, may_address=may_address)
    return await read_json_call(request, key, workflow)


def _told(request: Request, submitted: Submitted, preference: Preference) -> Response:
    """The job: 201 for a new one, 200 for one that is over or was there, 202 for one that goes
    on though its end was waited for."""
    links, standing, is_new = links_of(request), submitted.standing, submitted.is_new
    headers = {"Location": links.job(standing.record.id)}
    if not is_new:
        headers |= _REPLAYED
    if (applied := preference.applied) is not None:
        headers["Preference-Applied"] = applied
        status = 200 if standing.record.status.is_terminal else 202
    else:
        status = 201 if is_new else 200
    return answer(job_document(standing, links), status, headers)


def _stream(request: Request, submitted: Submitted) -> Response:
    """All that happens to the job from its beginning, after a frame that tells the job itself."""
    places, links, owner = _streams(request), links_of(request), owner_of(request)
    standing = submitted.standing
    preface = b"event: job\ndata: %b\n\n" % encoded(job_document(standing, links))
    record = standing.record
    line = streams.Line(places.frames, links, record, numbered=True, pause=0, preface=preface)
    live = host_of(request).job_queue.follow_together(record.id, 0, owner=owner, since=standing)
    response = EventStream(places, line, owner, live=live)
    response.headers["Location"] = links.job(record.id)
    if not submitted.is_new:
        response.headers.update(_REPLAYED)
    return response


async def _until_over(request: Request, standing: Standing, seconds: float) -> Standing:
    """How the job stands at its end, or after *seconds*, or once nobody waits for the answer."""
    if standing.record.status.is_terminal:
        return standing
    queue, owner = host_of(request).job_queue, owner_of(request)
    works = {
        asyncio.create_task(_end_of(request, standing), name="end of a job"),
        asyncio.create_task(_gone(request), name="caller leaving"),
    }
    try:
        await asyncio.wait(works, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for work in works:
            work.cancel()
        await asyncio.gather(*works, return_exceptions=True)
    return await queue.get(standing.record.id, owner)


async def _end_of(request: Request, standing: Standing) -> None:
    record, queue = standing.record, host_of(request).job_queue
    following = queue.follow(record.id, record.last_event, owner=owner_of(request), since=standing)
    async with aclosing(following) as events:
        async for event in events:
            if event.is_last:
                return


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


@contextmanager
def _place(request: Request, *, held: bool) -> Iterator[None]:
    """A place among the streams, so that no job is made whose caller would not hear of it.

    It is *held* for the block, or only looked for where the stream takes one itself.
    """
    place = _streams(request).place(owner_of(request))
    if held:
        with place:
            yield
    else:
        with place:
            pass
        yield


def _streams(request: Request) -> Streams:
    found: Streams = request.app.state.streams
    return found


def _wants_stream(request: Request) -> bool:
    listed = request.headers.get("Accept", "").lower().split(",")
    told = {kind.partition(";")[0].strip() for kind in listed}
    # Who can read both is not surprised by the shorter one.
    return "text/event-stream" in told and "application/json" not in told
