"""`comfyserve run`: one workflow, once, on one server."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from comfyserve.cli.assignments import Assignments
from comfyserve.cli.inputs import inputs_for
from comfyserve.cli.report import JsonReport, PathReport, Report
from comfyserve.client.async_client import AsyncClient, cancel_quickly, may_go_on
from comfyserve.client.job_handle import AsyncJobHandle, FinishedJob
from comfyserve.client.workflow_inputs import WorkflowSource
from comfyserve.errors import ComfyServeError, JobTimedOut, OutputUnwritable
from comfyserve.workflows.paths import written_path

ENDS_WITHIN = 1.0
"""Seconds to wait for a canceled job's end; a node may take longer to notice."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asked for."""

    file: Path
    assignments: Assignments
    server: str | None = None
    headers: Mapping[str, str] | None = None
    token: str | None = None
    verify_tls: bool = True
    output_dir: Path = Path("output")
    keep_temp: bool = False
    as_json: bool = False
    quiet: bool = False
    dry_run: bool = False


async def run_workflow(options: Options) -> None:
    """Run the workflow, or with *dry_run* only print the graph that would run."""
    report = JsonReport() if options.as_json else PathReport(quiet=options.quiet)
    try:
        async with _client(options) as client:
            workflow = await client.describe(options.file)
            inputs = inputs_for(workflow, options.assignments)
            if options.dry_run:
                await print_graph(client, workflow, inputs)
            else:
                await run_job(client, workflow, inputs, report, keep_temp=options.keep_temp)
    except ComfyServeError as error:
        report.failed(error)
        raise


def _client(options: Options) -> AsyncClient:
    return AsyncClient(
        options.server,
        headers=options.headers,
        token=options.token,
        verify_tls=options.verify_tls,
        output_dir=options.output_dir,
    )


async def run_job(
    client: AsyncClient,
    workflow: WorkflowSource,
    inputs: Mapping[str, Any],
    report: Report,
    *,
    keep_temp: bool = False,
) -> FinishedJob:
    """Run one job under the eyes of *report*; leaving it early cancels it on the server first."""
    try:
        handle = await client.submit(workflow, inputs, keep_temp=keep_temp)
    except OutputUnwritable as error:
        report.failed(error)
        why = f"{error.path} cannot be used: {error.reason}."
        raise typer.BadParameter(why, param_hint="-o") from error
    try:
        with report.watching(handle) as show:
            async for event in handle.events():
                show(event)
        job = await handle.result()
    except ComfyServeError:  # the job ended, and this is how
        raise
    except BaseException:  # nobody will take what it makes, whatever the reason
        await _cancel(client, handle, report)
        raise
    report.done(job)
    return job


async def _cancel(client: AsyncClient, handle: AsyncJobHandle, report: Report) -> None:
    _say(f"canceling job {handle.id}")
    if await cancel_quickly(handle):
        with suppress(JobTimedOut):
            await handle.wait(ENDS_WITHIN)
    else:
        _say(may_go_on(handle.id, client.server))
    report.interrupted(handle)


async def print_graph(
    client: AsyncClient, workflow: WorkflowSource, inputs: Mapping[str, Any]
) -> None:
    """Print the graph that these inputs make."""
    bound = await client.bind(workflow, inputs)
    for file in bound.files:
        places = ", ".join(written_path(target) for target in file.targets)
        _say(f"{places}: {file.upload.name} would be uploaded first, under a name of its own.")
    print(json.dumps(bound.graph, indent=2))


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
