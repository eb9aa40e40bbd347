"""`python -m comfyserve.engine`: the engine on its own, saying where it listens in one line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from comfyserve.engine.errors import EngineError, MissingParts
from comfyserve.engine.server import PORTS, EngineOptions, PreviewMethod, serve


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the engine; 0 when it was stopped, 1 when it could not start, 2 when packages miss."""
    asked = _parser().parse_args(arguments)
    options = EngineOptions(
        host=asked.host,
        port=asked.port,
        folder=asked.folder,
        test_nodes=asked.test_nodes,
        preview_method=asked.preview_method,
        max_upload_size=asked.max_upload_size,
        until_stdin_closes=asked.until_stdin_closes,
        on_ready=lambda url: print(f"comfyserve engine listening on {url}", flush=True),
    )
    try:
        serve(options)
    except EngineError as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, MissingParts) else 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m comfyserve.engine",
        description="A small ComfyUI-compatible server on CPU.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=_port, default=8188, help="0 takes a free one")
    parser.add_argument("--folder", type=Path, help="keeps input, output and temp; default: none")
    parser.add_argument("--test-nodes", action="store_true", help="offer nodes made for tests")
    parser.add_argument(
        "--preview-method",
        choices=get_args(PreviewMethod),
        default="auto",
        help="whether samplers send pictures of each step",
    )
    parser.add_argument(
        "--max-upload-size", type=float, default=100, metavar="MB", help="largest request body"
    )
    parser.add_argument(
        "--until-stdin-closes",
        action="store_true",
        help="end when stdin does, as with whoever started it and holds its other end",
    )
    return parser


def _port(text: str) -> int:
    port = int(text)
    if port not in PORTS:
        raise argparse.ArgumentTypeError(f"{port} is not in the range {PORTS[0]} to {PORTS[-1]}")
    return port


if __name__ == "__main__":
    sys.exit(main())
