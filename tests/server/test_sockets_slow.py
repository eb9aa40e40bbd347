"""Clients that read slowly, or not at all: what they miss, and that nobody else notices."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from comfyserve.events import Noted
from comfyserve.server.sockets import outbox, session
from comfyserve.server.sockets.outbox import Message, Outbox, Passing
from tests.server.socket_calls import numbers, socket
from tests.server.sockets_house import House, house

SECONDS = 20.0
PICTURE = bytes(200_000)


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[House]:
    """The application with its ordinary settings."""
    async with house(tmp_path) as running:
        yield running


async def test_who_does_not_read_is_hung_up_and_slows_nobody(
    served: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """He is closed with 4408, having been told a beginning without a gap; who comes back with
    the last number hears the rest; another listener heard everything in the meantime."""
    monkeypatch.setattr(session, "READ_WITHIN", 0.5)
    monkeypatch.setattr(session, "LOOK_EVERY", 0.1)
    lease = await served.running()
    async with socket(served.url) as deaf, socket(served.url) as hearing:
        await deaf.ask("follow", job_id=lease.job_id)
        await hearing.ask("follow", job_id=lease.job_id)
        reading = asyncio.create_task(hearing.hear_to_end(lease.job_id))
        async with asyncio.timeout(SECONDS):
            while served.sockets.open == 2:
                await _tell(served, lease.job_id)
                served.show(lease, PICTURE)
                served.step(lease, 0.5)
                await asyncio.sleep(0.01)
        await served.end(lease)
        whole = numbers(await reading)
        code = await deaf.closed()
        heard = numbers(deaf.events[lease.job_id])
    async with socket(served.url) as back:
        await back.ask("follow", job_id=lease.job_id, after=heard[-1])
        rest = numbers(await back.hear_to_end(lease.job_id))

    assert code == 4408
    assert whole == [*range(1, whole[-1] + 1)]
    assert [*heard, *rest] == whole
    assert rest


async def _tell(served: House, job_id: str) -> None:
    [claim] = [claim for claim in await served.host.job_queue.held()]
    await served.host.job_queue.record(claim.lease, [Noted(job_id, "info", "x" * 20_000)])


class Line:
    """A connection that takes messages only while it is open."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.is_open = asyncio.Event()

    async def send(self, message: Message) -> None:
        await self.is_open.wait()
        self.sent.append(message)


@pytest.fixture
async def line() -> Line:
    """A connection that takes nothing yet."""
    return Line()


@pytest.fixture
async def box(line: Line) -> AsyncIterator[Outbox]:
    """An outbox that sends on it."""
    box = Outbox(line.send)
    sending = asyncio.create_task(box.run())
    yield box
    sending.cancel()
    await asyncio.wait([sending])


async def test_all_is_sent_in_its_order(box: Outbox, line: Line) -> None:
    """Whoever reads in time is sent everything as it came."""
    line.is_open.set()
    for number in range(50):
        await box.put(f"event {number}")
        box.put_latest(Passing.PROGRESS, "a", f"progress {number}")
        await box.emptied()

    expected = [text for n in range(50) for text in (f"event {n}", f"progress {n}")]
    assert line.sent == expected


async def test_the_newest_progress_of_each_job_is_kept(box: Outbox, line: Line) -> None:
    """Of many only the last is sent, where it came: after the events before it, and before the
    job's end."""
    await box.put("first")
    await asyncio.sleep(0)  # it is being sent
    for number in range(100):
        box.put_latest(Passing.PROGRESS, "a", f"a {number}")
        box.put_latest(Passing.PROGRESS, "b", f"b {number}")
        if number == 50:
            await box.put("second")
    await box.put("end of a")
    line.is_open.set()
    await box.emptied()

    assert line.sent == ["first", "second", "a 99", "b 99", "end of a"]


async def test_few_previews_wait(box: Outbox, line: Line) -> None:
    """The oldest are left out where many jobs draw."""
    await box.put("first")
    await asyncio.sleep(0)
    for number in range(100):
        box.put_latest(Passing.PREVIEW, f"job {number}", b"%d" % number)
    line.is_open.set()
    await box.emptied()

    assert line.sent == ["first", *[b"%d" % number for number in range(84, 100)]]


@pytest.mark.parametrize(("size", "most"), [(1, outbox.MOST_WAITING), (outbox.MOST_BYTES // 4, 4)])
async def test_what_lasts_waits_for_room(box: Outbox, line: Line, size: int, most: int) -> None:
    """So many messages, or so many bytes, may wait; whoever has one more waits himself, and none
    is lost."""
    messages = [f"{number:0{size}}" for number in range(10, 10 + most + 5)]
    putting = asyncio.create_task(_put_all(box, messages))
    async with asyncio.timeout(SECONDS):
        while box.waiting < most:  # noqa: ASYNC110
            await asyncio.sleep(0)
    for _ in range(20):
        await asyncio.sleep(0)
    assert (box.waiting, putting.done()) == (most, False)

    line.is_open.set()
    await putting
    await box.emptied()
    assert line.sent == messages


async def _put_all(box: Outbox, messages: list[str]) -> None:
    for message in messages:
        await box.put(message)


async def test_nobody_waits_for_a_closed_box(box: Outbox) -> None:
    """Once nobody reads any more, who waits for room goes on, and what comes is dropped."""
    putting = asyncio.create_task(_put_all(box, ["x"] * (outbox.MOST_WAITING * 2)))
    for _ in range(outbox.MOST_WAITING + 10):
        await asyncio.sleep(0)
    assert not putting.done()

    box.close()

    async with asyncio.timeout(SECONDS):
        await putting
    assert box.waiting <= outbox.MOST_WAITING
