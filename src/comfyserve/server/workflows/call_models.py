"""The shapes of calls and of what is told about them, for the OpenAPI document."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

_INPUTS = "Values by the inputs' names; `GET /api/workflows/{name}` tells which there are."


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")


class CallExtraData(_Closed):
    """Secrets for the backend; never kept."""

    api_key_comfy_org: str | None = None


class WorkflowCall(_Closed):
    """A workflow's inputs, and what is noted on the job."""

    inputs: dict[str, Any] = Field({}, description=_INPUTS)
    metadata: str | dict[str, str] | None = Field(
        None, description="A text of 1 KiB, or 16 labels of 256 bytes by name."
    )
    priority: int = Field(0, ge=-1_000_000, le=1_000_000)
    extra_data: CallExtraData | None = None
    id: str | None = Field(
        None,
        description="A UUID of the caller's own, by which he finds the job if the answer is lost.",
        json_schema_extra={"format": "uuid"},
    )


class CallToValidate(WorkflowCall):
    """A call that is only asked about."""

    files: list[str] = Field(
        [], description="The inputs for which a file would come in a form; none is sent."
    )


class CallProblem(BaseModel):
    """Why an input would be refused."""

    input: str
    message: str


class BackendProblem(BaseModel):
    """Why one backend would not run it."""

    node: str | None
    input: str | None
    what: str = Field(examples=["missing_model", "unknown_node", "bad_value"])
    message: str
    nearest: list[str] = Field(description="Names to take instead, the best first.")


class BackendValidity(BaseModel):
    """Whether one backend would run it."""

    backend: str = Field(description="The backend's id.")
    ok: bool
    problems: list[BackendProblem]


class CallValidity(BaseModel):
    """What would come of a call."""

    valid: bool = Field(description="It would be taken, and a known backend would run it.")
    problems: list[CallProblem]
    backends: list[BackendValidity] = Field(description="Those whose nodes are known.")
    missing_assets: list[str] = Field(description="Ids under which the caller has no asset.")
