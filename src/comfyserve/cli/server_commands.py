"""The commands about servers and their jobs; what they do is imported once it is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from comfyserve.cli.options import Comfyserve, Header, InsecureTls, Token


def jobs(
    job: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="Only this job, and all about it.")
    ] = None,
    status: Annotated[
        list[str] | None,
        typer.Option("--status", help="Only jobs with this status; repeatable."),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(
            "--label", metavar="NAME=VALUE", help="Only jobs with this label; repeatable."
        ),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="The most jobs to show.")] = 20,
    server: Comfyserve = None,
    header: Header = None,
    token: Token = None,
    insecure_tls: InsecureTls = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """List the jobs that a comfyserve keeps, the newest first.

    Exit codes: 0 done, 1 no such job, 2 usage, 3 no comfyserve answers.
    """
    from comfyserve.cli.assignments import headers_from, labels_from
    from comfyserve.cli.exit_codes import exit_code_of
    from comfyserve.cli.jobs import Options, show_jobs
    from comfyserve.cli.target import COMFYSERVE, Target

    target = Target(server, headers_from(header or ()), token, not insecure_tls, COMFYSERVE)
    labels = labels_from(label or ())
    options = Options(target, job, tuple(status or ()), labels, limit, as_json)
    raise typer.Exit(exit_code_of(show_jobs(options)))


def cancel(
    job: Annotated[list[str], typer.Argument(metavar="ID...", help="The jobs to cancel.")],
    server: Comfyserve = None,
    header: Header = None,
    token: Token = None,
    insecure_tls: InsecureTls = False,
) -> None:
    """Cancel jobs, waiting or running, and no others.

    Prints each id with the status it has then. Exit codes: 0 done, 1 no such job, 2 usage,
    3 nobody answers.
    """
    from comfyserve.cli.assignments import headers_from
    from comfyserve.cli.exit_codes import exit_code_of
    from comfyserve.cli.jobs import cancel_jobs
    from comfyserve.cli.target import COMFYSERVE, Target

    target = Target(server, headers_from(header or ()), token, not insecure_tls, COMFYSERVE)
    raise typer.Exit(exit_code_of(cancel_jobs(target, job)))


def workflows(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="Only this workflow: what it takes and gives."),
    ] = None,
    server: Comfyserve = None,
    header: Header = None,
    token: Token = None,
    insecure_tls: InsecureTls = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """List the workflows that a comfyserve hosts by name.

    Exit codes: 0 done, 1 no such workflow, 2 usage, 3 no comfyserve answers.
    """
    from comfyserve.cli.assignments import headers_from
    from comfyserve.cli.exit_codes import exit_code_of
    from comfyserve.cli.target import COMFYSERVE, Target
    from comfyserve.cli.workflows import show_workflows

    target = Target(server, headers_from(header or ()), token, not insecure_tls, COMFYSERVE)
    raise typer.Exit(exit_code_of(show_workflows(target, name, as_json=as_json)))


def publish(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The workflow: any file that ComfyUI saved.")
    ],
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="What to call it; else as the file is called."),
    ] = None,
    server: Comfyserve = None,
    header: Header = None,
    token: Token = None,
    insecure_tls: InsecureTls = False,
) -> None:
    """Host a workflow on a comfyserve, or another version of it.

    The sidecar beside FILE goes along. Prints the workflow's address. Exit codes: 0 done,
    1 refused, 2 usage or no workflow, 3 no comfyserve answers.
    """
    from comfyserve.cli.assignments import headers_from
    from comfyserve.cli.exit_codes import exit_code_of
    from comfyserve.cli.target import COMFYSERVE, Target
    from comfyserve.cli.workflows import publish_workflow

    target = Target(server, headers_from(header or ()), token, not insecure_tls, COMFYSERVE)
    raise typer.Exit(exit_code_of(publish_workflow(target, file, name)))


def withdraw(
    name: Annotated[list[str], typer.Argument(metavar="NAME...", help="The workflows.")],
    server: Comfyserve = None,
    header: Header = None,
    token: Token = None,
    insecure_tls: InsecureTls = False,
) -> None:
    """Host published workflows no longer; their jobs go on.

    Exit codes: 0 done, 1 not there or a file of the server's folder, 2 usage, 3 no comfyserve
    answers.
    """
    from comfyserve.cli.assignments import headers_from
    from comfyserve.cli.exit_codes import exit_code_of
    from comfyserve.cli.target import COMFYSERVE, Target
    from comfyserve.cli.workflows import withdraw_workflows

    target = Target(server, headers_from(header or ()), token, not insecure_tls, COMFYSERVE)
    raise typer.Exit(exit_code_of(withdraw_workflows(target, name)))


def serve(
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FOLDER]",
            help="Workflow files to serve by their names: any that ComfyUI saved.",
        ),
    ] = None,
    backend: Annotated[
        list[str] | None,
        typer.Option(
            "--backend",
            "-b",
            metavar="URL",
            help="A ComfyUI to run jobs on; repeatable. Without one the ComfyUI at "
            "http://127.0.0.1:8188 is taken, else the built-in engine starts.",
        ),
    ] = None,
    host: Annotated[
        str | None, typer.Option("--host", help="The address to listen on; else 127.0.0.1.")
    ] = None,
    port: Annotated[
        int | None, typer.Option("--port", help="The port; else 8189, and 0 takes a free one.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", metavar="DIR", help="Keeps jobs, assets and all else; else .comfyserve."
        ),
    ] = None,
    public_url: Annotated[
        str | None,
        typer.Option("--public-url", metavar="URL", help="The address that callers know it by."),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-origin", metavar="ORIGIN", help="A site whose pages may use it; repeatable."
        ),
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option("--insecure", help="Listen where others reach it, without asking for keys."),
    ] = False,
    grace: Annotated[
        str | None,
        typer.Option(
            "--grace", metavar="TIME", help="How long running jobs may take to end; else 30s."
        ),
    ] = None,
    log_level: Annotated[
        str | None,
        typer.Option(
            "--log-level", metavar="LEVEL", help="debug, info, warning or error; else info."
        ),
    ] = None,
    log_json: Annotated[
        bool, typer.Option("--log-json", help="Write the log as JSON, one document a line.")
    ] = False,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            help="Settings to begin with; else comfyserve.toml where there is one.",
        ),
    ] = None,
) -> None:
    """Serve workflows by their names and the Comfy API v2 in front of ComfyUIs, and lose no job.

    One line on stdout once it answers, the rest on stderr. All settings may also stand in
    comfyserve.toml or the environment (COMFYSERVE_PORT=..). Exit codes: 0 stopped as asked,
    1 it cannot run, 2 usage.
    """
    from comfyserve.cli.exit_codes import exit_code_of
    from comfyserve.cli.serve import Options, loop_factory
    from comfyserve.cli.serve import serve as serve_until_stopped

    flags = {
        "workflows": folder,
        "backends": backend,
        "host": host,
        "port": port,
        "data": data,
        "public_url": public_url,
        "allow_origins": allow_origin,
        "insecure": insecure or None,
        "grace": grace,
        "log_level": log_level,
        "log_json": log_json or None,
    }
    work = serve_until_stopped(Options(flags, config))
    raise typer.Exit(exit_code_of(work, loop_factory=loop_factory()))


def _port(port: int) -> int:
    if not 0 <= port <= 65535:
        raise typer.BadParameter(f"{port} is not in the range 0 to 65535.")
    return port


def engine(
    host: Annotated[str, typer.Option("--host", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", help="The port; 0 takes a free one.", callback=_port)
    ] = 8188,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--folder", metavar="DIR", help="Keeps input, output and temp; default: none."
        ),
    ] = None,
    test_nodes: Annotated[
        bool, typer.Option("--test-nodes", help="Offer nodes made for tests.")
    ] = False,
    preview_method: Annotated[
        Literal["auto", "none"],
        typer.Option("--preview-method", help="Whether samplers show pictures of each step."),
    ] = "auto",
    max_upload_size: Annotated[
        float, typer.Option("--max-upload-size", metavar="MB", help="The largest request body.")
    ] = 100,
) -> None:
    """Run the built-in engine: a small ComfyUI on CPU."""
    from comfyserve.engine.errors import EngineError
    from comfyserve.engine.server import EngineOptions, serve

    options = EngineOptions(
        host=host,
        port=port,
        folder=folder,
        test_nodes=test_nodes,
        preview_method=preview_method,
        max_upload_size=max_upload_size,
        on_ready=lambda url: typer.echo(f"comfyserve engine listening on {url}"),
    )
    try:
        serve(options)
    except EngineError as error:
        typer.echo(error, err=True)
        raise typer.Exit(1) from error


def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Where the pictures are saved.")
    ] = Path("output"),
) -> None:
    """Make two pictures on the built-in engine."""
    from comfyserve.cli.demo import run_demo
    from comfyserve.cli.exit_codes import exit_code_of

    raise typer.Exit(exit_code_of(run_demo(output)))
