"""What an execution tells, gathered until it is written down."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from comfyserve.events import (
    Event,
    Noted,
    NumberedEvent,
    OutputSaved,
    PreviewDrawn,
    ProgressMade,
    StatusChanged,
)
from comfyserve.jobs import JobStatus, Progress

LINGER: Final = 0.005
"""Seconds in which what comes together is written together; a quick job is over in them."""

LAST_LINGER: Final = 0.05
"""The same once the backend is done with the job: then its end is what comes next."""


@dataclass(slots=True)
class Batch:
    """What came since the last time: what lasts, and the latest of what is only live."""

    lasting: list[NumberedEvent] = field(default_factory=list)
    progress: Progress | None = None
    preview: PreviewDrawn | None = None


class News:
    """Events of one job between the task that hears them and the one that writes them down.

    *status* is how the job stands in the store; *is_ending* that its end is about to come.
    *started_at* is when it was told to run, in seconds since the epoch; None where it ran before.
    What the store knows from elsewhere, as the places in its queue and wishes to cancel, is left
    out.
    """

    def __init__(self, status: JobStatus) -> None:
        self.status = status
        self.is_ending = False
        self.started_at: float | None = None
        self.is_over = False
        self.last_progress: Progress | None = None
        self._batch = Batch()
        self._filled = asyncio.Event()
        self._over = asyncio.Event()

    def put(self, event: Event) -> None:
        """Take in what the execution told."""
        match event:
            case ProgressMade(progress=progress):
                self._batch.progress = self.last_progress = progress
            case PreviewDrawn():
                self._batch.preview = event
            case StatusChanged():
                if event.status is not JobStatus.RUNNING or self.status is not JobStatus.QUEUED:
                    return
                self.status, self.started_at = JobStatus.RUNNING, time.time()
                self._batch.lasting.append(event)
            case OutputSaved() | Noted():
                self._batch.lasting.append(event)
        self._filled.set()

    def close(self) -> None:
        """Nothing more is to come."""
        self.is_over = True
        self._filled.set()
        self._over.set()

    async def next(self, may_linger: Callable[[], bool] = lambda: True) -> Batch | None:
        """What came since the last time, once something did; and, where it *may_linger*, once what
        follows at once is there.

        None after `close`; what was left is then the `rest`.
        """
        await self._filled.wait()
        if self._batch.lasting and not self.is_over and may_linger():
            await _within(LINGER, self._over)
            if self.is_ending and not self.is_over:
                await _within(LAST_LINGER, self._over)
        if self.is_over:
            return None
        self._filled.clear()
        batch, self._batch = self._batch, Batch()
        return batch

    def rest(self) -> list[NumberedEvent]:
        """What lasts and was not handed out yet."""
        batch, self._batch = self._batch, Batch()
        return batch.lasting


async def _within(seconds: float, event: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
