"""A checkup of one comfyserve: whether it could run a job right now, and with which nodes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from comfyserve.client.api import Api
from comfyserve.comfy.checkup import Checkup
from comfyserve.comfy.findings import Finding
from comfyserve.errors import ComfyServeError
from comfyserve.workflows.node_catalog import NodeCatalog


async def examine(api: Api) -> Checkup:
    """Check the server behind *api*; nothing is queued or uploaded."""
    if api.is_official:
        return Checkup(api.url, True, (_official(api.url),))
    catalog, nodes = await _nodes(api)
    return Checkup(
        api.url,
        True,
        (
            Finding("ok", "version", f"{api.url} is a comfyserve; it queues and keeps jobs."),
            *[finding async for finding in _readiness(api)],
            nodes,
            *[finding async for finding in _jobs(api)],
        ),
        catalog,
    )


async def _readiness(api: Api) -> AsyncIterator[Finding]:
    """Whether the ComfyUIs behind it answer."""
    try:
        is_ready, told = await api.readiness()
    except ComfyServeError as error:
        yield Finding("problem", "queue", str(error))
        return
    if is_ready:
        yield Finding("ok", "queue", f"It can run jobs right now{_backends(await api.health())}.")
        return
    reasons = told.get("reasons")
    for reason in reasons if isinstance(reasons, list) and reasons else ["it does not say why"]:
        yield Finding(
            "problem",
            "queue",
            f"It cannot run jobs right now: {reason}",
            "Jobs are taken and wait until it can.",
        )


def _backends(health: Mapping[str, Any]) -> str:
    upstream = health.get("upstream")
    if not isinstance(upstream, dict) or "backends" not in upstream:
        return ""
    return f": {upstream.get('backends_up')} of {upstream['backends']} ComfyUIs answer"


async def _nodes(api: Api) -> tuple[NodeCatalog | None, Finding]:
    try:
        catalog = NodeCatalog.from_json(await api.object_info())
    except ComfyServeError as error:
        return None, Finding("problem", "nodes", f"It cannot tell its nodes: {error}")
    count = len(catalog.classes)
    return catalog, Finding("ok", "nodes", f"Behind it are {count} kinds of nodes.")


async def _jobs(api: Api) -> AsyncIterator[Finding]:
    """Whether it can read what it keeps."""
    try:
        await api.jobs(limit="1")
    except ComfyServeError as error:
        yield Finding("problem", "jobs_api", f"It cannot list its jobs: {error}")
    else:
        yield Finding("ok", "jobs_api", "It lists the jobs it keeps.")


def _official(url: str) -> Finding:
    return Finding(
        "warn",
        "version",
        f"{url} speaks the Comfy API v2, and is no comfyserve: it runs jobs, but does not tell "
        "its nodes.",
        "Examine the ComfyUI behind it.",
    )
