"""`comfyserve inspect`: what a workflow takes and gives, and why we think so."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comfyserve.cli.input_table import inspection_lines, room
from comfyserve.cli.target import Known, Target, node_catalog_of, say
from comfyserve.cli.written_files import write_new
from comfyserve.comfy.needs import missing_nodes
from comfyserve.workflows.graph import nodes_of
from comfyserve.workflows.node_catalog import NodeCatalog
from comfyserve.workflows.parameters import Parameter
from comfyserve.workflows.sidecar_text import sidecar_text
from comfyserve.workflows.workflow import Workflow


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asked for."""

    file: Path
    target: Target
    as_json: bool = False
    write_sidecar: bool = False


async def inspect_workflow(options: Options) -> None:
    """Print what the workflow takes and gives; with *write_sidecar* write it down to be edited.

    Raises `BackendError` where a server was named that cannot be asked, and `OutputUnwritable`
    where there is a sidecar already.
    """
    workflow = await asyncio.to_thread(Workflow.load, options.file)
    known = await node_catalog_of(options.target)
    if known.catalog is not None:
        workflow = await asyncio.to_thread(workflow.described_by, known.catalog, strict=False)
    warnings = list(warnings_of(workflow, known.catalog))
    if options.as_json:
        print(json.dumps(inspection(workflow, known, warnings), indent=2))
    else:
        for line in inspection_lines(workflow, known, warnings, room()):
            print(line)
    if options.write_sidecar:
        sidecar = options.file.with_suffix(".toml")
        if_there = "it is there already; edit it, or move it away"
        text = sidecar_text(workflow, title=workflow.title, description=workflow.description)
        await asyncio.to_thread(write_new, sidecar, text, if_there=if_there)
        say(f"Wrote {sidecar}: edit what it says, and keep it beside {options.file.name}.")


def warnings_of(workflow: Workflow, catalog: NodeCatalog | None) -> Iterator[str]:
    """What could not be read, or followed, and the nodes that the server does not have."""
    yield from map(str, workflow.warnings)
    yield from workflow.notes
    if workflow.editor is None and catalog is not None:
        for lacking in missing_nodes(workflow.graph, catalog):
            yield f"{lacking.message} {lacking.advice}"


def inspection(workflow: Workflow, known: Known, warnings: list[str]) -> dict[str, Any]:
    """Everything that is told, as one JSON document."""
    nodes = nodes_of(workflow.graph)
    return {
        "name": workflow.name,
        "title": workflow.title,
        "description": workflow.description,
        "format": "api" if workflow.editor is None else "editor",
        "nodes_from": known.url if known.catalog else None,
        "convention": workflow.convention,
        "inputs": [_input(parameter) for parameter in workflow.parameters],
        "schema": workflow.json_schema(),
        "outputs": [
            {"node_id": node.id, "class_type": node.class_type, "title": node.title}
            for node in map(nodes.__getitem__, workflow.outputs)
        ],
        "warnings": warnings,
    }


def _input(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "type": parameter.kind,
        "label": parameter.label,
        "description": parameter.description,
        "default": parameter.default,
        "fills": [".".join(target) for target in parameter.targets],
        "why": parameter.why,
        "advanced": parameter.advanced,
    }
