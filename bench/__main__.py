"""``python -m bench``: measure everything, print the table, exit 1 where a must is missed.

``--only client,server-live`` measures these parts alone, ``--list`` names all. ``--engine URL``
measures before the ComfyUI there; what needs the built-in engine's test nodes is then left out.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sys
from collections.abc import Callable, Mapping

from rich.console import Console

from bench import (
    added_time,
    memory,
    server_added_time,
    server_backends,
    server_claims,
    server_fairness,
    server_files,
    server_idle,
    server_live,
    server_memory,
    server_start,
    server_throughput,
    server_warmth,
    startup,
)
from bench.budgets import Measured, show
from bench.engine import Engine, engine_at

Part = Callable[[Engine], list[Measured]]

PARTS: Mapping[str, Part] = {
    "client": lambda engine: asyncio.run(added_time.measure(engine.url)),
    "client-memory": lambda engine: [memory.measure(engine.url)] if engine.has_test_nodes else [],
    "command": lambda engine: [startup.measure()],
    "server": lambda engine: asyncio.run(server_added_time.measure(engine)),
    "server-throughput": lambda engine: asyncio.run(server_throughput.measure(engine)),
    "server-files": lambda engine: asyncio.run(server_files.measure(engine)),
    "server-idle": lambda engine: asyncio.run(server_idle.measure(engine)),
    "server-live": lambda engine: asyncio.run(server_live.measure(engine)),
    "server-memory": lambda engine: asyncio.run(server_memory.measure(engine)),
    "server-claims": lambda engine: asyncio.run(server_claims.measure()),
    "server-start": server_start.measure,
    "backends": lambda engine: asyncio.run(server_backends.measure()),
    "warmth": lambda engine: asyncio.run(server_warmth.measure()),
    "fairness": lambda engine: asyncio.run(server_fairness.measure()),
}


def main() -> int:
    """Print the table of all budgets, or of the parts asked for."""
    asked = _arguments()
    if asked.list:
        print("\n".join(PARTS))
        return 0
    console = Console(stderr=True)
    results: list[Measured] = []
    with engine_at(asked.engine) as engine:
        console.print(
            f"comfyserve on {platform.system()} {platform.machine()}, {os.cpu_count()} cores,"
            f" Python {platform.python_version()}, against {engine.name}",
            highlight=False,
        )
        for name in asked.only or PARTS:
            console.print(f"{name} ..", highlight=False)
            results += PARTS[name](engine)
    show(results, Console())
    return 1 if any(result.is_missed for result in results) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("--only", type=_parts, metavar="PART,PART", help="these parts alone")
    parser.add_argument("--engine", metavar="URL", help="a ComfyUI in place of the built-in engine")
    parser.add_argument("--list", action="store_true", help="the names of all parts")
    return parser.parse_args()


def _parts(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in PARTS]:
        raise argparse.ArgumentTypeError(f"no part is named {unknown[0]!r}; see --list")
    return names


if __name__ == "__main__":
    sys.exit(main())
