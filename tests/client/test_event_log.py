"""What happened to a job, as several listeners hear it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from comfyserve.client.event_log import AT_MOST_WAITING, EventLog
from comfyserve.errors import ClientClosed
from comfyserve.events import Event, Noted, PreviewDrawn, ProgressMade, StatusChanged
from comfyserve.jobs import JobStatus, Preview, Progress

JOB = "0b2f5c1e-0000-4000-8000-000000000000"
DONE = StatusChanged(JOB, JobStatus.SUCCEEDED)


def progress(value: float) -> ProgressMade:
    return ProgressMade(JOB, Progress(value=value))


def preview(data: bytes) -> PreviewDrawn:
    return PreviewDrawn(JOB, Preview("3", "image/jpeg", data))


def note(text: str) -> Noted:
    return Noted(JOB, "info", text)


async def heard(events: AsyncIterator[Event]) -> list[Event]:
    async with asyncio.timeout(5):
        return [event async for event in events]


def numbers(events: list[Event]) -> list[int]:
    return [event.seq for event in events if isinstance(event, Noted | StatusChanged) and event.seq]


async def test_every_listener_hears_everything() -> None:
    """Two listeners of a running job both hear all that happens, in order."""
    log = EventLog()
    listeners = [asyncio.create_task(heard(log.follow())) for _ in range(2)]
    await asyncio.sleep(0)

    for event in (note("a"), progress(0.5), preview(b"x"), DONE):
        log.add(event)
        await asyncio.sleep(0)

    first, second = await asyncio.gather(*listeners)
    assert first == second
    assert [type(event).__name__ for event in first] == [
        "Noted",
        "ProgressMade",
        "PreviewDrawn",
        "StatusChanged",
    ]


async def test_a_late_listener_gets_the_past_and_the_latest_progress() -> None:
    """A late listener hears the numbered events so far and only the latest of the others."""
    log = EventLog()
    for event in (note("a"), progress(0.1), progress(0.2), preview(b"1"), preview(b"2")):
        log.add(event)

    late = asyncio.create_task(heard(log.follow()))
    await asyncio.sleep(0)
    log.add(DONE)

    events = await late
    assert events[1:3] == [progress(0.2), preview(b"2")]
    assert numbers(events) == [1, 2]


async def test_a_listener_resumes_after_a_number() -> None:
    """A listener that names the last number it heard gets what came after it, once."""
    log = EventLog()
    for event in (note("a"), note("b"), DONE):
        log.add(event)

    assert numbers(await heard(log.follow(after=1))) == [2, 3]


async def test_nothing_comes_after_the_last_event() -> None:
    """A listener that already heard the last event is not left waiting."""
    log = EventLog()
    log.add(DONE)

    assert await heard(log.follow(after=1)) == []


async def test_a_slow_listener_loses_previews_then_progress() -> None:
    """Who does not listen loses previews first, then old progress, and no numbered event."""
    log = EventLog()
    slow = log.follow()
    log.add(note("first"))
    await anext(slow)

    for step in range(AT_MOST_WAITING):
        log.add(preview(b"x"))
        log.add(progress(step / AT_MOST_WAITING))
    log.add(note("second"))
    log.add(DONE)

    events = await heard(slow)
    assert len(events) == AT_MOST_WAITING
    assert not any(isinstance(event, PreviewDrawn) for event in events)
    assert events[-3] == progress((AT_MOST_WAITING - 1) / AT_MOST_WAITING)
    assert numbers(events) == [2, 3]


async def test_listeners_are_told_when_nobody_follows_the_job_any_more() -> None:
    """A listener hears what is known, and then why there is no more."""
    log = EventLog()
    listener = asyncio.create_task(heard(log.follow()))
    await asyncio.sleep(0)
    log.add(note("a"))

    log.break_off(ClientClosed(JOB))

    with pytest.raises(ClientClosed):
        await listener
    with pytest.raises(ClientClosed):
        await heard(log.follow())
