"""`comfyserve run`: one workflow, once, on one server; a file here, or one hosted there."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from comfyserve.cli.assignments import Assignments
from comfyserve.cli.exit_codes import FAILED
from comfyserve.cli.inputs import inputs_for
from comfyserve.cli.report import JsonReport, PathReport, Report
from comfyserve.cli.schema_inputs import typed_inputs
from comfyserve.cli.workflow_names import hosted_under
from comfyserve.client.async_client import AsyncClient, cancel_quickly, may_go_on
from comfyserve.client.job_handle import AsyncJobHandle, FinishedJob
from comfyserve.client.workflow_inputs import WorkflowSource
from comfyserve.errors import ComfyServeError, JobTimedOut, OutputUnwritable
from comfyserve.workflows.paths import written_path

if TYPE_CHECKING:
    from comfyserve.client.hosted_workflows import AsyncHostedWorkflow

ENDS_WITHIN = 1.0
"""Seconds to wait for a canceled job's end; a node may take longer to notice."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asked for; *workflow* is a file's path, or a hosted one's name."""

    workflow: str
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
    """Run the workflow, or with *dry_run* only print what would run, or come of the call."""
    report = JsonReport() if options.as_json else PathReport(quiet=options.quiet)
    try:
        async with _client(options) as client:
            if (hosted := await hosted_under(client, options.workflow)) is None:
                await _run_file(client, Path(options.workflow), options, report)
            else:
                await _run_hosted(client, *hosted, options, report)
    except ComfyServeError as error:
        report.failed(error)
        raise


async def _run_file(client: AsyncClient, file: Path, options: Options, report: Report) -> None:
    workflow = await client.describe(file)
    inputs = inputs_for(workflow, options.assignments)
    if options.dry_run:
        await print_graph(client, workflow, inputs)
    else:
        submitting = client.submit(workflow, inputs, keep_temp=options.keep_temp)
        await run_job(client, submitting, report)


async def _run_hosted(
    client: AsyncClient,
    workflow: AsyncHostedWorkflow,
    schema: Mapping[str, Any],
    options: Options,
    report: Report,
) -> None:
    inputs = typed_inputs(schema, options.assignments)
    if options.dry_run:
        await print_validity(workflow, inputs)
    else:
        submitting = workflow.submit(inputs, keep_temp=options.keep_temp)
        await run_job(client, submitting, report)


def _client(options: Options) -> AsyncClient:
    return AsyncClient(
        options.server,
        headers=options.headers,
        token=options.token,
        verify_tls=options.verify_tls,
        output_dir=options.output_dir,
    )


async def run_job(
    client: AsyncClient, submitting: Awaitable[AsyncJobHandle], report: Report
) -> FinishedJob:
    """Run one job under the eyes of *report*; leaving it early cancels it on the server first."""
    try:
        handle = await submitting
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


async def print_validity(workflow: AsyncHostedWorkflow, inputs: Mapping[str, Any]) -> None:
    """Print what would come of a call; ends with `typer.Exit` 1 where it would not be taken."""
    document = await workflow.validate(inputs)
    print(json.dumps(document, indent=2), flush=True)
    if not document.get("valid"):
        raise typer.Exit(FAILED)


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
