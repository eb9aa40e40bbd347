"""The commands about backends; what they do is imported once it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from comfyserve.cli.options import Comfyserve, Header, InsecureTls, Token

if TYPE_CHECKING:
    from comfyserve.cli.backends import Change

backends = typer.Typer(
    name="backends",
    help="List the ComfyUIs behind a running comfyserve, add some, drain or remove them.",
    rich_markup_mode=None,
)

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Named = Annotated[
    list[str],
    typer.Argument(metavar="BACKEND...", help="By id, by number in the list, or by address."),
]


@backends.callback(invoke_without_command=True)
def _bare(context: typer.Context) -> None:
    """List the ComfyUIs behind a running comfyserve, add some, drain or remove them.

    Without a command it lists them. Once there are keys it takes an admin key (COMFYSERVE_TOKEN).
    """
    if context.invoked_subcommand is None:
        list_()


@backends.command("list")
def list_(
    server: Comfyserve = None,
    header: Header = None,
    token: Token = None,
    insecure_tls: InsecureTls = False,
    as_json: Json = False,
) -> None:
    """List all backends: whether they answer, and what is in their queues.

    Exit codes: 0 done, 1 refused, 2 usage, 3 no comfyserve answers.
    """
    from comfyserve.cli.assignments import headers_from
    from comfyserve.cli.backends import list_backends
    from comfyserve.cli.exit_codes import exit_code_of
    from comfyserve.cli.target import COMFYSERVE, Target

    target = Target(server, headers_from(header or ()), token, not insecure_tls, COMFYSERVE)
    raise typer.Exit(exit_code_of(list_backends(target, as_json=as_json)))


@backends.command()
def add(
    url: Annotated[str, typer.Argument(metavar="URL", help="The address of a ComfyUI.")],
    backend_header: Annotated[
        list[str] | None,
        typer.Option(
            "--backend-header",
            metavar="NAME:VALUE",
            help="Send this header to the backend; repeatable, never stored.",
        ),
    ] = None,
    backend_token: Annotated[
        str | None,
        typer.Option(
            "--backend-token",
            envvar="COMFYSERVE_BACKEND_TOKEN",
            help="Send this bearer token to the backend; never stored.",
        ),
    ] = None,
    backend_insecure_tls: Annotated[
        bool,
        typer.Option("--backend-insecure-tls", help="Accept any TLS certificate of the backend."),
    ] = False,
    check: Annotated[bool, typer.Option("--check", help="Add it only if it answers now.")] = False,
    server: Comfyserve = None,
    header: Header = None,
    token: Token = None,
    insecure_tls: InsecureTls = False,
    as_json: Json = False,
) -> None:
    """Add a backend to a running server; one that does not answer yet is used once it does.

    Exit codes: 0 added, 1 refused, 2 usage, 3 no comfyserve answers.
    """
    from comfyserve.cli.assignments import headers_from
    from comfyserve.cli.backends import NewBackend, add_backend
    from comfyserve.cli.exit_codes import exit_code_of
    from comfyserve.cli.target import COMFYSERVE, Target

    target = Target(server, headers_from(header or ()), token, not insecure_tls, COMFYSERVE)
    new = NewBackend(
        url, headers_from(backend_header or ()), backend_token, not backend_insecure_tls, check
    )
    raise typer.Exit(exit_code_of(add_backend(target, new, as_json=as_json)))


@backends.command()
def drain(
    backend: Named,
    server: Comfyserve = None,
    header: Header = None,
    token: Token = None,
    insecure_tls: InsecureTls = False,
    as_json: Json = False,
) -> None:
    """Let what runs on backends end, and bring them nothing new, until they are resumed.

    Exit codes: 0 done, 1 no such backend, 2 usage, 3 no comfyserve answers.
    """
    _change("drain", backend, server, header, token, insecure_tls, as_json)


@backends.command()
def resume(
    backend: Named,
    server: Comfyserve = None,
    header: Header = None,
    token: Token = None,
    insecure_tls: InsecureTls = False,
    as_json: Json = False,
) -> None:
    """Bring backends that were drained jobs again.

    Exit codes: 0 done, 1 no such backend, 2 usage, 3 no comfyserve answers.
    """
    _change("resume", backend, server, header, token, insecure_tls, as_json)


@backends.command()
def remove(
    backend: Named,
    server: Comfyserve = None,
    header: Header = None,
    token: Token = None,
    insecure_tls: InsecureTls = False,
    as_json: Json = False,
) -> None:
    """Remove backends; the jobs that they have go back to the queue and run elsewhere.

    One that the server was started with is back after its next start. Exit codes: 0 done, 1 no
    such backend, 2 usage, 3 no comfyserve answers.
    """
    _change("remove", backend, server, header, token, insecure_tls, as_json)


def _change(
    change: Change,
    backend: list[str],
    server: str | None,
    header: list[str] | None,
    token: str | None,
    insecure_tls: bool,
    as_json: bool,
) -> None:
    from comfyserve.cli.assignments import headers_from
    from comfyserve.cli.backends import change_backends
    from comfyserve.cli.exit_codes import exit_code_of
    from comfyserve.cli.target import COMFYSERVE, Target

    target = Target(server, headers_from(header or ()), token, not insecure_tls, COMFYSERVE)
    raise typer.Exit(exit_code_of(change_backends(target, change, backend, as_json=as_json)))
