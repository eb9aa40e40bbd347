"""What a command tells of a job: on stdout for scripts, on stderr for people."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from comfyserve.cli.display import display
from comfyserve.cli.event_lines import event_line, result_line
from comfyserve.client.job_handle import AsyncJobHandle, FinishedJob
from comfyserve.errors import ComfyServeError
from comfyserve.events import Event, OutputSaved
from comfyserve.jobs import JobStatus

Show = Callable[[Event], None]


class Report(Protocol):
    """Tells of one job after the other, from the first event to the end."""

    def watching(self, handle: AsyncJobHandle) -> AbstractContextManager[Show]: ...

    def done(self, job: FinishedJob) -> None: ...

    def interrupted(self, handle: AsyncJobHandle) -> None: ...

    def failed(self, error: ComfyServeError) -> None: ...


class PathReport:
    """Saved paths on stdout, one a line; progress and a last sentence on stderr."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet

    @contextmanager
    def watching(self, handle: AsyncJobHandle) -> Iterator[Show]:
        # On one terminal the paths would break the bar, so there they wait for its end.
        at_once = self._quiet or not (sys.stdout.isatty() and sys.stderr.isatty())
        try:
            with display(quiet=self._quiet) as screen:

                def show(event: Event) -> None:
                    screen.show(event)
                    if at_once and isinstance(event, OutputSaved):
                        _tell(event.output.location)

                yield show
        finally:
            if not at_once:
                for output in handle.outputs:
                    _tell(output.location)

    def done(self, job: FinishedJob) -> None:
        if not self._quiet:
            print(summary(job), file=sys.stderr, flush=True)

    def interrupted(self, handle: AsyncJobHandle) -> None:
        return

    def failed(self, error: ComfyServeError) -> None:
        return


class JsonReport:
    """One event a line on stdout, the result last; nothing on stderr but errors."""

    def __init__(self) -> None:
        self._handle: AsyncJobHandle | None = None

    @contextmanager
    def watching(self, handle: AsyncJobHandle) -> Iterator[Show]:
        self._handle = handle
        yield lambda event: _tell(event_line(event))

    def done(self, job: FinishedJob) -> None:
        self._end(JobStatus.SUCCEEDED)

    def interrupted(self, handle: AsyncJobHandle) -> None:
        self._end(handle.status)

    def failed(self, error: ComfyServeError) -> None:
        canceled = self._handle is not None and self._handle.status == JobStatus.CANCELED
        self._end(JobStatus.CANCELED if canceled else JobStatus.FAILED, error)

    def _end(self, status: JobStatus, error: ComfyServeError | None = None) -> None:
        if self._handle is None:
            _tell(result_line(status, error=error))
            return
        _tell(
            result_line(
                status,
                job_id=self._handle.id,
                outputs=self._handle.outputs,
                seeds=self._handle.seeds,
                outputs_reused=self._handle.outputs_reused,
                timings=self._handle.timings,
                error=error,
            )
        )


def summary(job: FinishedJob) -> str:
    """What a person wants to know at the end: ``done in 12.3 s; seed 7``."""
    words = [f"done in {job.timings.queued + job.timings.running:.1f} s"]
    if seeds := sorted({str(seed) for seed in job.seeds.values()}):
        words.append(f"seed {', '.join(seeds)}")
    if job.outputs_reused:
        words.append("nothing ran again: the server had it all from before")
    if not job.outputs:
        words.append("the workflow saved nothing")
    return "; ".join(words)


def _tell(line: str) -> None:
    print(line, flush=True)
