"""Who gets which job, and who may write to it."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from comfyserve.events import Noted
from comfyserve.jobs import JobStatus, Offer
from comfyserve.refusals import LeaseLost
from comfyserve.store import Store
from comfyserve.store.claims import claim, heartbeat
from comfyserve.store.dialects import SQLITE, Sql, connect_sqlite
from comfyserve.store.job_reads import next_queue_deadline
from comfyserve.store.job_writes import expire_waiting, finish, record, requeue
from comfyserve.store.queue_places import places
from comfyserve.store.rivals import Field
from comfyserve.store.store import DATABASE_NAME
from comfyserve.store.submissions import submit
from comfyserve.store.waiting_pools import left_empty, read
from tests.store.samples import START, Clock, claimed, offer, running, status, submission

MANY = 50_000


async def test_a_job_is_claimed_once(store: Store) -> None:
    """Many who ask at once get every job once, and then nothing."""
    ids = {job.id for job in [submission() for _ in range(20)]}
    for job_id in ids:
        await store.jobs.submit(submission(id=job_id))

    claims = await asyncio.gather(
        *(store.jobs.claim(f"server {n}", [Offer("b", ("",))], lease=30) for n in range(30))
    )

    given = [claim.lease.job_id for claim in claims if claim is not None]
    assert len(given) == 20
    assert set(given) == ids


async def test_priority_goes_first_then_age(store: Store) -> None:
    """Higher priority first; among equals of one owner the older one."""
    jobs = [submission(priority=priority) for priority in (0, 5, 0, -1, 5)]
    for job in jobs:
        await store.jobs.submit(job)

    order = [(await claimed(store)).lease.job_id for _ in jobs]

    assert order == [jobs[n].id for n in (1, 4, 0, 2, 3)]


async def test_a_flood_of_one_owner_does_not_keep_others_waiting(store: Store) -> None:
    """Who comes after a flood shares with it at once, in turns."""
    for _ in range(50):
        await store.jobs.submit(submission(owner="flood"))
    for owner in ("ann", "bob") * 5:
        await store.jobs.submit(submission(owner=owner))

    served = [(await claimed(store)).record.owner for _ in range(15)]

    assert {owner: served.count(owner) for owner in served} == {"flood": 5, "ann": 5, "bob": 5}


async def test_idling_earns_no_share(store: Store) -> None:
    """Who asked for much before, and who is new, alternate once the queue was empty."""
    for _ in range(10):
        lease = await running(store, owner="ann")
        await store.jobs.finish(lease, status(lease, JobStatus.SUCCEEDED))
    for owner in ("ann", "ann", "new", "new"):
        await store.jobs.submit(submission(owner=owner))

    served = [(await claimed(store)).record.owner for _ in range(4)]

    assert served[:2] in (["ann", "new"], ["new", "ann"])
    assert served[2:] in (["ann", "new"], ["new", "ann"])


async def test_a_backend_gets_only_what_it_can_do(store: Store) -> None:
    """Jobs of pools that a backend does not serve are not given to it."""
    await store.jobs.submit(video := submission(pool="video"))
    await store.jobs.submit(image := submission(pool="image"))

    first = await claimed(store, offers=[Offer("b", ("image",))])
    none = await store.jobs.claim("server", [Offer("b", ("image", "audio"))], lease=30)
    second = await claimed(store, offers=[Offer("b", ("image", "video"))])

    assert (first.lease.job_id, none, second.lease.job_id) == (image.id, None, video.id)


@pytest.mark.parametrize(("bonus", "first"), [(0.0, "sdxl"), (5.0, "flux"), (1.0, "sdxl")])
async def test_a_warm_job_goes_ahead_by_its_bonus_and_no_further(
    store: Store, bonus: float, first: str
) -> None:
    """A model that is loaded lets a job jump at most that many seconds of share."""
    for model in ("sdxl", "sdxl", "flux"):
        await store.jobs.submit(submission(model=model, estimate=1.0))

    assert (
        await claimed(store, offers=[offer(store, warm=("flux",))], bonus=bonus)
    ).lease.job_id == (await _id_of_first(store, first))


async def _id_of_first(store: Store, model: str) -> str:
    jobs = (await store.jobs.list()).items[::-1]
    return jobs[0].id if model == "sdxl" else jobs[2].id


async def test_a_job_past_its_deadline_is_not_begun(store: Store, clock: Clock) -> None:
    """It is passed over, ends as expired, and says so; one that was claimed in time goes on."""
    await store.jobs.submit(late := submission(queue_deadline=START + 5))
    await store.jobs.submit(free := submission())
    lease = await running(store, queue_deadline=START + 5, priority=9)
    clock.pass_seconds(5)

    given = await claimed(store)
    told = await store.jobs.expire_waiting()

    assert given.lease.job_id == free.id
    assert [(event.job_id, event.is_last) for event in told] == [(late.id, True)]
    assert (await store.jobs.get(late.id)).status is JobStatus.EXPIRED
    assert (await store.jobs.get(lease.job_id)).status is JobStatus.RUNNING


async def test_waiting_jobs_know_their_place(store: Store) -> None:
    """Places count from 1 in the order in which jobs will be claimed, until they run."""
    jobs = [submission(priority=priority) for priority in (0, 0, 7)]
    for job in jobs:
        await store.jobs.submit(job)

    places = [await store.jobs.queue_position(job.id) for job in jobs]
    lease = (await claimed(store)).lease
    taken = [await store.jobs.queue_position(job.id) for job in jobs]
    await store.jobs.record(lease, [status(lease, JobStatus.RUNNING)])
    later = [await store.jobs.queue_position(job.id) for job in jobs]

    assert (places, taken, later) == ([2, 3, 1], [2, 3, 1], [1, 2, None])


async def test_who_was_taken_stays_ahead(store: Store) -> None:
    """A more urgent job cannot overtake one that already waits on a backend."""
    first, urgent = submission(), submission(priority=7)
    await store.jobs.submit(first)
    await claimed(store)
    await store.jobs.submit(urgent)

    places = await store.jobs.queue_positions([urgent.id, first.id])

    assert places == {first.id: 1, urgent.id: 2}


async def test_many_places_are_those_of_each(store: Store) -> None:
    """Asked for together, jobs of several pools, owners and priorities have the same places."""
    jobs = [
        submission(priority=number % 3, owner=f"owner {number % 4}", pool=f"pool {number % 2}")
        for number in range(40)
    ]
    for job in jobs:
        await store.jobs.submit(job)
    for pool in ("pool 0", "pool 1", "pool 1"):
        await claimed(store, offers=[Offer("b", (pool,))])
    ids = [job.id for job in jobs]

    together = await store.jobs.queue_positions([*ids, "unknown"])
    alone = {id: await store.jobs.queue_position(id) for id in ids}
    order = [
        (await claimed(store, offers=[Offer("b", ("pool 0",))])).lease.job_id for _ in range(19)
    ]

    assert together == alone
    assert sorted(order, key=lambda id: together[id]) == order
    assert sorted(together[job.id] for job in jobs if job.pool == "pool 0") == [*range(1, 21)]
    assert sorted(together[job.id] for job in jobs if job.pool == "pool 1") == [*range(1, 21)]


async def test_a_lease_is_renewed_and_runs_out(store: Store, clock: Clock) -> None:
    """A sign of life holds all of a holder's jobs; without one they show as abandoned."""
    mine = await running(store)
    await store.jobs.submit(submission())
    theirs = (await claimed(store, holder="other")).lease
    clock.pass_seconds(20)

    renewed = await store.jobs.heartbeat("server", lease=30)
    clock.pass_seconds(20)

    abandoned = await store.jobs.held(until=clock())
    assert renewed == {mine.job_id: JobStatus.RUNNING}
    assert [claim.lease for claim in abandoned] == [theirs]
    assert len(await store.jobs.held()) == 2


async def test_who_lost_a_job_to_another_cannot_write(store: Store) -> None:
    """A job that was taken over goes on in the same attempt, for its new holder alone."""
    old = await running(store)
    before = await store.jobs.get(old.job_id)

    new = await store.jobs.adopt(old, "server after restart", seconds=30)

    for write in (
        store.jobs.record(old, [Noted(old.job_id, "info", "late")]),
        store.jobs.finish(old, status(old, JobStatus.FAILED)),
        store.jobs.requeue(old),
        store.jobs.adopt(old, "third", seconds=30),
    ):
        with pytest.raises(LeaseLost):
            await write
    assert await store.jobs.get(old.job_id) == before
    await store.jobs.finish(new, status(new, JobStatus.SUCCEEDED))


async def test_the_same_holder_in_a_later_claim_is_another(store: Store) -> None:
    """What an earlier claim of the same holder still wants to write is refused."""
    old = await running(store)
    await store.jobs.requeue(old)
    new = (await claimed(store)).lease

    with pytest.raises(LeaseLost):
        await store.jobs.record(old, [Noted(old.job_id, "info", "late")])

    await store.jobs.record(new, [Noted(new.job_id, "info", "now")])


async def test_the_queue_is_never_scanned(tmp_path: Path) -> None:
    """With 50,000 waiting, claiming and entering look only at the heads of indexes."""
    async with Store.open(tmp_path):
        connection = connect_sqlite(tmp_path / DATABASE_NAME, 5)
        try:
            _fill(connection, MANY)
            plans = _plans_of_hot_statements(connection)
        finally:
            connection.close()

    assert len(plans) > 15
    assert [plan for plan in plans if _reads_it_all(plan)] == []
    assert any("jobs_head" in plan for plan in plans)
    assert any("jobs_warm" in plan for plan in plans)


def _reads_it_all(plan: str) -> bool:
    return "SCAN jobs" in plan or "TEMP B-TREE" in plan


def _fill(connection: sqlite3.Connection, count: int) -> None:
    connection.execute("BEGIN")
    job = submission(owner="owner 0", queue_deadline=START + 9)
    submit(Sql(connection), job, START, None, None, _no_field)
    names = [row[1] for row in connection.execute("PRAGMA table_info(jobs)")]
    copied = {"id": "'job ' || n", "owner": "'owner ' || (n % 50)", "rank": "n % 3", "turn": "n"}
    columns = ", ".join(copied.get(name, f'"{name}"') for name in names if name != "number")
    targets = ", ".join(f'"{name}"' for name in names if name != "number")
    connection.execute(
        f"WITH RECURSIVE up(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM up WHERE n < {count})"
        f" INSERT INTO jobs ({targets}) SELECT {columns} FROM up, jobs WHERE jobs.number = 1"
    )
    connection.execute("COMMIT")


def _no_field(pool: str) -> Field | None:
    return None


def _one_field(pool: str) -> Field | None:
    return Field(frozenset({pool, "other"}), frozenset({"b"}))


def _plans_of_hot_statements(connection: sqlite3.Connection) -> list[str]:
    """How SQLite would do every statement that these operations really say."""
    said: list[str] = []
    connection.set_trace_callback(said.append)
    sql = Sql(connection)
    submit(sql, submission(owner="owner 3"), START, 2 * MANY, None, _one_field)
    submit(sql, submission(owner="owner 4"), START, 2 * MANY, None, _no_field)
    many = tuple(f"pool {number}" for number in range(100))
    claim(sql, "s", [Offer("b", many)], START, START, 1.0)
    given = claim(sql, "s", [Offer("b", ("",), warm=("",))], START, START, 1.0).claim
    assert given is not None
    record(sql, given.lease, [status(given.lease, JobStatus.RUNNING)], START)
    heartbeat(sql, "s", START)
    finish(sql, given.lease, [], status(given.lease, JobStatus.FAILED), None, None, START)
    expire_waiting(sql, 10, "s", None, START)
    next_queue_deadline(sql)
    back = claim(sql, "s", [Offer("b", ("",))], START, START, 1.0).claim
    assert back is not None
    requeue(sql, back.lease, True, None, None, None, START)
    read(sql)
    left_empty(sql, [given.lease.job_id])
    last = sql.rows("SELECT id FROM jobs WHERE number IN (41, 42)")
    places(sql, [row["id"] for row in last])
    connection.set_trace_callback(None)
    return [
        str(step[3])
        for statement in said
        # These stop at the queue's bound, and after the first few.
        if not statement.startswith("SELECT count(*)") and "LIMIT 128" not in statement
        for step in connection.execute(f"EXPLAIN QUERY PLAN {statement}")
    ]


async def test_a_long_queue_costs_no_more(tmp_path: Path, clock: Clock) -> None:
    """A claim among 50,000 waiting takes about as many steps as one among a hundred."""
    steps = [await _steps_of_a_claim(tmp_path / str(count), count) for count in (100, MANY)]

    assert steps[1] < 1.5 * steps[0] + 50


async def _steps_of_a_claim(folder: Path, count: int) -> int:
    async with Store.open(folder):
        connection = connect_sqlite(folder / DATABASE_NAME, 5)
        steps = 0

        def step() -> int:
            nonlocal steps
            steps += 1
            return 0

        try:
            _fill(connection, count)
            connection.set_progress_handler(step, 1)
            Sql(connection).row(SQLITE.head, pool="", now=START)
        finally:
            connection.close()
        return steps
