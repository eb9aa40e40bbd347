"""What becomes of a job that did not get to its end: sentences and codes for its failure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from comfyserve.errors import (
    BackendUnreachable,
    ComfyServeError,
    GraphRejected,
    InvalidInputs,
    JobLost,
    JobTimedOut,
    OutputUnavailable,
    OutputUnwritable,
)
from comfyserve.fleet import Member
from comfyserve.jobs import JobError
from comfyserve.workflows.graph import Graph


def is_lost(failure: Exception | None) -> bool:
    """Whether the backend was lost, and the job with it, so that it may end well elsewhere."""
    return isinstance(failure, (JobLost, BackendUnreachable))


def is_incomplete(failure: Exception | None) -> bool:
    """Whether the job ran well, but its outputs are gone or were sent while nobody listened."""
    return isinstance(failure, OutputUnavailable)


def last(why: JobError, attempts: int, most: int, paid: str | None) -> JobError | None:
    """Why a job is not run again; None where it is. *paid* says why that may cost money."""
    reason = why.message.rstrip(".")
    if paid is not None:
        return replace(why, message=f"{reason}. It is not run again, as {paid}.")
    if attempts >= most:
        tries = "once" if attempts == 1 else f"{attempts} times"
        return replace(why, message=f"{reason}. It was tried {tries}.")
    return None


async def paid_nodes(graph: Graph, member: Member) -> str | None:
    """Why running the graph twice may cost money twice; None where it certainly does not."""
    if member.catalog is None and member.is_up:
        await member.read_catalog()
    if (catalog := member.catalog) is None:
        return "whether its nodes cost money is not known"
    for node_id, node in graph.items():
        name = node.get("class_type") if isinstance(node, Mapping) else None
        kind = catalog.get(name) if isinstance(name, str) else None
        if kind is not None and kind.is_paid:
            return f"node {node_id} ({name}) costs money each time"
    return None


def refusal(error: ComfyServeError) -> JobError:
    """Why a job failed that could not even begin, or whose outputs nobody could keep."""
    match error:
        case GraphRejected():
            node_id, told = next(iter(error.node_errors.items()), (None, {}))
            kind = told.get("class_type")
            return JobError(
                error.code,
                f"ComfyUI will not run this graph: {error.reason}",
                node_id=node_id,
                class_type=kind if isinstance(kind, str) else None,
            )
        case OutputUnwritable():
            # The disk's own words may name folders of this machine.
            is_plain = not any(mark in error.reason for mark in "/\\")
            reason = error.reason.rstrip(".") if is_plain else "the disk does not take it"
            return JobError(error.code, f"An output could not be kept: {reason}.")
        case InvalidInputs():
            return JobError("blob_not_found", "A file that the job needs is no longer kept.")
        case _:
            return JobError(error.code, str(error))


def timed_out(seconds: float) -> JobError:
    """It ran for longer than jobs may."""
    message = f"The job ran for longer than {seconds:g} s, so it was stopped."
    return JobError(JobTimedOut.code, message)


INTERNAL: JobError = JobError(
    "internal_error", "Something went wrong inside this server; its log says what."
)

REMOVED: JobError = JobError("backend_lost", "The backend of the job was removed.")
