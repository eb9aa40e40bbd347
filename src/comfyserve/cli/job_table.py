"""The jobs of a server as a table, and one of them line by line, as its documents tell them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from comfyserve.cli.progress_words import clock, printable

_HEADS = ("JOB", "STATUS", "SINCE", "TOOK", "OUTPUTS", "NOTED")


def job_lines(jobs: Sequence[Mapping[str, Any]], now: datetime) -> Iterator[str]:
    """A line for every job, under a line of heads."""
    rows = [_HEADS, *(_row(job, now) for job in jobs)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def detail_lines(job: Mapping[str, Any], now: datetime) -> Iterator[str]:
    """All that is worth telling of one job."""
    told = {
        "job": job["id"],
        "status": f"{job['status']}{_place(job)}",
        "workflow": job.get("workflow"),
        "noted": _noted(job),
        "created": _ago(job["created_at"], now),
        "started": _ago(job.get("started_at"), now),
        "ended": _ago(job.get("completed_at"), now),
        "took": _took(job, now),
        "progress": _progress(job),
        "attempts": job.get("attempts"),
        "seeds": ", ".join(f"{place}={seed}" for place, seed in (job.get("seeds") or {}).items()),
        "reused": "its outputs are of an earlier run" if job.get("outputs_reused") else None,
        "error": _error(job.get("error")),
        "kept": f"until {_local(job['expires_at'])}" if job.get("expires_at") else None,
    }
    for name, value in told.items():
        if value not in (None, ""):
            yield f"{name:10}{printable(str(value))}"
    for output in job.get("outputs") or ():
        size = f"{output['size_bytes']:,} bytes"
        name = printable(str(output["name"]))
        yield f"{'output':10}{name} (node {output['node_id']}, {output['content_type']}, {size})"
        yield f"{'':10}{output['url']}"


def _row(job: Mapping[str, Any], now: datetime) -> tuple[str, ...]:
    return (
        str(job["id"]),
        f"{job['status']}{_share(job)}",
        age(job["created_at"], now),
        _took(job, now) or "-",
        str(len(job.get("outputs") or ())),
        printable(_noted(job))[:40],
    )


def _share(job: Mapping[str, Any]) -> str:
    if job["status"] == "running" and job.get("progress"):
        return f" {int(job['progress']['value'] * 100)} %"
    return _place(job)


def _place(job: Mapping[str, Any]) -> str:
    place = job.get("queue_position")
    return f", place {place}" if isinstance(place, int) else ""


def _noted(job: Mapping[str, Any]) -> str:
    metadata = job.get("metadata")
    if isinstance(metadata, dict):
        return ", ".join(f"{label}={value}" for label, value in metadata.items())
    return metadata if isinstance(metadata, str) else ""


def _progress(job: Mapping[str, Any]) -> str | None:
    progress = job.get("progress")
    if not progress:
        return None
    node = progress.get("current_node_title") or progress.get("current_node_class")
    words = [f"{int(progress['value'] * 100)} %"]
    words += [f"{progress['nodes_done']} of {progress['nodes_total']} nodes"]
    return ", ".join([*words, *([str(node)] if node else [])])


def _error(error: Mapping[str, Any] | None) -> str | None:
    if not error:
        return None
    node = f"node {error['node_id']}: " if error.get("node_id") else ""
    return f"{node}{error['message']} ({error['code']})"


def _took(job: Mapping[str, Any], now: datetime) -> str | None:
    started, ended = _time(job.get("started_at")), _time(job.get("completed_at"))
    return None if started is None else clock(((ended or now) - started).total_seconds())


def _ago(written: str | None, now: datetime) -> str | None:
    return None if written is None else f"{_local(written)}, {age(written, now)} ago"


def _local(written: str) -> str:
    time = _time(written)
    return written if time is None else time.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def age(written: str, now: datetime) -> str:
    """How long ago that is, in the largest unit that says something.

    >>> from datetime import UTC
    >>> age("2026-01-01T00:00:00Z", datetime(2026, 1, 1, 2, 30, tzinfo=UTC))
    '2 h'
    """
    time = _time(written)
    passed = timedelta(0) if time is None else max(now - time, timedelta(0))
    seconds = int(passed.total_seconds())
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _time(written: object) -> datetime | None:
    try:
        return datetime.fromisoformat(written) if isinstance(written, str) else None
    except ValueError:
        return None
