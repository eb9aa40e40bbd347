"""What would come of a call: told without queueing, keeping or fetching anything."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from typing import Any, Final

from comfyserve.access import Caller
from comfyserve.catalog import Entry
from comfyserve.catalog.drift import Misfit, misfits_in
from comfyserve.denials import InvalidRequest
from comfyserve.errors import ComfyServeError, InputProblem, InvalidInputs
from comfyserve.host import Host
from comfyserve.server.v2.submissions import (
    read_extra_data,
    read_id,
    read_metadata,
    read_priority,
)
from comfyserve.server.workflows import calls
from comfyserve.server.workflows.call_inputs import BoundCall, bind_call
from comfyserve.server.workflows.media_assets import CallAssets
from comfyserve.server.workflows.media_values import ToCome
from comfyserve.server.workflows.own_files import missing_files
from comfyserve.server.workflows.shown import backend_ids
from comfyserve.workflows.graph import with_inputs
from comfyserve.workflows.node_catalog import NodeCatalog
from comfyserve.workflows.parameters import Media
from comfyserve.workflows.workflow import Workflow

FIELDS: Final = ("inputs", "files", "metadata", "priority", "extra_data", "id")
"""The fields of a call, and ``files``: the inputs for which a file would come in a form."""

Document = dict[str, Any]


async def validate(
    host: Host, caller: Caller, entry: Entry, document: Mapping[str, Any]
) -> Document:
    """Everything that is wrong with a call, on its own and on each backend.

    *valid* says whether it would be taken now. Raises `InvalidRequest` and `MetadataInvalid` for
    a body that says nothing, `WorkflowBroken`, and `BackendUnreachable`.
    """
    inputs = _inputs(document)
    problems: list[Document] = []
    missing: Sequence[str] = ()
    try:
        call = await calls.bound_call(host, caller, entry, inputs)
    except InvalidInputs as error:
        problems = [_problem(one.name, one.message) for one in error.problems]
    else:
        found = await CallAssets(host, caller).look(call)
        missing = found.missing
        not_there = await missing_files(host, call)
        problems = [_problem(one.name, one.message) for one in (*found.problems, *not_there)]
    may_address = calls.may_use_addresses(host, caller, entry)
    backends = [
        await _on_backend(host, entry, backend, catalog, inputs, may_address)
        for backend, catalog in host.catalog.nodes.items()
    ]
    fits = not backends or any(backend["ok"] for backend in backends)
    return {
        "valid": not problems and not missing and fits,
        "problems": problems,
        "backends": backends,
        "missing_assets": list(missing),
    }


def _inputs(document: Mapping[str, Any]) -> dict[str, object]:
    read_metadata(document.get("metadata"))
    read_priority(document.get("priority"))
    read_extra_data(document.get("extra_data"))
    read_id(document.get("id"))
    inputs, files = document.get("inputs") or {}, document.get("files") or []
    if not isinstance(inputs, dict):
        raise InvalidRequest("'inputs' has to be an object: the values by the inputs' names.")
    if not isinstance(files, list) or not all(isinstance(name, str) for name in files):
        raise InvalidRequest("'files' has to be a list of inputs' names.")
    return {**inputs, **dict.fromkeys(files, ToCome())}


async def _on_backend(
    host: Host,
    entry: Entry,
    backend: str,
    catalog: NodeCatalog,
    inputs: Mapping[str, object],
    may_address: bool,
) -> Document:
    """Whether one backend would run it, as far as its nodes tell."""
    try:
        workflow = await host.catalog.described(entry.name, backend)
        problems = await asyncio.to_thread(_misfits, workflow, catalog, inputs, may_address)
    except ComfyServeError as error:
        problems = [_misfit(Misfit("", None, "unreadable", str(error)))]
    return {
        "backend": backend_ids(host).get(backend, ""),
        "ok": not problems,
        "problems": problems,
    }


def _misfits(
    workflow: Workflow, catalog: NodeCatalog, inputs: Mapping[str, object], may_address: bool
) -> list[Document]:
    rng = random.SystemRandom()
    try:
        call: BoundCall = bind_call(workflow, inputs, may_address=may_address, rng=rng)
    except InvalidInputs as error:
        return _refused(workflow, catalog, inputs, error.problems)
    return [_misfit(one) for one in misfits_in(call.bound.graph, catalog)]


def _refused(
    workflow: Workflow,
    catalog: NodeCatalog,
    inputs: Mapping[str, object],
    problems: Sequence[InputProblem],
) -> list[Document]:
    """Inputs that do not fit there: what the backend lacks is told as such, with what is near."""
    workflow = workflow.described_by(catalog)
    named = {one.name: one for one in workflow.parameters if not isinstance(one, Media)}
    values = {
        target: value
        for name, value in inputs.items()
        if name in named and isinstance(value, str | int | float)
        for target in named[name].targets
        if target[0] in workflow.graph
    }
    misfits = misfits_in(with_inputs(workflow.graph, values), catalog)
    lacked = {(one.node, one.input): one for one in misfits if one.what in _LACKED}
    told = [
        _bad_value(problem)
        for problem in problems
        if problem.name not in named or lacked.keys().isdisjoint(named[problem.name].targets)
    ]
    return [*told, *(_misfit(one) for one in lacked.values())]


_LACKED: Final = ("unknown_node", "missing_model", "missing_choice")


def _bad_value(problem: InputProblem) -> Document:
    return {
        "node": None,
        "input": problem.name,
        "what": "bad_value",
        "message": problem.message,
        "nearest": [],
    }


def _misfit(misfit: Misfit) -> Document:
    return {
        "node": misfit.node or None,
        "input": misfit.input,
        "what": misfit.what,
        "message": misfit.message,
        "nearest": list(misfit.nearest),
    }


def _problem(name: str, message: str) -> Document:
    return {"input": name, "message": message}
