"""The shapes of what is asked and answered, for the OpenAPI document; nothing is made of them.

They are the official contract's, word for word where a program reads them, and what comfyserve
adds. That answers fit them is proven by tests, not by checks in a running server.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import models_json_schema

from comfyserve.server.workflows.call_models import CallToValidate, CallValidity, WorkflowCall
from comfyserve.server.workflows.models import (
    InspectedWorkflow,
    Workflow,
    WorkflowForm,
    WorkflowList,
)


def schemas() -> dict[str, Any]:
    """The JSON schema of each shape, by name, as an OpenAPI document holds them."""
    shapes: list[type[BaseModel]] = [Asset, Job, JobPage, JobWorkflow, ErrorEnvelope]
    shapes += [NewJob, HashReference, UploadForm]
    shapes += [Backend, BackendList, NewBackend, RemovedBackend]
    shapes += [WorkflowList, Workflow, InspectedWorkflow, WorkflowForm]
    shapes += [WorkflowCall, CallToValidate, CallValidity]
    _, together = models_json_schema(
        [(shape, "validation") for shape in shapes], ref_template="#/components/schemas/{model}"
    )
    found: dict[str, Any] = together["$defs"]
    return found


Status = Literal["queued", "running", "succeeded", "canceling", "canceled", "failed", "expired"]
OutputType = Literal["image", "video", "audio", "text", "file", "latent"]


class Asset(BaseModel):
    """A record over immutable bytes, which are known by their blake3 hash."""

    id: str
    hash: str | None = Field(examples=["blake3:9f8a1c0d..."])
    size_bytes: int
    content_type: str = Field(examples=["image/png"])
    created_at: datetime
    url: str = Field(description="Where its bytes are; an absolute address.")
    url_expires_at: datetime
    file_path: str | None = None
    created_new: bool | None = Field(
        None, description="Where it was just made: whether its bytes were new."
    )
    expires_at: datetime | None = None
    tags: list[str] = []
    job_id: str | None = None


class Progress(BaseModel):
    """How far a job is, as a whole picture."""

    value: float = Field(ge=0, le=1)
    nodes_done: int
    nodes_total: int
    current_node: str | None = None
    current_node_class: str | None = None
    current_node_title: str | None = None
    step: int | None = None
    steps: int | None = None
    message: str | None = None
    elapsed: float = Field(0, description="Seconds since the job began to run.")
    remaining: list[float] | None = Field(
        None, description="The least and the most seconds that it may still take."
    )


class Output(BaseModel):
    """Something a job produced; it is an asset, and `id` is the asset's."""

    node_id: str
    name: str
    type: OutputType
    content_type: str
    size_bytes: int
    id: str
    hash: str | None
    url: str
    url_expires_at: datetime
    job_id: str | None = None
    key: str = Field(description="The node's own word for it, such as `images`.")
    subfolder: str
    temp: bool
    index: int


class JobError(BaseModel):
    """Why a job failed."""

    code: str = Field(examples=["node_execution_error"])
    message: str
    node_id: str | None = None
    class_type: str | None = None
    exception_type: str | None = None
    traceback: str | None = None


class JobUrls(BaseModel):
    """Where to go on from a job; relative to the host, or absolute."""

    self: str
    events: str
    cancel: str


class Job(BaseModel):
    """One execution of a workflow."""

    id: str
    status: Status
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    expires_at: datetime
    queue_position: int | None
    progress: Progress | None
    outputs: list[Output]
    error: JobError | None
    metrics: dict[str, int | None] | None = Field(
        None, examples=[{"queue_ms": 9000, "execution_ms": 42000}]
    )
    urls: JobUrls
    metadata: str | dict[str, str] | None = None
    priority: int = 0
    seeds: dict[str, int] = Field({}, description="The seeds that were used, by address.")
    outputs_reused: bool = False
    attempts: int = 0
    expected_wait: list[float] | None = Field(
        None,
        description="The least and the most seconds until it begins; null where nothing can be"
        " said, and once it runs.",
    )
    create_time: datetime
    update_time: datetime
    workflow: str | None = Field(None, description="The name of the workflow it runs, if any.")
    inputs: dict[str, Any] | None = None


class JobPage(BaseModel):
    """Some jobs, newest first."""

    jobs: list[Job]
    next_cursor: str | None = Field(description="Null after the last page.")
    truncated: bool


class JobWorkflow(BaseModel):
    """The graph that a job runs, with names where references to assets were."""

    workflow: dict[str, Any]
    format: Literal["save", "api"]


class ErrorBody(BaseModel):
    """What went wrong: a code for programs, a sentence for people."""

    code: str
    message: str
    details: dict[str, Any] | None = None


class ErrorEnvelope(BaseModel):
    """The body of every error."""

    error: ErrorBody


class Device(BaseModel):
    """What a backend computes on."""

    name: str
    type: str = Field(examples=["cuda"])
    memory_bytes: int | None


class Backend(BaseModel):
    """A ComfyUI that jobs are run on."""

    id: str
    url: str = Field(description="Its address, without what opens its door.")
    state: Literal["up", "draining", "down"]
    answers: bool = Field(description="Whether it answers; one that drains may or may not.")
    reason: str | None = Field(description="Why it is down.")
    since: datetime = Field(description="When its state changed last.")
    running: int | None = Field(description="Jobs that run there, whoever sent them.")
    waiting: int | None = Field(description="Jobs that wait in its own queue.")
    nodes: int | None = Field(description="How many kinds of nodes it has; null if not known.")
    version: str | None
    devices: list[Device]
    origin: Literal["settings", "added"]
    kept: bool = Field(description="Whether it is there after the next start.")
    message: str | None


class BackendList(BaseModel):
    """All backends."""

    backends: list[Backend]


class RemovedBackend(BaseModel):
    """A backend that is gone."""

    id: str
    url: str
    comes_back: bool = Field(description="It stands in the settings.")
    message: str | None


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ExtraData(_Closed):
    """Secrets for the backend; never kept."""

    api_key_comfy_org: str | None = None


class NewJob(_Closed):
    """A graph to run."""

    workflow: dict[str, Any] = Field(description="The graph in ComfyUI's API format.")
    extra_data: ExtraData | None = None
    metadata: str | dict[str, str] | None = Field(
        None, description="A text of 1 KiB, or 16 labels of 256 bytes by name."
    )
    priority: int = Field(0, ge=-1_000_000, le=1_000_000)
    id: str | None = Field(
        None,
        description="A UUID of the caller's own, by which he finds the job if the answer is lost.",
        json_schema_extra={"format": "uuid"},
    )


class NewBackend(_Closed):
    """A ComfyUI to run jobs on, and what opens its door; the latter is never stored."""

    url: str = Field(examples=["http://gpu2:8188"])
    headers: dict[str, str] | None = None
    token: str | None = Field(None, description="Sent as `Authorization: Bearer`.")
    verify_tls: bool = True


class HashReference(_Closed):
    """Bytes that the server has, and what their asset is to be called."""

    hash: str = Field(examples=["blake3:9f8a1c0d..."])
    file_path: str | None = None
    tags: list[str] | None = None
    expires_in: int | None = Field(None, ge=60, le=604_800)


class UploadForm(_Closed):
    """A file and what is said of it."""

    file: str = Field(json_schema_extra={"format": "binary"})
    content_type: str = Field(examples=["image/png"])
    file_path: str = Field(examples=["photo.png"])
    expected_hash: str | None = Field(None, examples=["blake3:9f8a1c0d..."])
    tags: list[str] | None = None
    expires_in: int | None = Field(None, ge=60, le=604_800)
