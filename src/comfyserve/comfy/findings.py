"""What a checkup finds: one thing that is well, doubtful or wrong, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

Mark = Literal["ok", "warn", "problem"]
"""*problem*: jobs will fail. *warn*: they will run, but something is missing or may be."""

Topic = Literal[
    "address",
    "admission",
    "version",
    "jobs_api",
    "queue",
    "submit",
    "socket",
    "uploads",
    "previews",
    "memory",
    "speed",
    "nodes",
    "models",
    "files",
    "values",
    "workflow",
]


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding: *message* says what was seen, *advice* what to do, both in whole sentences."""

    mark: Mark
    topic: Topic
    message: str
    advice: str = ""

    def to_json(self) -> dict[str, Any]:
        """Its fields by name."""
        return asdict(self)


def any_problem(findings: Iterable[Finding]) -> bool:
    """Whether one of them is a problem."""
    return any(finding.mark == "problem" for finding in findings)
