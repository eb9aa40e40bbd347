"""What an execution tells, gathered until it is written down."""

from __future__ import annotations

from comfyserve.dispatcher.news import Batch, News
from comfyserve.events import StatusChanged
from comfyserve.feed import LocalFeed
from comfyserve.jobs import JobStatus


def begun() -> News:
    """The news of a job that runs, and whose end is about to come."""
    news = News(JobStatus.QUEUED)
    news.put(StatusChanged("a-job", JobStatus.RUNNING))
    news.is_ending = True
    return news


async def test_what_many_wait_for_is_handed_out_at_once() -> None:
    """Nothing is waited for where nothing may linger; else the end may still come with it."""
    waiting = begun().next(lambda: True)
    at_once = begun().next(lambda: False)
    handed_out: Batch | None = None
    try:
        at_once.send(None)
    except StopIteration as done:
        handed_out = done.value
    finally:
        at_once.close()

    assert handed_out is not None
    assert [event.job_id for event in handed_out.lasting] == ["a-job"]
    batch = await waiting
    assert batch is not None and len(batch.lasting) == 1


async def test_listeners_are_counted_by_job() -> None:
    """Those who listen right now, and to this job."""
    feed = LocalFeed()
    async with feed.listen("a"), feed.listen("a"), feed.listen("b"):
        assert (feed.listeners("a"), feed.listeners("b"), feed.listeners("c")) == (2, 1, 0)
    assert feed.listeners("a") == 0
