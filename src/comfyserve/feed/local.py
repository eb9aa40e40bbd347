"""The feed inside one process; nothing of it lasts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from comfyserve.events import Event, PreviewDrawn, ProgressMade, StatusChanged
from comfyserve.feed.listener import MOST_UNREAD, Listener
from comfyserve.jobs import JobStatus, Preview, Progress

Kept = TypeVar("Kept")

_MOST_REMEMBERED: Final = 1000
"""Of how many jobs the latest is kept; far more than ever run at a time in one process."""


@dataclass(frozen=True, slots=True)
class Latest:
    """The latest that was heard of a job that runs, and that is kept nowhere else."""

    progress: Progress | None = None
    preview: Preview | None = None


_NOTHING: Final = Latest()


class LocalFeed:
    """What happens, told live to everybody who listens in this process.

    Telling never waits for a listener, and no listener waits for another. *most_unread* events
    may wait for each.
    """

    def __init__(self, most_unread: int = MOST_UNREAD) -> None:
        self._most_unread = most_unread
        self._listeners: dict[str, set[Listener]] = {}
        self._latest: dict[str, Latest] = {}
        self._last_told: dict[str, int] = {}
        self._closed = False

    def publish(self, event: Event) -> None:
        """Tell all who listen to the event's job. Never waits."""
        self._remember(event)
        for listener in self._listeners.get(event.job_id, ()):
            listener.put(event)

    @asynccontextmanager
    async def listen(self, job_id: str) -> AsyncIterator[Listener]:
        """All that is told of the job from here on; see `Listener` for those who read slowly."""
        listener = Listener(job_id, self._most_unread)
        self._listeners.setdefault(job_id, set()).add(listener)
        if self._closed:
            listener.close()
        try:
            yield listener
        finally:
            self._leave(job_id, listener)

    def listeners(self, job_id: str) -> int:
        """How many listen to the job right now."""
        return len(self._listeners.get(job_id, ()))

    async def latest(self, job_id: str) -> Latest:
        """How far the job is and what it showed last; nothing of a job that does not run."""
        return self._latest.get(job_id, _NOTHING)

    def last_told(self, job_id: str) -> int | None:
        """The number of the last event that lasts which was told of the job, if that is known.

        Whoever knows all events up to it, and listens, misses none.
        """
        return self._last_told.get(job_id)

    def forget(self, job_id: str) -> None:
        """Let go of the latest of a job that is over."""
        self._latest.pop(job_id, None)
        self._last_told.pop(job_id, None)

    def close(self) -> None:
        """End every listening, also those that begin later."""
        self._closed = True
        for listeners in self._listeners.values():
            for listener in listeners:
                listener.close()

    def _remember(self, event: Event) -> None:
        if not isinstance(event, ProgressMade | PreviewDrawn) and event.seq is not None:
            _keep(self._last_told, event.job_id, event.seq)
        match event:
            case ProgressMade(job_id=job_id, progress=progress):
                latest = replace(self._latest.get(job_id, _NOTHING), progress=progress)
                _keep(self._latest, job_id, latest)
            case PreviewDrawn(job_id=job_id, preview=preview):
                latest = replace(self._latest.get(job_id, _NOTHING), preview=preview)
                _keep(self._latest, job_id, latest)
            case StatusChanged(job_id=job_id, status=JobStatus.QUEUED):
                # The next attempt begins anew, so what was heard of the last is not true any more.
                self._latest.pop(job_id, None)
            case StatusChanged(job_id=job_id, is_last=True):
                self.forget(job_id)
            case _:
                pass

    def _leave(self, job_id: str, listener: Listener) -> None:
        there = self._listeners[job_id]
        there.discard(listener)
        if not there:
            del self._listeners[job_id]


def _keep(by_job: dict[str, Kept], job_id: str, kept: Kept) -> None:
    by_job[job_id] = kept
    if len(by_job) > _MOST_REMEMBERED:
        del by_job[next(iter(by_job))]
