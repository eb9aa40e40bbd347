"""The options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

Server = Annotated[
    str | None,
    typer.Option(
        "--server",
        "-s",
        metavar="URL",
        help="The ComfyUI or comfyserve to ask about nodes; else COMFYSERVE_SERVER, else "
        "http://127.0.0.1:8188.",
    ),
]
Header = Annotated[
    list[str] | None,
    typer.Option("--header", metavar="NAME:VALUE", help="Send this header along; repeatable."),
]
Token = Annotated[
    str | None,
    typer.Option("--token", envvar="COMFYSERVE_TOKEN", help="Send this bearer token along."),
]
InsecureTls = Annotated[bool, typer.Option("--insecure-tls", help="Accept any TLS certificate.")]

Comfyserve = Annotated[
    str | None,
    typer.Option(
        "--server",
        "-s",
        metavar="URL",
        help="The comfyserve to ask; else COMFYSERVE_SERVER, else http://127.0.0.1:8189.",
    ),
]
