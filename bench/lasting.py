"""Jobs that last: of a fixed length where the engine has a node for it, else long enough."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from bench import pictures
from bench.budgets import WrongResult
from bench.engine import Engine, bytes_of, file_graph
from bench.rounds import Check

SECONDS = 0.05
PICTURE_SIZE = 1024


def what(engine: Engine) -> str:
    """What such a job does, for the table."""
    if engine.has_test_nodes:
        return f"{SECONDS * 1000:.0f} ms test node"
    return f"{PICTURE_SIZE} pixel picture"


def numbers(engine: Engine) -> Iterator[int]:
    """Numbers of jobs that are not cached."""
    return itertools.count(1) if engine.has_test_nodes else pictures.colors()


def graph(engine: Engine, number: int, seconds: float = SECONDS) -> dict[str, Any]:
    """A wait and a file that names the *number*, or a picture of that color."""
    if not engine.has_test_nodes:
        picture = pictures.graph(number)
        picture["1"]["inputs"] |= {"width": PICTURE_SIZE, "height": PICTURE_SIZE}
        return picture
    wait = {"seconds": seconds, "interruptible": True, "seed": number}
    # A name of its own: the next job's file would take its place before anybody fetched it.
    waited = file_graph(f"waited {number}.txt", f"{number} ", 16)
    waited["1"]["inputs"]["value"] = ["2", 0]
    return {**waited, "2": {"class_type": "TestSleep", "inputs": wait}}


def check(engine: Engine) -> Check:
    """What tells a right answer from a wrong one."""
    return _check_file if engine.has_test_nodes else pictures.check


def _check_file(content: bytes, number: int) -> None:
    if content != bytes_of(f"{number} ", 16):
        raise WrongResult(f"job {number} gave {content!r}")
