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

from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from comfyserve.jobs import JobError, JobStatus, Output, Preview, Progress, Timings

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


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

NumberedEvent = StatusChanged | OutputSaved | Noted
"""The events that last, and that a listener can resume after."""


def to_json(event: Event) -> dict[str, Any]:
    """The event as a JSON document, all of it; `from_json` makes the same event of it."""
    match event:
        case StatusChanged(error=error, timings=timings):
            return {
                "kind": "status",
                **_fields_of(event),
                "error": None if error is None else _fields_of(error),
                "timings": {**_fields_of(timings), "nodes": dict(timings.nodes)},
            }
        case OutputSaved(output=output):
            return {"kind": "output", **_fields_of(event), "output": _fields_of(output)}
        case Noted(details=details):
            return {"kind": "note", **_fields_of(event), "details": dict(details)}
        case ProgressMade(progress=progress):
            return {"kind": "progress", **_fields_of(event), "progress": _fields_of(progress)}
        case PreviewDrawn(job_id=job_id, preview=preview):
            data = b64encode(preview.data).decode("ascii")
            return {
                "kind": "preview",
                "job_id": job_id,
                "preview": {**_fields_of(preview), "data": data},
            }


def from_json(document: Mapping[str, Any]) -> Event:
    """The event that `to_json` made *document* of. Raises KeyError where it was something else."""
    fields = {name: value for name, value in document.items() if name not in ("kind", "is_last")}
    match document["kind"]:
        case "progress":
            return ProgressMade(fields["job_id"], progress_from_json(fields["progress"]))
        case "preview":
            shown = fields["preview"]
            data = b64decode(shown["data"])
            return PreviewDrawn(
                fields["job_id"], Preview(shown["node_id"], shown["content_type"], data)
            )
        case _:
            return numbered_from_json(document)


def numbered_from_json(document: Mapping[str, Any]) -> NumberedEvent:
    """Like `from_json`, for events that last."""
    fields = {name: value for name, value in document.items() if name not in ("kind", "is_last")}
    match document["kind"]:
        case "status":
            error = fields["error"]
            fields["status"] = JobStatus(fields["status"])
            fields["error"] = None if error is None else error_from_json(error)
            fields["timings"] = Timings(**fields["timings"])
            return StatusChanged(**fields)
        case "output":
            return OutputSaved(fields["job_id"], Output(**fields["output"]), fields["seq"])
        case "note":
            return Noted(**fields)
        case kind:
            raise KeyError(kind)


def progress_from_json(document: Mapping[str, Any]) -> Progress:
    """The progress whose fields *document* holds."""
    remaining = document["remaining"]
    least_and_most = None if remaining is None else (remaining[0], remaining[1])
    return Progress(**{**document, "remaining": least_and_most})


def error_from_json(document: Mapping[str, Any]) -> JobError:
    """The job error whose fields *document* holds."""
    return JobError(**{**document, "traceback": tuple(document["traceback"])})


def _fields_of(value: DataclassInstance) -> dict[str, Any]:
    """The fields by name, none of them copied: every event of every job comes through here."""
    return {name: getattr(value, name) for name in _names_of(type(value))}


@cache
def _names_of(kind: type[DataclassInstance]) -> tuple[str, ...]:
    return tuple(kind.__dataclass_fields__)
