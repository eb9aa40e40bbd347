"""Which pools have waiting jobs: always known, also after a restart, and no more than there are."""

from __future__ import annotations

from pathlib import Path

import pytest

from comfyserve.jobs import JobStatus, Offer
from comfyserve.refusals import QueueFull
from comfyserve.store import Store
from comfyserve.workflows.needs import NOTHING, Needs
from tests.store.samples import START, Clock, claimed, offer, running, status, submission

FLUX = Needs(("KSampler",), (("CheckpointLoaderSimple", "ckpt_name", "flux.safetensors"),))


async def test_a_pool_is_there_while_jobs_wait_in_it(store: Store) -> None:
    """It comes with the first job, and goes with the last that is taken; once asked, not before."""
    for _ in range(2):
        await store.jobs.submit(submission(pool=FLUX.pool, needs=FLUX))
    pools = store.jobs.waiting_pools
    both = dict(pools)
    await claimed(store)
    one = dict(pools)
    await claimed(store)

    assert both == one == {FLUX.pool: FLUX}
    assert dict(pools) == {}


async def test_a_job_that_comes_back_brings_its_pool(store: Store) -> None:
    """With all that it needs, as before."""
    lease = await running(store, pool=FLUX.pool, needs=FLUX)
    assert FLUX.pool not in store.jobs.waiting_pools

    await store.jobs.requeue(lease)

    assert dict(store.jobs.waiting_pools) == {FLUX.pool: FLUX}


async def test_one_to_be_canceled_brings_nothing(store: Store) -> None:
    """It does not wait again, so nobody is to look for it."""
    lease = await running(store, pool=FLUX.pool, needs=FLUX)
    await store.jobs.cancel(lease.job_id)

    await store.jobs.requeue(lease)

    assert dict(store.jobs.waiting_pools) == {}


async def test_a_job_that_ends_while_it_waits_takes_its_pool_along(
    store: Store, clock: Clock
) -> None:
    """Canceled or expired, with no backend that ever looked for it; others in the pool keep it."""
    canceled = [submission(pool="a") for _ in range(2)]
    for job in (*canceled, submission(pool="b", queue_deadline=START + 5)):
        await store.jobs.submit(job)

    await store.jobs.cancel(canceled[0].id)
    one_left = set(store.jobs.waiting_pools)
    await store.jobs.cancel(canceled[1].id)
    clock.pass_seconds(5)
    await store.jobs.expire_waiting()

    assert one_left == {"a", "b"}
    assert set(store.jobs.waiting_pools) == set()


async def test_refused_jobs_leave_no_pools(store: Store) -> None:
    """However many are handed in to a full queue, and however they differ."""
    await store.jobs.submit(submission(pool="kept"))
    for number in range(100):
        with pytest.raises(QueueFull):
            await store.jobs.submit(submission(pool=f"pool {number % 50}"), most_waiting=1)
    with pytest.raises(QueueFull):
        await store.jobs.submit(submission(pool="kept"), most_waiting=1)

    assert set(store.jobs.waiting_pools) == {"kept"}


async def test_more_pools_than_are_looked_at_one_by_one(store: Store) -> None:
    """A hundred pools are served in order, each is gone with its job, the rest stays."""
    jobs = [submission(pool=f"pool {number}") for number in range(100)]
    for job in jobs:
        await store.jobs.submit(job)
    await store.jobs.submit(submission(pool="elsewhere", priority=9))
    pools = tuple(job.pool for job in jobs)

    order = []
    for left in range(100, 0, -1):
        assert len(store.jobs.waiting_pools) == left + 1
        order.append(await claimed(store, offers=[Offer("b", pools)]))
    none = await store.jobs.claim("server", [Offer("b", pools)], lease=30)

    assert [claim.lease.job_id for claim in order] == [job.id for job in jobs]
    assert [claim.more_wait for claim in order[-2:]] == [True, True]
    assert none is None
    assert set(store.jobs.waiting_pools) == {"elsewhere"}


async def test_pools_are_known_again_after_a_restart(tmp_path: Path) -> None:
    """With what they need; those in which nothing waits any more are not."""
    async with Store.open(tmp_path) as store:
        for pool, needs in ((FLUX.pool, FLUX), ("", NOTHING), ("empty", NOTHING)):
            await store.jobs.submit(submission(pool=pool, needs=needs))
        await claimed(store, offers=[Offer("b", ("empty",))])
    async with Store.open(tmp_path) as store:
        pools = dict(store.jobs.waiting_pools)

    assert pools == {FLUX.pool: FLUX, "": NOTHING}


async def test_what_pools_need_is_forgotten_with_their_jobs(store: Store, clock: Clock) -> None:
    """While one waits or runs it is kept; then it goes, as do the shares of owners without jobs."""
    lease = await running(store, pool="held", owner="ann")
    ended = await running(store, pool="over", owner="bob")
    await store.jobs.submit(submission(pool="waits"))
    await store.jobs.finish(ended, status(ended, JobStatus.SUCCEEDED))
    clock.pass_seconds(7200)

    await store.forget_unneeded()

    rows = await store.jobs._database.look(
        lambda sql: (sql.rows("SELECT pool FROM pools"), sql.rows("SELECT owner FROM shares"))
    )
    assert sorted(row["pool"] for row in rows[0]) == ["held", "waits"]
    assert sorted(row["owner"] for row in rows[1]) == ["", "ann"]
    await store.jobs.requeue(lease)
    assert set(store.jobs.waiting_pools) == {"held", "waits"}


async def test_a_job_says_what_it_was_handed_in_with(store: Store) -> None:
    """Its time limit, its model and what it was expected to take."""
    job = submission(timeout=90.0, model="flux", estimate=12.5)

    record, _ = await store.jobs.submit(job)

    assert (record.timeout, record.model, record.estimate) == (90.0, "flux", 12.5)
    assert await store.jobs.get(job.id) == record
    assert (await claimed(store, offers=[offer(store)])).record.timeout == 90.0
