"""The message ``submit``: a workflow with its inputs, or a graph, and the job made of it."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from comfyserve.access import Caller, GraphRules
from comfyserve.denials import InvalidRequest
from comfyserve.host import Host
from comfyserve.job_queue import UsedKey
from comfyserve.jobs import Metadata, Standing
from comfyserve.server.sockets.messages import Asked
from comfyserve.server.v2.submissions import (
    read_extra_data,
    read_job_request,
    read_metadata,
    read_priority,
)
from comfyserve.server.workflows import calls
from comfyserve.workflows.graph import Graph

_ROUTE: Final = "WS submit"


@dataclass(frozen=True, slots=True)
class Wish:
    """The job that a client wants; *extra_data* is secret and shows up nowhere.

    It is a *workflow* with *inputs*, or else a *graph*.
    """

    workflow: str | None
    inputs: Mapping[str, Any]
    graph: Graph | None
    metadata: Metadata | None
    priority: int
    extra_data: Mapping[str, str] = field(repr=False)
    key: str | None
    follow: bool
    cancel_on_disconnect: bool


def read_wish(asked: Asked) -> Wish:
    """What a message ``submit`` asks for.

    Raises `InvalidRequest`, `MetadataInvalid`, and for a graph that is none `EditorFormatRefused`,
    `GraphInvalid` and `GraphRefused`.
    """
    said = asked.fields
    if ("workflow" in said) == ("graph" in said):
        raise InvalidRequest("'submit' needs 'workflow', the name of one, or a 'graph'; not both.")
    if "graph" in said and "inputs" in said:
        raise InvalidRequest("'inputs' are those of a workflow; a 'graph' holds its values itself.")
    inputs = said.get("inputs", {})
    if not isinstance(inputs, dict):
        raise InvalidRequest("'inputs' has to be an object: the values by the inputs' names.")
    follow = asked.flag("follow", True)
    cancel_on_disconnect = asked.flag("cancel_on_disconnect", False)
    if cancel_on_disconnect and not follow:
        raise InvalidRequest("'cancel_on_disconnect' is for jobs that the socket follows.")
    return Wish(
        workflow=asked.text("workflow") if "workflow" in said else None,
        inputs=inputs,
        graph=read_job_request({"workflow": said["graph"]}).graph if "graph" in said else None,
        metadata=read_metadata(said.get("metadata")),
        priority=read_priority(said.get("priority")),
        extra_data=read_extra_data(said.get("extra_data")),
        key=asked.key(),
        follow=follow,
        cancel_on_disconnect=cancel_on_disconnect,
    )


async def hand_in(host: Host, caller: Caller, rules: GraphRules, wish: Wish) -> Standing:
    """The job that the wish is made, or was made before under the same key.

    Raises what `calls.submit_workflow` and `Intake.submit` do, and `Forbidden` for a graph that
    the caller may not run.
    """
    if wish.workflow is not None:
        return await calls.submit_workflow(
            host,
            caller,
            wish.workflow,
            wish.inputs,
            metadata=wish.metadata,
            priority=wish.priority,
            extra_data=wish.extra_data,
            key=wish.key,
        )
    assert wish.graph is not None
    rules.require(caller, wish.graph)
    return await host.intake.submit(
        wish.graph,
        caller=caller,
        metadata=wish.metadata,
        priority=wish.priority,
        extra_data=wish.extra_data,
        key=None if wish.key is None else _used_key(host, caller, wish, wish.key),
    )


def _used_key(host: Host, caller: Caller, wish: Wish, key: str) -> UsedKey:
    """The key as it is kept. What is secret in a request is no part of its digest."""
    said = {"graph": wish.graph, "metadata": wish.metadata, "priority": wish.priority}
    content = json.dumps(said, sort_keys=True).encode("ascii")
    return UsedKey(
        owner=caller.owner,
        route=_ROUTE,
        key=key,
        digest=hashlib.blake2b(content, digest_size=16).hexdigest(),
        expires_at=time.time() + host.settings.idempotency_retention,
        replays=True,
    )
