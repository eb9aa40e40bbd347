"""`comfyserve convert`: any workflow file, made the API format that servers run."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path

from comfyserve.cli.target import Target, node_catalog_of, say
from comfyserve.cli.written_files import write_new
from comfyserve.workflows.graph import Graph
from comfyserve.workflows.workflow import Workflow

STDOUT = Path("-")


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asked for."""

    file: Path
    target: Target
    output: Path = STDOUT
    force: bool = False


async def convert_workflow(options: Options) -> None:
    """Write the workflow's graph; what could not be read of it is said on stderr.

    Raises `BackendError` where a server's nodes are needed and there is none.
    """
    workflow = await asyncio.to_thread(Workflow.load, options.file)
    if workflow.editor is not None:
        workflow = await _named(workflow, options)
    if options.output == STDOUT:
        print(json.dumps(workflow.graph, indent=2))  # a console may not have every letter
    else:
        text = _readable(workflow.graph)
        await asyncio.to_thread(
            write_new,
            options.output,
            f"{text}\n",
            replace=options.force,
            if_there="it is there already; --force replaces it",
        )
        say(f"{options.output}: {len(workflow.graph)} nodes in API format.")


def _readable(graph: Graph) -> str:
    """The graph as people like to read it, where its letters can be written at all."""
    text = json.dumps(graph, indent=2, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(graph, indent=2)
    return text


async def _named(workflow: Workflow, options: Options) -> Workflow:
    """The workflow with its values called as the server's nodes call them."""
    known = await node_catalog_of(options.target)
    if known.catalog is None:
        say(f"{options.file} is in the editor's format, which saves values without their names:")
        say("converting it takes a ComfyUI that has its nodes.")
        assert known.trouble is not None
        raise known.trouble
    read = await asyncio.to_thread(workflow.described_by, known.catalog, strict=False)
    for finding in read.warnings:
        say(f"warning: {finding}")
    return read
