"""The official clients of a server that asks for keys."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from comfy_sdk import ComfyError, NotFound

from comfyserve.access import Access
from comfyserve.store import Store
from tests.contract.graphs import bytes_of, files, picture, saved_again
from tests.contract.sdk import Sdk, sdk_for
from tests.engines import RunningEngine
from tests.servers import RunningServer, running_server

KINDS = ["sync", "async"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server with keys keeps its data."""
    return tmp_path_factory.mktemp("server with keys")


@pytest.fixture(scope="module")
def keys(folder: Path) -> dict[str, str]:
    """The secrets of two keys that may run graphs."""
    return asyncio.run(_made(folder))


async def _made(folder: Path) -> dict[str, str]:
    async with Store.open(folder) as store:
        access = await Access.open(store)
        return {
            name: (await access.create(name, may_graphs=True)).secret for name in ("one", "two")
        }


@pytest.fixture(scope="module")
def keyed(engine: RunningEngine, folder: Path, keys: dict[str, str]) -> Iterator[RunningServer]:
    """A server that asks for keys."""
    with running_server(folder, backends=[engine.url]) as running:
        yield running


@pytest.fixture(params=KINDS)
async def one(
    request: pytest.FixtureRequest, keyed: RunningServer, keys: dict[str, str]
) -> AsyncIterator[Sdk]:
    """The official client with a key."""
    async with sdk_for(request.param, keyed.url, keys["one"]) as client:
        yield client


async def test_a_client_with_a_key_runs_and_downloads(one: Sdk) -> None:
    """Upload, run, follow, list and download work as they do without keys."""
    first = await one.run(picture())
    content = await one.do(first.outputs[0].to_bytes)

    asset = one.client.assets.from_bytes(content, filename="fox.png", content_type="image/png")
    job = await one.run(saved_again(asset))

    assert job.status == "succeeded"
    assert (await one.do(job.outputs[0].to_bytes)).startswith(b"\x89PNG")


async def test_an_outputs_address_works_with_and_without_the_key(
    one: Sdk, keys: dict[str, str]
) -> None:
    """Its `url` opens for who has it, for its owner's key, and for no other's."""
    job = await one.run(files("fox.bin", 3000))
    model = job.outputs[0]._model

    async with httpx.AsyncClient() as plain:
        answers = [await plain.get(str(model.url))]
        for name in ("one", "two"):
            headers = {"Authorization": f"Bearer {keys[name]}"}
            answers.append(await plain.get(str(model.url), headers=headers))

    assert [answer.status_code for answer in answers] == [200, 200, 404]
    assert answers[0].content == answers[1].content == bytes_of("comfy ", 3000)
    assert model.url_expires_at is not None


async def test_a_jobs_download_url_is_given(one: Sdk) -> None:
    """The client's own way to an address finds one, as on any server that keeps the bytes."""
    job = await one.run(files("fox.bin", 10))

    found = await one.do(job.outputs[0].get_download_url)

    assert job.outputs[0].id in found.url


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("key", [None, "of-another-server"])
async def test_a_client_without_a_good_key_is_told(
    keyed: RunningServer, kind: str, key: str | None
) -> None:
    """It raises the client's own error for that, with our sentence."""
    async with sdk_for(kind, keyed.url, key) as sdk:
        with pytest.raises(ComfyError) as refused:
            await sdk.submit(picture())

    assert (refused.value.http_status, refused.value.code) == (401, "unauthorized")
    assert "key" in str(refused.value)


@pytest.mark.parametrize("kind", KINDS)
async def test_anothers_job_is_not_found(
    one: Sdk, keyed: RunningServer, keys: dict[str, str], kind: str
) -> None:
    """A client with another key finds no such job."""
    job = await one.run(picture())

    async with sdk_for(kind, keyed.url, keys["two"]) as other:
        with pytest.raises(NotFound):
            await other.do(other.client.jobs.get, job.id)
