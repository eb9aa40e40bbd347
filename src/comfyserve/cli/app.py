"""The commands and their options; what they do is imported once it is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from comfyserve import __version__

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


@app.command()
def run(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The workflow, exported in API format.")
    ],
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME=VALUE",
            help="Inputs: prompt='a fox', steps=22, image=@in.png, or by address: 3.cfg=7.",
        ),
    ] = None,
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", help="Short for prompt=TEXT.")
    ] = None,
    negative: Annotated[
        str | None, typer.Option("--negative", help="Short for negative_prompt=TEXT.")
    ] = None,
    image: Annotated[
        Path | None, typer.Option("--image", "-i", help="Short for image=@PATH.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Short for seed=N; -1 draws a fresh one.")
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Where outputs are saved.")
    ] = Path("output"),
    server: Annotated[
        str | None,
        typer.Option(
            "--server",
            "-s",
            metavar="URL",
            help="The ComfyUI or comfyserve to run it on; else COMFYSERVE_SERVER, else "
            "http://127.0.0.1:8188.",
        ),
    ] = None,
    header: Annotated[
        list[str] | None,
        typer.Option("--header", metavar="NAME:VALUE", help="Send this header along; repeatable."),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option("--token", envvar="COMFYSERVE_TOKEN", help="Send this bearer token along."),
    ] = None,
    insecure_tls: Annotated[
        bool, typer.Option("--insecure-tls", help="Accept any TLS certificate.")
    ] = False,
    temp: Annotated[
        bool, typer.Option("--temp", help="Save temporary outputs too, under temp/.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One event a line on stdout, the result last.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Only the saved paths, and errors.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the graph that would run, and queue nothing.")
    ] = False,
) -> None:
    """Run a workflow and save what it makes.

    Saved paths go to stdout, progress to stderr. Exit codes: 0 done, 1 failed, 2 usage,
    3 server unreachable, 130 interrupted (Ctrl-C cancels the job; twice leaves at once).
    """
    from comfyserve.cli.assignments import assignments_from, headers_from
    from comfyserve.cli.exit_codes import exit_code_of
    from comfyserve.cli.run import Options, run_workflow

    given = {"prompt": prompt, "negative_prompt": negative, "seed": seed, "image": image}
    options = Options(
        file=file,
        assignments=assignments_from(inputs or (), given),
        server=server,
        headers=headers_from(header or ()),
        token=token,
        verify_tls=not insecure_tls,
        output_dir=output,
        keep_temp=temp,
        as_json=as_json,
        quiet=quiet,
        dry_run=dry_run,
    )
    raise typer.Exit(exit_code_of(run_workflow(options)))


_Server = Annotated[
    str | None,
    typer.Option(
        "--server",
        "-s",
        metavar="URL",
        help="The ComfyUI or comfyserve to ask about nodes; else COMFYSERVE_SERVER, else "
        "http://127.0.0.1:8188.",
    ),
]
_Header = Annotated[
    list[str] | None,
    typer.Option("--header", metavar="NAME:VALUE", help="Send this header along; repeatable."),
]
_Token = Annotated[
    str | None,
    typer.Option("--token", envvar="COMFYSERVE_TOKEN", help="Send this bearer token along."),
]
_InsecureTls = Annotated[bool, typer.Option("--insecure-tls", help="Accept any TLS certificate.")]


@app.command()
def inspect(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="The workflow: any file that ComfyUI saved."),
    ],
    server: _Server = None,
    header: _Header = None,
    token: _Token = None,
    insecure_tls: _InsecureTls = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
    write_sidecar: Annotated[
        bool,
        typer.Option(
            "--write-sidecar", help="Write FILE's sidecar, a .toml beside it, to be edited."
        ),
    ] = False,
) -> None:
    """Show what a workflow takes and gives, and why.

    Works without a server, then without limits and choices. Exit codes: 0 done, 1 sidecar not
    written, 2 no workflow, 3 the server named with --server cannot be asked.
    """
    from comfyserve.cli.assignments import headers_from
    from comfyserve.cli.exit_codes import exit_code_of
    from comfyserve.cli.inspect import Options, inspect_workflow
    from comfyserve.cli.target import Target

    target = Target(server, headers_from(header or ()), token, not insecure_tls)
    raise typer.Exit(exit_code_of(inspect_workflow(Options(file, target, as_json, write_sidecar))))


@app.command()
def convert(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="The workflow: any file that ComfyUI saved."),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="Where to write it; - is stdout."),
    ] = Path("-"),
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
    server: _Server = None,
    header: _Header = None,
    token: _Token = None,
    insecure_tls: _InsecureTls = False,
) -> None:
    """Write any workflow file in API format, which servers run.

    A file of the editor needs a server that has its nodes; what cannot be read is a warning on
    stderr. Exit codes: 0 done, 1 not written, 2 no workflow, 3 no server to ask.
    """
    from comfyserve.cli.assignments import headers_from
    from comfyserve.cli.convert import Options, convert_workflow
    from comfyserve.cli.exit_codes import exit_code_of
    from comfyserve.cli.target import Target

    target = Target(server, headers_from(header or ()), token, not insecure_tls)
    raise typer.Exit(exit_code_of(convert_workflow(Options(file, target, output, force))))


@app.command()
def doctor(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[URL] [FILE]...",
            help="The server to examine, and workflows that should run there.",
        ),
    ] = None,
    header: _Header = None,
    token: _Token = None,
    insecure_tls: _InsecureTls = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Find what keeps a server, or workflows there, from running.

    Without URL it is COMFYSERVE_SERVER, else http://127.0.0.1:8188. Queues nothing; one small
    file is uploaded. Exit codes: 0 no problems, 1 problems found, 2 no address,
    3 nobody answers.
    """
    from comfyserve.cli.assignments import headers_from
    from comfyserve.cli.doctor import Options, examine_all, target_and_files
    from comfyserve.cli.exit_codes import exit_code_of
    from comfyserve.cli.target import Target

    server, files = target_and_files(what or ())
    target = Target(server, headers_from(header or ()), token, not insecure_tls)
    raise typer.Exit(exit_code_of(examine_all(Options(target, files, as_json))))


_Comfyserve = Annotated[
    str | None,
    typer.Option(
        "--server",
        "-s",
        metavar="URL",
        help="The comfyserve to ask; else COMFYSERVE_SERVER, else http://127.0.0.1:8189.",
    ),
]


@app.command()
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
    server: _Comfyserve = None,
    header: _Header = None,
    token: _Token = None,
    insecure_tls: _InsecureTls = False,
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


@app.command()
def cancel(
    job: Annotated[list[str], typer.Argument(metavar="ID...", help="The jobs to cancel.")],
    server: _Comfyserve = None,
    header: _Header = None,
    token: _Token = None,
    insecure_tls: _InsecureTls = False,
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


def _port(port: int) -> int:
    if not 0 <= port <= 65535:
        raise typer.BadParameter(f"{port} is not in the range 0 to 65535.")
    return port


@app.command()
def serve(
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
    """Serve the Comfy API v2 in front of a ComfyUI, and lose no job.

    One line on stdout once it answers, the rest on stderr. All settings may also stand in
    comfyserve.toml or the environment (COMFYSERVE_PORT=..). Exit codes: 0 stopped as asked,
    1 it cannot run, 2 usage.
    """
    from comfyserve.cli.exit_codes import exit_code_of
    from comfyserve.cli.serve import Options, loop_factory
    from comfyserve.cli.serve import serve as serve_until_stopped

    flags = {
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


@app.command()
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


@app.command()
def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Where the pictures are saved.")
    ] = Path("output"),
) -> None:
    """Make two pictures on the built-in engine."""
    from comfyserve.cli.demo import run_demo
    from comfyserve.cli.exit_codes import exit_code_of

    raise typer.Exit(exit_code_of(run_demo(output)))
