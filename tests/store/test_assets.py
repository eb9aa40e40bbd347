"""Assets and idempotency keys in the store, and which bytes nothing refers to."""

from __future__ import annotations

from pathlib import Path

import pytest

from comfyserve.jobs import JobFile
from comfyserve.refusals import AssetInUse, BlobNotFound, IdempotencyKeyReused, NotFound
from comfyserve.store import Store, UsedKey
from tests.store.samples import (
    START,
    Clock,
    asset,
    hash_of,
    output,
    submission,
    succeeded,
)


def needing(kept_id: str, name: str = "cat.png") -> JobFile:
    return JobFile((("1", "image"),), hash_of(name), name, kept_id)


async def test_an_asset_comes_back_as_it_was(store: Store) -> None:
    """All that was said of an asset can be had again, by id and by hash."""
    made = asset(owner="ann", tags=("a", "ü"), expires_at=START + 60)

    await store.assets.add(made)

    assert await store.assets.get(made.id, "ann") == made
    assert await store.assets.of_hash(made.hash, "ann") == made
    assert await store.assets.of_hash(made.hash, "ann", file_path="cat.png") == made
    assert await store.assets.of_hash(made.hash, "ann", file_path="dog.png") is None
    assert await store.assets.several([made.id, "nonsense"]) == [made]
    assert (await store.assets.list("ann")).items == (made,)


async def test_assets_of_others_and_past_ones_are_not_there(store: Store, clock: Clock) -> None:
    """Neither another owner nor a later time finds an asset, not even by its hash."""
    made = asset(owner="ann", expires_at=START + 60)
    await store.assets.add(made)

    with pytest.raises(NotFound):
        await store.assets.get(made.id, "bob")
    with pytest.raises(NotFound):
        await store.assets.delete(made.id, "bob")
    assert await store.assets.of_hash(made.hash, "bob") is None
    clock.pass_seconds(60)
    with pytest.raises(NotFound):
        await store.assets.get(made.id, "ann")


async def test_the_same_hash_is_the_same_bytes(store: Store) -> None:
    """Bytes that several assets share count once, and a wrong size is refused."""
    await store.assets.add(asset())
    await store.assets.add(asset(file_path="other.png"))

    with pytest.raises(BlobNotFound):
        await store.assets.add(asset(size_bytes=6))

    assert await store.assets.total_bytes() == 5
    assert len((await store.assets.list()).items) == 2


async def test_an_asset_in_use_stays(store: Store) -> None:
    """An asset is not deleted while a job that is not over needs it; then it is."""
    made = asset()
    await store.assets.add(made)
    job = submission(files=(needing(made.id),))
    await store.jobs.submit(job)

    with pytest.raises(AssetInUse) as refused:
        await store.assets.delete(made.id)
    await store.jobs.cancel(job.id)
    await store.assets.delete(made.id)

    assert refused.value.job_id == job.id
    with pytest.raises(NotFound):
        await store.assets.get(made.id)


async def test_retention_only_makes_a_time_later(store: Store) -> None:
    """Referring to an asset again keeps it longer, never shorter, and for ever is longest."""
    made = asset(expires_at=START + 60)
    await store.assets.add(made)
    seen = []

    for until in (START + 30, START + 90, None, START + 100):
        await store.assets.extend(made.id, until)
        seen.append((await store.assets.get(made.id)).expires_at)

    assert seen == [START + 60, START + 90, None, None]


async def test_expired_assets_go_unless_somebody_needs_them(store: Store) -> None:
    """Retention takes what is past, but no input of a waiting job and no job's output."""
    past, used, later = (asset(n, expires_at=START + t) for n, t in (("a", 1), ("b", 1), ("c", 9)))
    for made in (past, used, later):
        await store.assets.add(made)
    await succeeded(store, output(), expires_at=START + 1)
    await store.jobs.submit(submission(files=(needing(used.id, "b"),)))

    gone = await store.assets.delete_expired(START + 5)

    left = {one.id for one in (await store.assets.list()).items}
    assert gone == 1
    assert past.id not in left
    assert {used.id, later.id} <= left
    assert await store.assets.forget_unused_blobs([hash_of("a.png")]) == frozenset()


async def test_only_what_nothing_refers_to_is_unused(store: Store) -> None:
    """Bytes of an asset, an output or a job's input are in use; others are not."""
    await store.assets.add(made := asset("input"))
    await store.assets.add(gone := asset("gone"))
    await store.jobs.submit(submission(files=(needing(made.id, "input"),)))
    job_id = (await store.jobs.list()).items[0].id
    await store.jobs.cancel(job_id)
    await store.assets.delete(made.id)
    await store.assets.delete(gone.id)
    names = ["input", "gone", "never kept"]

    unused = await store.assets.forget_unused_blobs([hash_of(name) for name in names])

    assert unused == {hash_of("gone"), hash_of("never kept")}
    with pytest.raises(BlobNotFound):
        await store.jobs.submit(submission(files=(needing(gone.id, "gone"),)))
    await store.jobs.delete(job_id)
    assert await store.assets.forget_unused_blobs([hash_of("input")]) == {hash_of("input")}


async def test_keys_are_used_up_released_and_forgotten(store: Store, clock: Clock) -> None:
    """A key is good once, again when released, and again when its time is over."""
    key = UsedKey("ann", "POST /assets", "k", "digest", START + 60)
    other = UsedKey("bob", "POST /assets", "k", "digest", START + 60)
    await store.idempotency.use(key)
    await store.idempotency.use(other)

    with pytest.raises(IdempotencyKeyReused):
        await store.idempotency.use(key)
    await store.idempotency.release(key)
    await store.idempotency.use(key)
    clock.pass_seconds(60)
    await store.idempotency.use(key)

    assert await store.idempotency.delete_expired(START + 61) == 2


async def test_a_key_that_made_a_job_stays_used(store: Store, tmp_path: Path) -> None:
    """A release that comes too late does not let the same job be made twice."""
    key = UsedKey("ann", "POST /jobs", "k", "digest", START + 60)
    await store.jobs.submit(submission(owner="ann"), key=key)

    await store.idempotency.release(key)

    with pytest.raises(IdempotencyKeyReused):
        await store.jobs.submit(submission(owner="ann"), key=key)


async def test_a_deleted_output_is_no_longer_the_job_s(store: Store) -> None:
    """Deleting the asset of an output takes it from its job; the events still tell of it."""
    job_id = await succeeded(store, output(), output("b", index=1))
    first = (await store.jobs.get(job_id)).outputs[0]
    assert first.id is not None

    await store.assets.delete(first.id)

    assert [one.name for one in (await store.jobs.get(job_id)).outputs] == ["b"]
    assert len(await store.jobs.events(job_id)) == 5
