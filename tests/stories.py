"""Running one job against any ComfyUI and keeping all that was told of it."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from comfyserve.assets import InputFile
from comfyserve.client.output_folder import OutputFolder
from comfyserve.comfy.backend import Backend, Timeouts
from comfyserve.events import Event, Noted, OutputSaved, PreviewDrawn, ProgressMade, StatusChanged
from comfyserve.execution import Execution
from comfyserve.jobs import Job, JobError, JobStatus, Output, Preview, Progress
from tests.traces.recording import Recording

HASTY = Timeouts(connect=2.0, answer=5.0, stall=5.0, silence=0.4, poll=0.1, lost=0.4, away=1.5)
"""The product's timeouts, an order of magnitude smaller, so that waiting them out is quick."""


@dataclass
class Story:
    """All events of one job, and the folder its outputs went to."""

    folder: Path
    events: list[Event] = field(default_factory=list)

    @property
    def last(self) -> StatusChanged:
        """The event that ended the job; there is exactly one and nothing follows it."""
        ends = [event for event in self.events if event.is_last]
        assert len(ends) == 1 and self.events[-1] is ends[0]
        assert isinstance(ends[0], StatusChanged)
        return ends[0]

    @property
    def error(self) -> JobError:
        """Why the job failed."""
        assert self.last.status is JobStatus.FAILED
        assert self.last.error is not None
        return self.last.error

    @property
    def statuses(self) -> list[JobStatus]:
        """The statuses in order, without repeats."""
        seen: list[JobStatus] = []
        for event in self.events:
            if isinstance(event, StatusChanged) and event.status not in seen[-1:]:
                seen.append(event.status)
        return seen

    @property
    def outputs(self) -> list[Output]:
        """The outputs in the order in which they were announced."""
        return [event.output for event in self.events if isinstance(event, OutputSaved)]

    @property
    def progress(self) -> list[Progress]:
        """Every progress that was told."""
        return [event.progress for event in self.events if isinstance(event, ProgressMade)]

    @property
    def previews(self) -> list[Preview]:
        """Every preview that was drawn."""
        return [event.preview for event in self.events if isinstance(event, PreviewDrawn)]

    @property
    def notes(self) -> list[str]:
        """The sentences of all notes."""
        return [event.message for event in self.events if isinstance(event, Noted)]

    def bytes_of(self, output: Output) -> bytes:
        """What lies in the folder for that output."""
        path = Path(output.location)
        assert path.is_relative_to(self.folder)
        return path.read_bytes()


Watch = Callable[[Event, Execution], Awaitable[None]]
"""Something a test does at an event of a running job."""


async def tell(
    backend: Backend,
    folder: Path,
    graph: dict[str, Any],
    *,
    files: tuple[InputFile, ...] = (),
    keep_temp: bool = False,
    extra_data: dict[str, Any] | None = None,
    watch: Watch | None = None,
) -> Story:
    """Run a graph to its end and keep what was told; *watch* is called at every event."""
    job = Job(str(uuid.uuid4()), graph, files=files, extra_data=extra_data or {})
    story = Story(folder)
    execution = Execution(backend, job, OutputFolder(folder), keep_temp=keep_temp)
    async for event in execution:
        story.events.append(event)
        if watch is not None:
            await watch(event, execution)
    return story


@asynccontextmanager
async def connected(url: str, timeouts: Timeouts = HASTY, **options: Any) -> AsyncIterator[Backend]:
    """A backend at that address with hasty timeouts."""
    async with Backend(url, timeouts=timeouts, **options) as backend:
        yield backend


def recorded_graph(name: str, run: int = 0) -> dict[str, Any]:
    """The graph that the recorded client posted."""
    graph = Recording.load(name).runs[run].body["prompt"]
    assert isinstance(graph, dict)
    return graph
