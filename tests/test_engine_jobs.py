"""`/api/jobs` of the built-in engine: list, get and cancel."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.engine_client import EngineClient, engine_client, node
from tests.engines import RunningEngine, running_engine


@pytest.fixture(scope="module")
def engine() -> Iterator[RunningEngine]:
    with running_engine(test_nodes=True) as engine:
        yield engine


@pytest.fixture
async def client(engine: RunningEngine) -> AsyncIterator[EngineClient]:
    async with engine_client(engine.url) as client:
        await client.forget()
        yield client


SLOW = {"1": node("TestProgress", steps=10_000, delay_ms=5)}


async def test_jobs_are_listed_in_every_state(client: EngineClient) -> None:
    """Jobs that wait, run, ended well, failed and were cancelled are told apart."""
    done = await client.submit({"1": node("TestText", text="done")})
    failed = await client.submit({"1": node("TestFail", message="no")})
    cancelled = await client.submit(SLOW)
    await client.hear(lambda: client.is_stepping(cancelled))
    await client.post(f"/api/jobs/{cancelled}/cancel", {})
    running = await client.submit(SLOW)
    waiting = await client.submit({"1": node("TestText", text="waiting")})
    await client.hear(lambda: client.is_stepping(running))

    jobs = (await client.get("/api/jobs"))["jobs"]
    await client.post("/api/jobs/cancel", {"job_ids": [running, waiting]})
    await client.hear(lambda: client.has_ended(running))

    assert {job["id"]: job["status"] for job in jobs} == {
        done: "completed",
        failed: "failed",
        cancelled: "cancelled",
        running: "in_progress",
        waiting: "pending",
    }
    error = next(job["execution_error"] for job in jobs if job["id"] == failed)
    assert error["exception_message"] == "no\n"


async def test_a_list_is_filtered_sorted_and_cut(client: EngineClient) -> None:
    """Status, sort order, limit and offset do what they say, and the page says what is left."""
    ids = [await client.submit({"1": node("TestText", text=f"{n}", seed=n)}) for n in range(4)]
    await client.hear(lambda: all(map(client.has_ended, ids)))

    page = await client.get("/api/jobs?status=completed&sort_order=asc&limit=2&offset=1")

    assert [job["id"] for job in page["jobs"]] == ids[1:3]
    assert page["pagination"] == {"offset": 1, "limit": 2, "total": 4, "has_more": True}
    assert (await client.get("/api/jobs?status=failed,pending"))["jobs"] == []


@pytest.mark.parametrize(
    "query", ["status=happy", "sort_by=size", "sort_order=up", "limit=0", "limit=x", "offset=x"]
)
async def test_a_query_without_meaning_is_refused(client: EngineClient, query: str) -> None:
    """A filter that is none is a 400 with a sentence."""
    async with client.session.get(f"/api/jobs?{query}") as answer:
        told = await answer.json()

    assert answer.status == 400
    assert isinstance(told["error"], str)


async def test_a_job_has_its_outputs_and_its_graph(client: EngineClient) -> None:
    """One finished job comes with its outputs, its messages, its graph and a preview."""
    graph = {
        "1": node("EmptyImage", width=8, height=8, batch_size=2, color=0),
        "2": node("SaveImage", images=["1", 0], filename_prefix="job"),
        "3": node("TestText", text="words"),
    }
    workflow = {"extra_pnginfo": {"workflow": {"id": "wf-1"}}}
    job_id = await client.submit(graph, extra_data=workflow)
    await client.hear(lambda: client.has_ended(job_id))

    job = await client.get(f"/api/jobs/{job_id}")

    assert (job["status"], job["workflow_id"], job["outputs_count"]) == ("completed", "wf-1", 2)
    assert job["workflow"]["prompt"] == graph
    assert job["outputs"]["3"] == {"text": ["words"]}
    assert job["preview_output"] == job["outputs"]["2"]["images"][0] | {
        "nodeId": "2",
        "mediaType": "images",
    }
    assert job["execution_end_time"] >= job["execution_start_time"] >= job["create_time"] > 0
    assert (await client.get("/api/jobs?workflow_id=wf-1"))["pagination"]["total"] == 1


async def test_a_waiting_job_is_cancelled_out_of_the_queue(client: EngineClient) -> None:
    """Cancelling what waits takes it out; what runs is not touched."""
    running = await client.submit({"1": node("TestProgress", steps=80, delay_ms=10, seed=5)})
    waiting = await client.submit({"1": node("TestText", text="never")})

    told = await client.post(f"/api/jobs/{waiting}/cancel", {})
    await client.hear(lambda: client.has_ended(running))

    assert told == {"cancelled": True}
    assert client.messages("execution_success", running)
    async with client.session.get(f"/api/jobs/{waiting}") as answer:
        assert answer.status == 404


async def test_cancelling_what_is_over_or_unknown_does_nothing(client: EngineClient) -> None:
    """It is answered 200 with false, and so is a batch of such ids."""
    job_id = await client.submit({"1": node("TestText", text="over")})
    await client.hear(lambda: client.has_ended(job_id))

    single = await client.post(f"/api/jobs/{job_id}/cancel", {})
    batch = await client.post("/api/jobs/cancel", {"job_ids": [job_id, "nobody"]})

    assert single == batch == {"cancelled": False}


@pytest.mark.parametrize("body", [b"x", b"{}", b"[]", b'{"job_ids": "a"}', b'{"job_ids": [1]}'])
async def test_a_bad_batch_is_refused(client: EngineClient, body: bytes) -> None:
    """A batch that is no list of ids is a 400."""
    async with client.session.post("/api/jobs/cancel", data=body) as answer:
        assert answer.status == 400
