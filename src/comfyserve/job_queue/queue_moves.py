"""Tells waiting jobs their place in the queue whenever it moves, all of them with one look."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Final

from comfyserve.events import StatusChanged
from comfyserve.feed import LocalFeed
from comfyserve.jobs import JobStatus
from comfyserve.refusals import StoreUnavailable
from comfyserve.store import Jobs

_BEAT: Final = 0.5
"""Seconds between two looks while the queue moves; while nothing moves nobody looks."""

_SHARE: Final = 10
"""A look that takes long is taken less often: at most this part of the time is spent looking."""


class QueueMoves:
    """The places of the jobs that somebody watches while they wait."""

    def __init__(self, jobs: Jobs, feed: LocalFeed) -> None:
        self._jobs = jobs
        self._feed = feed
        self._watched: Counter[str] = Counter()
        self._places: dict[str, int] = {}
        self._moved = False
        self._looking: asyncio.Task[None] | None = None
        self._closed = False

    def join(self, job_id: str) -> None:
        """Have the job's places told until `leave`, as live events of the feed."""
        self._watched[job_id] += 1

    def leave(self, job_id: str) -> None:
        """Undo one `join`."""
        self._watched[job_id] -= 1
        if not self._watched[job_id]:
            del self._watched[job_id]
            self._places.pop(job_id, None)
        if not self._watched:
            self._stop_looking()

    def place(self, job_id: str) -> int | None:
        """The place that was told last, if any."""
        return self._places.get(job_id)

    def stir(self) -> None:
        """Something happened that may move the queue."""
        self._moved = True
        if self._watched and self._looking is None and not self._closed:
            self._looking = asyncio.create_task(self._look(), name="queue moves")

    def close(self) -> None:
        """Look no more."""
        self._closed = True
        self._stop_looking()

    def _stop_looking(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None

    async def _look(self) -> None:
        clock = asyncio.get_running_loop().time
        while self._moved:
            self._moved = False
            began = clock()
            try:
                await self._tell_moves()
            except StoreUnavailable:
                self._moved = True
            await asyncio.sleep(max(_BEAT, (clock() - began) * _SHARE))
        self._looking = None

    async def _tell_moves(self) -> None:
        places = await self._jobs.queue_positions(tuple(self._watched))
        for job_id, place in places.items():
            if job_id in self._watched and self._places.get(job_id) != place:
                self._places[job_id] = place
                moved = StatusChanged(job_id, JobStatus.QUEUED, queue_position=place)
                self._feed.publish(moved)
