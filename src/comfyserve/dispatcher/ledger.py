"""What is kept of one run: written down as it comes, and at the end let go of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from comfyserve.dispatcher.desk import Desk
from comfyserve.dispatcher.news import Batch, News
from comfyserve.events import NumberedEvent, ProgressMade, StatusChanged
from comfyserve.jobs import Claim, JobStatus
from comfyserve.refusals import LeaseLost
from comfyserve.workflows.needs import Needs

MANY_LISTENERS: Final = 8
"""From so many on the last one hears so much later than the first that nothing waits for more."""


class Ledger:
    """Writes down what *news* brings of a claimed job, for as long as it is ours.

    *has_lease* says that it is; without it nothing is written any more. *is_ended* says that the
    end is being written, after which nothing else is.
    """

    def __init__(self, desk: Desk, claim: Claim, news: News) -> None:
        self.has_lease = True
        self.is_ended = False
        self._desk = desk
        self._id = claim.record.id
        self._claimed = claim.record
        self._lease = claim.lease
        self._news = news

    async def write_down(self, lose: Callable[[], None]) -> None:
        """Keep and tell what is heard, as it comes; what is left then goes with the end.

        *lose* is called where the job turns out to be somebody else's.
        """
        while (batch := await self._news.next(self._may_linger)) is not None:
            if self.has_lease and batch.lasting:
                try:
                    await self._record(batch.lasting)
                except LeaseLost:
                    lose()
            if self.has_lease:
                self._tell(batch)

    async def finish(self, end: StatusChanged) -> None:
        """Write the end, and let go of the job. Raises `LeaseLost` and `StoreUnavailable`."""
        self.is_ended = True
        self._desk.forget(self._id)
        if not self.has_lease:
            return
        rest, progress = self._news.rest(), self._news.last_progress
        if end.status is JobStatus.SUCCEEDED and self._news.status is JobStatus.QUEUED:
            rest.insert(0, StatusChanged(self._id, JobStatus.RUNNING))
        queue, lease, whole = self._desk.queue, self._lease, self._with_whole_wait(end)
        await self._desk.write(
            self._id, lambda: queue.finish(lease, whole, events=rest, progress=progress)
        )

    async def requeue(
        self, note: str | None, *, counts: bool = True, needs: Needs | None = None
    ) -> None:
        """Give the job back to the queue, with other *needs* where they are given.

        Raises `LeaseLost` and `StoreUnavailable`.
        """
        self.is_ended = True
        if not self.has_lease:
            return
        if rest := self._news.rest():
            await self._record(rest)
        queue, lease = self._desk.queue, self._lease
        await self._desk.write(
            self._id, lambda: queue.requeue(lease, counts=counts, note=note, needs=needs)
        )

    def _may_linger(self) -> bool:
        return self._desk.queue.listeners(self._id) < MANY_LISTENERS

    def _with_whole_wait(self, end: StatusChanged) -> StatusChanged:
        """The execution knows how long the backend let the job wait; it waited here before."""
        record = self._claimed
        if (started := self._news.started_at or record.started_at) is None:
            return end
        queued = max(0.0, started - record.created_at)
        return replace(end, timings=replace(end.timings, queued=queued))

    async def _record(self, events: Sequence[NumberedEvent]) -> None:
        queue, lease = self._desk.queue, self._lease
        await self._desk.write(self._id, lambda: queue.record(lease, events))

    def _tell(self, batch: Batch) -> None:
        if batch.preview is not None:
            self._desk.queue.tell(batch.preview)
        if batch.progress is not None:
            self._desk.queue.tell(ProgressMade(self._id, batch.progress))
