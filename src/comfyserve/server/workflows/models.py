"""The shapes of the catalogue's answers, for the OpenAPI document; nothing is made of them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Source = Literal["folder", "published"]


class WorkflowProblem(BaseModel):
    """What keeps something from being offered as it is now."""

    name: str | None = Field(description="The workflow's name; null for the folder of all.")
    message: str


class WorkflowItem(BaseModel):
    """A workflow in a list."""

    name: str
    title: str
    description: str
    source: Source
    available: bool = Field(description="False where its file could never be read.")
    public: bool = Field(description="Its author lets pages show it to everybody.")
    version: str = Field(description="Another one whenever it is another workflow.")
    changed_at: datetime
    problem: str | None = Field(description="Why its file as it is now is not what is offered.")
    drifted: list[str] = Field(description="The ids of backends that it does not fit any more.")
    thumbnail_url: str | None


class WorkflowList(BaseModel):
    """The workflows that a caller may run."""

    workflows: list[WorkflowItem]
    problems: list[WorkflowProblem]


class WorkflowOutput(BaseModel):
    """A node whose results are kept."""

    node_id: str
    class_type: str
    title: str


class Drift(BaseModel):
    """Where a workflow does not fit a backend."""

    workflow: str
    backend: str = Field(description="The backend's id.")
    node: str | None
    input: str | None
    what: str = Field(examples=["missing_model"])
    message: str
    nearest: list[str]


class WorkflowForms(BaseModel):
    """What a form for a workflow needs."""

    name: str
    title: str
    description: str
    open: bool = Field(description="Callers may set any input by its address.")
    timeout: float | None
    format: Literal["api", "editor"] | None
    convention: str | None = Field(description="Who decided which inputs there are.")
    is_described: bool = Field(description="A backend's nodes gave limits and choices.")
    inputs: dict[str, Any] = Field(description="A JSON Schema, its properties in order.")
    basic: list[str]
    advanced: list[str]
    outputs: list[WorkflowOutput]
    warnings: list[str]
    drift: list[Drift]


class Workflow(WorkflowForms):
    """A workflow on offer."""

    source: Source
    available: bool
    public: bool = Field(description="Its author lets pages show it to everybody.")
    version: str
    changed_at: datetime
    problem: str | None
    drifted: list[str]
    thumbnail_url: str | None


class BackendFit(BaseModel):
    """Whether a backend would run a workflow as it is."""

    backend: str = Field(description="The backend's id.")
    fits: bool


class InspectedWorkflow(WorkflowForms):
    """What a workflow's file would be here."""

    fits: list[BackendFit]


class WorkflowForm(BaseModel):
    """A workflow's file, and what its author says of it."""

    model_config = ConfigDict(extra="forbid")

    file: str = Field(
        description="Any file that holds a workflow: JSON, or media that ComfyUI saved.",
        json_schema_extra={"format": "binary"},
    )
    sidecar: str | None = Field(None, description="The text of a sidecar, in TOML.")
