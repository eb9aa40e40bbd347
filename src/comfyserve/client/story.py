"""All that happens to one job on a comfyserve, over as many connections as it takes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from comfyserve.client.api import Api, Later
from comfyserve.client.outage import Outage
from comfyserve.client.wire import event_of, events_of
from comfyserve.errors import BackendUnreachable, ComfyServeError, JobRemoved
from comfyserve.events import Event, Noted, OutputSaved, StatusChanged
from comfyserve.refusals import NotFound

LOOK_EVERY: Final = 1.0
"""Seconds between two looks at a job while there is no stream of its events."""

_FRUITLESS: Final = 3
"""Streams in a row that may tell nothing new before the job itself is asked."""

_BREATH: Final = 0.02
"""Seconds between two streams."""


class Story:
    """Tells every numbered event of a job once and in order, and what is live as it comes.

    A stream that breaks off is taken up after the last number it told. Where none is to be had,
    the job itself is asked: it is the truth, and tells what the streams left out.
    """

    def __init__(self, api: Api, job_id: str) -> None:
        self._api = api
        self._job_id = job_id
        self._number = 0
        self._last: StatusChanged | None = None
        self._outputs: set[str | None] = set()
        self._outage = Outage(api.url, api.timeouts.away)
        self._fruitless = 0

    async def events(self) -> AsyncGenerator[Event]:
        """Yield what happens until the job's last event; outputs are still on the server then.

        Raises `BackendLost` where the server stays away too long, and `JobRemoved` where it no
        longer has the job.
        """
        while not self._is_over:
            try:
                async with aclosing(self._told_by_stream()) as events:
                    async for event in events:
                        yield event
                if self._fruitless >= _FRUITLESS:
                    for event in await self._told_by_job():
                        yield event
                    await self._pause()
            except NotFound as error:
                raise JobRemoved(f"{self._api.url} no longer has the job") from error
            except ComfyServeError as error:
                if self._outage.is_news:
                    yield self._noted(error)
                await self._outage.wait(error)
            await asyncio.sleep(_BREATH)

    async def _told_by_stream(self) -> AsyncGenerator[Event]:
        """What one stream tells, until it ends or breaks off."""
        self._fruitless += 1
        try:
            async with aclosing(self._api.events(self._job_id, self._number)) as frames:
                async for frame in frames:
                    self._outage.over()
                    with self._api.reading("the question for the job's events"):
                        event = event_of(frame, self._job_id)
                    if event is not None and self._is_new(event, frame.number):
                        yield event
                    if self._is_over:
                        return
        except Later:
            self._fruitless = _FRUITLESS
        except BackendUnreachable:
            if self._fruitless:
                raise
        except ComfyServeError as error:
            if isinstance(error, NotFound):
                raise
            self._fruitless = _FRUITLESS

    async def _told_by_job(self) -> list[Event]:
        """What the job itself tells that no stream told."""
        job = await self._api.job(self._job_id)
        self._outage.over()
        with self._api.reading("the question for the job"):
            return [event for event in events_of(job) if self._is_new(event, None)]

    def _is_new(self, event: Event, number: int | None) -> bool:
        """Whether it was not told before; what was told is remembered."""
        if number is not None:
            if number <= self._number:
                return False
            self._number, self._fruitless = number, 0
        match event:
            case StatusChanged():
                is_new = _differs(self._last, event)
                self._last = event
            case OutputSaved(output=output):
                is_new = output.id not in self._outputs
                self._outputs.add(output.id)
            case _:
                return True
        if is_new:
            self._fruitless = 0
        return is_new

    @property
    def _is_over(self) -> bool:
        return self._last is not None and self._last.is_last

    async def _pause(self) -> None:
        if not self._is_over:
            await asyncio.sleep(LOOK_EVERY)

    def _noted(self, error: ComfyServeError) -> Noted:
        reason = getattr(error, "reason", None) or str(error)
        most = f"{self._api.timeouts.away:g}"
        message = f"The server does not answer ({reason}); asking again for up to {most} s."
        return Noted(self._job_id, "warning", message)


def _differs(before: StatusChanged | None, now: StatusChanged) -> bool:
    """Whether *now* tells more than *before*; of two with numbers each tells something."""
    if before is None or None not in (before.seq, now.seq):
        return True
    return (before.status, before.queue_position) != (now.status, now.queue_position)
