"""The backends, for those who manage the server: which there are, more of them, fewer, a rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fastapi import Request, Response

from comfyserve.denials import InvalidRequest
from comfyserve.fleet import Member, Wanted
from comfyserve.host import Host
from comfyserve.server import operations
from comfyserve.server.documents import Document, answer, moment
from comfyserve.server.requests import (
    caller_of,
    graph_rules_of,
    host_of,
    read_object,
    refuse_unknown,
)
from comfyserve.server.routing import direct_router
from comfyserve.workflows.graph import shown

router = direct_router("/api")

_LONGEST_URL: Final = 2048
_MOST_HEADERS: Final = 32
_LONGEST_SECRET: Final = 8192

_NOT_KEPT: Final = (
    "What opens its door is never stored, so it is gone after the next start. Put it into "
    "comfyserve.toml to have it again."
)
_COMES_BACK: Final = "It stands in the settings, so it is back after the next start."


@router.get("/backends", **operations.LIST_BACKENDS)
async def list_backends(request: Request) -> Response:
    """All backends, in the order in which they are preferred."""
    host = _managed(request)
    refuse_unknown(request.query_params, (), "The query")
    await host.fleet.look()
    return answer({"backends": [_document(host, member) for member in host.fleet.members]})


@router.post("/backends", **operations.ADD_BACKEND)
async def add_backend(request: Request) -> Response:
    """Add a backend; it is asked at once, and used as soon as it answers."""
    host = _managed(request)
    refuse_unknown(request.query_params, ("check",), "The query")
    must_answer = _flag(request.query_params.get("check", "false"), "check")
    body = await read_object(request, ("url", "headers", "token", "verify_tls"))
    member = await host.roster.add(_wanted(body), must_answer=must_answer)
    return answer(_document(host, member), 201)


@router.get("/backends/{id}", **operations.GET_BACKEND)
async def get_backend(request: Request) -> Response:
    """One of them."""
    host = _managed(request)
    return answer(_document(host, host.roster.find(request.path_params["id"])))


@router.delete("/backends/{id}", **operations.REMOVE_BACKEND)
async def remove_backend(request: Request) -> Response:
    """Remove a backend; the jobs that it has go back to the queue."""
    host = _managed(request)
    member = host.roster.find(request.path_params["id"])
    before = await host.roster.remove(member)
    comes_back = before.origin == "settings"
    message = _COMES_BACK if comes_back else None
    document = {"id": member.id, "url": member.name, "comes_back": comes_back, "message": message}
    return answer(document)


@router.post("/backends/{id}/drain", **operations.DRAIN_BACKEND)
async def drain_backend(request: Request) -> Response:
    """Let what it has come to its end, and bring it nothing new."""
    host = _managed(request)
    member = host.roster.find(request.path_params["id"])
    await host.roster.drain(member)
    return answer(_document(host, member))


@router.post("/backends/{id}/resume", **operations.RESUME_BACKEND)
async def resume_backend(request: Request) -> Response:
    """Bring it jobs again."""
    host = _managed(request)
    member = host.roster.find(request.path_params["id"])
    await host.roster.resume(member)
    return answer(_document(host, member))


def _managed(request: Request) -> Host:
    """The house, for a caller who may manage it: addresses are nobody else's business."""
    graph_rules_of(request).require_manage(caller_of(request))
    return host_of(request)


def _document(host: Host, member: Member) -> Document:
    membership = host.roster.membership(member)
    queue, catalog = member.queue if member.is_up else None, member.catalog
    return {
        "id": member.id,
        "url": member.name,
        "state": member.state,
        "answers": member.is_up,
        "reason": member.reason or None,
        "since": moment(member.since),
        "running": None if queue is None else len(queue.running),
        "waiting": None if queue is None else len(queue.pending),
        "nodes": None if catalog is None else len(catalog.classes),
        "version": member.system.version or None,
        "devices": [
            {"name": device.name, "type": device.kind, "memory_bytes": device.memory}
            for device in member.system.devices
        ],
        "origin": membership.origin,
        "kept": membership.is_kept,
        "message": None if membership.is_kept else _NOT_KEPT,
    }


def _wanted(body: Mapping[str, Any]) -> Wanted:
    url, token, verify_tls = body.get("url"), body.get("token"), body.get("verify_tls", True)
    if not isinstance(url, str) or not url.strip() or len(url) > _LONGEST_URL:
        raise InvalidRequest("The body needs 'url': the address of a ComfyUI.")
    if not isinstance(verify_tls, bool):
        raise InvalidRequest(f"'verify_tls' is {shown(verify_tls)}, but true or false is needed.")
    if token is not None and (not isinstance(token, str) or len(token) > _LONGEST_SECRET):
        raise InvalidRequest("'token' has to be a text.")
    return Wanted(url.strip(), _named_headers(body.get("headers")), token or None, verify_tls)


def _named_headers(given: object) -> Mapping[str, str]:
    """Headers by name. What they hold is never repeated: it opens doors."""
    if given is None:
        return {}
    if not isinstance(given, dict) or len(given) > _MOST_HEADERS:
        raise InvalidRequest(f"'headers' has to be an object of at most {_MOST_HEADERS} texts.")
    for name, value in given.items():
        if not isinstance(value, str) or len(value) > _LONGEST_SECRET:
            raise InvalidRequest(f"'headers' needs a text for {shown(name)}.")
    return given


def _flag(given: str, name: str) -> bool:
    if given not in ("true", "false"):
        raise InvalidRequest(f"{name!r} is {shown(given)}, but true or false is needed.")
    return given == "true"
