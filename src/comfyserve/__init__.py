"""Turn a ComfyUI workflow file into a hosted API."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from comfyserve.client.async_client import AsyncClient
    from comfyserve.client.job_handle import AsyncJobHandle, FinishedJob
    from comfyserve.client.output_files import OutputFile
    from comfyserve.client.sync_client import Client, JobHandle
    from comfyserve.errors import (
        BackendError,
        BackendUnreachable,
        ComfyServeError,
        GraphRejected,
        InvalidInputs,
        JobCanceled,
        JobFailed,
        JobTimedOut,
        NodeFailed,
        OutOfMemory,
        OutputUnwritable,
        WorkflowUnreadable,
    )
    from comfyserve.events import (
        Event,
        Noted,
        OutputSaved,
        PreviewDrawn,
        ProgressMade,
        StatusChanged,
    )
    from comfyserve.jobs import JobStatus, Preview, Progress, Timings
    from comfyserve.workflows.workflow import Workflow

__version__ = "0.1.0"

__all__ = [
    "AsyncClient",
    "AsyncJobHandle",
    "BackendError",
    "BackendUnreachable",
    "Client",
    "ComfyServeError",
    "Event",
    "FinishedJob",
    "GraphRejected",
    "InvalidInputs",
    "JobCanceled",
    "JobFailed",
    "JobHandle",
    "JobStatus",
    "JobTimedOut",
    "NodeFailed",
    "Noted",
    "OutOfMemory",
    "OutputFile",
    "OutputSaved",
    "OutputUnwritable",
    "Preview",
    "PreviewDrawn",
    "Progress",
    "ProgressMade",
    "StatusChanged",
    "Timings",
    "Workflow",
    "WorkflowUnreadable",
    "__version__",
]

_ROOMS = {
    "AsyncClient": "client.async_client",
    "AsyncJobHandle": "client.job_handle",
    "Client": "client.sync_client",
    "Event": "events",
    "FinishedJob": "client.job_handle",
    "JobHandle": "client.sync_client",
    "JobStatus": "jobs",
    "Noted": "events",
    "OutputFile": "client.output_files",
    "OutputSaved": "events",
    "Preview": "jobs",
    "PreviewDrawn": "events",
    "Progress": "jobs",
    "ProgressMade": "events",
    "StatusChanged": "events",
    "Timings": "jobs",
    "Workflow": "workflows.workflow",
}


def __getattr__(name: str) -> Any:
    # What is not used is not imported: `comfyserve --help` does not wait for an HTTP client.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_ROOMS.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
