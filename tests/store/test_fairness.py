"""Nobody waits for another's flood: over owners, pools, priorities and backends."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comfyserve.jobs import Claim, Offer
from comfyserve.store import Store
from comfyserve.store.claims import claim
from comfyserve.store.dialects import Sql, connect_sqlite
from comfyserve.store.rivals import Field, Rivals
from comfyserve.store.store import DATABASE_NAME
from comfyserve.store.submissions import submit
from tests.store.samples import START, offer, submission

FLOOD = 2000
FEW = 10

Fleet = Mapping[str, Sequence[str]]
"""The pools that each backend runs."""

FLEETS: tuple[Fleet, ...] = (
    {"b": ["x"]},
    {"b": ["x", "y"]},
    {"b": ["x"], "c": ["x"]},
    {"b": ["x", "y"], "c": ["y"]},
    {"b": ["x", "y"], "c": ["y", "z"], "d": ["x", "y", "z"]},
)


@dataclass
class Line:
    """A queue and backends that take one job after another, without waiting for any."""

    sql: Sql
    fleet: Fleet
    rivals: Rivals = field(default_factory=Rivals)
    running: dict[str, str] = field(default_factory=dict)

    def submit(self, owner: str, pool: str, **fields: object) -> None:
        job = submission(owner=owner, pool=pool, **fields)
        submit(self.sql, job, START, None, None, self._field_of)

    def offer(self, backend: str) -> str | None:
        """The owner of the job that the backend takes next; the one before is over."""
        if (before := self.running.pop(backend, None)) is not None:
            self.sql.change(
                "UPDATE jobs SET status = 'succeeded', completed_at = 1, lease_holder = NULL"
                " WHERE id = :id",
                id=before,
            )
        offers = [Offer(backend, tuple(self.fleet[backend]))]
        self.rivals.learn(offers, self._waiting())
        given = claim(self.sql, "s", offers, START + 60, START, 0.0).claim
        if given is None:
            return None
        self.running[backend] = given.record.id
        return given.record.owner

    def _waiting(self) -> set[str]:
        return {pool for pools in self.fleet.values() for pool in pools} | {"nobody's"}

    def _field_of(self, pool: str) -> Field | None:
        return self.rivals.of(pool, self._waiting())


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a database in which nothing is."""

    async def make(folder: Path) -> None:
        async with Store.open(folder):
            pass

    folder = tmp_path_factory.mktemp("empty")
    asyncio.run(make(folder))
    return (folder / DATABASE_NAME).read_bytes()


@contextmanager
def opened(empty: bytes, fleet: Fleet) -> Iterator[Line]:
    """A line over a database of its own, which nobody has to wait for."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / DATABASE_NAME
        path.write_bytes(empty)
        with closing(connect_sqlite(path, 5)) as connection:
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute("BEGIN")
            yield Line(Sql(connection), fleet)


@settings(max_examples=12, deadline=None)
@given(
    fleet=st.sampled_from(FLEETS),
    flood_pools=st.sampled_from(["", "in order", "in turns"]),
    before=st.integers(0, 60),
    seed=st.integers(0, 2**16),
)
def test_a_flood_delays_others_by_a_job_per_backend(
    empty: bytes, fleet: Fleet, flood_pools: str, before: int, seed: int
) -> None:
    """Of 2,000 jobs of one owner no more are begun while ten of another wait than those ten, and
    one per backend; whatever pools both are in and what the backends can run."""
    pools = sorted({pool for pools in fleet.values() for pool in pools})
    dice = random.Random(seed)
    with opened(empty, fleet) as line:
        for number in range(FLOOD):
            match flood_pools:
                case "in order":
                    pool = pools[number * len(pools) // FLOOD]
                case "in turns":
                    pool = pools[number % len(pools)]
                case _:
                    pool = pools[0]
            line.submit("flood", pool)
        for _ in range(before):
            line.offer(dice.choice(sorted(fleet)))
        waiting = Counter[str]()
        for _ in range(FEW):
            waiting[pool := dice.choice(pools)] += 1
            line.submit("few", pool)
        begun = Counter[str]()
        while begun["few"] < FEW:
            for backend in sorted(fleet):
                if begun["few"] == FEW:
                    break
                owner = line.offer(backend)
                # A backend that can run none of the ten takes nothing from them.
                if owner == "few" or set(fleet[backend]) & set(_pools_of(line, "few")):
                    begun[owner or "nobody"] += 1

    assert begun["flood"] <= FEW + len(fleet)


def test_who_is_new_comes_before_who_had_a_turn_just_now(empty: bytes) -> None:
    """Behind others who are new too, in the order of their coming; nobody gets past them by being
    newer still."""
    with opened(empty, {"b": ["x"]}) as line:
        for _ in range(20):
            line.submit("flood", "x")
        line.offer("b")
        for owner in ("first", "second", "third"):
            line.submit(owner, "x")

        begun = [line.offer("b") for _ in range(5)]

    assert begun == ["first", "second", "third", "flood", "flood"]


def _pools_of(line: Line, owner: str) -> list[str]:
    rows = line.sql.rows(
        "SELECT DISTINCT pool FROM jobs WHERE owner = :owner AND status = 'queued'"
        " AND lease_holder IS NULL",
        owner=owner,
    )
    return [row["pool"] for row in rows]


@pytest.mark.parametrize(
    "stuck",
    [None, {"pool": "nobody's"}, {"pool": "x", "priority": -1}],
    ids=["none", "pool", "low"],
)
def test_what_waits_for_ever_holds_nobody_up(empty: bytes, stuck: dict[str, Any] | None) -> None:
    """Jobs that no backend runs, or that are less urgent than all others, do not let newcomers go
    ahead of everybody else."""
    with opened(empty, {"b": ["x"]}) as line:
        if stuck is not None:
            line.submit("stuck", **stuck)
        for _ in range(300):
            line.submit("steady", "x")
            line.offer("b")
        for _ in range(FEW):
            line.submit("steady", "x")
        for _ in range(FLOOD // 10):
            line.submit("late flood", "x")
        begun = [line.offer("b") for _ in range(2 * FEW + 1)]

    assert begun.count("steady") >= FEW


def test_a_priority_is_no_debt(empty: bytes) -> None:
    """Urgent jobs, and the flood that they come from, do not move others to the end."""
    with opened(empty, {"b": ["x"]}) as line:
        for _ in range(FLOOD // 4):
            line.submit("flood", "x")
        for _ in range(100):
            line.submit("flood", "x", priority=5)
            line.offer("b")
        for _ in range(FEW):
            line.submit("few", "x")
            line.submit("few", "x", priority=5)
        begun = [line.offer("b") for _ in range(4 * FEW)]

    assert begun[:FEW] == ["few"] * FEW
    assert begun[FEW : 3 * FEW + 1].count("few") == FEW


def test_pools_that_all_differ_are_one_flood(empty: bytes) -> None:
    """Jobs that each need something else get one share together, not one each."""
    pools = [f"pool {number}" for number in range(300)]
    with opened(empty, {"b": [*pools, "x"]}) as line:
        for pool in pools:
            line.submit("flood", pool)
        for _ in range(20):
            line.offer("b")
        for _ in range(FEW):
            line.submit("few", "x")
        begun = [line.offer("b") for _ in range(2 * FEW + 1)]

    assert begun.count("few") == FEW


def test_a_share_is_in_seconds(empty: bytes) -> None:
    """Who asks for long jobs gets as much time as who asks for short ones, not as many jobs."""
    with opened(empty, {"b": ["x"]}) as line:
        for _ in range(100):
            line.submit("long", "x", estimate=10.0)
            line.submit("short", "x", estimate=1.0)
        begun = Counter(line.offer("b") for _ in range(44))

    assert 38 <= begun["short"] <= 41


async def test_a_warm_job_waits_for_its_backend_no_longer_than_the_bonus(store: Store) -> None:
    """Where its model is warm a job may wait for as long as loading takes, and no longer."""
    chosen = []
    for wait in (29.0, 31.0):
        await store.jobs.submit(submission(model="flux"))
        offers = [
            offer(store, backend="cold"),
            offer(store, backend="warm", warm=("flux",), wait=wait),
        ]
        chosen.append(await _claimed(store, offers, bonus=30.0))

    assert [one.record.backend for one in chosen] == ["warm", "cold"]


async def test_equal_offers_are_taken_in_order(store: Store) -> None:
    """Of backends that suit a job equally it gets the first; without a model it is cold nowhere."""
    await store.jobs.submit(submission())
    offers = [offer(store, backend="late", wait=1.0), offer(store, backend="first")]
    offers += [offer(store, backend="second", warm=("flux",))]

    assert (await _claimed(store, offers, bonus=30.0)).record.backend == "first"


async def test_a_job_goes_only_where_its_pool_is_offered(store: Store) -> None:
    """A backend that would be quicker, but cannot run the job, does not get it."""
    await store.jobs.submit(submission(pool="video", model="wan"))
    offers = [Offer("quick", ("image",), warm=("wan",)), Offer("slow", ("video",), wait=99.0)]

    assert (await _claimed(store, offers, bonus=30.0)).record.backend == "slow"


async def _claimed(store: Store, offers: Sequence[Offer], bonus: float) -> Claim:
    given = await store.jobs.claim("server", offers, lease=30, bonus=bonus)
    assert given is not None
    return given


def test_warm_jobs_never_starve_cold_ones(empty: bytes) -> None:
    """However many come for the warm model, a cold job is passed over by the bonus and no more."""
    with opened(empty, {"b": ["x"]}) as line:
        line.submit("cold", "x", model="sdxl")
        owners = []
        for _ in range(100):
            line.submit("warm", "x", model="flux")
            line.submit("warm", "x", model="flux")
            offers = [Offer("b", ("x",), warm=("flux",))]
            given = claim(line.sql, "s", offers, START + 60, START, 30.0).claim
            assert given is not None
            owners.append(given.record.owner)

    assert 25 <= owners.index("cold") <= 31
