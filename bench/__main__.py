"""``python -m bench``: measure everything, print the table, exit 1 where a must is missed."""

from __future__ import annotations

import asyncio
import os
import platform
import sys

from rich.console import Console

from bench import added_time, memory, startup
from bench.budgets import Measured, show
from tests.engines import running_engine


def main() -> int:
    """Print the table of all budgets."""
    console = Console(stderr=True)
    console.print(
        f"comfyserve on {platform.system()} {platform.machine()}, {os.cpu_count()} cores,"
        f" Python {platform.python_version()}, against the built-in engine",
        highlight=False,
    )
    results: list[Measured] = []
    with running_engine(test_nodes=True) as engine:
        console.print("Jobs in turns ..")
        results += asyncio.run(added_time.measure(engine.url))
        console.print("A large output ..")
        results.append(memory.measure(engine.url))
    console.print("Start of the command ..")
    results.append(startup.measure())
    show(results, Console())
    return 1 if any(result.is_missed for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
