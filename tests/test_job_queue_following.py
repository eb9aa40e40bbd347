"""Whatever happens while somebody follows: no gap, no repeat, in order, and an end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from comfyserve.events import Event, Noted, PreviewDrawn, ProgressMade, StatusChanged
from comfyserve.feed import LocalFeed
from comfyserve.job_queue import JobQueue
from comfyserve.job_queue.follower import follow
from comfyserve.jobs import JobStatus, Lease, Offer, Preview, Progress
from comfyserve.refusals import IllegalMove, LeaseLost, ListenerTooSlow
from comfyserve.store import Store
from tests.store.samples import GRAPH, status

Act = tuple[str, int]

OFFERS = [Offer("http://gpu:8188", ("",))]

ACTS = st.one_of(
    st.tuples(st.sampled_from(["progress", "preview"]), st.just(0)),
    st.tuples(st.sampled_from(["notes", "pass"]), st.integers(1, 6)),
    st.tuples(st.just("follow"), st.integers(0, 12)),
    st.tuples(st.just("read"), st.integers(1, 8)),
    st.sampled_from([("requeue", 0), ("cancel", 0), ("lose", 0)]),
)


def test_following_tells_all_once_in_order_to_the_end(tmp_path: Path) -> None:
    """Writers that race, live events that get lost, readers that come, stall and resume."""
    with asyncio.Runner() as runner:
        opened = AsyncExitStack()
        store = runner.run(opened.enter_async_context(Store.open(tmp_path)))

        @given(st.lists(ACTS, max_size=40))
        @settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
        def check(acts: Sequence[Act]) -> None:
            runner.run(_play(store, acts))

        try:
            check()
        finally:
            runner.run(opened.aclose())


async def _play(store: Store, acts: Sequence[Act]) -> None:
    queue = JobQueue(store.jobs, LocalFeed(most_unread=8), most_waiting=100, retention=1e6)
    story = Story(store, queue, (await queue.submit(GRAPH)).record.id)
    async with asyncio.timeout(20):
        await story.begin()
        for name, count in acts:
            await story.act(name, count)
        await story.end()
    queue.close()
    await story.check()


@dataclass
class Reader:
    """Somebody who follows, reads only as much as allowed, and resumes when hung up."""

    queue: JobQueue
    job_id: str
    after: int
    heard: list[Event] = field(default_factory=list)
    may_read: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    hung_up: int = 0

    async def read(self) -> None:
        after = self.after
        while not (self.heard and self.heard[-1].is_last):
            try:
                async for event in self.queue.follow(self.job_id, after):
                    self.heard.append(event)
                    after = getattr(event, "seq", None) or after
                    await self.may_read.acquire()
            except ListenerTooSlow:
                self.hung_up += 1
            else:
                return


@dataclass
class Story:
    """One job, those who write to it and those who follow it."""

    store: Store
    queue: JobQueue
    job_id: str
    lease: Lease | None = None
    attempt: int = 0
    step: int = 0
    tasks: list[asyncio.Task[Any]] = field(default_factory=list)
    readers: list[Reader] = field(default_factory=list)

    async def begin(self) -> None:
        """Have the job run."""
        claim = await self.queue.claim("server", OFFERS, lease=30)
        if claim is None:
            return
        self.lease = claim.lease
        self.attempt += 1
        await self.queue.record(self.lease, [status(self.lease, JobStatus.RUNNING)])

    async def act(self, name: str, count: int) -> None:
        """Let one thing happen; writers and readers go on meanwhile."""
        match name:
            case "follow":
                self.readers.append(Reader(self.queue, self.job_id, count))
                self.tasks.append(asyncio.create_task(self.readers[-1].read()))
            case "read":
                for reader in self.readers[:: 1 + count % 3]:
                    for _ in range(count):
                        reader.may_read.release()
            case "pass":
                for _ in range(count):
                    await asyncio.sleep(0)
            case _ if self.lease is not None:
                await self.write(name, count, self.lease)

    async def write(self, name: str, count: int, lease: Lease) -> None:
        """Do something that only who holds the job, or its owner, does."""
        match name:
            case "progress":
                self.step += 1
                told = Progress(value=0.5, step=self.step, message=str(self.attempt))
                self.queue.tell(ProgressMade(self.job_id, told))
            case "preview":
                self.step += 1
                shown = Preview("3", "image/png", b"%d" % self.step)
                self.queue.tell(PreviewDrawn(self.job_id, shown))
            case "notes":
                for _ in range(count):
                    self.start(self.queue.record(lease, [Noted(self.job_id, "info", "note")]))
            case "cancel":
                self.start(self.queue.cancel(self.job_id))
            case "lose":
                self.store.jobs.tell_to(lambda events: None)
                with suppress(LeaseLost):
                    await self.queue.record(lease, [Noted(self.job_id, "info", "unheard")])
                self.store.jobs.tell_to(self.queue._told)
            case "requeue":
                await self.queue.requeue(lease)
                self.lease = None
                await self.begin()

    def start(self, write: Coroutine[Any, Any, object]) -> None:
        """Have it written whenever it comes to that."""
        self.tasks.append(asyncio.create_task(self.try_to(write)))

    async def try_to(self, write: Coroutine[Any, Any, object]) -> None:
        with suppress(LeaseLost, IllegalMove):
            await write

    async def end(self) -> None:
        """The job ends, and everybody reads what is left."""
        if self.lease is not None:
            await self.try_to(
                self.queue.finish(self.lease, status(self.lease, JobStatus.SUCCEEDED))
            )
        for reader in self.readers:
            for _ in range(500):
                reader.may_read.release()
        await asyncio.gather(*self.tasks)

    async def check(self) -> None:
        """Compare what each reader heard with what is kept."""
        kept = await self.store.jobs.events(self.job_id)
        record = await self.store.jobs.get(self.job_id)
        assert kept[-1].is_last
        for reader in self.readers:
            heard = [event for event in reader.heard if lasts(event)]
            assert tuple(heard) == kept[len(kept) - len(heard) :]
            assert len(heard) >= len(kept) - reader.after
            self.check_passing(reader, record.progress)

    def check_passing(self, reader: Reader, last: Progress | None) -> None:
        """Progress never goes back or comes twice, is of this attempt, and the last is there."""
        steps = [e.progress for e in reader.heard if isinstance(e, ProgressMade)]
        pictures = [int(e.preview.data) for e in reader.heard if isinstance(e, PreviewDrawn)]
        if not reader.hung_up:
            numbers = [told.step or 0 for told in steps]
            assert numbers == sorted(set(numbers))
            assert pictures == sorted(set(pictures))
        if reader.heard and reader.heard[-1].is_last and last is not None:
            assert steps and steps[-1] == last
        if reader.after == 0:
            attempt = 0
            for event in reader.heard:
                match event:
                    case StatusChanged(status=JobStatus.RUNNING):
                        attempt += 1
                    case ProgressMade(progress=told):
                        assert told.message == str(attempt)


def lasts(event: Event) -> bool:
    return not isinstance(event, ProgressMade | PreviewDrawn) and event.seq is not None


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with Store.open(tmp_path) as opened:
        yield opened


async def test_an_end_that_was_not_heard_is_found(store: Store) -> None:
    """A follower whose live events are lost asks the store after a while, and ends."""
    feed = LocalFeed()
    queue = JobQueue(store.jobs, feed, most_waiting=9, retention=1e6)
    story = Story(store, queue, (await queue.submit(GRAPH)).record.id)
    await story.begin()
    assert story.lease is not None
    following = follow(store.jobs, feed, queue._moves, story.job_id, 0, None, beat=0.05)
    heard = [await anext(following), await anext(following)]
    store.jobs.tell_to(lambda events: None)

    await queue.finish(story.lease, status(story.lease, JobStatus.SUCCEEDED))

    async with asyncio.timeout(10):
        heard += [event async for event in following]
    assert tuple(heard) == await store.jobs.events(story.job_id)


async def test_nothing_is_told_before_what_was_missed(store: Store) -> None:
    """Where an event was lost, all that came with the next one waits until the store was read."""
    feed = LocalFeed()
    queue = JobQueue(store.jobs, feed, most_waiting=9, retention=1e6)
    story = Story(store, queue, (await queue.submit(GRAPH)).record.id)
    await story.begin()
    assert story.lease is not None
    following = follow(store.jobs, feed, queue._moves, story.job_id, 0, None)
    heard = [await anext(following), await anext(following)]
    nobody = asyncio.create_task(anext(following))  # has told all, and waits
    await asyncio.sleep(0)
    store.jobs.tell_to(lambda events: None)
    await queue.record(story.lease, [Noted(story.job_id, "info", "lost")])
    (late,) = await queue.record(story.lease, [Noted(story.job_id, "info", "heard")])

    for event in (late, ProgressMade(story.job_id, Progress(step=1))):
        feed.publish(event)

    async with asyncio.timeout(10):
        heard += [await nobody, await anext(following), await anext(following)]
    await following.aclose()
    assert tuple(heard[:4]) == await store.jobs.events(story.job_id)
    assert isinstance(heard[4], ProgressMade)


async def test_a_job_that_was_forgotten_ends_its_followers(store: Store) -> None:
    """Nobody waits for ever for the end of a job that is not there any more."""
    feed = LocalFeed()
    queue = JobQueue(store.jobs, feed, most_waiting=9, retention=1e6)
    story = Story(store, queue, (await queue.submit(GRAPH)).record.id)
    following = follow(store.jobs, feed, queue._moves, story.job_id, 0, None, beat=0.05)
    assert await anext(following)
    store.jobs.tell_to(lambda events: None)

    await queue.cancel(story.job_id)
    await queue.delete(story.job_id)

    async with asyncio.timeout(10):
        assert [event async for event in following if lasts(event)] == []
