"""The command `comfyserve` and what belongs to it."""

from __future__ import annotations

from typing import Annotated

import typer

from comfyserve import __version__
from comfyserve.cli.backend_commands import backends
from comfyserve.cli.key_commands import keys
from comfyserve.cli.server_commands import (
    cancel,
    demo,
    engine,
    jobs,
    publish,
    serve,
    withdraw,
    workflows,
)
from comfyserve.cli.workflow_commands import convert, doctor, inspect, run

app = typer.Typer(
    name="comfyserve",
    help="Run ComfyUI workflows: a workflow file and your inputs in, pictures out.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help: rich would double the time it takes to show
    pretty_exceptions_enable=False,
)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"comfyserve {__version__}")
        raise typer.Exit


@app.callback()
def comfyserve(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Run ComfyUI workflows: a workflow file and your inputs in, pictures out."""


for command in (
    *(run, inspect, convert, doctor, jobs, cancel),
    *(workflows, publish, withdraw, serve, engine, demo),
):
    app.command()(command)

app.add_typer(backends)
app.add_typer(keys)
