"""From a workflow file and a caller's inputs to a graph that one server can run."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from comfyserve.client.servers import Server
from comfyserve.client.uploads import as_upload, check_content
from comfyserve.errors import InputProblem, InvalidInputs
from comfyserve.workflows.graph import Graph
from comfyserve.workflows.node_catalog import NodeCatalog
from comfyserve.workflows.parameters import Media, Written
from comfyserve.workflows.workflow import Bound, Workflow

WorkflowSource = str | os.PathLike[str] | Workflow | Graph
"""A workflow file's path, a loaded workflow, or a graph."""

MOST_KEPT = 64
"""Workflow files that are kept in memory."""

_Stamp = tuple[int, int, int]


class Workflows:
    """Reads and binds workflows for a server; a file that did not change is read once."""

    def __init__(self) -> None:
        self._read: dict[str, tuple[_Stamp, Workflow]] = {}

    async def described(self, source: WorkflowSource, server: Server) -> Workflow:
        """The workflow, its parameters described by the server's nodes."""
        return await self._described(source, await server.node_catalog())

    async def bound(
        self,
        source: WorkflowSource,
        inputs: Mapping[str, Any],
        server: Server,
        rng: random.Random,
    ) -> Bound:
        """The graph with these inputs, checked against what the server has."""
        known = server.known_catalog
        if known is not None:
            try:
                return _bound(await self._described(source, known), inputs, rng)
            except InvalidInputs:
                # A model or a node may have come to the server since it was last asked.
                pass
        catalog = await server.node_catalog(refresh=known is not None)
        return _bound(await self._described(source, catalog), inputs, rng)

    async def _described(self, source: WorkflowSource, catalog: NodeCatalog | None) -> Workflow:
        match source:
            case Workflow():
                return _by(catalog, source)
            case Mapping():
                return Workflow.from_json(source, catalog=catalog)
            case _:
                return await self._from_file(os.fspath(source), catalog)

    async def _from_file(self, path: str, catalog: NodeCatalog | None) -> Workflow:
        stamp, known = _stamp(path), self._read.get(path)
        if stamp is not None and known is not None and known[0] == stamp:
            workflow = _by(catalog, known[1])
        else:
            workflow = _by(catalog, await asyncio.to_thread(Workflow.load, path))
        if stamp is not None:
            self._read.pop(path, None)
            self._read[path] = (stamp, workflow)
        if len(self._read) > MOST_KEPT:
            del self._read[next(iter(self._read))]
        return workflow


def _by(catalog: NodeCatalog | None, workflow: Workflow) -> Workflow:
    return workflow if catalog is None else workflow.described_by(catalog)


def _stamp(path: str) -> _Stamp | None:
    try:
        stat = os.stat(path)
    except (OSError, ValueError):
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _bound(workflow: Workflow, inputs: Mapping[str, Any], rng: random.Random) -> Bound:
    problems: list[InputProblem] = []
    values: dict[str, object] = {}
    for name, value in inputs.items():
        try:
            values[name] = _brought(workflow, name, value)
        except InvalidInputs as error:
            problems.extend(error.problems)
    if problems:
        raise InvalidInputs(problems)
    return workflow.bind(values, rng=rng)


def _brought(workflow: Workflow, name: str, value: Any) -> object:
    """The value of an input; what is given for a file becomes an upload."""
    parameter = workflow.find(name)
    if not isinstance(parameter, Media) or value is None or isinstance(value, Written):
        return value
    if isinstance(value, str) and _is_on_server(workflow, parameter, value):
        return value
    upload = as_upload(name, value)
    check_content(name, parameter.kind, upload)
    return upload


def _is_on_server(workflow: Workflow, parameter: Media, name: str) -> bool:
    """Whether *name* can only mean a file that the server has already."""
    if not name or Path(name).is_file():
        return False
    if name.endswith(("[input]", "[output]", "[temp]")):
        return True
    catalog = workflow.catalog or NodeCatalog()
    node_inputs = (
        catalog.input(workflow.graph[node_id]["class_type"], input_name)
        for node_id, input_name in parameter.targets
    )
    return any(name in (info.choices or ()) for info in node_inputs if info)
