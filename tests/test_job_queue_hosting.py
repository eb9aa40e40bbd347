"""The job queue where many workflows, backends and callers share it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from comfyserve.events import ProgressMade
from comfyserve.feed import LocalFeed
from comfyserve.job_queue import JobQueue, UsedKey
from comfyserve.jobs import JobRecord, JobStatus, Offer, Progress
from comfyserve.refusals import IdempotencyKeyReused
from comfyserve.store import Store
from comfyserve.workflows.needs import NOTHING, Needs
from tests.store.samples import GRAPH, START, Clock, status

FLUX = Needs(("KSampler",), (("CheckpointLoaderSimple", "ckpt_name", "flux.safetensors"),))
KEY = UsedKey("", "POST /workflows", "k", "digest", START + 100, replays=True)


def expected(record: JobRecord, place: int | None) -> tuple[float, float] | None:
    """Two to three seconds for each job."""
    return None if place is None else (2.0 * place, 3.0 * place)


@pytest.fixture
async def queue(tmp_path: Path) -> AsyncIterator[JobQueue]:
    clock = Clock()
    async with Store.open(tmp_path, clock=clock) as store:
        opened = JobQueue(
            store.jobs,
            LocalFeed(),
            most_waiting=10,
            retention=3600,
            clock=clock,
            bonus=30.0,
            expect=expected,
        )
        yield opened
        opened.close()


async def test_what_a_job_needs_says_where_it_waits(queue: JobQueue) -> None:
    """It waits in the pool of its needs, and only a backend that offers that gets it."""
    standing = await queue.submit(GRAPH, needs=FLUX, model="flux", estimate=7.0, timeout=60.0)
    pools = dict(queue.waiting_pools())

    none = await queue.claim("server", [Offer("small", ("",))], lease=30)
    claim = await queue.claim("server", [Offer("big", (FLUX.pool,))], lease=30)

    record = standing.record
    assert pools == {FLUX.pool: FLUX}
    assert (record.pool, record.model, record.estimate, record.timeout) == (
        FLUX.pool,
        "flux",
        7.0,
        60.0,
    )
    assert none is None
    assert claim is not None and claim.record.backend == "big"
    assert dict(queue.waiting_pools()) == {}


async def test_a_warm_backend_gets_its_model(queue: JobQueue) -> None:
    """The bonus of the queue is worth so many seconds of waiting."""
    await queue.submit(GRAPH, model="flux")
    offers = [Offer("cold", ("",)), Offer("warm", ("",), warm=("flux",), wait=29.0)]

    claim = await queue.claim("server", offers, lease=30)

    assert claim is not None and claim.record.backend == "warm"


async def test_a_busy_place_is_kept_for_the_model_that_is_next(queue: JobQueue) -> None:
    """A backend that works with another model is not given the next job yet, nor any behind it,
    until it is free; one that has the model takes it at once."""
    first = await queue.submit(GRAPH, model="sdxl", priority=1)
    await queue.submit(GRAPH, model="flux")
    busy = Offer("busy", ("",), warm=("flux",), only_warm=True)
    warm = Offer("warm", ("",), warm=("sdxl",), only_warm=True, wait=9.0)

    assert await queue.claim("server", [busy], lease=30) is None
    claim = await queue.claim("server", [busy, warm], lease=30)
    behind = await queue.claim("server", [busy], lease=30)

    assert claim is not None and behind is not None
    assert (claim.record.id, claim.record.backend) == (first.record.id, "warm")
    assert (behind.record.model, behind.record.backend) == ("flux", "busy")


@pytest.mark.parametrize("runs", [True, False])
async def test_who_heeds_work_hears_of_it_with_its_pool(queue: JobQueue, runs: bool) -> None:
    """When a job comes and when it comes back, at once, its pool is among those that wait."""
    heard: list[set[str]] = []
    queue.heed_work(lambda: heard.append(set(queue.waiting_pools())))

    await queue.submit(GRAPH, needs=FLUX)
    claim = await queue.claim("server", [Offer("b", (FLUX.pool,))], lease=30)
    assert claim is not None
    if runs:
        await queue.record(claim.lease, [status(claim.lease, JobStatus.RUNNING)])
    before = len(heard)
    await queue.requeue(claim.lease)

    assert heard[0] == heard[-1] == {FLUX.pool}
    assert len(heard) > before


async def test_a_job_that_goes_back_may_need_something_else(queue: JobQueue) -> None:
    """It then waits for other backends than before, at its old place, also for who restarts."""
    euler = Needs((*FLUX.classes, "SamplerCustom"), FLUX.choices)
    first = await queue.submit(GRAPH, needs=FLUX)
    claim = await queue.claim("server", [Offer("small", (FLUX.pool,))], lease=30)
    assert claim is not None
    behind = await queue.submit(GRAPH, needs=euler)

    await queue.requeue(claim.lease, counts=False, needs=euler)

    record = (await queue.get(first.record.id)).record
    assert (record.pool, record.attempts, record.status) == (euler.pool, 0, JobStatus.QUEUED)
    assert dict(queue.waiting_pools()) == {euler.pool: euler}
    assert await queue.claim("server", [Offer("small", (FLUX.pool,))], lease=30) is None
    offers = [Offer("big", (euler.pool,))]
    taken = [await queue.claim("server", offers, lease=30) for _ in range(2)]
    assert [one and one.record.id for one in taken] == [first.record.id, behind.record.id]


async def test_a_waiting_job_knows_how_long(queue: JobQueue) -> None:
    """As long as it waits, from its place on; nothing is said of one that runs."""
    await queue.submit(GRAPH)
    second = await queue.submit(GRAPH)
    listed = (await queue.list()).items
    claim = await queue.claim("server", [Offer("b", ("",))], lease=30)
    assert claim is not None
    await queue.record(claim.lease, [status(claim.lease, JobStatus.RUNNING)])

    assert second.expected_wait == (4.0, 6.0)
    assert [standing.expected_wait for standing in listed] == [(4.0, 6.0), (2.0, 3.0)]
    assert (await queue.get(claim.record.id)).expected_wait is None
    assert (await queue.get(second.record.id)).expected_wait == (2.0, 3.0)


async def test_the_same_request_gets_the_same_job(queue: JobQueue) -> None:
    """At once or later, as it stands by then; what came with the second is not kept."""
    first, second = await asyncio.gather(queue.submit(GRAPH, key=KEY), queue.submit(GRAPH, key=KEY))
    claim = await queue.claim("server", [Offer("b", ("",))], lease=30)
    assert claim is not None
    await queue.record(claim.lease, [status(claim.lease, JobStatus.RUNNING)])
    queue.tell(ProgressMade(first.record.id, half := Progress(value=0.5)))
    other = "0b2f3a52-0b52-4f0c-9a52-5d2b6c1f0a11"

    again = await queue.submit(GRAPH, key=KEY, job_id=other, extra_data={"api_key": "secret"})

    assert first.record.id == second.record.id == again.record.id
    assert (again.record.status, again.progress) == (JobStatus.RUNNING, half)
    assert queue.extra_data(other) is None
    assert await queue.waiting() == 0
    with pytest.raises(IdempotencyKeyReused):
        await queue.submit(GRAPH, key=UsedKey("", KEY.route, "k", "other", START + 9, replays=True))


async def test_pools_of_an_earlier_process_are_known(tmp_path: Path) -> None:
    """Who opens the queue again finds the jobs that wait, and what they need."""
    for _ in range(2):
        async with Store.open(tmp_path) as store:
            queue = JobQueue(store.jobs, LocalFeed(), most_waiting=9, retention=60)
            found = dict(queue.waiting_pools())
            if not found:
                await queue.submit(GRAPH, needs=FLUX)
                await queue.submit(GRAPH)
            queue.close()

    assert found == {FLUX.pool: FLUX, "": NOTHING}
