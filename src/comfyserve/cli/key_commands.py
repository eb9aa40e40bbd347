"""The commands about keys; what they do is imported once it is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

keys = typer.Typer(
    name="keys",
    help="Make, list and end the keys by which a comfyserve knows its callers.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Data = Annotated[
    Path | None,
    typer.Option(
        "--data", metavar="DIR", help="The server's data folder; else as `serve` takes it."
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Settings that name the folder; else comfyserve.toml where there is one.",
    ),
]


@keys.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call it.")],
    workflow: Annotated[
        list[str] | None,
        typer.Option(
            "--workflow", "-w", metavar="NAME", help="May run this workflow only; repeatable."
        ),
    ] = None,
    graphs: Annotated[
        bool, typer.Option("--graphs", help="May run graphs of its own, and see nodes.")
    ] = False,
    publish: Annotated[bool, typer.Option("--publish", help="May publish workflows.")] = False,
    admin: Annotated[
        bool, typer.Option("--admin", help="May do everything: backends, counts, and all above.")
    ] = False,
    rate: Annotated[
        str | None,
        typer.Option("--rate", metavar="N/TIME", help="How often it may ask, such as 60/m."),
    ] = None,
    concurrent: Annotated[
        int | None,
        typer.Option(
            "--concurrent", metavar="N", min=1, help="How many jobs it may have unfinished."
        ),
    ] = None,
    priority_max: Annotated[
        int,
        typer.Option("--priority-max", metavar="N", min=0, help="The highest priority it gets."),
    ] = 0,
    data: Data = None,
    config: Config = None,
) -> None:
    """Make a key. Its secret alone is on stdout, and shown this once.

    Without --workflow it may run all workflows. Once there is a key, every request needs one.
    Exit codes: 0 done, 1 the name is taken or the folder cannot be used, 2 usage.
    """
    from comfyserve.cli.exit_codes import exit_code_of
    from comfyserve.cli.keys import Permissions, Place, create_key

    may = Permissions(
        None if workflow is None else tuple(workflow),
        may_graphs=graphs,
        may_publish=publish,
        is_admin=admin,
        rate=rate,
        concurrent=concurrent,
        priority_max=priority_max,
    )
    raise typer.Exit(exit_code_of(create_key(Place(data, config), name, may)))


@keys.command("list")
def list_(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
    data: Data = None,
    config: Config = None,
) -> None:
    """List all keys, revoked ones too; never their secrets.

    Exit codes: 0 done, 1 the folder cannot be used, 2 usage.
    """
    from comfyserve.cli.exit_codes import exit_code_of
    from comfyserve.cli.keys import Place, list_keys

    raise typer.Exit(exit_code_of(list_keys(Place(data, config), as_json=as_json)))


@keys.command()
def revoke(
    name: Annotated[
        list[str], typer.Argument(metavar="NAME...", help="The keys to end, by name or id.")
    ],
    data: Data = None,
    config: Config = None,
) -> None:
    """End keys for ever, within a second where a server runs. Their jobs go on.

    Exit codes: 0 done, 1 no such key, 2 usage.
    """
    from comfyserve.cli.exit_codes import exit_code_of
    from comfyserve.cli.keys import Place, revoke_keys

    raise typer.Exit(exit_code_of(revoke_keys(Place(data, config), name)))


@keys.command()
def reset(
    yes: Annotated[bool, typer.Option("--yes", help="Yes, forget all of them.")] = False,
    data: Data = None,
    config: Config = None,
) -> None:
    """Forget every key, so that nobody is asked for one any more.

    What was made with them still belongs to them, so nobody sees it. Exit codes: 0 done, 1 the
    folder cannot be used, 2 usage.
    """
    from comfyserve.cli.exit_codes import exit_code_of
    from comfyserve.cli.keys import Place, reset_keys

    if not yes:
        raise typer.BadParameter("This forgets every key. Say --yes if it is meant.")
    raise typer.Exit(exit_code_of(reset_keys(Place(data, config))))
