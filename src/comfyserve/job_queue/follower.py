"""Following one job: its past from the store, then what the feed tells live."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Final

from comfyserve.events import Event, NumberedEvent, PreviewDrawn, ProgressMade, StatusChanged
from comfyserve.feed import Listener, LocalFeed
from comfyserve.job_queue.queue_moves import QueueMoves
from comfyserve.jobs import JobRecord, JobStatus, Preview, Progress, Standing
from comfyserve.refusals import NotFound
from comfyserve.store import Jobs

_PAGE: Final = 500
"""How many past events are read at a time."""

_BEAT: Final = 15.0
"""Seconds without an event that lasts after which the store is asked whether one was missed."""


async def follow(
    jobs: Jobs,
    feed: LocalFeed,
    moves: QueueMoves,
    job_id: str,
    after: int,
    owner: str | None,
    beat: float = _BEAT,
    since: Standing | None = None,
) -> AsyncGenerator[Event]:
    """See `JobQueue.follow`; *beat* is for how many seconds a lost event may go unnoticed."""
    together = follow_together(jobs, feed, moves, job_id, after, owner, beat, since)
    async with aclosing(together) as told:
        async for events in told:
            for event in events:
                yield event


async def follow_together(
    jobs: Jobs,
    feed: LocalFeed,
    moves: QueueMoves,
    job_id: str,
    after: int,
    owner: str | None,
    beat: float = _BEAT,
    since: Standing | None = None,
) -> AsyncGenerator[Sequence[Event]]:
    """Like `follow`, with all events at once that are there at the same time."""
    async with feed.listen(job_id) as live:  # listen first, so nothing falls between
        follower = _Follower(jobs, feed, moves, job_id, live, beat)
        try:
            await follower.begin(after, owner, since)
            while not follower.is_over:
                if events := await follower.next():
                    yield events
        finally:
            follower.leave()


class _Follower:
    """What one who follows was told already, and so what comes next."""

    def __init__(
        self,
        jobs: Jobs,
        feed: LocalFeed,
        moves: QueueMoves,
        job_id: str,
        live: Listener,
        beat: float,
    ) -> None:
        self.is_over = False
        self._jobs = jobs
        self._feed = feed
        self._moves = moves
        self._job_id = job_id
        self._live = live
        self._beat = beat
        self._loop = asyncio.get_running_loop()
        self._seq = 0
        self._status = JobStatus.QUEUED
        self._progress: Progress | None = None
        self._preview: Preview | None = None
        self._may_lack_progress = True
        self._place: int | None = None
        self._waits = False
        self._is_behind = True
        self._must_greet = True
        self._look_at = 0.0
        self._reminder: asyncio.TimerHandle | None = None

    async def begin(self, after: int, owner: str | None, since: Standing | None) -> None:
        """Find out where the job stands. Raises `NotFound`.

        How it stood *since* then will do where it moves in the queue no more: all events after it
        are read before anything live.
        """
        self._wait()  # before asking for the place, so that no move after it is missed
        if since is None or (since.queue_position or 1) > 1:
            record, self._place = await self._jobs.standing(self._job_id, owner)
        else:
            record, self._place = since.record, since.queue_position
        self._stand(record.status)
        # A number that the job never had must not hide those it will have.
        self._seq = min(after, record.last_event)
        told = self._feed.last_told(self._job_id)
        self._is_behind = told is None or told > self._seq
        self.is_over = self._was_told_all(record)
        self._put_off_look()

    async def next(self) -> Sequence[Event]:
        """Wait for what comes next; it may be nothing, and the last of it may be the end."""
        if self._is_behind:
            return await self._read()
        if self._must_greet:
            return await self._greet()
        return await self._hear()

    def leave(self) -> None:
        """Nobody follows any more."""
        self._wait_no_more()
        if self._reminder is not None:
            self._reminder.cancel()

    def _wait_no_more(self) -> None:
        """The job's places are of no interest any more."""
        if self._waits:
            self._waits = False
            self._moves.leave(self._job_id)

    def _wait(self) -> None:
        if not self._waits:
            self._waits = True
            self._moves.join(self._job_id)

    def _stand(self, status: JobStatus) -> None:
        self._status = status
        if status is JobStatus.QUEUED:
            self._wait()
        else:
            self._wait_no_more()

    def _was_told_all(self, record: JobRecord) -> bool:
        return record.status.is_terminal and self._seq >= record.last_event

    async def _read(self) -> Sequence[Event]:
        """The next page of the past."""
        page = await self._jobs.events(self._job_id, self._seq, _PAGE)
        self._is_behind = len(page) == _PAGE
        told: list[Event] = []
        for event in page:
            if event.is_last:
                told += await self._last_progress()
            told.append(event)
            self._note(event)
        return told

    async def _last_progress(self) -> Sequence[Event]:
        try:
            record, _ = await self._jobs.standing(self._job_id)
        except NotFound:  # forgotten this very moment
            return ()
        if record.progress is None or record.progress == self._progress:
            return ()
        return (ProgressMade(self._job_id, record.progress),)

    async def _greet(self) -> Sequence[Event]:
        """What is only known live, once the past was told."""
        self._must_greet = False
        # What waits here was told before events that were read by now; the latest stands for it.
        self._live.forget_passing()
        self._may_lack_progress = True
        if self._live.has_lasting:
            # The latest may be of after these, as of another attempt.
            self._must_greet = True
            return await self._hear()
        if self._status is JobStatus.QUEUED:
            place = self._moves.place(self._job_id) or self._place
            if place is None:
                return ()
            self._place = place
            return (StatusChanged(self._job_id, self._status, queue_position=place),)
        latest = await self._feed.latest(self._job_id)
        told: list[Event] = []
        if latest.progress is not None and latest.progress != self._progress:
            told.append(ProgressMade(self._job_id, latest.progress))
        if latest.preview is not None and latest.preview is not self._preview:
            told.append(PreviewDrawn(self._job_id, latest.preview))
        self._progress = latest.progress or self._progress
        self._preview = latest.preview
        # At a job's end the feed forgets, and what was just dropped may have been its last.
        self._may_lack_progress = latest.progress is None
        return told

    async def _hear(self) -> Sequence[Event]:
        """The next live events, or a look into the store when none that lasts came for long."""
        if self._loop.time() >= self._look_at:
            return await self._look()
        come = await self._live.take()
        if not come:
            self.is_over = self._live.has_ended
            return ()
        told: list[Event] = []
        for event in come:
            told += self._take(event)
            if self._is_behind or self.is_over:
                break  # what comes after it is in the store by now, or is of no use any more
        return told

    async def _look(self) -> Sequence[Event]:
        """Whether the feed lost an event."""
        self._put_off_look()
        missed = await self._read()
        if missed:
            self._must_greet = True
            return missed
        try:
            record, _ = await self._jobs.standing(self._job_id)
        except NotFound:
            self.is_over = True
        else:
            self.is_over = self._was_told_all(record)
        return ()

    def _put_off_look(self) -> None:
        self._look_at = self._loop.time() + self._beat
        if self._reminder is None:
            self._remind()

    def _remind(self) -> None:
        """End the wait for live events once it is time to look; a timer for each would cost more
        than all else that is done with it."""
        self._reminder = None
        if self._loop.time() >= self._look_at:
            self._live.wake()
        else:
            self._reminder = self._loop.call_at(self._look_at, self._remind)

    def _take(self, event: Event) -> Sequence[Event]:
        match event:
            case ProgressMade(progress=progress):
                self._progress, self._may_lack_progress = progress, False
            case PreviewDrawn(preview=preview):
                self._preview = preview
            case StatusChanged(seq=None, queue_position=place):
                if self._status is not JobStatus.QUEUED or place == self._place:
                    return ()
                self._place = place
            case _:
                return self._take_lasting(event)
        return (event,)

    def _take_lasting(self, event: NumberedEvent) -> Sequence[Event]:
        seq = event.seq or 0
        if seq <= self._seq:
            return ()
        lacks_progress = self._may_lack_progress or self._live.has_lost_progress
        if seq > self._seq + 1 or (event.is_last and lacks_progress):
            # What was missed is in the store, and this one with it.
            self._is_behind = self._must_greet = True
            return ()
        self._note(event)
        return (event,)

    def _note(self, event: NumberedEvent) -> None:
        self._seq = event.seq or self._seq
        self._put_off_look()
        if isinstance(event, StatusChanged):
            self._stand(event.status)
            self.is_over = event.is_last
