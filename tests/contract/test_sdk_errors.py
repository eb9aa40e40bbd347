"""Every refusal that the official client knows by name, and keys that are good for one request."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import comfy_low.errors as low
import httpx
import pytest
from blake3 import blake3
from comfy_sdk import (
    ComfyError,
    IdempotencyKeyReuse,
    InvalidWorkflow,
    MissingAsset,
    NotFound,
    WorkflowFormatUi,
)

from tests.contract.conftest import BODY_CAP, MOST_STREAMS, QUEUE_SIZE, UPLOAD_CAP
from tests.contract.graphs import Graph, files, picture, saved_again, sleep
from tests.contract.sdk import Sdk

HELD = 3
"""How many jobs at most have left the queue for one backend: running, next, and kept at hand."""

NO_HASH = f"blake3:{blake3(b'nobody ever sent this').hexdigest()}"


async def test_an_unknown_node_is_named(sdk: Sdk) -> None:
    """A class that the backend does not have is refused at once, with the node and a hint."""
    graph = picture()
    graph["2"]["class_type"] = "SaveImages"

    with pytest.raises(InvalidWorkflow) as caught:
        await sdk.submit(graph)

    (problem,) = _node_errors(caught.value)["2"]
    assert problem["reason"]
    assert "SaveImage" in str(problem) + str(caught.value)
    assert caught.value.http_status == 422


async def test_a_missing_input_is_named(sdk: Sdk) -> None:
    """A required input that is not there is refused with its node and its name."""
    graph = picture()
    del graph["2"]["inputs"]["images"]

    with pytest.raises(InvalidWorkflow) as caught:
        await sdk.submit(graph)

    (problem,) = _node_errors(caught.value)["2"]
    assert (problem["field"], problem["reason"]) == ("images", "missing_input")


@pytest.mark.parametrize("graph", [{}, {"1": {}}, {"1": {"class_type": "EmptyImage"}}, {"1": 3}])
async def test_what_is_no_graph_is_refused(sdk: Sdk, graph: Graph) -> None:
    """An empty or broken graph, or one that saves nothing, is an invalid workflow."""
    with pytest.raises(InvalidWorkflow) as caught:
        await sdk.submit(graph)

    assert (caught.value.code, caught.value.http_status) == ("invalid_workflow", 422)


async def test_the_editors_format_is_refused(sdk: Sdk) -> None:
    """A workflow as the editor saves it is told apart, by client and server alike."""
    saved = {"nodes": [], "links": [], "last_node_id": 0}

    with pytest.raises(WorkflowFormatUi):
        await sdk.submit(saved)
    with pytest.raises(low.WorkflowFormatUi) as caught:
        await sdk.do(sdk.wire.post_jobs, saved)

    assert caught.value.http_status == 422


@pytest.mark.parametrize("info", [{"id": str(uuid4())}, {"id": "no uuid"}])
async def test_an_unknown_asset_is_named(sdk: Sdk, info: dict[str, str]) -> None:
    """A reference to an asset that is not there is refused with its id."""
    with pytest.raises(MissingAsset) as caught:
        await sdk.submit(saved_again({"__type": "core/ASSET", "info": info}))

    assert caught.value.details is not None
    assert caught.value.details["missing_ids"] == [info["id"]]


@pytest.mark.parametrize("reference", [{}, {"info": {}}, {"info": {"id": 3}}, {"info": "x"}])
async def test_a_broken_reference_is_refused(sdk: Sdk, reference: dict[str, object]) -> None:
    """A reference that names no asset is a missing asset and no server error."""
    with pytest.raises(MissingAsset) as caught:
        await sdk.submit(saved_again({"__type": "core/ASSET", **reference}))

    assert caught.value.http_status == 422


async def test_other_bytes_than_announced_are_refused(sdk: Sdk) -> None:
    """Bytes whose hash is not the announced one are refused, and nothing is kept of them."""
    content = f"other bytes {uuid4()}".encode()

    with pytest.raises(low.HashMismatch) as caught:
        await sdk.do(
            sdk.wire.post_assets, io.BytesIO(content), "text/plain", "a.txt", expected_hash=NO_HASH
        )

    assert caught.value.http_status == 409
    kept = f"blake3:{blake3(content).hexdigest()}"
    assert not await sdk.do(sdk.wire.head_asset_by_hash, kept)


@pytest.mark.parametrize("hash", [NO_HASH, "blake3:short", "sha256:00"])
async def test_bytes_that_are_not_kept(sdk: Sdk, hash: str) -> None:
    """No asset is made by a hash that nobody uploaded."""
    with pytest.raises(low.BlobNotFound) as caught:
        await sdk.do(sdk.wire.asset_from_hash, hash)

    assert caught.value.http_status == 404
    assert not await sdk.do(sdk.wire.head_asset_by_hash, hash)


@pytest.mark.parametrize("id", [str(uuid4()), "no-uuid", "%2e%2e%2fetc"])
async def test_what_is_not_there(sdk: Sdk, id: str) -> None:
    """An id of nothing is a NotFound on every route that takes one."""
    for call in (sdk.client.jobs.get, sdk.client.assets.get, sdk.client.assets.delete):
        with pytest.raises(NotFound):
            await sdk.do(call, id)
    for call in (sdk.wire.cancel_job, sdk.wire.get_job_workflow, sdk.wire.get_asset_content_url):
        with pytest.raises(low.NotFound):
            await sdk.do(call, id)
    with pytest.raises(low.NotFound):
        await sdk.all(sdk.wire.get_job_events(id))


async def test_an_asset_in_use_is_kept(sdk: Sdk) -> None:
    """An asset that a waiting job needs is not deleted before that job is over."""
    asset = await _upload(sdk, f"an input {uuid4()}".encode())
    graph = {**sleep(), **saved_again({"__type": "core/ASSET", "info": {"id": asset.id}})}
    running, waiting = await sdk.submit(sleep()), await sdk.submit(graph)
    await sdk.until_it_is("running", running)

    with pytest.raises(low.ApiError) as caught:
        await sdk.do(sdk.wire.delete_asset, asset.id)

    assert (caught.value.code, caught.value.http_status) == ("asset_in_use", 409)
    for job in (waiting, running):
        await sdk.do(job.cancel)
        await sdk.wait(job)
    await sdk.do(sdk.wire.delete_asset, asset.id)


async def test_labels_have_limits(sdk: Sdk) -> None:
    """Metadata beyond the limits is refused before there is a job."""
    for labels in ({f"k{n}": "v" for n in range(17)}, {"a b": "v"}, {"k": "x" * 257}):
        with pytest.raises(ComfyError) as caught:
            await sdk.submit(picture(), metadata=labels)

        assert (caught.value.code, caught.value.http_status) == ("metadata_invalid", 422)


async def test_a_list_knows_its_cursors(sdk: Sdk) -> None:
    """A cursor that no list gave out, and a filter that cannot be, are refused by name."""
    with pytest.raises(low.ApiError) as of_cursor:
        await sdk.do(sdk.wire.list_jobs, cursor="made up")
    with pytest.raises(ComfyError) as of_filter:
        await sdk.all(sdk.client.list_jobs(metadata={f"k{n}": "v" for n in range(4)}))

    assert of_cursor.value.code == "invalid_cursor"
    assert of_filter.value.code == "invalid_metadata_filter"


async def test_a_key_is_good_for_one_job(sdk: Sdk) -> None:
    """The second request with a key is refused, whatever it asks for, and makes no job."""
    key, label = str(uuid4()), {"key": str(uuid4())}
    first = await sdk.submit(picture(), idempotency_key=key, metadata=label)

    with pytest.raises(IdempotencyKeyReuse) as caught:
        await sdk.submit(files("other.bin", 4), idempotency_key=key, metadata=label)

    assert caught.value.http_status == 422
    assert caught.value.idempotency_key == key
    listed = await sdk.all(sdk.client.list_jobs(metadata=label))
    assert [summary.id for summary in listed] == [first.id]
    await sdk.wait(first)


@pytest.mark.parametrize(
    "refused",
    [
        {},
        {"1": {"class_type": "Nope", "inputs": {}}},
        saved_again({"__type": "core/ASSET", "info": {"id": "nobody's"}}),
    ],
)
async def test_a_key_is_released_by_a_refusal(sdk: Sdk, refused: Graph) -> None:
    """A key whose request made no job is still good."""
    key = str(uuid4())

    with pytest.raises(ComfyError):
        await sdk.submit(refused, idempotency_key=key)
    job = await sdk.submit(picture(), idempotency_key=key)

    assert (await sdk.wait(job)).status == "succeeded"


async def test_a_key_is_good_for_one_upload(sdk: Sdk) -> None:
    """A second upload with a key is refused, and the bytes are not kept."""
    key = str(uuid4())
    one, other = f"one {uuid4()}".encode(), f"other {uuid4()}".encode()
    await _upload(sdk, one, idempotency_key=key)

    with pytest.raises(low.IdempotencyKeyReuse):
        await _upload(sdk, other, idempotency_key=key)

    kept = f"blake3:{blake3(other).hexdigest()}"
    assert not await sdk.do(sdk.wire.head_asset_by_hash, kept)


async def test_a_full_queue_is_told(narrow_sdk: Sdk) -> None:
    """A full queue is a QueueFull that says when to come back, and the key is still good."""
    key = str(uuid4())
    async with _full_queue(narrow_sdk):
        with pytest.raises(low.QueueFull) as caught:
            await narrow_sdk.do(narrow_sdk.wire.post_jobs, picture(), idempotency_key=key)

    assert caught.value.http_status == 429
    assert caught.value.retry_after is not None and caught.value.retry_after >= 1
    job = await narrow_sdk.submit(picture(), idempotency_key=key)
    assert (await narrow_sdk.wait(job)).status == "succeeded"


async def test_a_submission_waits_for_room(narrow_sdk: Sdk) -> None:
    """`submit` comes back by itself when the queue was full, and succeeds once there is room."""
    async with asyncio.TaskGroup() as tasks, _full_queue(narrow_sdk):
        submitted = tasks.create_task(narrow_sdk.submit(picture()))
        await asyncio.wait([submitted], timeout=0.3)
        was_refused = not submitted.done()
    job = submitted.result()

    assert was_refused
    assert (await narrow_sdk.wait(job)).status == "succeeded"


async def test_streams_have_a_limit(narrow_sdk: Sdk) -> None:
    """One stream too many is refused with when to come back; polling works all the same."""
    job = await narrow_sdk.submit(sleep())
    url = f"{narrow_sdk.wire.base_url}/api/v2/jobs/{job.id}/events"
    async with _open_streams(url, MOST_STREAMS):
        with pytest.raises(low.ApiError) as caught:
            await narrow_sdk.all(narrow_sdk.wire.get_job_events(job.id))
        await narrow_sdk.do(job.refresh)

    assert (caught.value.code, caught.value.http_status) == ("too_many_streams", 429)
    assert caught.value.retry_after is not None
    await narrow_sdk.do(job.cancel)
    seen = await narrow_sdk.all(job.events())
    assert seen[-1].status == "canceled"


async def test_too_many_bytes_are_refused(narrow_sdk: Sdk) -> None:
    """An upload or a graph beyond the limit is a 413, and a smaller one is taken after it."""
    with pytest.raises(low.ApiError) as of_upload:
        await _upload(narrow_sdk, b"x" * (UPLOAD_CAP + 1))
    with pytest.raises(low.ApiError) as of_graph:
        large = picture("x" * BODY_CAP)
        await narrow_sdk.do(narrow_sdk.wire.post_jobs, large)

    for caught in (of_upload, of_graph):
        assert (caught.value.code, caught.value.http_status) == ("payload_too_large", 413)
    assert await _upload(narrow_sdk, b"x" * UPLOAD_CAP)


async def _upload(sdk: Sdk, content: bytes, **named: object) -> Any:
    return await sdk.do(
        sdk.wire.post_assets, io.BytesIO(content), "application/octet-stream", "a.bin", **named
    )


@asynccontextmanager
async def _full_queue(sdk: Sdk) -> AsyncIterator[None]:
    """One job runs and as many wait as may; when the context ends they are all canceled."""
    jobs = []
    try:
        jobs.append(await sdk.submit(sleep()))
        await sdk.until_it_is("running", jobs[0])
        while True:
            try:
                model = await sdk.do(sdk.wire.post_jobs, sleep())
            except low.QueueFull:
                break
            jobs.append(await sdk.do(sdk.client.jobs.get, model.id))
            assert len(jobs) <= QUEUE_SIZE + HELD
        yield
    finally:
        for job in reversed(jobs):
            await sdk.do(job.cancel)
        for job in jobs:
            await sdk.wait(job)


@asynccontextmanager
async def _open_streams(url: str, number: int) -> AsyncIterator[None]:
    """As many streams as asked for, each of which has told something."""
    async with httpx.AsyncClient(timeout=10) as client:
        streams = [await _open_stream(client, url) for _ in range(number)]
        yield
        for stream in streams:
            await stream.aclose()


async def _open_stream(client: httpx.AsyncClient, url: str) -> httpx.Response:
    stream = await client.send(client.build_request("GET", url), stream=True)
    assert stream.status_code == 200
    return stream


def _node_errors(error: ComfyError) -> dict[str, Any]:
    assert error.details is not None
    found: dict[str, Any] = error.details["node_errors"]
    return found
