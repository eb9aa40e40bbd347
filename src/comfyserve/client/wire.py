"""What a comfyserve says over HTTP, read as our words; nobody is asked anything here.

A document that cannot be read raises KeyError, TypeError or ValueError: who asked for it knows
which question it answers.
"""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from comfyserve.assets import MediaKind, media_kind
from comfyserve.denials import EditorFormatRefused, MetadataInvalid, ServerStopping
from comfyserve.errors import (
    ComfyServeError,
    GraphRejected,
    InputProblem,
    InvalidInputs,
    RequestRefused,
)
from comfyserve.events import Event, Noted, OutputSaved, PreviewDrawn, ProgressMade, StatusChanged
from comfyserve.jobs import JobError, JobStatus, Output, Preview, Progress, Timings
from comfyserve.refusals import (
    BlobNotFound,
    DiskCapReached,
    HashMismatch,
    IdempotencyKeyReused,
    MissingAsset,
    NotFound,
    QueueFull,
    WorkflowNotFound,
)

LONGEST_FRAME: Final = 64 << 20
"""Bytes of one frame of an event stream; a preview has far fewer."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of an event stream; *number* is its id, where it has one."""

    name: str
    data: str
    number: int | None = None


class Frames:
    """Cuts a stream of server-sent events into frames, whatever pieces it comes in."""

    def __init__(self) -> None:
        self._rest = b""
        self._fields: dict[str, str] = {}

    def feed(self, piece: bytes) -> Iterator[Frame]:
        """The frames that *piece* completes."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        if len(self._rest) > LONGEST_FRAME:
            raise ValueError(f"a frame has more than {LONGEST_FRAME:,} bytes")
        for line in lines:
            if (text := line.rstrip(b"\r").decode()) == "":
                yield from self._completed()
            else:
                self._take(text)

    def _take(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data" and "data" in self._fields:
            value = f"{self._fields['data']}\n{value}"
        if name:  # a line that begins with a colon only keeps the connection alive
            self._fields[name] = value

    def _completed(self) -> Iterator[Frame]:
        fields, self._fields = self._fields, {}
        if "data" in fields:
            id = fields.get("id", "")
            number = int(id) if id.isascii() and id.isdigit() else None
            yield Frame(fields.get("event", "message"), fields["data"], number)


def event_of(frame: Frame, job_id: str) -> Event | None:
    """What a frame tells of the job; None for one of a kind that nobody knows yet."""
    if frame.name not in ("status", "progress", "preview", "output", "log"):
        return None
    document = json.loads(frame.data)
    match frame.name:
        case "status":
            return _status(document, job_id, frame.number)
        case "progress":
            return ProgressMade(job_id, progress_of(document))
        case "preview":
            data = b64decode(document["data_base64"])
            node = document["node_id"] or None
            return PreviewDrawn(job_id, Preview(node, document["content_type"], data))
        case "output":
            return OutputSaved(job_id, output_of(document), frame.number)
        case _:
            return _noted(document, job_id, frame.number)


def events_of(job: Mapping[str, Any]) -> Iterator[Event]:
    """What a job's document tells, as events: its outputs, how far it is, and how it stands."""
    job_id = str(job["id"])
    for document in job["outputs"]:
        yield OutputSaved(job_id, output_of(document))
    if job.get("progress"):
        yield ProgressMade(job_id, progress_of(job["progress"]))
    metrics = _mapping(job, "metrics")
    timings = {
        "queued": (metrics.get("queue_ms") or 0) / 1000,
        "running": (metrics.get("execution_ms") or 0) / 1000,
    }
    yield _status({"timings": timings, **job}, job_id, None)


def progress_of(document: Mapping[str, Any]) -> Progress:
    """A progress document as progress."""
    remaining = document.get("remaining")
    return Progress(
        value=float(document["value"]),
        nodes_done=int(document["nodes_done"]),
        nodes_total=int(document["nodes_total"]),
        current_node=document.get("current_node"),
        current_node_class=document.get("current_node_class"),
        current_node_title=document.get("current_node_title"),
        step=document.get("step"),
        steps=document.get("steps"),
        message=document.get("message"),
        elapsed=float(document.get("elapsed") or 0.0),
        remaining=None if not remaining else (float(remaining[0]), float(remaining[1])),
    )


def output_of(document: Mapping[str, Any]) -> Output:
    """An output document as an output, whose bytes are still on the server: no location yet."""
    kind: MediaKind = media_kind(document["content_type"])
    return Output(
        node_id=str(document["node_id"]),
        key=str(document.get("key") or _KEYS.get(document["type"], "files")),
        name=str(document["name"]),
        type=document["type"] if document["type"] in _KEYS else kind,
        content_type=str(document["content_type"]),
        size_bytes=int(document["size_bytes"]),
        hash=str(document["hash"] or ""),
        location="",
        subfolder=str(document.get("subfolder") or ""),
        temp=bool(document.get("temp")),
        index=int(document.get("index") or 0),
        id=str(document["id"]),
    )


_KEYS = {
    "image": "images",
    "video": "videos",
    "audio": "audio",
    "text": "text",
    "file": "files",
    "latent": "latents",
}
"""The word ComfyUI's nodes use for most outputs of a kind, where the server does not tell it."""


def reference(asset: Mapping[str, Any], file_path: str, mask_of: object = None) -> dict[str, Any]:
    """What stands in a graph for an uploaded file.

    Of a mask, *mask_of* is the image that it is laid over: a reference too, or the name of a file
    that the server has.
    """
    info = {"id": asset["id"], "hash": asset.get("hash"), "file_path": file_path}
    if mask_of is not None:
        info["mask_of"] = mask_of
    return {"__type": "core/ASSET", "info": info}


def error_of(url: str, text: str, asked_for: tuple[str, str]) -> ComfyServeError:
    """The error that an answer with an error body means.

    *asked_for* is the kind and the id of what was asked for, as `NotFound` tells it. Raises
    ValueError, KeyError or TypeError for an answer that is no error of a comfyserve.
    """
    body = json.loads(text)["error"]
    code, message, details = str(body["code"]), str(body["message"]), _mapping(body, "details")
    match code:
        case "invalid_workflow":
            return GraphRejected(url, message, _node_errors(details))
        case "invalid_inputs":
            told = _mapping(details, "inputs") or {"": message}
            return InvalidInputs(InputProblem(name, str(said)) for name, said in told.items())
        case "not_found" | "job_not_found" | "asset_not_found":
            return NotFound(*asked_for)
        case "workflow_not_found":
            return WorkflowNotFound(asked_for[1], details.get("nearest") or ())
        case "queue_full" if "most" in details:
            return QueueFull(int(details["most"]))
        case "disk_cap_reached" if "most" in details:
            return DiskCapReached(int(details["most"]))
        case "missing_asset":
            return _missing(tuple(map(str, details.get("missing_ids") or ())), message)
        case "hash_mismatch" if {"expected", "found"} <= details.keys():
            return HashMismatch(str(details["expected"]), str(details["found"]))
        case "blob_not_found":
            return BlobNotFound(map(str, details.get("hashes") or ()))
        case "idempotency_key_reuse":
            return IdempotencyKeyReused(asked_for[1])
        case "workflow_format_ui":
            return EditorFormatRefused()
        case "metadata_invalid":
            return MetadataInvalid(message)
        case "stopping":
            return ServerStopping()
        case _:
            return RequestRefused(url, message, code, details or None)


def _status(document: Mapping[str, Any], job_id: str, number: int | None) -> StatusChanged:
    timings = _mapping(document, "timings")
    nodes = {str(node): float(seconds) for node, seconds in _mapping(timings, "nodes").items()}
    return StatusChanged(
        job_id,
        JobStatus(document["status"]),
        queue_position=document.get("queue_position"),
        error=_job_error(document.get("error")),
        outputs_reused=bool(document.get("outputs_reused")),
        timings=Timings(
            float(timings.get("queued") or 0.0), float(timings.get("running") or 0.0), nodes
        ),
        seq=number,
    )


def _noted(document: Mapping[str, Any], job_id: str, number: int | None) -> Noted:
    details = {str(key): str(value) for key, value in _mapping(document, "details").items()}
    return Noted(
        job_id,
        "warning" if document["level"] in ("warning", "error") else "info",
        str(document["message"]),
        details,
        number,
    )


def _job_error(document: Mapping[str, Any] | None) -> JobError | None:
    if document is None:
        return None
    trace = document.get("traceback") or ()
    return JobError(
        code=str(document["code"]),
        message=str(document["message"]),
        node_id=document.get("node_id"),
        class_type=document.get("class_type"),
        exception_type=document.get("exception_type"),
        traceback=tuple(trace.splitlines(keepends=True) if isinstance(trace, str) else trace),
    )


def _node_errors(details: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The contract's lists of problems by node, in the form that a ComfyUI has them in."""
    return {
        str(node): told if isinstance(told, dict) else {"errors": told}
        for node, told in _mapping(details, "node_errors").items()
    }


def _missing(ids: tuple[str, ...], message: str) -> MissingAsset:
    """The error names its ids itself; what the message says besides is kept."""
    named = MissingAsset(ids)
    besides = message.removesuffix(str(named)).strip() if ids else message
    return MissingAsset(ids, [besides] if besides else [])


def _mapping(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = document.get(name)
    return value if isinstance(value, dict) else {}
