"""Events as lines of JSON, for programs that run the command."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from comfyserve.errors import ComfyServeError
from comfyserve.events import Event, Noted, OutputSaved, PreviewDrawn, ProgressMade, StatusChanged
from comfyserve.jobs import JobStatus, Output, Timings


def event_line(event: Event) -> str:
    """One event as one line. A preview says its size; its bytes are left out."""
    return _line(_name(event), {"job_id": event.job_id, **_fields(event)})


def result_line(
    status: JobStatus,
    *,
    job_id: str | None = None,
    outputs: Iterable[Output] = (),
    seeds: Mapping[str, int] | None = None,
    outputs_reused: bool = False,
    timings: Timings | None = None,
    error: ComfyServeError | None = None,
) -> str:
    """The last line: how it ended, and everything it made."""
    fields = {
        "job_id": job_id,
        "status": status,
        "outputs": [_output(output) for output in outputs],
        "seeds": dict(seeds or {}),
        "outputs_reused": outputs_reused,
        "timings": asdict(timings or Timings()),
    }
    return _line("result", fields if error is None else fields | error.to_json())


def _name(event: Event) -> str:
    match event:
        case StatusChanged():
            return "status"
        case ProgressMade():
            return "progress"
        case PreviewDrawn():
            return "preview"
        case OutputSaved():
            return "output"
        case Noted():
            return "note"


def _fields(event: Event) -> dict[str, Any]:
    match event:
        case StatusChanged():
            return {
                "seq": event.seq,
                "status": event.status,
                "queue_position": event.queue_position,
                "error": None if event.error is None else asdict(event.error),
            }
        case ProgressMade():
            return asdict(event.progress)
        case PreviewDrawn(preview=preview):
            return {
                "node_id": preview.node_id,
                "content_type": preview.content_type,
                "size_bytes": len(preview.data),
            }
        case OutputSaved():
            return {"seq": event.seq, **_output(event.output)}
        case Noted():
            details = dict(event.details)
            return {
                "seq": event.seq,
                "level": event.level,
                "message": event.message,
                "details": details,
            }


def _output(output: Output) -> dict[str, Any]:
    return {
        "path": output.location,
        "name": output.name,
        "type": output.type,
        "content_type": output.content_type,
        "size_bytes": output.size_bytes,
        "hash": output.hash,
        "node_id": output.node_id,
        "key": output.key,
        "temp": output.temp,
    }


def _line(name: str, fields: Mapping[str, Any]) -> str:
    return json.dumps({"event": name, **fields})
