"""Which backend a job goes to, where there are several real ones, and how long it will wait."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from comfyserve.events import Noted
from comfyserve.host import Host
from comfyserve.jobs import JobStatus, Standing, Timings
from comfyserve.learned_times import kind_of, subject_of
from comfyserve.workflows.needs import needs_of
from tests.engines import RunningEngine, running_engine
from tests.hosts import (
    Graph,
    emitting,
    end,
    hosting,
    inside,
    ran,
    sleeping,
    statuses,
    story,
    submit,
    until,
    until_status,
)
from tests.machines import Machine

pytestmark = pytest.mark.timeout(120)

CHECKPOINTS = ("test-a.safetensors", "test-b.safetensors")


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RunningEngine]]:
    """Two backends that have the same."""
    with (
        running_engine(tmp_path_factory.mktemp("one"), test_nodes=True) as one,
        running_engine(tmp_path_factory.mktemp("other"), test_nodes=True) as other,
    ):
        yield [one, other]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEngine]:
    """A backend that has no test nodes."""
    with running_engine(tmp_path_factory.mktemp("small")) as running:
        yield running


@pytest.fixture
async def host(engines: list[RunningEngine], tmp_path: Path) -> AsyncIterator[Host]:
    """A host before both, which answer already and have told their nodes."""
    async with hosting(tmp_path / "data", *(one.url for one in engines), grace=0.0) as opened:
        await until_learned(opened)
        yield opened
        for job in (await opened.job_queue.list(limit=100)).items:
            await opened.job_queue.cancel(job.record.id)
            await end(opened, job.record.id)


async def until_learned(host: Host) -> None:
    """Wait until all backends have told what they have."""

    members = host.fleet.members

    async def is_so() -> bool:
        return all(
            member.is_up and member.is_learned and member.backend.socket.is_open
            for member in members
        )

    await until(is_so)
    # A socket that has just opened has them read once more.
    for member in members:
        await member.read_catalog()
    await until(is_so)


async def placed(host: Host, graph: Graph, **options: Any) -> str:
    """Hand in a graph as the server does, with what it needs and loads; the job's id."""
    placement = host.placement(graph)
    return await submit(host, graph, needs=placement.needs, model=placement.model, **options)


async def where(engines: list[RunningEngine]) -> list[tuple[list[str], list[str]]]:
    """What runs and what waits in each of them."""
    return [await inside(engine.url) for engine in engines]


async def until_full(engines: list[RunningEngine]) -> None:
    """Wait until each runs one job, and one waits there."""

    async def is_so() -> bool:
        return [(len(one), len(more)) for one, more in await where(engines)] == [(1, 1)] * 2

    await until(is_so)


async def backend_of(host: Host, job_id: str) -> str | None:
    """The backend that the job was brought to last."""
    return (await host.job_queue.get(job_id)).record.backend


# The load


async def test_each_backend_gets_one_before_any_gets_two(
    host: Host, engines: list[RunningEngine]
) -> None:
    """Of two jobs each backend runs one; of four each has one more; a fifth waits with us."""
    jobs = [await placed(host, sleeping(60.0, 300))]
    await until_status(host, jobs[0], JobStatus.RUNNING)
    jobs.append(await placed(host, sleeping(60.0, 301)))

    async def each_runs_one() -> bool:
        return [len(running) for running, _ in await where(engines)] == [1, 1]

    await until(each_runs_one)
    assert [waiting for _, waiting in await where(engines)] == [[], []]

    jobs += [await placed(host, sleeping(60.0, 302 + number)) for number in range(3)]

    async def each_has_one_more() -> bool:
        return [len(waiting) for _, waiting in await where(engines)] == [1, 1]

    await until(each_has_one_more)
    record = (await host.job_queue.get(jobs[4])).record
    assert (record.status, record.attempts) == (JobStatus.QUEUED, 0)


async def test_the_second_place_is_where_the_wait_is_shorter(
    host: Host, engines: list[RunningEngine]
) -> None:
    """A job is not put behind a long one while another backend is about to be done."""
    for name, seconds in (("long", 600.0), ("short", 2.0)):
        for engine in engines:
            host.times.learn(kind_of(name), engine.url, Timings(running=seconds))
    for number, name in enumerate(("long", "short")):
        job_id = await placed(host, sleeping(60.0, 310 + number), workflow=name)
        await until_status(host, job_id, JobStatus.RUNNING)
    quick = await backend_of(host, job_id)

    behind = await placed(host, sleeping(60.0, 312))

    async def is_given_out() -> bool:
        return await backend_of(host, behind) is not None

    await until(is_given_out)
    assert await backend_of(host, behind) == quick


async def test_a_job_goes_only_where_its_nodes_are(
    engines: list[RunningEngine], small: RunningEngine, tmp_path: Path
) -> None:
    """However idle the backend is that lacks a node, and though it comes first, it gets none."""
    async with hosting(tmp_path / "data", small.url, engines[0].url) as host:
        await until_learned(host)
        jobs = [await placed(host, emitting(320 + number)) for number in range(4)]

        ends = [(await end(host, job_id)).status for job_id in jobs]

        assert ends == [JobStatus.SUCCEEDED] * 4
        assert [await backend_of(host, job_id) for job_id in jobs] == [engines[0].url] * 4
    assert not set(jobs) & set(await ran(small.url))


# Warm models


def loading(checkpoint: str, seed: int, *, seconds: float = 0.05) -> Graph:
    """A graph that works with a checkpoint, which takes a while to load."""
    model = {"ckpt_name": checkpoint, "load_seconds": 0.3, "seed": seed}
    work = {"seconds": seconds, "interruptible": True, "seed": seed, "value": ["1", 0]}
    made = {**emitting(seed)["1"]["inputs"], "pattern": ["1", 1], "value": ["2", 0]}
    return {
        "1": {"class_type": "TestCheckpoint", "inputs": model},
        "2": {"class_type": "TestSleep", "inputs": work},
        "3": {"class_type": "TestEmit", "inputs": made},
    }


async def test_jobs_go_where_their_model_is_loaded(tmp_path: Path) -> None:
    """Of a mix for two checkpoints on two backends each checkpoint is loaded about once."""
    mix = [CHECKPOINTS[number % 2] for number in range(16)]
    random.Random(5).shuffle(mix)
    with (
        running_engine(tmp_path / "one", test_nodes=True) as one,
        running_engine(tmp_path / "other", test_nodes=True) as other,
    ):
        async with hosting(tmp_path / "data", one.url, other.url) as host:
            await until_learned(host)
            jobs = [await placed(host, loading(name, seed)) for seed, name in enumerate(mix)]
            ends = [(await end(host, job_id)).status for job_id in jobs]
        lines = [
            (each.folder / "output" / "loads.txt").read_text().split() for each in (one, other)
        ]

    assert ends == [JobStatus.SUCCEEDED] * len(mix)
    assert set(lines[0] + lines[1]) == set(CHECKPOINTS)
    assert sum(map(len, lines)) <= len(lines) + 2


async def test_another_model_is_loaded_once_a_backend_is_free(
    host: Host, engines: list[RunningEngine]
) -> None:
    """While it works with one model, jobs with another wait with us, and go on when it is done."""
    await host.roster.drain(host.fleet.members[1])
    first = await placed(host, loading(CHECKPOINTS[0], 500, seconds=1.0))
    await until_status(host, first, JobStatus.RUNNING)
    other = await placed(host, loading(CHECKPOINTS[1], 501))
    same = await placed(host, loading(CHECKPOINTS[0], 502))

    async def the_same_is_inside() -> bool:
        return same in (await inside(engines[0].url))[1]

    await until(the_same_is_inside)
    assert (await host.job_queue.get(other)).record.attempts == 0
    assert [(await end(host, job)).status for job in (first, same, other)] == [
        JobStatus.SUCCEEDED
    ] * 3


# Backends that take part no more


async def test_what_runs_on_a_draining_backend_ends_there(
    host: Host, engines: list[RunningEngine]
) -> None:
    """Also what waits inside it; new jobs go elsewhere, until it is resumed."""
    first = host.fleet.members[0]
    await host.roster.drain(host.fleet.members[1])
    there = [await placed(host, sleeping(seconds, 330)) for seconds in (0.6, 0.0)]

    async def both_are_inside() -> bool:
        running, waiting = await inside(engines[0].url)
        return running + waiting == there

    await until(both_are_inside)
    await host.roster.drain(first)
    await host.roster.resume(host.fleet.members[1])
    elsewhere = await placed(host, sleeping(0.0, 331))

    assert (await end(host, elsewhere)).status is JobStatus.SUCCEEDED
    assert [(await end(host, job_id)).status for job_id in there] == [JobStatus.SUCCEEDED] * 2
    assert [await backend_of(host, job_id) for job_id in (*there, elsewhere)] == [
        engines[0].url,
        engines[0].url,
        engines[1].url,
    ]
    await host.roster.drain(host.fleet.members[1])
    await host.roster.resume(first)
    again = await placed(host, sleeping(0.0, 332))
    assert (await end(host, again)).status is JobStatus.SUCCEEDED
    assert await backend_of(host, again) == engines[0].url


async def test_what_was_only_at_hand_leaves_a_draining_backend(
    host: Host, engines: list[RunningEngine]
) -> None:
    """Where jobs are quick one more is kept at hand; drained, its backend does not get it."""
    idle = host.fleet.members[1]
    await host.roster.drain(idle)
    for seed in range(340, 343):
        await end(host, await placed(host, emitting(seed)))
    jobs = [await placed(host, sleeping(60.0, seed)) for seed in range(343, 346)]

    async def all_are_taken() -> bool:
        return [await backend_of(host, job_id) for job_id in jobs] == [engines[0].url] * 3

    await until(all_are_taken)
    await host.roster.drain(host.fleet.members[0])

    async def is_back() -> bool:
        return (await host.job_queue.get(jobs[2])).record.attempts == 0

    await until(is_back)
    await host.roster.resume(idle)
    await until_status(host, jobs[2], JobStatus.RUNNING)
    assert await backend_of(host, jobs[2]) == engines[1].url
    assert (await inside(engines[0].url))[0] == jobs[:1]


async def test_a_backend_that_lost_a_node_sends_its_job_on(
    engines: list[RunningEngine], small: RunningEngine, tmp_path: Path
) -> None:
    """Where a backend has less than it told last and refuses a graph, another one runs it, and
    the attempt never was; from then on it gets no such job."""
    async with hosting(tmp_path / "data", small.url, engines[0].url, grace=0.0) as host:
        await until_learned(host)
        believed, other = host.fleet.members
        assert other.known is not None
        believed.remember(other.known)
        job_id = await placed(host, emitting(352))  # the first of two idle ones gets it

        events = await story(host, job_id)

        record = (await host.job_queue.get(job_id)).record
        told = [event.message for event in events if isinstance(event, Noted)]
        assert told == ["The backend no longer has what the job needs. The job waits for another."]
        assert statuses(events) == [JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.SUCCEEDED]
        assert (record.backend, record.attempts) == (engines[0].url, 1)
        assert believed.catalog is not None and "TestEmit" not in believed.catalog
        following = await placed(host, emitting(353))
        assert (await end(host, following)).status is JobStatus.SUCCEEDED
        refused = await host.job_queue.attempts(following)
        assert [attempt.backend for attempt in refused] == [engines[0].url]


async def test_what_every_backend_refuses_fails(small: RunningEngine, tmp_path: Path) -> None:
    """It goes round once, and then says what ComfyUI said."""
    with running_engine(tmp_path / "engine") as other, running_engine(test_nodes=True) as full:
        async with hosting(tmp_path / "full", full.url) as host:
            await until_learned(host)
            known = host.fleet.members[0].known
        assert known is not None
        async with hosting(tmp_path / "data", small.url, other.url) as host:
            await until_learned(host)
            graph = emitting(360)
            for member in host.fleet.members:
                member.remember(known)
            job_id = await submit(host, graph, needs=needs_of(graph, [known.catalog]))

            last = await end(host, job_id)

            assert last.status is JobStatus.FAILED
            assert last.error is not None and last.error.code == "invalid_workflow"
            assert "TestEmit" in last.error.message


async def test_a_job_whose_backend_stays_away_runs_elsewhere(
    engines: list[RunningEngine], tmp_path: Path
) -> None:
    """After a restart its own backend is asked first; when that does not come, another runs it."""
    machine = Machine(tmp_path / "machine")
    await machine.start()
    try:
        async with hosting(tmp_path / "data", machine.url, grace=0.0) as host:
            await until_learned(host)
            job_id = await placed(host, sleeping(0.5, 370))
            await until_status(host, job_id, JobStatus.RUNNING)
        machine.kill()
    finally:
        machine.close()

    async with hosting(tmp_path / "data", machine.url, engines[0].url) as host:
        gone = host.fleet.members[0].backend
        gone.timeouts = replace(gone.timeouts, away=0.5)
        events = await story(host, job_id)
        record = (await host.job_queue.get(job_id)).record

    assert statuses(events) == [
        JobStatus.QUEUED,
        JobStatus.RUNNING,
        JobStatus.QUEUED,
        JobStatus.RUNNING,
        JobStatus.SUCCEEDED,
    ]
    assert (record.backend, record.attempts) == (engines[0].url, 2)


async def test_jobs_are_taken_up_where_they_are(
    engines: list[RunningEngine], tmp_path: Path
) -> None:
    """After a restart each is looked for on its own backend, whichever comes first."""
    urls = [engine.url for engine in engines]
    async with hosting(tmp_path / "data", *urls, grace=0.0) as host:
        await until_learned(host)
        jobs = [await placed(host, sleeping(1.5, 380 + number)) for number in range(2)]
        for job_id in jobs:
            await until_status(host, job_id, JobStatus.RUNNING)
        before = [await backend_of(host, job_id) for job_id in jobs]
    async with hosting(tmp_path / "data", *reversed(urls)) as host:
        ends = [(await end(host, job_id)).status for job_id in jobs]
        records = [(await host.job_queue.get(job_id)).record for job_id in jobs]

    assert set(before) == set(urls)
    assert ends == [JobStatus.SUCCEEDED] * 2
    assert [(record.backend, record.attempts) for record in records] == [(url, 1) for url in before]
    ids = Counter([*await ran(urls[0]), *await ran(urls[1])])
    assert [ids[job_id] for job_id in jobs] == [1, 1]


# Time


async def test_a_job_has_the_time_of_its_workflow(host: Host) -> None:
    """It is stopped after that, though others may run for longer."""
    job_id = await placed(host, sleeping(60.0, 390), timeout=0.3)

    last = await end(host, job_id)

    assert last.error is not None and last.error.code == "job_timed_out"
    assert "0.3 s" in last.error.message


async def test_no_workflow_has_more_time_than_the_server_gives(
    engines: list[RunningEngine], tmp_path: Path
) -> None:
    """The shorter of two limits is the one that counts."""
    async with hosting(tmp_path / "data", engines[0].url, timeout=0.3) as host:
        last = await end(host, await submit(host, sleeping(60.0, 391), timeout=50.0))

    assert last.error is not None and "0.3 s" in last.error.message


# What is learned


async def test_only_work_that_was_done_is_learned_from(host: Host) -> None:
    """A run teaches how long it took; one from the cache, or one that failed, teaches nothing."""
    graph, failing = (
        sleeping(0.2, 400),
        {"1": {"class_type": "TestFail", "inputs": {"message": ""}}},
    )
    host.fleet.members[1].drain(True)
    await end(host, await placed(host, graph, workflow="nap"))
    learned = host.times.usual(kind_of("nap"))
    again = await end(host, await placed(host, graph, workflow="nap"))
    failed = await end(host, await placed(host, failing))

    assert learned.whole is not None and 0.1 <= learned.whole.mean < 5.0
    assert learned.nodes["0"].mean >= 0.1
    assert again.outputs_reused and failed.status is JobStatus.FAILED
    assert host.times.usual(kind_of("nap")) == learned
    assert host.times.usual(subject_of(None, failing)).whole is None


async def test_a_job_like_others_knows_at_once_what_remains(host: Host) -> None:
    """Its first progress has a range, where that of the first such job had none."""
    ranges: list[object] = []
    for seed in range(410, 412):
        graph = sleeping(0.3, seed)
        job_id = await placed(host, graph)
        async for event in host.job_queue.follow(job_id):
            if (progress := getattr(event, "progress", None)) is not None:
                ranges.append(progress.remaining)
                break
        await end(host, job_id)

    assert ranges[0] is None
    assert isinstance(ranges[1], tuple) and 0.0 < ranges[1][1] < 5.0


# The expected wait


async def waits(host: Host, jobs: list[str]) -> list[tuple[float, float] | None]:
    """How long each of them is expected to wait."""
    return [(await host.job_queue.get(job_id)).expected_wait for job_id in jobs]


async def test_where_nothing_was_learned_nothing_is_expected(
    host: Host, engines: list[RunningEngine]
) -> None:
    """No number is better than one that is made up."""
    graph = sleeping(60.0, 420)
    first = await host.job_queue.submit(graph, **_placement(host, graph))
    jobs = [await placed(host, sleeping(60.0, 421 + number)) for number in range(6)]
    await until_full(engines)

    assert first.expected_wait is None
    assert await waits(host, jobs) == [None] * 6


async def test_a_job_that_waits_is_told_how_long(host: Host, engines: list[RunningEngine]) -> None:
    """From what runs, what is before it, and on how many backends; one that runs waits no more."""
    for engine in engines:
        for _ in range(30):
            host.times.learn(kind_of("nap"), engine.url, Timings(running=10.0))
    standings: list[Standing] = []
    for number in range(8):
        graph = sleeping(60.0, 430 + number)
        job = await host.job_queue.submit(graph, workflow="nap", **_placement(host, graph))
        standings.append(job)
    jobs = [one.record.id for one in standings]

    await until_full(engines)
    for job_id in jobs[:2]:
        await until_status(host, job_id, JobStatus.RUNNING)

    expected = await waits(host, jobs)

    assert expected[:2] == [None, None]
    # Those inside wait for what runs there; the others for a backend that did two.
    middles = [sum(one) / 2 for one in expected[2:] if one is not None]
    assert middles == pytest.approx([10.0, 10.0, 20.0, 25.0, 30.0, 35.0], abs=2.5)
    assert all(one is not None and 0.0 <= one[0] <= one[1] for one in expected[2:])
    host.fleet.members[1].drain(True)
    alone = (await waits(host, jobs))[-1]
    assert alone is not None and sum(alone) / 2 == pytest.approx(50.0, abs=4.0)
    host.fleet.members[0].drain(True)
    assert (await waits(host, jobs))[-1] is None
    host.fleet.members[0].drain(False)
    host.fleet.members[1].drain(False)


async def test_other_work_may_come_first(host: Host, engines: list[RunningEngine]) -> None:
    """Where jobs with other needs wait too, only the most grows: nobody knows who is first."""
    for engine in engines:
        host.times.learn(kind_of("nap"), engine.url, Timings(running=10.0))
    jobs = [await placed(host, sleeping(60.0, 440 + number)) for number in range(6)]
    await until_full(engines)
    alone = (await waits(host, jobs))[-1]
    await placed(host, {"1": {"class_type": "TestText", "inputs": {"text": "x"}}})

    both = (await waits(host, jobs))[-1]

    assert alone is not None and both is not None
    assert both[0] == pytest.approx(alone[0], abs=1.0)
    assert both[1] > alone[1] + 4.0


def _placement(host: Host, graph: Graph) -> Mapping[str, Any]:
    placement = host.placement(graph)
    return {"needs": placement.needs, "model": placement.model}
