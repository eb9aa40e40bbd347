"""One job on a comfyserve: handed in, followed to its end, its outputs brought home meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any, Final

from comfyserve.client.api import Api, Later
from comfyserve.client.asset_uploads import AssetUploads
from comfyserve.client.downloads import Downloads
from comfyserve.client.story import Story
from comfyserve.client.submission import PATIENCE, Submission, Wish
from comfyserve.errors import (
    ComfyServeError,
    GraphRejected,
    JobFailed,
    OutputUnwritable,
)
from comfyserve.events import Event, Noted, OutputSaved, StatusChanged
from comfyserve.jobs import JobError, JobStatus, Output
from comfyserve.outputs import Courier, Sink
from comfyserve.refusals import NotFound, QueueFull

News = Event | Exception | None
"""What happened, or why no more is told, or only that something has changed."""

_MOST_WAITING: Final = 64

_LAST_ARRIVALS: Final = 2.0
"""Seconds that outputs on their way have when a job is canceled that has ended already."""

_WITHDRAWAL: Final = 5.0
"""Seconds to tell a server that a job is of no use any more."""


class HostedRun:
    """A job on its way through one comfyserve; iterate it once.

    A job that fails is told, not raised. Raised is why the server does not take it, what keeps
    it from being followed, and `OutputUnwritable`. To stop listening leaves the job alone. *taken*
    is the job's document from when the server took it.
    """

    def __init__(
        self, api: Api, uploads: AssetUploads, wish: Wish, sink: Sink, *, keep_temp: bool
    ) -> None:
        self.job_id = wish.id
        self.taken: Mapping[str, Any] | None = None
        self._api = api
        self._uploads = uploads
        self._wish = wish
        self._downloads = Downloads(api, sink, keep_temp=keep_temp)
        self._wish_to_cancel = asyncio.Event()
        self._is_sent = False
        self._is_answered = asyncio.Event()

    def __aiter__(self) -> AsyncGenerator[Event]:
        return self._events()

    async def cancel(self) -> None:
        """Ask for this job, and no other, to end; its last event tells whether it did in time.

        Returns once the server was told, which may take as long as it takes to answer.
        """
        self._wish_to_cancel.set()
        if self._is_sent:
            await self._is_answered.wait()
        if self.taken is not None:
            with suppress(NotFound):  # then it ended long ago
                await self._api.cancel(self.job_id)

    async def _events(self) -> AsyncGenerator[Event]:
        try:
            async with aclosing(self._handed_in()) as notes:
                async for note in notes:
                    yield note
            async with aclosing(self._followed()) as events:
                async for event in events:
                    yield event
        except _Canceled:
            yield StatusChanged(self.job_id, JobStatus.CANCELED)
        except JobFailed as error:
            yield StatusChanged(self.job_id, JobStatus.FAILED, error=JobError.of(error))
        except OutputUnwritable:
            await self._withdraw()
            raise

    async def _handed_in(self) -> AsyncGenerator[Noted]:
        """Bring the job to the server; a note tells where it has to wait outside."""
        submission = Submission(self._api, self._wish, await self._wish.body(self._uploads))
        try:
            while self.taken is None:
                if self._wish_to_cancel.is_set():
                    raise _Canceled
                self._is_sent = True
                try:
                    taken = await submission.handed_in()
                except Later as later:
                    self._is_sent = False
                    yield self._noted(later, submission.pause(later))
                    await submission.wait(later, self._wish_to_cancel)
                else:
                    self.job_id, self.taken = str(taken["id"]), taken
        finally:
            self._is_answered.set()

    async def _followed(self) -> AsyncGenerator[Event]:
        """What happens to the job, each output once it is here."""
        inbox: asyncio.Queue[News] = asyncio.Queue(_MOST_WAITING)
        async with Courier(lambda: _nudge(inbox)) as courier, self._told_to(inbox):
            while True:
                news = await inbox.get()
                for output in courier.arrived():
                    yield OutputSaved(self.job_id, output)
                match news:
                    case None:
                        continue
                    case Exception():
                        raise news
                    case OutputSaved(output=output):
                        await courier.send(self._downloads.take(output))
                    case StatusChanged() if news.is_last:
                        await courier.send(self._downloads.take_temp())
                        for output in await self._last_arrivals(courier):
                            yield OutputSaved(self.job_id, output)
                        yield self._end(news)
                        return
                    case _:
                        yield news

    @asynccontextmanager
    async def _told_to(self, inbox: asyncio.Queue[News]) -> AsyncIterator[None]:
        """What the server tells goes into *inbox*, as fast as it is taken from there."""
        telling = asyncio.create_task(self._tell(inbox), name=f"story of job {self.job_id}")
        try:
            yield
        finally:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)

    async def _tell(self, inbox: asyncio.Queue[News]) -> None:
        try:
            async with aclosing(Story(self._api, self.job_id).events()) as events:
                async for event in events:
                    await inbox.put(event)
        except Exception as error:  # it belongs to whoever follows the job
            await inbox.put(error)

    async def _last_arrivals(self, courier: Courier) -> Iterator[Output]:
        """Wait for what is on its way; once the job is canceled, not for long any more."""
        arrivals = asyncio.ensure_future(courier.all())
        wish = asyncio.ensure_future(self._wish_to_cancel.wait())
        try:
            await asyncio.wait({arrivals, wish}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({arrivals}, timeout=_LAST_ARRIVALS)
            if not arrivals.done():
                raise _Canceled
            return arrivals.result()
        finally:
            arrivals.cancel()
            wish.cancel()
            await asyncio.gather(arrivals, wish, return_exceptions=True)

    def _end(self, event: StatusChanged) -> StatusChanged:
        """The last event; a graph that no ComfyUI would run is an error of its own everywhere."""
        if event.error is not None and event.error.code == GraphRejected.code:
            raise GraphRejected(self._api.url, event.error.message)
        return event

    async def _withdraw(self) -> None:
        """Nobody can take the outputs, so the server need not go on."""
        with suppress(ComfyServeError, TimeoutError):
            async with asyncio.timeout(_WITHDRAWAL):
                await self._api.cancel(self.job_id)

    def _noted(self, later: Later, pause: float) -> Noted:
        why = "The server's queue is full"
        if not isinstance(later.error, QueueFull):
            why = str(later.error).rstrip(".")
        message = f"{why}; trying again in {pause:g} s, for {PATIENCE:g} s in all."
        return Noted(self.job_id, "warning", message)


class _Canceled(Exception):
    """The job is over because its end was asked for."""


def _nudge(inbox: asyncio.Queue[News]) -> None:
    with suppress(asyncio.QueueFull):  # then there is something to look at anyway
        inbox.put_nowait(None)
