"""What can happen to a job.

`StatusChanged`, `OutputSaved` and `Noted` are numbered 1, 2, 3.. per job, so that a listener can
resume after a number; `ProgressMade` and `PreviewDrawn` are live only.

>>> event = StatusChanged("0b2f...", JobStatus.RUNNING)
>>> match event:
...     case StatusChanged(status=JobStatus.RUNNING):
...         print("it runs")
it runs
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from comfyserve.jobs import JobError, JobStatus, Output, Preview, Progress, Timings


@dataclass(frozen=True, slots=True)
class StatusChanged:
    """The job moved to another status, or to another place in the queue.

    *queue_position* counts from 1 while it waits. The last event of a job is one of these with a
    terminal status; it carries what is known at the end.
    """

    job_id: str
    status: JobStatus
    queue_position: int | None = None
    error: JobError | None = None
    outputs_reused: bool = False
    timings: Timings = field(default_factory=Timings)
    seq: int | None = None

    @property
    def is_last(self) -> bool:
        """Nothing comes after it."""
        return self.status.is_terminal


@dataclass(frozen=True, slots=True)
class ProgressMade:
    """The job is further than before."""

    job_id: str
    progress: Progress
    is_last: Literal[False] = False


@dataclass(frozen=True, slots=True)
class PreviewDrawn:
    """A node showed a picture of what it is working on."""

    job_id: str
    preview: Preview
    is_last: Literal[False] = False


@dataclass(frozen=True, slots=True)
class OutputSaved:
    """An output is complete: its bytes are kept, its size, type and hash are real."""

    job_id: str
    output: Output
    seq: int | None = None
    is_last: Literal[False] = False


@dataclass(frozen=True, slots=True)
class Noted:
    """Something worth telling that changes nothing: a lost connection, a skipped output.

    *details* holds the facts of the sentence for programs.
    """

    job_id: str
    level: Literal["info", "warning"]
    message: str
    details: Mapping[str, str] = field(default_factory=dict)
    seq: int | None = None
    is_last: Literal[False] = False


Event = StatusChanged | ProgressMade | PreviewDrawn | OutputSaved | Noted
