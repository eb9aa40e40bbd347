"""The same request again brings the same job, for as long as there is one."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from comfyserve.jobs import JobFile, JobStatus
from comfyserve.refusals import BlobNotFound, IdempotencyKeyReused
from comfyserve.store import Store, UsedKey
from tests.store.samples import START, Clock, claimed, hash_of, running, status, submission

KEY = UsedKey("ann", "POST /workflows", "k1", "digest", START + 100, replays=True)


async def test_a_request_again_gets_its_job(store: Store) -> None:
    """As it stands then, and no second one is made, also where the queue is full meanwhile."""
    first, place = await store.jobs.submit(submission(owner="ann"), key=KEY)

    again = await store.jobs.submit(submission(owner="ann"), key=KEY, most_waiting=1)
    lease = (await claimed(store)).lease
    await store.jobs.record(lease, [status(lease, JobStatus.RUNNING)])
    runs, no_place = await store.jobs.submit(submission(owner="ann"), key=KEY)

    assert again == (first, place)
    assert (runs.id, runs.status, no_place) == (first.id, JobStatus.RUNNING, None)
    assert len((await store.jobs.list()).items) == 1


async def test_two_at_once_get_one_job(store: Store) -> None:
    """Whichever comes first makes it, the others get it."""
    told = await asyncio.gather(
        *(store.jobs.submit(submission(owner="ann"), key=KEY) for _ in range(10))
    )

    assert len({record.id for record, _ in told}) == 1
    assert await store.jobs.waiting() == 1


@pytest.mark.parametrize(
    "other", [replace(KEY, digest="another"), replace(KEY, replays=False)], ids=["digest", "single"]
)
async def test_a_key_is_not_good_for_something_else(store: Store, other: UsedKey) -> None:
    """Another request under the key is refused, as is any where keys are good only once."""
    await store.jobs.submit(submission(owner="ann"), key=KEY)

    with pytest.raises(IdempotencyKeyReused):
        await store.jobs.submit(submission(owner="ann"), key=other)

    assert await store.jobs.waiting() == 1


async def test_keys_of_others_are_others(store: Store) -> None:
    """What ann used brings bob nothing of hers."""
    hers, _ = await store.jobs.submit(submission(owner="ann"), key=KEY)

    his, _ = await store.jobs.submit(submission(owner="bob"), key=replace(KEY, owner="bob"))

    assert hers.id != his.id


@pytest.mark.parametrize("forgotten", ["deleted", "expired"])
async def test_a_forgotten_job_makes_its_key_good_again(
    store: Store, clock: Clock, forgotten: str
) -> None:
    """The same request is a new one then, and is brought back from there on."""
    lease = await running(store, owner="ann", expires_at=START + 50)
    key = replace(KEY, key="k2")
    old, _ = await store.jobs.submit(submission(owner="ann", expires_at=START + 50), key=key)
    await store.jobs.finish(lease, status(lease, JobStatus.SUCCEEDED))
    await store.jobs.cancel(old.id)
    if forgotten == "deleted":
        await store.jobs.delete(old.id)
    else:
        clock.pass_seconds(50)

    new, _ = await store.jobs.submit(submission(owner="ann"), key=key)
    again, _ = await store.jobs.submit(submission(owner="ann"), key=key)

    assert old.id != new.id == again.id


async def test_a_key_past_its_time_is_new(store: Store, clock: Clock) -> None:
    """Its job is still there, but the request is not the same any more."""
    first, _ = await store.jobs.submit(submission(owner="ann"), key=KEY)
    clock.pass_seconds(100)

    later, _ = await store.jobs.submit(
        submission(owner="ann"), key=replace(KEY, expires_at=START + 200)
    )

    assert later.id != first.id


async def test_a_refused_job_leaves_its_key_good(store: Store) -> None:
    """What was not made is not brought back."""
    gone = JobFile((("1", "image"),), hash_of("gone"), "gone.png")

    with pytest.raises(BlobNotFound):
        await store.jobs.submit(submission(owner="ann", files=(gone,)), key=KEY)

    record, place = await store.jobs.submit(submission(owner="ann"), key=KEY)

    assert (record.status, place) == (JobStatus.QUEUED, 1)
