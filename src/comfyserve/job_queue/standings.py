"""How jobs stand right now: what is kept of them, put together with what is only known live."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from comfyserve.feed import LocalFeed
from comfyserve.jobs import JobRecord, JobStatus, Progress, Standing
from comfyserve.store import Jobs, Page

Expect = Callable[[JobRecord, int | None], tuple[float, float] | None]
"""The least and the most seconds that a job in that place of the queue will wait."""


class Standings:
    """What callers are told of jobs; raises like `Jobs`."""

    def __init__(self, jobs: Jobs, feed: LocalFeed, expect: Expect | None) -> None:
        self._jobs = jobs
        self._feed = feed
        self._expect = expect

    async def get(self, job_id: str, owner: str | None = None) -> Standing:
        """How the job stands right now. Raises `NotFound`."""
        # Asked first: the feed forgets a job that ends, and then the record has its progress.
        latest = await self._feed.latest(job_id)
        record, place = await self._jobs.standing(job_id, owner)
        return self.of(record, latest.progress, place)

    async def list(
        self,
        owner: str | None,
        *,
        statuses: Iterable[JobStatus],
        workflow: str | None,
        labels: Mapping[str, str] | None,
        cursor: str | None,
        limit: int,
    ) -> Page[Standing]:
        """The jobs that fit all that is given, newest first. Raises `InvalidCursor`."""
        page = await self._jobs.list(
            owner,
            statuses=statuses,
            workflow=workflow,
            labels=labels,
            cursor=cursor,
            limit=limit,
        )
        queued = [record.id for record in page.items if record.status is JobStatus.QUEUED]
        places = await self._jobs.queue_positions(queued) if queued else {}
        standings = [
            self.of(record, (await self._feed.latest(record.id)).progress, places.get(record.id))
            for record in page.items
        ]
        return Page(standings, page.next_cursor)

    def of(self, record: JobRecord, latest: Progress | None, place: int | None) -> Standing:
        """A job that waits has no progress, whatever an earlier attempt made."""
        match record.status:
            case JobStatus.RUNNING | JobStatus.CANCELING:
                return Standing(record, latest)
            case JobStatus.QUEUED:
                expected = None if self._expect is None else self._expect(record, place)
                return Standing(record, None, place, expected)
            case _:
                return Standing(record, record.progress)
