"""Jobs, outputs, assets and events as the JSON documents that callers see.

They are the Comfy API v2's, to the letter, with what comfyserve knows besides.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from math import inf
from typing import Any, Final

from fastapi import Response

from comfyserve.assets import Asset
from comfyserve.events import (
    Event,
    Noted,
    OutputSaved,
    PreviewDrawn,
    ProgressMade,
    StatusChanged,
)
from comfyserve.jobs import JobError, JobRecord, Output, Preview, Progress, Standing, Timings
from comfyserve.server.links import Links

Document = dict[str, Any]

_encoder: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False)
_MOST_LISTED: Final = 2000
"""Letters of an input that a list of jobs shows."""

_LAST_TIME: Final = "9999-12-31T23:59:59.999Z"


def encoded(document: Mapping[str, Any] | Sequence[Any]) -> bytes:
    """The document as bytes; ASCII, so that no text can make it unreadable."""
    return _encoder.encode(document).encode("ascii")


def answer(
    document: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """An answer that holds the document."""
    return Response(encoded(document), status, headers, "application/json")


def job_document(standing: Standing, links: Links, *, brief: bool = False) -> Document:
    """A job as it stands, ready for JSON; a *brief* one tells only how long inputs begin."""
    record = standing.record
    document: Document = {
        "id": record.id,
        "status": str(record.status),
        "created_at": moment(record.created_at),
        "started_at": _moment_or_none(record.started_at),
        "completed_at": _moment_or_none(record.completed_at),
        "expires_at": moment(record.expires_at),
        "queue_position": standing.queue_position,
        "progress": None if standing.progress is None else progress_document(standing.progress),
        "outputs": [
            output_document(output, record.id, record.expires_at, links)
            for output in record.outputs
        ],
        "error": None if record.error is None else error_document(record.error),
        "metrics": _metrics(record),
        "urls": {
            "self": links.job(record.id),
            "events": links.events(record.id),
            "cancel": links.cancel(record.id),
        },
        "create_time": moment(record.created_at),
        "update_time": moment(record.completed_at or record.started_at or record.created_at),
        "priority": record.priority,
        "seeds": dict(record.seeds),
        "outputs_reused": record.outputs_reused,
        "attempts": record.attempts,
        "expected_wait": _range_or_none(standing.expected_wait),
    }
    if record.metadata is not None:
        told = record.metadata
        document["metadata"] = told if isinstance(told, str) else dict(told)
    if record.workflow is not None:
        document["workflow"] = record.workflow
        inputs = record.inputs.items()
        document["inputs"] = {name: _begun(one) if brief else one for name, one in inputs}
    return document


def _begun(value: object) -> object:
    """A value that is long as the text that it begins with, so that a list of jobs stays small."""
    if value is None or isinstance(value, bool | int | float):
        return value
    text = value if isinstance(value, str) else _encoder.encode(value)
    return value if len(text) <= _MOST_LISTED else f"{text[: _MOST_LISTED - 2]} …"


def output_document(output: Output, job_id: str, expires_at: float, links: Links) -> Document:
    """An output of a job, which is kept as long as its job; its address may end to hold before."""
    asset_id = output.id or ""
    url, url_expires_at = links.content(asset_id, expires_at)
    return {
        "node_id": output.node_id,
        "name": output.name,
        "type": output.type,
        "content_type": output.content_type,
        "size_bytes": output.size_bytes,
        "id": asset_id,
        "hash": output.hash,
        "url": url,
        "url_expires_at": moment(url_expires_at),
        "job_id": job_id,
        "key": output.key,
        "subfolder": output.subfolder,
        "temp": output.temp,
        "index": output.index,
    }


def asset_document(asset: Asset, links: Links, created_new: bool | None = None) -> Document:
    """An asset; *created_new* tells where one was made whether its bytes were new."""
    latest = inf if asset.expires_at is None else asset.expires_at
    url, url_expires_at = links.content(asset.id, latest)
    document: Document = {
        "id": asset.id,
        "hash": asset.hash,
        "size_bytes": asset.size_bytes,
        "content_type": asset.content_type,
        "file_path": asset.file_path,
        "created_at": moment(asset.created_at),
        "url": url,
        "url_expires_at": moment(url_expires_at),
        "expires_at": _moment_or_none(asset.expires_at),
        "tags": list(asset.tags),
    }
    if asset.job_id is not None:
        document["job_id"] = asset.job_id
    if created_new is not None:
        document["created_new"] = created_new
    return document


def event_frame(event: Event, links: Links, expires_at: float) -> tuple[str, Document]:
    """An event as the name and the data of a frame.

    *expires_at* is that of its job, until which the address of an output holds.
    """
    match event:
        case StatusChanged():
            return "status", _status_document(event)
        case ProgressMade(progress=progress):
            return "progress", progress_document(progress)
        case PreviewDrawn(preview=preview):
            return "preview", preview_document(preview)
        case OutputSaved(job_id=job_id, output=output):
            return "output", output_document(output, job_id, expires_at, links)
        case Noted():
            details = dict(event.details)
            return "log", {"level": event.level, "message": event.message, "details": details}


def progress_document(progress: Progress) -> Document:
    """How far a job is; seconds for ``elapsed`` and the least and most that ``remaining`` is."""
    return {
        "value": min(1.0, max(0.0, progress.value)),
        "nodes_done": progress.nodes_done,
        "nodes_total": progress.nodes_total,
        "current_node": progress.current_node,
        "current_node_class": progress.current_node_class,
        "current_node_title": progress.current_node_title,
        "step": progress.step,
        "steps": progress.steps,
        "message": progress.message,
        "elapsed": round(progress.elapsed, 3),
        "remaining": _range_or_none(progress.remaining),
    }


def preview_document(preview: Preview) -> Document:
    """A live picture; an empty ``node_id`` where nobody said which node it is of."""
    return {
        "node_id": preview.node_id or "",
        "content_type": preview.content_type,
        "data_base64": b64encode(preview.data).decode("ascii"),
    }


def error_document(error: JobError) -> Document:
    """Why a job failed."""
    return {
        "code": error.code,
        "message": error.message,
        "node_id": error.node_id,
        "class_type": error.class_type,
        "exception_type": error.exception_type,
        "traceback": "\n".join(line.rstrip("\n") for line in error.traceback) or None,
    }


def moment(seconds: float) -> str:
    """A time since the epoch as a date-time in UTC.

    >>> moment(0.25)
    '1970-01-01T00:00:00.250Z'
    """
    try:
        told = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return _LAST_TIME
    return f"{told.replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"


def _moment_or_none(seconds: float | None) -> str | None:
    return None if seconds is None else moment(seconds)


def _range_or_none(seconds: tuple[float, float] | None) -> list[float] | None:
    return None if seconds is None else [round(one, 1) for one in seconds]


def _status_document(event: StatusChanged) -> Document:
    document: Document = {"status": str(event.status), "queue_position": event.queue_position}
    if event.is_last:
        document["error"] = None if event.error is None else error_document(event.error)
        document["outputs_reused"] = event.outputs_reused
        document["timings"] = _timings_document(event.timings)
    return document


def _timings_document(timings: Timings) -> Document:
    return {"queued": timings.queued, "running": timings.running, "nodes": dict(timings.nodes)}


def _metrics(record: JobRecord) -> Document:
    """How long the job waited and ran, in milliseconds; None where that is not known yet."""
    began = record.started_at or record.completed_at
    queue_ms = None if began is None else _milliseconds(began - record.created_at)
    if record.started_at is None or record.completed_at is None:
        return {"queue_ms": queue_ms, "execution_ms": None}
    execution_ms = _milliseconds(record.completed_at - record.started_at)
    return {"queue_ms": queue_ms, "execution_ms": execution_ms}


def _milliseconds(seconds: float) -> int:
    return max(0, round(seconds * 1000))
