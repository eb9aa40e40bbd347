"""A path of its own for each workflow, with the types of its inputs, for the OpenAPI document."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from comfyserve.catalog import Catalog, Entry
from comfyserve.catalog.documents import inputs_schema
from comfyserve.workflows.node_catalog import NodeCatalog
from comfyserve.workflows.parameters import Media, Parameter
from comfyserve.workflows.workflow import Workflow

Document = dict[str, Any]

CALL_PATH: Final = "/api/workflows/{name}/jobs"
"""Where any workflow is called; the paths of each are made after it."""

_MOST_KEPT: Final = 8
"""Documents that are kept as they were told: of as many groups of callers."""

CALL: Final = "WorkflowCall"
"""The schema of what is sent there."""


@dataclass(frozen=True, slots=True)
class _Described:
    """A workflow with the nodes that it was described by, and what came of it."""

    read: Workflow
    nodes: NodeCatalog | None
    workflow: Workflow


class TypedPaths:
    """The paths of all workflows; what did not change is not worked out again."""

    def __init__(self) -> None:
        self._described: dict[str, _Described] = {}
        self._kept: dict[Hashable, bytes] = {}
        self._turn = asyncio.Lock()

    async def kept(self, key: Hashable, make: Callable[[], bytes]) -> bytes:
        """What was made under this key, or else is *made* now, beside the event loop."""
        async with self._turn:
            if (content := self._kept.get(key)) is None:
                content = await asyncio.to_thread(make)
                if len(self._kept) >= _MOST_KEPT:
                    del self._kept[next(iter(self._kept))]
                self._kept[key] = content
        return content

    async def describe(self, catalog: Catalog) -> int:
        """Work out what changed since the last time; which revision of the catalogue that is."""
        async with self._turn:
            revision = catalog.revision
            await self._describe(catalog)
            return revision

    async def _describe(self, catalog: Catalog) -> None:
        entries = {entry.name: entry for entry in catalog.entries()}
        self._described = {
            name: one for name, one in self._described.items() if _is_still(one, entries, catalog)
        }
        for name, entry in entries.items():
            # It may go while we wait for others; then it has no path.
            if entry.workflow is None or name in self._described or name not in catalog:
                continue
            nodes = catalog.nodes_for(name)
            workflow = await catalog.described(name)
            self._described[name] = _Described(entry.workflow, nodes, workflow)

    def added_to(self, document: Document, names: Iterable[str]) -> Document:
        """The *document* with a path for each of the workflows with these *names*."""
        described = self._described
        pattern, call = (
            document["paths"][CALL_PATH]["post"],
            document["components"]["schemas"][CALL],
        )
        paths: Document = {}
        ids: set[str] = set()
        for name in names:
            if (one := described.get(name)) is not None:
                path = CALL_PATH.replace("{name}", quote(name, safe=""))
                paths[path] = {"post": _operation(pattern, call, one.workflow, _id(name, ids))}
        return document | {"paths": document["paths"] | paths}


def _is_still(one: _Described, entries: Mapping[str, Entry], catalog: Catalog) -> bool:
    name = one.read.name
    entry = entries.get(name)
    return entry is not None and entry.workflow is one.read and catalog.nodes_for(name) is one.nodes


def _operation(pattern: Document, call: Document, workflow: Workflow, id: str) -> Document:
    """The call of any workflow, made that of one; *call* is the schema of what is sent."""
    title = workflow.title or workflow.name
    about = workflow.description or f"Run the workflow {workflow.name}."
    return pattern | {
        "operationId": f"run_{id}",
        "summary": title,
        "description": about,
        "tags": ["workflows on offer"],
        "parameters": [one for one in pattern.get("parameters", ()) if one["in"] != "path"],
        "requestBody": {"required": True, "content": _bodies(call, workflow, title)},
    }


def _bodies(call: Document, workflow: Workflow, title: str) -> Document:
    """What is sent as JSON, and what in a form."""
    inputs = inputs_schema(workflow) | {"title": title}
    named: Document = inputs["properties"]
    fields = {one.name: _form_field(one, named[one.name]) for one in workflow.parameters}
    besides = {name: call["properties"][name] for name in _IN_FORMS} | {"inputs": inputs}
    form = {"type": "object", "title": title, "properties": fields | besides}
    body = call | {"title": title, "properties": call["properties"] | {"inputs": inputs}}
    return {"application/json": {"schema": body}, "multipart/form-data": {"schema": form}}


def _form_field(parameter: Parameter, schema: Document) -> Document:
    """An input as the field of a form, where a file comes as itself."""
    if not isinstance(parameter, Media):
        return schema
    told: Document = {
        name: schema[name] for name in ("title", "description", "x-kind") if name in schema
    }
    return {"type": "string", "format": "binary", **told}


_IN_FORMS: Final = ("metadata", "priority", "extra_data", "id")
"""What a form may say besides the inputs; an input of such a name stands in ``inputs``."""

_NOT_IDS: Final = re.compile(r"[^A-Za-z0-9_]+")


def _id(name: str, taken: set[str]) -> str:
    """What tells the operation from all others, in letters that programs can be made of."""
    plain = _NOT_IDS.sub("_", name).strip("_") or "workflow"
    found, number = plain, 2
    while found in taken:
        found, number = f"{plain}_{number}", number + 1
    taken.add(found)
    return found
