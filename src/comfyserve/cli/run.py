"""`comfyserve run`: one workflow, once, on one server."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comfyserve.cli.assignments import Assignments
from comfyserve.cli.inputs import inputs_for
from comfyserve.cli.report import JsonReport, PathReport, Report
from comfyserve.client.async_client import AsyncClient, cancel_quickly
from comfyserve.client.job_handle import AsyncJobHandle, FinishedJob
from comfyserve.client.workflow_inputs import WorkflowSource
from comfyserve.errors import ComfyServeError, JobTimedOut

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
    async with AsyncClient(
        options.server,
        headers=options.headers,
        token=options.token,
        verify_tls=options.verify_tls,
        output_dir=options.output_dir,
    ) as client:
        try:
            workflow = await client.describe(options.file)
            inputs = inputs_for(workflow, options.assignments)
            if options.dry_run:
                await print_graph(client, workflow, inputs)
            else:
                await run_job(client, workflow, inputs, report, keep_temp=options.keep_temp)
        except ComfyServeError as error:
            report.failed(error)
            raise


async def run_job(
    client: AsyncClient,
    workflow: WorkflowSource,
    inputs: Mapping[str, Any],
    report: Report,
    *,
    keep_temp: bool = False,
) -> FinishedJob:
    """Run one job under the eyes of *report*; being canceled cancels it on the server first."""
    handle = await client.submit(workflow, inputs, keep_temp=keep_temp)
    try:
        with report.watching(handle) as show:
            async for event in handle.events():
                show(event)
        job = await handle.result()
    except asyncio.CancelledError:
        await _cancel(handle, report)
        raise
    report.done(job)
    return job


async def _cancel(handle: AsyncJobHandle, report: Report) -> None:
    _say(f"canceling job {handle.id}")
    if await cancel_quickly(handle):
        with suppress(JobTimedOut):
            await handle.wait(ENDS_WITHIN)
    else:
        _say("the server did not answer; the job may go on there")
    report.interrupted(handle)


async def print_graph(
    client: AsyncClient, workflow: WorkflowSource, inputs: Mapping[str, Any]
) -> None:
    """Print the graph that these inputs make."""
    bound = await client.bind(workflow, inputs)
    print(json.dumps(bound.graph, indent=2))


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
