"""The ways to begin: with a job that no backend knows yet, or with one that a backend has."""

from __future__ import annotations

from collections.abc import Callable

from comfyserve.comfy.backend import Backend
from comfyserve.execution.execution import Execution
from comfyserve.jobs import Job, UsualTimes
from comfyserve.outputs import Sink


def run(
    backend: Backend,
    job: Job,
    sink: Sink,
    *,
    prompt_id: str | None = None,
    keep_temp: bool = False,
    moved: Callable[[], None] = lambda: None,
    usual: UsualTimes | None = None,
) -> Execution:
    """Run *job* on *backend* and bring its outputs into *sink*.

    The backend knows it by *prompt_id*, which is the job's own id unless it is given: each further
    attempt needs one of its own. From what is *usual* for such jobs it says how long it will take.

    ``async for event in run(...)`` tells what happens, ending with a terminal `StatusChanged`;
    a job that fails is told, not raised. Raised are `GraphRejected` and the other
    `BackendError`s while the backend has not accepted the job, and `OutputUnwritable` at any
    time. To stop listening leaves the job alone; `Execution.cancel` cancels it.
    """
    return Execution(
        backend, job, sink, prompt_id=prompt_id, keep_temp=keep_temp, moved=moved, usual=usual
    )


def resume(
    backend: Backend,
    job: Job,
    sink: Sink,
    *,
    prompt_id: str,
    keep_temp: bool = False,
    moved: Callable[[], None] = lambda: None,
    usual: UsualTimes | None = None,
) -> Execution:
    """Take up a job that *backend* was given before under *prompt_id*, and go on like `run`.

    Nothing is uploaded or submitted. The job fails as lost when the backend does not know it, and
    for want of its outputs when they were sent only live, while nobody listened.
    """
    return Execution(
        backend,
        job,
        sink,
        prompt_id=prompt_id,
        keep_temp=keep_temp,
        is_resumed=True,
        moved=moved,
        usual=usual,
    )


async def cancel(backend: Backend, job_id: str) -> None:
    """Cancel a job that somebody else follows, or nobody; unknown ids change nothing."""
    await backend.cancel(job_id)
