"""The official client's event stream: complete, in order, and over when the job is."""

from __future__ import annotations

import io
import time
from typing import Any

from comfy_sdk import OutputReady, Preview, Progress, StatusChange
from PIL import Image

from tests.contract.graphs import failing, files, picture, sleep, steps
from tests.contract.sdk import Sdk

TERMINAL = ("succeeded", "failed", "canceled", "expired")


async def test_a_stream_tells_all_and_ends(sdk: Sdk) -> None:
    """A stream goes from the status on connecting over progress and outputs to the last status."""
    job = await sdk.submit(steps(6, 40))

    seen = await sdk.all(job.events())

    statuses = _statuses(seen)
    assert isinstance(seen[0], StatusChange)
    assert statuses[-2:] == ["running", "succeeded"]
    assert sum(status in TERMINAL for status in statuses) == 1
    assert seen[-1] == StatusChange("succeeded")


async def test_every_output_comes_before_the_end(sdk: Sdk) -> None:
    """Each output of the job has its frame, and all of them before the terminal status."""
    job = await sdk.submit(files("many.bin", 2000, number=5))

    seen = await sdk.all(job.events())

    told = [event.output for event in seen if isinstance(event, OutputReady)]
    await sdk.do(job.refresh)
    assert [output.id for output in told] == [output.id for output in job.outputs]
    assert len(told) == 5
    assert isinstance(seen[-1], StatusChange)
    assert await sdk.do(told[-1].to_bytes) == await sdk.do(job.outputs[-1].to_bytes)


async def test_progress_arrives_and_never_goes_back(sdk: Sdk) -> None:
    """Progress is told while the job runs, each time the whole of it, and the last is complete."""
    job = await sdk.submit(steps(20, 60))

    seen = [event for event in await sdk.all(job.events()) if isinstance(event, Progress)]

    values = [progress.value for progress in seen]
    assert len(set(values)) > 2
    assert values == sorted(values)
    assert (values[-1], seen[-1].nodes_done, seen[-1].nodes_total) == (1, 3, 3)
    stepping = [progress for progress in seen if progress.current_node == "5" and progress.steps]
    assert {progress.steps for progress in stepping} == {20}


async def test_previews_arrive(sdk: Sdk) -> None:
    """Pictures of what a node works on come through whole, with their node."""
    job = await sdk.submit(steps(10, 120, previews=True))

    seen = [event for event in await sdk.all(job.events()) if isinstance(event, Preview)]

    assert seen
    for preview in seen:
        assert (preview.node_id, preview.content_type) == ("5", "image/jpeg")
        with Image.open(io.BytesIO(preview.data)) as image:
            assert image.format == "JPEG"


async def test_who_comes_late_hears_where_it_stands(sdk: Sdk) -> None:
    """Who connects while a job runs hears at once its status and how far it is."""
    job = await sdk.submit(steps(60, 40, previews=True))
    await sdk.until(job.events(), lambda event: isinstance(event, Preview))

    late = await sdk.until(job.events(), lambda event: isinstance(event, Preview))

    assert late[0] == StatusChange("running")
    assert isinstance(late[1], Progress)
    assert 0 < late[1].value < 1
    await sdk.do(job.cancel)
    await sdk.wait(job)


async def test_the_stream_of_a_job_that_is_over(sdk: Sdk) -> None:
    """A stream opened after the end tells the outputs and the end, at once."""
    job = await sdk.run(files("late.bin", 10, number=2))
    began = time.monotonic()

    seen = await sdk.all(job.events())

    assert time.monotonic() - began < 5
    assert sum(isinstance(event, OutputReady) for event in seen) == 2
    assert _statuses(seen) == ["succeeded"]
    assert isinstance(seen[-1], StatusChange)


async def test_the_stream_of_a_waiting_job(sdk: Sdk) -> None:
    """A waiting job's stream tells its place in the queue, and when it moves up."""
    running, waiting, last = [await sdk.submit(sleep()) for _ in range(3)]
    await sdk.until_it_is("running", running)
    first = await sdk.until(last.events(), lambda event: True)
    await sdk.do(waiting.cancel)
    await sdk.until(last.events(), lambda event: event == StatusChange("queued", queue_position=1))

    assert first == [StatusChange("queued", queue_position=2)]
    for job in (last, running):
        await sdk.do(job.cancel)
        await sdk.wait(job)


async def test_the_stream_of_a_canceled_job(sdk: Sdk) -> None:
    """A cancel is told as `canceling`, then `canceled`, and ends the stream."""
    job = await sdk.submit(sleep())
    await sdk.until_it_is("running", job)
    await sdk.do(job.cancel)

    seen = await sdk.all(job.events())

    assert _statuses(seen)[-1] == "canceled"
    assert set(_statuses(seen)) <= {"running", "canceling", "canceled"}


async def test_the_stream_of_a_failed_job(sdk: Sdk) -> None:
    """A failure ends the stream; its reason is in the job."""
    job = await sdk.submit(failing("the stream ends too"))

    seen = await sdk.all(job.events())
    await sdk.do(job.refresh)

    assert _statuses(seen)[-1] == "failed"
    assert "the stream ends too" in job.error.message


async def test_two_listeners_hear_the_same(sdk: Sdk) -> None:
    """Who listens beside somebody else misses nothing."""
    job = await sdk.submit(picture())

    one = await sdk.all(job.events())
    other = await sdk.all(job.events())

    assert _outputs(one) == _outputs(other) != []
    assert one[-1] == other[-1] == StatusChange("succeeded")


def _statuses(seen: list[Any]) -> list[str]:
    return [event.status for event in seen if isinstance(event, StatusChange)]


def _outputs(seen: list[Any]) -> list[str]:
    return [event.output.id for event in seen if isinstance(event, OutputReady)]
