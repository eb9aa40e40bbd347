"""`comfyserve jobs` and `comfyserve cancel`: the jobs that a server keeps."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import typer

from comfyserve.cli.exit_codes import FAILED
from comfyserve.cli.job_table import detail_lines, job_lines
from comfyserve.cli.progress_words import printable
from comfyserve.cli.target import Target, say
from comfyserve.client.api import Api
from comfyserve.client.hosted import Hosted
from comfyserve.client.servers import Server, open_server
from comfyserve.comfy.http import Timeouts
from comfyserve.errors import NoComfyserve
from comfyserve.refusals import NotFound

_LARGEST_PAGE: Final = 100


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asked for."""

    target: Target
    job_id: str | None = None
    statuses: tuple[str, ...] = ()
    labels: Mapping[str, str] | None = None
    limit: int = 20
    as_json: bool = False


async def show_jobs(options: Options) -> None:
    """Print the server's jobs, the newest first, or all about one of them."""
    async with _server(options.target) as server:
        if not isinstance(server, Hosted):
            raise NoComfyserve(options.target.url, "keeps no list of jobs")
        if options.job_id is not None:
            _show_one(server.api, await server.api.job(options.job_id), options)
        else:
            await _show_all(server.api, options)


async def cancel_jobs(target: Target, job_ids: Sequence[str]) -> None:
    """Cancel these jobs and no others; ends with `typer.Exit` 1 where one is not there."""
    is_any_missing = False
    async with _server(target) as server:
        for job_id in dict.fromkeys(job_ids):
            try:
                print(f"{job_id} {await _canceled(server, job_id)}", flush=True)
            except NotFound as error:
                is_any_missing = True
                say(printable(str(error)))
    if is_any_missing:
        raise typer.Exit(FAILED)


async def _canceled(server: Server, job_id: str) -> str:
    """Cancel a job; how it stands then, as far as the server tells it."""
    if isinstance(server, Hosted):
        return str((await server.api.cancel(job_id)).get("status"))
    await server.cancel(job_id)
    return "canceling"


@asynccontextmanager
async def _server(target: Target) -> AsyncIterator[Server]:
    async with open_server(target.address(Timeouts()), expected="comfyserve") as server:
        yield server


def _show_one(api: Api, job: Mapping[str, Any], options: Options) -> None:
    if options.as_json:
        print(json.dumps(job, indent=2))
        return
    with api.reading("the question for the job"):
        lines = list(detail_lines(job, datetime.now(UTC)))
    for line in lines:
        print(line)


async def _show_all(api: Api, options: Options) -> None:
    jobs, has_more = await _listed(api, options)
    if options.as_json:
        print(json.dumps({"jobs": jobs, "truncated": has_more}, indent=2))
        return
    if not jobs:
        say("No jobs.")
        return
    with api.reading("the question for the jobs"):
        lines = list(job_lines(jobs, datetime.now(UTC)))
    for line in lines:
        print(line)
    if has_more:
        say(f"These are the newest {len(jobs)}; --limit shows more.")


async def _listed(api: Api, options: Options) -> tuple[list[Mapping[str, Any]], bool]:
    """The newest jobs that fit, at most as many as were asked for; and whether there are more."""
    query = {f"metadata[{label}]": value for label, value in (options.labels or {}).items()}
    if options.statuses:
        query["status"] = ",".join(options.statuses)
    jobs: list[Mapping[str, Any]] = []
    while True:
        query["limit"] = str(min(_LARGEST_PAGE, options.limit - len(jobs)))
        page = await api.jobs(**query)
        with api.reading("the question for the jobs"):
            jobs += page["jobs"]
            cursor = page.get("next_cursor") or None
        if cursor is None or cursor == query.get("cursor") or len(jobs) >= options.limit:
            return jobs[: options.limit], cursor is not None
        query["cursor"] = str(cursor)
