"""A call of a workflow: from its name and inputs to a job, whoever brings it and how."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final
from uuid import uuid4

from comfyserve.access import Caller
from comfyserve.assets import Asset
from comfyserve.catalog import Entry
from comfyserve.catalog.drift import misfits_in
from comfyserve.denials import Forbidden
from comfyserve.errors import BackendUnreachable, ComfyServeError, GraphInvalid, InvalidInputs
from comfyserve.host import Host
from comfyserve.job_queue import UsedKey
from comfyserve.jobs import Metadata, Standing
from comfyserve.server.guards import graph_rules
from comfyserve.server.workflows.call_inputs import BoundCall, bind_call
from comfyserve.server.workflows.media_assets import CallAssets
from comfyserve.server.workflows.media_values import Kept
from comfyserve.server.workflows.offered import offered
from comfyserve.server.workflows.own_files import missing_files
from comfyserve.workflows.workflow import Workflow

_QUICKLY_BOUND: Final = 200
"""Nodes of a graph that inputs are set in in passing; a larger one is beside the event loop."""


_LONG: Final = 100_000
"""Letters of a text that takes a while to be read."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a caller asks for besides a workflow's inputs; *extra_data* is secret.

    *key* makes the call one that happens once: the same inputs under it give the same job. *id*
    is that of the job, where the caller names it himself.
    """

    metadata: Metadata | None = None
    priority: int = 0
    extra_data: Mapping[str, str] = field(default_factory=dict, repr=False)
    key: str | None = None
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Submitted:
    """The job that a call made, or that the same call made before."""

    standing: Standing
    is_new: bool


async def submit_workflow(
    host: Host,
    caller: Caller,
    name: str,
    inputs: Mapping[str, object],
    *,
    files: Mapping[str, Asset] | None = None,
    metadata: Metadata | None = None,
    priority: int = 0,
    extra_data: Mapping[str, str] | None = None,
    key: str | None = None,
    job_id: str | None = None,
) -> Standing:
    """Put a job into the queue that runs the workflow *name* with these *inputs*.

    Values are as JSON holds them, or `Written`; *files* are assets by the inputs they are for.
    Where the *key* was used with the same inputs, the job that it made is given again. Raises
    `WorkflowNotFound`, `WorkflowBroken`, `ServerStarting`, `InvalidInputs`, what `Intake.submit`
    does, and `BackendUnreachable` where a file of the editor can only be read with the nodes of a
    backend, and none is known.
    """
    wish = Wish(metadata, priority, extra_data or {}, key, job_id)
    kept = {name: Kept(asset) for name, asset in (files or {}).items()}
    async with CallAssets(host, caller) as assets:
        submitted = await submit(host, caller, name, {**inputs, **kept}, wish, assets)
        return submitted.standing


async def submit(
    host: Host,
    caller: Caller,
    name: str,
    inputs: Mapping[str, object],
    wish: Wish,
    assets: CallAssets,
) -> Submitted:
    """`submit_workflow` for who keeps the files of the call in *assets* himself."""
    entry = await offered(host, caller, name)
    await host.intake.refuse_early()
    call = await bound_call(host, caller, entry, inputs)
    key = None if wish.key is None else _used_key(host, caller, name, wish, call)
    if key is not None and (known := await host.intake.replayed(key)) is not None:
        await assets.forget()
        return Submitted(known, is_new=False)
    if missing := await missing_files(host, call):
        raise InvalidInputs(missing)
    found = await assets.gather(call)
    graph = call.graph(found)
    sidecar = call.workflow.source.sidecar
    job_id = wish.id or str(uuid4())
    standing = await host.intake.submit(
        graph,
        caller=caller,
        workflow=name,
        inputs=call.inputs(found),
        seeds=call.seeds(graph),
        metadata=wish.metadata,
        priority=wish.priority,
        extra_data=wish.extra_data,
        key=key,
        job_id=job_id,
        timeout=sidecar.timeout if sidecar else None,
    )
    is_new = standing.record.id == job_id
    if not is_new:  # the same call came twice at once
        await assets.forget()
    return Submitted(standing, is_new)


async def bound_call(
    host: Host, caller: Caller, entry: Entry, inputs: Mapping[str, object]
) -> BoundCall:
    """The workflow with these inputs, held against the backend that it fits.

    Where that one does not take a value, another may. Raises `InvalidInputs` with the problems
    that the first one has, or `GraphInvalid` where the file means no graph there.
    """
    may_address = may_use_addresses(host, caller, entry)
    best, *others = await _described(host, entry.name)
    try:
        return await _bound(best, inputs, may_address)
    except (InvalidInputs, GraphInvalid) as refusal:
        for other in others:
            with suppress(InvalidInputs, GraphInvalid):
                call = await _bound(other, inputs, may_address)
                # One without the nodes knows no limits, and would take anything.
                if await asyncio.to_thread(_fits, call):
                    return call
        raise refusal


def _fits(call: BoundCall) -> bool:
    catalog = call.workflow.catalog
    return catalog is not None and not misfits_in(call.bound.graph, catalog)


def may_use_addresses(host: Host, caller: Caller, entry: Entry) -> bool:
    """Whether the caller may set inputs by their addresses (``3.cfg``)."""
    sidecar = entry.workflow.source.sidecar if entry.workflow else None
    if sidecar is not None and sidecar.open:
        return True
    try:
        graph_rules(host.settings).require_graphs(caller)
    except Forbidden:
        return False
    return True


async def _bound(workflow: Workflow, inputs: Mapping[str, object], may_address: bool) -> BoundCall:
    rng = random.SystemRandom()

    def bind() -> BoundCall:
        return bind_call(workflow, inputs, may_address=may_address, rng=rng)

    # What has warnings is read once more, and what is long may hold a file.
    is_long = any(isinstance(one, str) and len(one) > _LONG for one in inputs.values())
    if len(workflow.graph) > _QUICKLY_BOUND or workflow.warnings or is_long:
        return await asyncio.to_thread(bind)
    return bind()


async def _described(host: Host, name: str) -> Sequence[Workflow]:
    """The workflow as the nodes of each backend describe it, the best first."""
    best = await host.catalog.described(name)
    if best.editor is not None and best.catalog is None:
        raise BackendUnreachable("every backend", "none ever told its nodes")
    found = [best]
    for backend in host.catalog.nodes:
        try:
            described = await host.catalog.described(name, backend)
        except ComfyServeError:
            continue
        if all(described.catalog is not other.catalog for other in found):
            found.append(described)
    return found


def _used_key(host: Host, caller: Caller, name: str, wish: Wish, call: BoundCall) -> UsedKey:
    """The key as it is kept. What is secret in a call is no part of its digest."""
    assert wish.key is not None
    return UsedKey(
        owner=caller.owner,
        route=f"POST /workflows/{name}/jobs",
        key=wish.key,
        digest=call.digest(wish.metadata, wish.priority),
        expires_at=time.time() + host.settings.idempotency_retention,
        replays=True,
    )
