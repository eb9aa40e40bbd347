"""The commands about one workflow file; what they do is imported once it is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from comfyserve.cli.options import Header, InsecureTls, Server, Token


def run(
    workflow: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="The workflow: its file, or the name of one that a comfyserve hosts.",
        ),
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
        bool,
        typer.Option(
            "--dry-run",
            help="Queue nothing: print the graph that would run, or what a server says to a call.",
        ),
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
        workflow=workflow,
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


def inspect(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="The workflow: any file that ComfyUI saved."),
    ],
    server: Server = None,
    header: Header = None,
    token: Token = None,
    insecure_tls: InsecureTls = False,
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
    server: Server = None,
    header: Header = None,
    token: Token = None,
    insecure_tls: InsecureTls = False,
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


def doctor(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[URL] [FILE]...",
            help="The server to examine, and workflows that should run there.",
        ),
    ] = None,
    header: Header = None,
    token: Token = None,
    insecure_tls: InsecureTls = False,
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
