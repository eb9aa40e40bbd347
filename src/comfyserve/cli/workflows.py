"""`comfyserve workflows`, `publish` and `withdraw`: what a server hosts by name."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import typer

from comfyserve.catalog.names import name_of
from comfyserve.cli.exit_codes import FAILED
from comfyserve.cli.input_table import room
from comfyserve.cli.progress_words import printable
from comfyserve.cli.schema_inputs import parameters_of
from comfyserve.cli.target import Target, say
from comfyserve.cli.workflow_table import warnings_of, workflow_detail_lines, workflow_lines
from comfyserve.client.api import Api
from comfyserve.client.hosted import Hosted
from comfyserve.client.hosted_workflows import to_publish
from comfyserve.client.servers import open_server
from comfyserve.comfy.http import Timeouts
from comfyserve.errors import NoComfyserve, RequestRefused
from comfyserve.refusals import WorkflowInFolder, WorkflowNotFound


async def show_workflows(target: Target, name: str | None, *, as_json: bool) -> None:
    """Print what the server hosts, or what one of its workflows takes and gives."""
    async with _api(target) as api:
        if name is None:
            _show_all(api, await api.workflows(), as_json=as_json)
        else:
            _show_one(api, await api.hosted_workflow(name), as_json=as_json)


async def publish_workflow(target: Target, file: Path, name: str | None) -> None:
    """Host a file, with the sidecar beside it, under *name* or a name made of the file's."""
    name = name_of(file.stem) if name is None else name
    upload, sidecar = await asyncio.to_thread(to_publish, name, file, None)
    async with _api(target) as api:
        document = await api.publish(name, upload, sidecar)
        with api.reading("what was published"):
            lines = _told(document)
    print(api.hosted_url(name), flush=True)
    if sidecar is not None:
        say(printable(f"Its sidecar {file.with_suffix('.toml').name} went along."))
    for line in lines:
        say(printable(line))


async def withdraw_workflows(target: Target, names: Sequence[str]) -> None:
    """Host these no longer; ends with `typer.Exit` 1 where one is not there, or stays."""
    does_any_stay = False
    async with _api(target) as api:
        for name in dict.fromkeys(names):
            try:
                await api.withdraw(name)
                print(printable(f"{name} withdrawn"), flush=True)
            except WorkflowNotFound as error:
                does_any_stay = True
                say(printable(str(error)))
            except RequestRefused as error:
                if error.refusal != WorkflowInFolder.code:
                    raise
                does_any_stay = True
                say(printable(str(error)))
    if does_any_stay:
        raise typer.Exit(FAILED)


@asynccontextmanager
async def _api(target: Target) -> AsyncIterator[Api]:
    async with open_server(target.address(Timeouts()), expected="comfyserve") as server:
        if not isinstance(server, Hosted) or server.api.is_official:
            raise NoComfyserve(server.url, "hosts no workflows by name")
        yield server.api


def _show_all(api: Api, document: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(document, indent=2))
        return
    with api.reading("GET /api/workflows"):
        lines = list(workflow_lines(document["workflows"]))
        of_folder = [str(one["message"]) for one in document["problems"] if one["name"] is None]
    if len(lines) > 1:
        for line in lines:
            print(line)
    else:
        say("No workflows.")
    for problem in of_folder:
        say(printable(problem))


def _show_one(api: Api, document: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(document, indent=2))
        return
    with api.reading("the question for the workflow"):
        lines = list(workflow_detail_lines(document, room()))
    for line in lines:
        print(line)


def _told(document: Mapping[str, Any]) -> list[str]:
    """What a published workflow takes and gives, and what is wrong with it."""
    inputs = [f"{one.name} ({one.kind})" for one in parameters_of(document["inputs"])]
    outputs = [f"{one['node_id']} ({one['class_type']})" for one in document["outputs"]]
    return [
        f"It takes {', '.join(inputs) or 'no inputs'}.",
        f"It gives {', '.join(outputs) or 'nothing that could be saved'}.",
        *(f"Warning: {warning}" for warning in warnings_of(document)),
    ]
