"""The jobs that one socket follows: each has a task, which tells what happens to it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import ExitStack, aclosing
from typing import Final

from comfyserve.errors import ComfyServeError
from comfyserve.events import Event, PreviewDrawn, ProgressMade
from comfyserve.job_queue import JobQueue
from comfyserve.jobs import JobRecord, Standing
from comfyserve.refusals import ListenerTooSlow
from comfyserve.server.frames import Frames
from comfyserve.server.links import Links
from comfyserve.server.problems import words_of
from comfyserve.server.sockets.messages import Id, Previews, said
from comfyserve.server.sockets.outbox import Outbox, Passing

log = logging.getLogger(__name__)

ASKED: Final = "asked"
OVER: Final = "over"
STOPPING: Final = "stopping"
FAILED: Final = "failed"


class Follows:
    """What one socket follows, told through its *outbox* by tasks of *tasks*.

    *previews* is how the client wants them, from now on. *too_slow* is called where the client
    does not read, *ended* with the id of each job that was heard to its end.
    """

    def __init__(
        self,
        tasks: asyncio.TaskGroup,
        outbox: Outbox,
        queue: JobQueue,
        frames: Frames,
        links: Links,
        *,
        previews: Previews,
        too_slow: Callable[[], None],
        ended: Callable[[str], None],
    ) -> None:
        self.previews = previews
        self._tasks = tasks
        self._outbox = outbox
        self._queue = queue
        self._frames = frames
        self._links = links
        self._too_slow = too_slow
        self._ended = ended
        self._running: dict[str, asyncio.Task[None]] = {}

    def begin(self, standing: Standing, after: int, held: ExitStack) -> None:
        """Tell what happened to the job after event number *after*, and then what happens.

        What is *held* meanwhile is let go of once that ends. The job is not followed yet.
        """
        job_id = standing.record.id
        task = self._tasks.create_task(self._tell_all(standing, after), name=f"following {job_id}")
        # Not in the task itself, which never begins where it is canceled at once.
        task.add_done_callback(lambda _: self._done(job_id, task, held))
        self._running[job_id] = task

    async def end(self, job_id: str) -> bool:
        """Tell no more of the job; whether it was followed."""
        if (task := self._running.get(job_id)) is None:
            return False
        task.cancel()
        await asyncio.wait([task])
        self._outbox.drop_latest(job_id)
        return True

    def cancel(self) -> None:
        """Tell no more of any."""
        for task in self._running.values():
            task.cancel()

    async def over(self) -> None:
        """Return once none is followed any more."""
        while self._running:
            await asyncio.wait(tuple(self._running.values()))

    def _done(self, job_id: str, task: asyncio.Task[None], held: ExitStack) -> None:
        held.close()
        if self._running.get(job_id) is task:
            del self._running[job_id]

    async def _tell_all(self, standing: Standing, after: int) -> None:
        record = standing.record
        is_over = record.status.is_terminal
        live = self._queue.follow(record.id, after, owner=record.owner, since=standing)
        try:
            async with aclosing(live):
                async for event in live:
                    await self._tell(event, record)
                    is_over = is_over or event.is_last
        except ListenerTooSlow as error:
            log.info("A socket is hung up: %s", error, extra={"job_id": record.id})
            self._too_slow()
            return
        except ComfyServeError as error:
            log.warning("Following a job ended early: %s", error, extra={"job_id": record.id})
            await self._outbox.put(unfollowed(None, record.id, FAILED, error))
            return
        if is_over:
            self._ended(record.id)
        await self._outbox.put(unfollowed(None, record.id, OVER if is_over else STOPPING))

    async def _tell(self, event: Event, record: JobRecord) -> None:
        frames, links = self._frames, self._links
        match event:
            case ProgressMade(job_id=job_id):
                message = frames.message(event, links, record)
                self._outbox.put_latest(Passing.PROGRESS, job_id, message)
            case PreviewDrawn(job_id=job_id) if self.previews == "binary":
                self._outbox.put_latest(Passing.PREVIEW, job_id, frames.picture(event))
            case PreviewDrawn(job_id=job_id) if self.previews == "base64":
                message = frames.message(event, links, record)
                self._outbox.put_latest(Passing.PREVIEW, job_id, message)
            case PreviewDrawn():
                return
            case _:
                await self._outbox.put(frames.message(event, links, record))


def unfollowed(id: Id, job_id: str, reason: str, error: Exception | None = None) -> str:
    """A job is not followed any more."""
    if error is None:
        return said("unfollowed", id, job_id=job_id, reason=reason)
    code, message, details = words_of(error)
    told = {"code": code, "message": message, "details": details}
    return said("unfollowed", id, job_id=job_id, reason=reason, error=told)
