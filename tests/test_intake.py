"""The way into the queue: what it refuses, and what it gives again."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from comfyserve.access import Caller
from comfyserve.denials import ServerStopping
from comfyserve.host import Host
from comfyserve.job_queue import UsedKey
from comfyserve.jobs import JobStatus
from comfyserve.refusals import IdempotencyKeyReused, MissingAsset
from tests.hosts import hosting

NOWHERE = "http://127.0.0.1:9"
NOBODY = Caller()


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    """A house whose jobs wait."""
    async with hosting(tmp_path, NOWHERE) as opened:
        yield opened


def loading(asset_id: str) -> dict[str, object]:
    """A graph that refers to an asset."""
    reference = {"__type": "core/ASSET", "info": {"id": asset_id}}
    return {"1": {"class_type": "LoadImage", "inputs": {"image": reference}}}


def key_of(digest: str, *, replays: bool = True) -> UsedKey:
    """A key that was sent with a request of this content."""
    return UsedKey("", "POST /test", "k", digest, time.time() + 60, replays)


async def asset(host: Host) -> str:
    """A new asset."""

    async def content() -> AsyncIterator[bytes]:
        yield b"fox"

    return (await host.asset_library.upload(content(), file_path="fox.png")).asset.id


async def test_references_become_files(host: Host) -> None:
    """A job has the files that its graph refers to, or is not made."""
    id = await asset(host)
    standing = await host.intake.submit(loading(id), caller=NOBODY, workflow="w", timeout=5.0)
    graph = await host.job_queue.graph(standing.record.id)
    assert isinstance(graph["1"]["inputs"]["image"], str)
    assert (standing.record.workflow, standing.record.timeout) == ("w", 5.0)
    with pytest.raises(MissingAsset):
        await host.intake.submit(loading("gone"), caller=NOBODY)


async def test_a_replay_needs_nothing_any_more(host: Host) -> None:
    """A key gives its job again, though the asset that it needed is gone by now."""
    id = await asset(host)
    first = await host.intake.submit(loading(id), caller=NOBODY, key=key_of("a"))
    await host.job_queue.cancel(first.record.id)
    await host.asset_library.delete(id)
    again = await host.intake.submit(loading(id), caller=NOBODY, key=key_of("a"))
    assert (again.record.id, again.record.status) == (first.record.id, JobStatus.CANCELED)
    for other in (key_of("b"), key_of("a", replays=False)):
        with pytest.raises(IdempotencyKeyReused):
            await host.intake.submit({}, caller=NOBODY, key=other)


async def test_an_id_is_good_for_one_job(host: Host) -> None:
    """An id that names a job already makes no other."""
    first = await host.intake.submit(loading(await asset(host)), caller=NOBODY)
    with pytest.raises(IdempotencyKeyReused):
        await host.intake.submit({}, caller=NOBODY, job_id=first.record.id)


async def test_nothing_is_taken_at_the_end(host: Host) -> None:
    """A house that is about to close takes nothing in."""
    host.is_stopping = True
    with pytest.raises(ServerStopping):
        await host.intake.refuse_early()
    with pytest.raises(ServerStopping):
        await host.intake.submit({}, caller=NOBODY)
