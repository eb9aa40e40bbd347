"""Graphs that tell how often they really ran."""

from __future__ import annotations

import random
import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.client.graphs import Graph
from tests.engines import RunningEngine


@dataclass(frozen=True, slots=True)
class Counted:
    """A graph that writes down its *name* each time it begins, and then works and saves a text.

    It works for *seconds*, as the tally's line is written before; *paid* makes it one that costs
    money each time.
    """

    seconds: float = 0.0
    paid: bool = False
    interruptible: bool = True
    name: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def graph(self) -> Graph:
        seed = random.randrange(2**40)
        work: dict[str, Any] = {
            "seconds": self.seconds,
            "interruptible": self.interruptible,
            "seed": seed,
            "value": ["paid" if self.paid else "tally", 0],
        }
        saved = {
            "key": "text",
            "kind": "strings",
            "name": "-",
            "pattern": self.name,
            "size": len(self.name),
            "value": ["work", 0],
        }
        spent = {"credits": 1.0, "seed": seed, "value": ["tally", 0]}
        return {
            "tally": {"class_type": "TestTally", "inputs": {"name": self.name}},
            **({"paid": {"class_type": "TestPaid", "inputs": spent}} if self.paid else {}),
            "work": {"class_type": "TestSleep", "inputs": work},
            "saved": {"class_type": "TestEmit", "inputs": saved},
        }

    def runs(self, engine: RunningEngine) -> int:
        """How often it began to run there, over all lives of that engine."""
        return tally(engine)[self.name]


def tally(engine: RunningEngine) -> Counter[str]:
    """How often each counted graph ran."""
    lines = engine.folder / "output" / "tally.txt"
    return Counter(lines.read_text(encoding="utf-8").split()) if lines.exists() else Counter()


def heavy(megabytes: int, seconds: float = 0.0) -> Graph:
    """Works for *seconds*, then saves a file of that size."""
    seed = random.randrange(2**40)
    work = {"seconds": seconds, "interruptible": True, "seed": seed}
    saved = {
        "key": "files",
        "kind": "files",
        "name": f"heavy_{seed}.bin",
        "pattern": str(seed),
        "size": megabytes * 2**20,
        "seed": seed,
        "value": ["work", 0],
    }
    return {
        "work": {"class_type": "TestSleep", "inputs": work},
        "saved": {"class_type": "TestEmit", "inputs": saved},
    }
