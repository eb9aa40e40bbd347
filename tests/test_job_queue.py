"""The job queue for callers and dispatchers: kept first, told next, nothing forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from uuid import uuid4

import pytest

from comfyserve.events import (
    Event,
    Noted,
    NumberedEvent,
    OutputSaved,
    PreviewDrawn,
    ProgressMade,
    StatusChanged,
)
from comfyserve.feed import LocalFeed
from comfyserve.job_queue import JobQueue, UsedKey
from comfyserve.jobs import JobStatus, Lease, Offer, Preview, Progress
from comfyserve.refusals import (
    IdempotencyKeyReused,
    LeaseLost,
    ListenerTooSlow,
    NotFound,
    QueueFull,
)
from comfyserve.store import Store
from tests.store.samples import GRAPH, START, Clock, output, status

FIRST = "0b2f3a52-0b52-4f0c-9a52-5d2b6c1f0a11"
OFFERS = [Offer("http://gpu:8188", ("",))]
HALF = Progress(value=0.5, step=10, steps=20)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(tmp_path: Path, clock: Clock) -> AsyncIterator[Store]:
    async with Store.open(tmp_path, clock=clock) as opened:
        yield opened


@pytest.fixture
async def queue(store: Store, clock: Clock) -> AsyncIterator[JobQueue]:
    """A queue of ten that keeps jobs for an hour and gives them up after a minute."""
    opened = JobQueue(
        store.jobs, LocalFeed(), most_waiting=10, retention=3600, queue_timeout=60, clock=clock
    )
    yield opened
    opened.close()
    await until(lambda: "queue moves" not in {task.get_name() for task in asyncio.all_tasks()})


async def until(true: Callable[[], object]) -> None:
    """Wait until the function gives something true."""
    deadline = asyncio.get_running_loop().time() + 10
    while not true():
        assert asyncio.get_running_loop().time() < deadline, "it never came true"
        await asyncio.sleep(0.005)


async def take(queue: JobQueue, *, runs: bool = True) -> Lease:
    """The lease of the next job, which runs."""
    claim = await queue.claim("server", OFFERS, lease=30)
    assert claim is not None
    if runs:
        await queue.record(claim.lease, [status(claim.lease, JobStatus.RUNNING)])
    return claim.lease


async def running(queue: JobQueue) -> Lease:
    """The lease of a new job that runs."""
    await queue.submit(GRAPH)
    return await take(queue)


def note(lease: Lease, message: str = "note") -> Noted:
    return Noted(lease.job_id, "info", message)


def progress(lease: Lease, value: float) -> ProgressMade:
    return ProgressMade(lease.job_id, Progress(value=value))


async def followed(queue: JobQueue, job_id: str, after: int = 0) -> list[Event]:
    """Everything that following tells, to its end."""
    async with asyncio.timeout(20):
        return [event async for event in queue.follow(job_id, after)]


def statuses(events: list[Event]) -> list[JobStatus]:
    """Those that last."""
    return [event.status for event in events if isinstance(event, StatusChanged) and event.seq]


async def test_a_job_is_handed_in(queue: JobQueue, clock: Clock) -> None:
    """It gets a canonical id, its times, its place; what was said of it is there."""
    await queue.submit(GRAPH)
    standing = await queue.submit(GRAPH, owner="ann", seeds={"3.seed": 7}, metadata="mine")

    record = standing.record
    assert (record.status, standing.queue_position, standing.progress) == ("queued", 2, None)
    assert (record.expires_at, record.queue_deadline) == (START + 3600, START + 60)
    assert (record.owner, record.seeds, record.metadata) == ("ann", {"3.seed": 7}, "mine")
    assert await queue.graph(record.id, "ann") == GRAPH
    assert await queue.get(record.id, "ann") == standing
    with pytest.raises(NotFound):
        await queue.get(record.id, "bob")


async def test_a_full_queue_takes_nothing(queue: JobQueue) -> None:
    """The eleventh is refused, and its key stays good."""
    for _ in range(10):
        await queue.submit(GRAPH)
    key = UsedKey("", "POST /jobs", "k", "digest", START + 100)

    with pytest.raises(QueueFull):
        await queue.submit(GRAPH, key=key, extra_data={"api_key": "secret"}, job_id=FIRST)
    await take(queue)
    kept = await queue.submit(GRAPH, key=key)

    assert kept.queue_position == 10
    assert queue.extra_data(FIRST) is None
    await take(queue)
    with pytest.raises(IdempotencyKeyReused):
        await queue.submit(GRAPH, key=key)


async def test_secrets_live_as_long_as_the_job(queue: JobQueue) -> None:
    """They are there while it waits and runs, and are forgotten at its end."""
    job_id = (await queue.submit(GRAPH, extra_data={"api_key": "secret"})).record.id
    lease = await take(queue)

    while_it_runs = queue.extra_data(job_id)
    await queue.finish(lease, status(lease, JobStatus.FAILED))

    assert while_it_runs == {"api_key": "secret"}
    assert queue.extra_data(job_id) is None
    assert (await queue.get(job_id)).record.has_extra_data


async def test_how_a_running_job_stands(queue: JobQueue, clock: Clock) -> None:
    """Its latest progress is told while it runs, kept at its end, and no earlier attempt's."""
    lease = await running(queue)
    queue.tell(ProgressMade(lease.job_id, HALF))
    runs = await queue.get(lease.job_id)
    await queue.requeue(lease)
    waits = await queue.get(lease.job_id)
    lease = await take(queue)
    queue.tell(ProgressMade(lease.job_id, HALF))
    clock.pass_seconds(100)
    await queue.finish(lease, status(lease, JobStatus.SUCCEEDED))
    over = await queue.get(lease.job_id)

    assert [standing.progress for standing in (runs, waits, over)] == [HALF, None, HALF]
    assert [standing.queue_position for standing in (runs, waits, over)] == [None, 1, None]
    assert over.record.expires_at == clock() + 3600
    assert list((await queue.list()).items) == [over]


async def test_a_list_knows_places_and_progress(queue: JobQueue) -> None:
    """The page of a list says of each job what asking for it would say."""
    lease = await running(queue)
    queue.tell(ProgressMade(lease.job_id, HALF))
    for _ in range(3):
        await queue.submit(GRAPH)

    page = await queue.list(limit=3)
    rest = await queue.list(cursor=page.next_cursor)

    listed = [*page.items, *rest.items]
    assert [standing.queue_position for standing in listed] == [3, 2, 1, None]
    assert listed == [await queue.get(standing.record.id) for standing in listed]


@pytest.mark.parametrize("runs", [True, False])
async def test_who_waits_for_work_is_woken(queue: JobQueue, runs: bool) -> None:
    """A new job and one that comes back, begun or not, wake a dispatcher; while none waits it
    sleeps."""
    assert await queue.claim("server", OFFERS, lease=30) is None
    sleeps = asyncio.create_task(queue.wait_for_work())
    done, _ = await asyncio.wait([sleeps], timeout=0.05)
    assert not done

    await queue.submit(GRAPH)
    async with asyncio.timeout(5):
        await sleeps
    lease = await take(queue, runs=runs)
    assert await queue.claim("server", OFFERS, lease=30) is None
    await queue.requeue(lease)

    async with asyncio.timeout(5):
        await queue.wait_for_work()
    assert await take(queue)


async def test_who_claims_hears_whether_more_wait(queue: JobQueue) -> None:
    """Behind the last job nobody is sent to look; behind any other he is."""
    for _ in range(2):
        await queue.submit(GRAPH)
    first = await queue.claim("server", OFFERS, lease=30)
    async with asyncio.timeout(5):
        await queue.wait_for_work()

    last = await queue.claim("server", OFFERS, lease=30)
    sleeps = asyncio.create_task(queue.wait_for_work())
    done, _ = await asyncio.wait([sleeps], timeout=0.05)

    assert first is not None and first.more_wait
    assert last is not None and not last.more_wait
    assert not done
    sleeps.cancel()


async def test_who_follows_from_where_he_saw_it_misses_nothing(queue: JobQueue) -> None:
    """What happened between the look and the following is told, each event once."""
    seen = await queue.submit(GRAPH)
    lease = await take(queue, runs=True)
    following = queue.follow(lease.job_id, seen.record.last_event, since=seen)
    await queue.finish(lease, StatusChanged(lease.job_id, JobStatus.SUCCEEDED))

    async with asyncio.timeout(5):
        told = [event async for event in following]

    assert [event.status for event in told if isinstance(event, StatusChanged)] == [
        JobStatus.RUNNING,
        JobStatus.SUCCEEDED,
    ]


async def test_a_heartbeat_tells_what_is_to_be_stopped(queue: JobQueue) -> None:
    """A holder hears which of its jobs were canceled meanwhile, and which are no longer its."""
    canceled, goes_on, over = [await running(queue) for _ in range(3)]

    await queue.cancel(canceled.job_id)
    await queue.finish(over, status(over, JobStatus.SUCCEEDED))

    assert await queue.heartbeat("server", lease=30) == {
        canceled.job_id: JobStatus.CANCELING,
        goes_on.job_id: JobStatus.RUNNING,
    }


async def test_a_new_process_takes_over(queue: JobQueue) -> None:
    """What an earlier holder left is found and taken over once, and its progress is heard."""
    lease = await running(queue)

    (left,) = await queue.held()
    taken = await queue.adopt(left.lease, "new server", seconds=30)
    queue.tell(ProgressMade(lease.job_id, HALF))

    assert (await queue.get(lease.job_id)).progress == HALF
    with pytest.raises(LeaseLost):
        await queue.adopt(left.lease, "third", seconds=30)
    with pytest.raises(LeaseLost):
        await queue.record(lease, [note(lease)])
    assert await queue.record(taken, [note(taken)])


async def test_jobs_that_wait_too_long_expire(queue: JobQueue, clock: Clock) -> None:
    """They end as expired, are told so, and the next deadline is known."""
    late = (await queue.submit(GRAPH)).record.id
    clock.pass_seconds(30)
    in_time = (await queue.submit(GRAPH)).record.id
    clock.pass_seconds(30)

    due = await queue.expire_waiting()

    assert due == START + 90
    assert (await queue.get(late)).record.status is JobStatus.EXPIRED
    assert (await queue.get(late)).record.expires_at == clock() + 3600
    assert (await queue.get(in_time)).queue_position == 1
    assert statuses(await followed(queue, late)) == [JobStatus.QUEUED, JobStatus.EXPIRED]


async def test_canceling_is_idempotent(queue: JobQueue) -> None:
    """A waiting job ends, a running one is to be stopped; again changes nothing."""
    lease = await running(queue)
    waits = (await queue.submit(GRAPH)).record.id

    first = [(await queue.cancel(job_id)).record for job_id in (waits, lease.job_id)]
    again = [(await queue.cancel(job_id)).record for job_id in (waits, lease.job_id)]

    assert [record.status for record in first] == [JobStatus.CANCELED, JobStatus.CANCELING]
    assert again == first


async def test_a_deleted_job_is_gone(queue: JobQueue) -> None:
    """Nobody can ask for it or follow it any more."""
    lease = await running(queue)
    await queue.finish(lease, status(lease, JobStatus.SUCCEEDED))

    await queue.delete(lease.job_id)

    with pytest.raises(NotFound):
        await queue.get(lease.job_id)
    with pytest.raises(NotFound):
        await followed(queue, lease.job_id)


async def test_a_late_follower_hears_everything(queue: JobQueue) -> None:
    """Following a job that is over tells all of it again, its last progress before the end."""
    lease = await running(queue)
    queue.tell(ProgressMade(lease.job_id, HALF))
    await queue.record(lease, [OutputSaved(lease.job_id, output())])
    await queue.finish(lease, status(lease, JobStatus.SUCCEEDED), events=[note(lease)])

    heard = await followed(queue, lease.job_id)

    assert [getattr(event, "seq", "progress") for event in heard] == [1, 2, 3, 4, "progress", 5]
    assert heard[4] == ProgressMade(lease.job_id, HALF)
    assert heard[-1].is_last
    assert await followed(queue, lease.job_id, after=4) == heard[4:]
    assert await followed(queue, lease.job_id, after=5) == []
    assert await followed(queue, lease.job_id, after=99) == []


async def test_a_follower_of_a_running_job_hears_where_it_is(queue: JobQueue) -> None:
    """The past, then the latest progress and preview, then what happens, to the end."""
    lease = await running(queue)
    drawn = PreviewDrawn(lease.job_id, Preview("3", "image/png", b"png"))
    queue.tell(drawn)
    queue.tell(progress(lease, 0.1))
    queue.tell(progress(lease, 0.2))
    heard: list[Event] = []
    async with aclosing(queue.follow(lease.job_id)) as following:
        async for event in following:
            heard.append(event)
            if event == drawn:
                queue.tell(progress(lease, 0.3))
                await queue.finish(
                    lease, status(lease, JobStatus.SUCCEEDED), progress=Progress(value=1.0)
                )

    told = [getattr(event, "seq", None) or getattr(event, "progress", drawn) for event in heard]
    values = [*(Progress(value=value) for value in (0.2, 0.3, 1.0))]
    assert told == [1, 2, values[0], drawn, values[1], values[2], 3]


async def test_a_number_that_never_was_hides_nothing(queue: JobQueue) -> None:
    """Who asks for what comes after event 99 of a job that has two hears the third."""
    lease = await running(queue)
    following = asyncio.create_task(followed(queue, lease.job_id, after=99))
    await until(lambda: queue._feed._listeners)

    await queue.finish(lease, status(lease, JobStatus.SUCCEEDED))

    assert statuses(await following) == [JobStatus.SUCCEEDED]


async def test_a_waiting_job_hears_its_place(queue: JobQueue) -> None:
    """From its first place on each move is told once, until it runs."""
    jobs = [(await queue.submit(GRAPH)).record.id for _ in range(3)]
    places: list[int] = []

    async def listen() -> None:
        async for event in queue.follow(jobs[2]):
            if isinstance(event, StatusChanged) and event.queue_position is not None:
                assert event.seq is None
                places.append(event.queue_position)

    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        group.create_task(listen())
        for seen in ([3], [3, 2], [3, 2, 1]):
            await until(lambda: places == seen)  # noqa: B023
            lease = await take(queue)
        await queue.finish(lease, status(lease, JobStatus.SUCCEEDED))

    assert places == [3, 2, 1]


async def test_a_thousand_waiting_followers_cost_one_look(store: Store, clock: Clock) -> None:
    """However many jobs move at once, all places are read together, and seldom."""
    queue = JobQueue(store.jobs, LocalFeed(), most_waiting=2000, retention=60, clock=clock)
    jobs = [str(uuid4()) for _ in range(1000)]
    await asyncio.gather(*(queue.submit(GRAPH, job_id=job_id) for job_id in jobs))
    places: dict[str, int | None] = {}

    async def listen(job_id: str) -> None:
        async for event in queue.follow(job_id):
            if isinstance(event, StatusChanged) and event.seq is None:
                places[job_id] = event.queue_position

    async with asyncio.timeout(50), asyncio.TaskGroup() as group:
        for job_id in jobs:
            group.create_task(listen(job_id))
        await until(lambda: len(places) == 1000)
        looks: list[str] = []
        await store.jobs._database.look(lambda sql: sql.connection.set_trace_callback(looks.append))
        for _ in range(20):
            await take(queue)
        await until(lambda: places[jobs[-1]] == 980)
        queue.close()

    assert [places[job_id] for job_id in jobs[20:]] == [*range(1, 981)]
    assert sum("row_number()" in look for look in looks) < 20
    assert len(looks) < 200


async def test_closing_ends_who_follows(queue: JobQueue) -> None:
    """Following ends without an end of the job, now and later, and the past is still told."""
    lease = await running(queue)
    following = asyncio.create_task(followed(queue, lease.job_id))
    await until(lambda: queue._feed._listeners)

    queue.close()

    assert statuses(await following) == [JobStatus.QUEUED, JobStatus.RUNNING]
    assert statuses(await followed(queue, lease.job_id)) == [JobStatus.QUEUED, JobStatus.RUNNING]


async def test_who_does_not_keep_up_is_hung_up_and_may_resume(store: Store, clock: Clock) -> None:
    """A follower that does not read hears so, nobody waits for it, and it can go on later."""
    queue = JobQueue(store.jobs, LocalFeed(most_unread=5), most_waiting=9, retention=60)
    lease = await running(queue)
    following = queue.follow(lease.job_id)
    heard = [await anext(following) for _ in range(2)]

    for _ in range(50):
        await queue.record(lease, [note(lease)])
    with pytest.raises(ListenerTooSlow):
        await anext(following)
    await queue.finish(lease, status(lease, JobStatus.SUCCEEDED))

    rest = await followed(queue, lease.job_id, after=2)
    assert [getattr(event, "seq", None) for event in [*heard, *rest]] == [*range(1, 54)]


async def test_a_watch_hears_what_lasts_also_of_who_gave_up(store: Store, clock: Clock) -> None:
    """A writer that is canceled while it waits has its events kept and told all the same."""
    watched: list[NumberedEvent] = []
    queue = JobQueue(store.jobs, LocalFeed(), most_waiting=9, retention=60, watch=watched.append)
    lease = await running(queue)
    writer = asyncio.create_task(queue.record(lease, [note(lease)]))
    await asyncio.sleep(0)

    writer.cancel()
    await asyncio.gather(writer, return_exceptions=True)
    await queue.finish(lease, status(lease, JobStatus.SUCCEEDED))

    assert tuple(watched) == await store.jobs.events(lease.job_id)
    assert len(watched) == 4


async def test_nothing_is_held_of_jobs_that_are_over(queue: JobQueue) -> None:
    """After its end, and its followers', the process remembers nothing of a job."""
    lease = await running(queue)
    queue.tell(ProgressMade(lease.job_id, HALF))
    following = asyncio.create_task(followed(queue, lease.job_id))
    await until(lambda: queue._feed._listeners)

    await queue.finish(lease, status(lease, JobStatus.SUCCEEDED))
    await following
    queue.tell(ProgressMade(lease.job_id, HALF))

    feed, moves = queue._feed, queue._moves
    assert not feed._latest and not feed._listeners
    assert not queue._here and not moves._watched and not moves._places
