"""A job that was submitted: what is known of it, and the ways to wait for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from comfyserve import errors, jobs
from comfyserve.client.event_log import EventLog
from comfyserve.client.output_files import OutputFile
from comfyserve.client.spool import Keeper
from comfyserve.events import Event, OutputSaved, StatusChanged
from comfyserve.jobs import JobError, JobStatus, Progress, Timings


@dataclass(frozen=True, slots=True)
class FinishedJob:
    """A job that succeeded, and what it made.

    *inputs* are the inputs really used. *seeds* are the seeds really used, by address
    (``{"3.seed": 7}``). *outputs_reused* says that the server had it all from before and ran no
    node again.
    """

    id: str
    outputs: tuple[OutputFile, ...]
    inputs: Mapping[str, Any]
    seeds: Mapping[str, int]
    outputs_reused: bool
    timings: Timings
    status: JobStatus = JobStatus.SUCCEEDED


class AsyncJobHandle:
    """One submitted job. It goes on by itself; a handle may be waited for, or dropped."""

    def __init__(
        self,
        job: jobs.Job,
        inputs: Mapping[str, Any],
        cancel: Callable[[], Awaitable[None]],
        keeper: Callable[[str], Keeper] | None = None,
    ) -> None:
        self.job = job
        self.inputs = inputs
        self._keeper = keeper
        self._cancel = cancel
        self._log = EventLog()
        self._last = StatusChanged(job.id, JobStatus.QUEUED)
        self._outputs: tuple[OutputFile, ...] = ()
        self._failure: Exception | None = None
        self._over = asyncio.Event()
        self._queued_at = time.monotonic()
        self._started_at: float | None = None
        self._stopped_at: float | None = None

    @property
    def id(self) -> str:
        """The job's id: a canonical UUID, and ComfyUI's prompt_id where the server is one."""
        return self.job.id

    @property
    def status(self) -> JobStatus:
        """Where the job stands."""
        return self._last.status

    @property
    def progress(self) -> Progress:
        """How far the job is."""
        return self._log.progress

    @property
    def outputs(self) -> tuple[OutputFile, ...]:
        """The outputs saved so far."""
        return self._outputs

    @property
    def seeds(self) -> Mapping[str, int]:
        """The seeds really used, by address."""
        return self.job.seeds

    @property
    def outputs_reused(self) -> bool:
        """The server had everything from before; known at the end."""
        return self._last.outputs_reused

    @property
    def timings(self) -> Timings:
        """How long the job took; until its end, how long it has taken by now, without the nodes."""
        if self._last.is_last:
            return self._last.timings
        now = self._stopped_at or time.monotonic()
        started = now if self._started_at is None else self._started_at
        return Timings(queued=started - self._queued_at, running=now - started)

    def events(self, after: int = 0) -> AsyncGenerator[Event]:
        """Yield the events after number *after*, in order, until the job's last one.

        Any number of listeners may do this at once. A slow one loses previews, then progress.
        """
        return self._log.follow(after)

    async def wait(self, timeout: float | None = None) -> JobStatus:  # noqa: ASYNC109
        """Wait until the job ended, well or not, and return its status.

        Raises `JobTimedOut` after *timeout* seconds; the job goes on.
        """
        try:
            async with asyncio.timeout(timeout):
                await self._over.wait()
        except TimeoutError as error:
            raise errors.JobTimedOut(self.id, timeout or 0.0) from error
        return self.status

    async def result(self, timeout: float | None = None) -> FinishedJob:  # noqa: ASYNC109
        """Wait for the job to succeed, and return what it made.

        Raises `JobFailed` with the node that failed, `JobCanceled`, `JobTimedOut` after *timeout*
        seconds (the job goes on), or why the server would not run it at all.
        """
        await self.wait(timeout)
        if self._failure is not None:
            raise self._failure
        return FinishedJob(
            self.id, self.outputs, self.inputs, self.seeds, self.outputs_reused, self.timings
        )

    async def cancel(self) -> None:
        """Cancel exactly this job on its server; one that ended stays as it is.

        Returns once the server was told. Raises `BackendError` when it could not be, and
        `ClientClosed` when there is nobody any more to tell it.
        """
        if isinstance(self._failure, errors.ClientClosed):
            raise self._failure
        if not self._over.is_set():
            await self._cancel()

    def learn(self, inputs: Mapping[str, Any], seeds: Mapping[str, int]) -> None:
        """The server says which inputs and seeds it really uses."""
        self.inputs = inputs
        self.job = replace(self.job, seeds=seeds)

    def hear(self, event: Event) -> None:
        """Take in what happened to the job, and pass it on to the listeners."""
        match event:
            case OutputSaved(output=output):
                keeper = self._keeper(output.location) if self._keeper else None
                file = OutputFile.of(output, keeper)
                self._outputs += (file,)
                event = OutputSaved(event.job_id, file)
            case StatusChanged():
                self._last = event
                if event.job_id != self.job.id:
                    self.job = replace(self.job, id=event.job_id)
                if event.status == JobStatus.RUNNING and self._started_at is None:
                    self._started_at = time.monotonic()
                if event.is_last:
                    self._failure = _failure(event, self._outputs)
                    self._over.set()
        self._log.add(event)

    def fail(self, reason: Exception) -> None:
        """The job never ran, or cannot be followed any more, for this reason."""
        if isinstance(reason, errors.ComfyServeError):
            error = JobError(reason.code, str(reason))
        else:
            error = JobError("internal_error", f"{type(reason).__name__}: {reason}")
        self.hear(StatusChanged(self.id, JobStatus.FAILED, error=error))
        self._failure = reason

    def leave(self) -> None:
        """Nobody follows the job any more, though it may go on; whoever waits is told."""
        if not self._over.is_set():
            self._failure = errors.ClientClosed(self.id)
            self._stopped_at = time.monotonic()
            self._log.break_off(self._failure)
            self._over.set()


def _failure(last: StatusChanged, outputs: tuple[OutputFile, ...]) -> Exception | None:
    match last:
        case StatusChanged(status=JobStatus.SUCCEEDED):
            return None
        case StatusChanged(status=JobStatus.CANCELED):
            return errors.JobCanceled(last.job_id, outputs)
        case StatusChanged(error=JobError() as error):
            kind = _FAILURES.get(error.code, errors.JobFailed)
            return kind(
                error.message,
                node_id=error.node_id,
                class_type=error.class_type,
                exception_type=error.exception_type,
                traceback=error.traceback,
                job_id=last.job_id,
                outputs=outputs,
            )
        case _:
            message = f"the job ended as {last.status}, and the server does not say why"
            return errors.JobFailed(message, job_id=last.job_id, outputs=outputs)


def _kinds(kind: type[errors.JobFailed]) -> Iterator[type[errors.JobFailed]]:
    yield kind
    for narrower in kind.__subclasses__():
        yield from _kinds(narrower)


_FAILURES = {kind.code: kind for kind in _kinds(errors.JobFailed)}
