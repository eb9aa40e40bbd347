"""The local feed: who listens hears it, who does not read harms nobody."""

from __future__ import annotations

import asyncio
import time

import pytest

from comfyserve.events import Event, Noted, PreviewDrawn, ProgressMade, StatusChanged
from comfyserve.feed import Latest, Listener, LocalFeed
from comfyserve.feed.listener import MOST_PREVIEWS
from comfyserve.jobs import JobStatus, Preview, Progress
from comfyserve.refusals import ListenerTooSlow

JOB = "0b2f3a52-0b52-4f0c-9a52-5d2b6c1f0a11"


def note(seq: int) -> Noted:
    return Noted(JOB, "info", f"note {seq}", seq=seq)


def progress(step: int) -> ProgressMade:
    return ProgressMade(JOB, Progress(value=step / 1000, step=step))


def preview(number: int) -> PreviewDrawn:
    return PreviewDrawn(JOB, Preview("3", "image/png", b"%d" % number))


async def unread(listener: Listener) -> list[Event]:
    """All that waits for the listener right now."""
    listener.close()
    return [event async for event in listener]


async def test_listeners_hear_what_is_told_of_their_job() -> None:
    """Each hears all of it in order, from when they began to listen, and nothing of others."""
    feed = LocalFeed()
    async with feed.listen(JOB) as early:
        feed.publish(note(1))
        async with feed.listen(JOB) as late:
            for event in (Noted("other", "info", "no", seq=1), progress(1), preview(1), note(2)):
                feed.publish(event)

            heard = [await unread(early), await unread(late)]

    assert heard == [
        [note(1), progress(1), preview(1), note(2)],
        [progress(1), preview(1), note(2)],
    ]


async def test_a_listener_that_waits_is_woken() -> None:
    """An event that comes later ends the wait, and a canceled wait loses nothing."""
    feed = LocalFeed()
    async with feed.listen(JOB) as listener:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(listener), 0.01)
        waits = asyncio.create_task(anext(listener))
        await asyncio.sleep(0)
        feed.publish(note(1))

        async with asyncio.timeout(5):
            assert await waits == note(1)


async def test_all_that_waits_can_be_taken_at_once() -> None:
    """It comes in the order in which it was told, whatever kind it is; then the wait begins."""
    feed = LocalFeed()
    told: list[Event] = [
        *(note(1), progress(1), preview(1)),
        *(progress(2), note(2), preview(2)),
    ]
    async with feed.listen(JOB) as listener:
        for event in told:
            feed.publish(event)

        taken = list(await listener.take())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(listener.take(), 0.01)
        feed.publish(note(3))

        assert taken == told
        assert list(await listener.take()) == [note(3)]


async def test_a_wait_can_be_ended_without_an_event() -> None:
    """Who is woken takes nothing and has not come to the end; at the end he is told so."""
    feed = LocalFeed()
    async with feed.listen(JOB) as listener:
        waits = asyncio.create_task(listener.take())
        await asyncio.sleep(0)
        listener.wake()
        async with asyncio.timeout(5):
            assert (list(await waits), listener.has_ended) == ([], False)

        feed.publish(note(1))
        feed.close()

        assert (list(await listener.take()), listener.has_ended) == ([note(1)], True)
        assert list(await listener.take()) == []


async def test_previews_are_lost_first_and_the_newest_stays() -> None:
    """Previews are big: few wait, and the oldest of them go."""
    feed = LocalFeed()
    async with feed.listen(JOB) as listener:
        for number in range(20):
            feed.publish(preview(number))
        feed.publish(note(1))

        heard = await unread(listener)

    assert heard == [*(preview(number) for number in range(20 - MOST_PREVIEWS, 20)), note(1)]
    assert not listener.has_lost_progress


async def test_progress_is_lost_next_and_the_newest_stays() -> None:
    """Where too much waits, previews make room, then old progress; what lasts is all there."""
    feed = LocalFeed(most_unread=5)
    async with feed.listen(JOB) as listener:
        for event in (preview(1), progress(1), note(1), note(2), progress(2), note(3), note(4)):
            feed.publish(event)

        heard = await unread(listener)

    assert heard == [note(1), note(2), progress(2), note(3), note(4)]
    assert listener.has_lost_progress


async def test_who_never_reads_is_hung_up() -> None:
    """Once only events that last wait, and too many, the listener is told so and holds nothing."""
    feed = LocalFeed(most_unread=3)
    async with feed.listen(JOB) as listener:
        for seq in range(1, 100):
            feed.publish(note(seq))

        with pytest.raises(ListenerTooSlow) as told:
            await anext(listener)

    assert JOB in str(told.value)


async def test_a_slow_listener_slows_nobody() -> None:
    """One that never reads: the other hears all, and telling does not take longer."""
    feed = LocalFeed()
    heard: list[Event] = []

    async def listen() -> None:
        async with feed.listen(JOB) as listener:
            async for event in listener:
                heard.append(event)

    async with feed.listen(JOB), asyncio.TaskGroup() as group:
        group.create_task(listen())
        await asyncio.sleep(0)
        for seq in range(1, 2001):
            feed.publish(note(seq))
            await asyncio.sleep(0)
        feed.close()

    assert heard == [note(seq) for seq in range(1, 2001)]


async def test_telling_two_hundred_is_cheap() -> None:
    """All of 200 listeners have an event within 50 ms of its telling, even the last of them."""
    feed, delays, ready = LocalFeed(), list[float](), asyncio.Semaphore(0)

    async def listen() -> None:
        async with feed.listen(JOB) as listener:
            ready.release()
            async for _ in listener:
                delays.append(time.perf_counter() - told_at)
                ready.release()

    async with asyncio.TaskGroup() as group:
        for _ in range(200):
            group.create_task(listen())
        for seq in range(1, 51):
            for _ in range(200):
                await ready.acquire()
            told_at = time.perf_counter()
            feed.publish(note(seq))
        for _ in range(200):
            await ready.acquire()
        feed.close()

    assert len(delays) == 50 * 200
    assert sorted(delays)[int(len(delays) * 0.99)] < 0.05


async def test_the_latest_of_a_running_job_is_known() -> None:
    """The newest progress and preview are there for who comes late, until the job ends."""
    feed = LocalFeed()
    for event in (progress(1), preview(1), progress(2)):
        feed.publish(event)

    running = await feed.latest(JOB)
    feed.publish(StatusChanged(JOB, JobStatus.SUCCEEDED, seq=9))

    assert running == Latest(progress(2).progress, preview(1).preview)
    assert await feed.latest(JOB) == Latest()


async def test_it_is_known_how_far_was_told() -> None:
    """Of a job that is not over, also of one that waits again: who knows all that misses none."""
    feed, told = LocalFeed(), list[int | None]()
    for event in (note(1), progress(1), StatusChanged(JOB, JobStatus.QUEUED, seq=2)):
        feed.publish(event)
        told.append(feed.last_told(JOB))
    feed.publish(StatusChanged(JOB, JobStatus.QUEUED, queue_position=3))
    told.append(feed.last_told(JOB))

    feed.publish(StatusChanged(JOB, JobStatus.CANCELED, seq=3))

    assert told == [1, 1, 2, 2]
    assert feed.last_told(JOB) is None


async def test_another_attempt_begins_anew() -> None:
    """A job that went back to the queue has made no progress."""
    feed = LocalFeed()
    feed.publish(progress(1))

    feed.publish(StatusChanged(JOB, JobStatus.QUEUED, seq=3))

    assert await feed.latest(JOB) == Latest()


async def test_nothing_is_kept_of_jobs_that_are_over() -> None:
    """After many jobs, their listeners and even late words about them, memory is as before."""
    feed = LocalFeed()
    for number in range(5000):
        job_id = f"job {number}"
        async with feed.listen(job_id):
            feed.publish(ProgressMade(job_id, Progress()))
            feed.publish(StatusChanged(job_id, JobStatus.FAILED, seq=3))
        if number % 2:
            feed.publish(ProgressMade(job_id, Progress()))

    assert not feed._listeners
    assert len(feed._latest) <= 1000
    assert not feed._last_told


async def test_closing_ends_every_listening() -> None:
    """What was told before is still read; who begins to listen later hears nothing and ends."""
    feed = LocalFeed()
    async with feed.listen(JOB) as listener:
        feed.publish(note(1))
        feed.close()
        feed.publish(note(2))
        async with feed.listen(JOB) as late:
            assert [event async for event in late] == []

        assert [event async for event in listener] == [note(1)]
