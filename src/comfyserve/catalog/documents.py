"""The workflows on offer as the JSON documents that callers see."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from comfyserve.catalog.drift import Drift
from comfyserve.catalog.entry import Entry
from comfyserve.catalog.own_files import files_nowhere
from comfyserve.workflows.graph import nodes_of
from comfyserve.workflows.parameters import Media, Parameter
from comfyserve.workflows.workflow import Workflow

Document = dict[str, Any]

Named = Callable[[str], str]
"""What callers may know a backend by."""

_FIRST_WORDS: Final = 300
"""The letters of a description that a list shows."""


def workflow_item(
    entry: Entry,
    drift: Sequence[Drift] = (),
    *,
    thumbnail_url: str | None = None,
    named: Named = str,
) -> Document:
    """One workflow in a list of them.

    *thumbnail_url* is where its picture can be had; it is told only if there is one. *named* gives
    the names of backends.
    """
    workflow = entry.workflow
    sidecar = workflow.source.sidecar if workflow else None
    return {
        "name": entry.name,
        "title": (workflow.title if workflow else "") or entry.name,
        "description": _shortened(workflow.description if workflow else ""),
        "source": entry.source,
        "available": workflow is not None,
        "public": sidecar is not None and sidecar.public,
        "version": entry.version,
        "changed_at": _moment(entry.changed_at),
        "problem": entry.problem,
        "drifted": sorted({named(one.backend) for one in drift}),
        "thumbnail_url": None if entry.thumbnail is None else thumbnail_url,
    }


def workflow_detail(
    entry: Entry,
    workflow: Workflow | None = None,
    drift: Sequence[Drift] = (),
    *,
    thumbnail_url: str | None = None,
    named: Named = str,
) -> Document:
    """All that a caller has to know of one workflow.

    *workflow* is the entry's, described by the nodes of a backend (`Catalog.described`). *inputs*
    is the JSON Schema of an object, in the order of forms; *basic* and *advanced* are the names
    of its properties, so that a form can fold the second away.
    """
    workflow = workflow or entry.workflow
    item = workflow_item(entry, drift, thumbnail_url=thumbnail_url, named=named)
    parameters = workflow.parameters if workflow else ()
    sidecar = workflow.source.sidecar if workflow else None
    return item | {
        "description": workflow.description if workflow else "",
        "open": sidecar is not None and sidecar.open,
        "timeout": sidecar.timeout if sidecar else None,
        "format": workflow and ("api" if workflow.editor is None else "editor"),
        "convention": workflow and workflow.convention,
        "is_described": workflow is not None and workflow.catalog is not None,
        "inputs": inputs_schema(workflow) if workflow else _NO_INPUTS,
        "basic": [parameter.name for parameter in parameters if not parameter.advanced],
        "advanced": [parameter.name for parameter in parameters if parameter.advanced],
        "outputs": _outputs(workflow) if workflow else [],
        "warnings": [*entry.warnings, *(_warnings(workflow) if workflow else ())],
        "drift": [drift_document(one, named) for one in drift],
    }


def drift_document(drift: Drift, named: Named = str) -> Document:
    """Where a workflow no longer fits a backend."""
    return {
        "workflow": drift.workflow,
        "backend": named(drift.backend),
        "node": drift.node or None,
        "input": drift.input,
        "what": drift.what,
        "message": drift.message,
        "nearest": list(drift.nearest),
    }


def inputs_schema(workflow: Workflow) -> Document:
    """What a call takes, as the JSON Schema of an object.

    A file is required where the backend that the workflow is described by does not have its own.
    """
    properties = {parameter.name: _property(parameter) for parameter in workflow.parameters}
    schema = _NO_INPUTS | {"properties": properties}
    known = () if workflow.catalog is None else (workflow.catalog,)
    required = [one.name for one, _ in files_nowhere(workflow.parameters, workflow.graph, known)]
    for name in required:
        properties[name].pop("default", None)
    return schema | ({"required": required} if required else {})


_NO_INPUTS: Final[Document] = {"type": "object", "properties": {}, "additionalProperties": False}


def _property(parameter: Parameter) -> Document:
    schema = parameter.json_schema() | {"x-kind": parameter.kind}
    if isinstance(parameter, Media):
        # In JSON a file is named; as itself it comes in a form.
        del schema["format"]
        schema["type"] = ["string", "object"]
        schema["anyOf"] = list(_FILE_FORMS)
    if not _is_json(schema.get("default")):
        del schema["default"]
    return schema | ({"x-advanced": True} if parameter.advanced else {})


_FILE_FORMS: Final[Sequence[Document]] = (
    {
        "type": "string",
        "description": "An asset's id, a `data:` URI, or an http(s) address.",
        "examples": ["https://example.org/cat.png"],
    },
    {
        "type": "object",
        "title": "An asset",
        "properties": {"asset_id": {"type": "string", "format": "uuid"}},
        "required": ["asset_id"],
        "additionalProperties": False,
    },
    {
        "type": "object",
        "title": "An output of a job",
        "description": "Its first of the right kind, if nothing else is said.",
        "properties": {
            "job_id": {"type": "string", "format": "uuid"},
            "node_id": {"type": ["string", "integer"]},
            "index": {"type": "integer", "minimum": 0, "default": 0},
        },
        "required": ["job_id"],
        "additionalProperties": False,
    },
    {
        "type": "object",
        "title": "An asset, as the official API refers to it",
        "properties": {"__type": {"const": "core/ASSET"}, "info": {"type": "object"}},
        "required": ["__type", "info"],
    },
)
"""How a file is named in JSON."""


def _is_json(value: object) -> bool:
    """Whether JSON can hold it: pictures carry graphs with NaN and Infinity in them."""
    match value:
        case float():
            return math.isfinite(value)
        case dict():
            return all(map(_is_json, value.values()))
        case list() | tuple():
            return all(map(_is_json, value))
        case _:
            return True


def _outputs(workflow: Workflow) -> list[Document]:
    nodes = nodes_of(workflow.graph)
    found = [nodes[node_id] for node_id in workflow.outputs if node_id in nodes]
    return [
        {"node_id": node.id, "class_type": node.class_type, "title": node.title} for node in found
    ]


def _warnings(workflow: Workflow) -> list[str]:
    return [*map(str, workflow.warnings), *workflow.notes]


def _shortened(text: str) -> str:
    return text if len(text) <= _FIRST_WORDS else f"{text[: _FIRST_WORDS - 2].rstrip()}.."


def _moment(seconds: float) -> str:
    """A time as ISO 8601 in UTC, to the millisecond; files may claim the oddest ones."""
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        moment = datetime.fromtimestamp(0, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
