"""The official client's jobs: handed in, waited for, canceled, listed."""

from __future__ import annotations

import io
import time
from typing import Any
from uuid import UUID, uuid4

import pytest
from comfy_sdk import JobFailed
from PIL import Image

from tests.contract.graphs import failing, files, picture, sleep, steps
from tests.contract.sdk import Sdk


async def test_a_run_gives_the_picture(sdk: Sdk) -> None:
    """`run` returns the job when it succeeded, and its output is the picture the graph makes."""
    graph = picture()
    color = graph["1"]["inputs"]["color"]

    job = await sdk.run(graph)

    assert job.status == "succeeded"
    (output,) = job.outputs
    with Image.open(io.BytesIO(await sdk.do(output.to_bytes))) as image:
        seen = image.convert("RGB").getpixel((0, 0))
    assert seen == (color >> 16, color >> 8 & 255, color & 255)


async def test_a_submitted_job_is_queued_and_complete(sdk: Sdk) -> None:
    """What `submit` returns is the whole job document: a UUID, links, times with a zone."""
    job = await sdk.submit(picture())

    model = job._model
    assert str(UUID(job.id)) == job.id
    assert job.status in ("queued", "running", "succeeded")
    assert model.created_at.tzinfo is not None
    assert model.expires_at > model.created_at
    assert job.outputs == [] or job.status != "queued"
    assert {model.urls.self, model.urls.events, model.urls.cancel} >= {model.urls.self}
    await sdk.wait(job)


async def test_a_job_is_found_again_by_its_id(sdk: Sdk) -> None:
    """`jobs.get` with an id alone is as good as the handle that `submit` returned."""
    ran = await sdk.run(files("found.bin", 100))

    found = await sdk.do(sdk.client.jobs.get, ran.id)

    assert (found.id, found.status) == (ran.id, "succeeded")
    assert [output.id for output in found.outputs] == [output.id for output in ran.outputs]
    assert await sdk.do(found.outputs[0].to_bytes) == await sdk.do(ran.outputs[0].to_bytes)


async def test_times_and_metrics_are_real(sdk: Sdk) -> None:
    """A job that ran for a while tells when it began and ended, in order."""
    job = await sdk.run(steps(5, 40))

    model = job._model
    assert model.created_at <= model.started_at <= model.completed_at
    assert 0.2 <= (model.completed_at - model.started_at).total_seconds() < 10
    assert model.metrics["execution_ms"] >= 200
    assert model.metrics["queue_ms"] is not None


async def test_progress_is_polled(sdk: Sdk) -> None:
    """Who only polls sees how far a running job is, and all of it at the end."""
    job = await sdk.submit(steps(40, 25))
    seen = []
    while job.status in ("queued", "running"):
        await sdk.do(job.refresh)
        if job.status == "running" and job._model.progress is not None:
            seen.append(job._model.progress.value)

    assert any(0 < value < 1 for value in seen)
    assert seen == sorted(seen)
    assert job._model.progress.value == 1


async def test_waiting_ends_at_its_timeout(sdk: Sdk) -> None:
    """`wait` with a timeout raises TimeoutError and leaves the job as it is."""
    job = await sdk.submit(sleep())
    began = time.monotonic()

    with pytest.raises(TimeoutError):
        await sdk.do(job.wait, timeout=0.4)

    assert time.monotonic() - began < 5
    await sdk.do(job.refresh)
    assert job.status in ("queued", "running")
    await _canceled(sdk, job)


async def test_a_failure_names_the_node(sdk: Sdk) -> None:
    """`result` raises JobFailed with the node, its class and what it said."""
    job = await sdk.submit(failing("no more paint"))

    with pytest.raises(JobFailed) as caught:
        await sdk.do(job.result)

    error = caught.value.error
    assert error is not None
    assert (caught.value.code, error.node_id, error.class_type) == (
        "node_execution_error",
        "9",
        "TestFail",
    )
    assert "no more paint" in error.message
    assert job.status == "failed"


async def test_a_waiting_job_is_canceled(sdk: Sdk) -> None:
    """A job that waits behind another is canceled at once and never runs."""
    first, second, third = [await sdk.submit(sleep()) for _ in range(3)]
    await sdk.until_it_is("running", first)

    await sdk.do(third.cancel)

    assert third.status == "canceled"
    assert third._model.started_at is None
    assert third._model.completed_at is not None
    for job in (second, first):
        await _canceled(sdk, job)


async def test_a_running_job_is_canceled(sdk: Sdk) -> None:
    """A running job becomes `canceling`, then `canceled`; the next job runs."""
    job = await sdk.submit(sleep())
    await sdk.until_it_is("running", job)

    await sdk.do(job.cancel)
    told = job.status
    await sdk.wait(job)

    assert told in ("canceling", "canceled")
    assert job.status == "canceled"
    assert (await sdk.run(picture())).status == "succeeded"


async def test_canceling_twice_changes_nothing(sdk: Sdk) -> None:
    """To cancel a job that is over is no error: it stays what it is."""
    job = await sdk.run(picture())

    await sdk.do(job.cancel)
    await sdk.do(job.cancel)

    assert job.status == "succeeded"
    assert len(job.outputs) == 1


async def test_the_queue_position_counts_down(sdk: Sdk) -> None:
    """Who waits has a place in the queue, and who runs has none."""
    jobs = [await sdk.submit(sleep()) for _ in range(3)]
    await sdk.until_it_is("running", jobs[0])
    for job in jobs:
        await sdk.do(job.refresh)

    assert [job._model.queue_position for job in jobs] == [None, 1, 2]

    await _canceled(sdk, jobs[0])
    await sdk.until_it_is("running", jobs[1])
    await sdk.do(jobs[2].refresh)
    assert jobs[2]._model.queue_position == 1
    for job in jobs[1:]:
        await _canceled(sdk, job)


async def test_the_graph_of_a_job_is_told(sdk: Sdk) -> None:
    """`get_workflow` gives the graph that was handed in, in the API format."""
    graph = picture("graph of a job")
    job = await sdk.run(graph)

    told = await sdk.do(job.get_workflow)

    assert (told.format, told.graph) == ("api", graph)


async def test_secrets_for_partner_nodes_are_never_told(sdk: Sdk) -> None:
    """The key for partner nodes is taken, and stands in no document of the job."""
    secret = f"partner-{uuid4()}"
    job = await sdk.submit(picture(), api_key=secret)
    await sdk.wait(job)

    documents = [
        (await sdk.do(sdk.wire.raw_request, "GET", path)).text
        for path in (f"/jobs/{job.id}", f"/jobs/{job.id}/workflow", "/jobs?limit=5")
    ]

    assert job.status == "succeeded"
    assert not any(secret in document for document in documents)


async def test_labels_are_kept_and_found(sdk: Sdk) -> None:
    """Metadata comes back with the job, and a list is filtered by it."""
    labels = {"customer": f"acme-{uuid4()}", "run": "7"}
    job = await sdk.submit(picture(), metadata=labels)
    await sdk.submit(picture(), metadata={**labels, "run": "8"})
    await sdk.wait(job)

    listed = await sdk.all(sdk.client.list_jobs(metadata=labels))

    assert job.metadata == labels
    assert [summary.id for summary in listed] == [job.id]
    assert listed[0].metadata == labels
    assert listed[0].create_time is not None
    assert listed[0].update_time >= listed[0].create_time


async def test_a_list_goes_on_page_by_page(sdk: Sdk) -> None:
    """The list is newest first and misses nothing, however small its pages."""
    labels = {"batch": str(uuid4())}
    jobs = [await sdk.submit(picture(), metadata=labels) for _ in range(5)]

    listed = await sdk.all(sdk.client.list_jobs(metadata=labels, limit=2))

    assert [summary.id for summary in listed] == [job.id for job in reversed(jobs)]
    for job in jobs:
        await sdk.wait(job)


async def _canceled(sdk: Sdk, job: Any) -> None:
    await sdk.do(job.cancel)
    await sdk.wait(job)
    assert job.status == "canceled"
