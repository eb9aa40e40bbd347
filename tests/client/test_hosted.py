"""What is special about a comfyserve as a client's server: its assets, its kind, its refusals."""

from __future__ import annotations

import random
import uuid
from pathlib import Path

import pytest
from aiohttp import web
from PIL import Image

from comfyserve import AsyncClient, GraphRejected, JobStatus, NodeFailed
from comfyserve.assets import InputFile, Upload
from comfyserve.client.api import Api
from comfyserve.client.asset_uploads import AssetUploads
from comfyserve.client.servers import Address, Kind, kind_of, open_server, session
from comfyserve.client.spool import Spool
from comfyserve.comfy.http import Timeouts
from comfyserve.errors import BackendUnreachable
from comfyserve.events import StatusChanged
from comfyserve.jobs import Job
from comfyserve.refusals import NotFound
from tests.client.conftest import Place
from tests.client.graphs import emitting, failing, inverting, ticking
from tests.client.proxies import dropping_proxy, official_proxy
from tests.comfy.tiny_server import tiny_server
from tests.engines import RunningEngine
from tests.servers import RunningServer


async def test_a_file_is_sent_once(hosted: RunningServer, picture: Path) -> None:
    """Bytes that the server has already become an asset without being sent again."""
    async with session(Address(hosted.url)) as http:
        api = Api(http, Timeouts(), is_official=False)
        file = InputFile((("1", "image"),), Upload("in.png", path=picture))
        job = Job("j", inverting(), (file,))

        graphs = [await AssetUploads(api).referred_to(job) for _ in range(2)]

        references = [graph["1"]["inputs"]["image"] for graph in graphs]
        assert {reference["__type"] for reference in references} == {"core/ASSET"}
        assets = [await api.asset(reference["info"]["id"]) for reference in references]
    assert {asset["hash"] for asset in assets} == {references[0]["info"]["hash"]}
    assert assets[0]["size_bytes"] == len(original(picture))


def original(picture: Path) -> bytes:
    return picture.read_bytes()


async def test_a_mask_is_laid_over_its_image(
    place: Place, engine: RunningEngine, tmp_path: Path
) -> None:
    """A mask for an image reaches the ComfyUI as that image's transparency, by either way."""
    color = random.randrange(1 << 24).to_bytes(3, "big")
    image, mask = tmp_path / "image.png", tmp_path / "mask.png"
    Image.new("RGB", (16, 16), (color[0], color[1], color[2])).save(image)
    drawn = Image.new("RGBA", (16, 16), (0, 0, 0, 255))
    drawn.paste((0, 0, 0, 0), (0, 0, 16, 8))
    drawn.save(mask)
    at = ("1", "image")
    files = (
        InputFile((at,), Upload("image.png", path=image)),
        InputFile((at,), Upload("mask.png", path=mask), mask_of=at),
    )

    async with open_server(Address(place.url)) as server:
        job = Job(str(uuid.uuid4()), inverting(), files)
        events = [event async for event in server.run(job, Spool(), keep_temp=False)]

    assert isinstance(events[-1], StatusChanged)
    assert events[-1].status == JobStatus.SUCCEEDED
    assert masked(engine.folder / "input", (*color, 255)) == [(*color, 0)]


def masked(folder: Path, below: tuple[int, ...]) -> list[object]:
    """The upper left of every picture with this lower right, where it is another."""
    pictures = [opened(path) for path in folder.rglob("*.png")]
    return [
        picture.getpixel((0, 0))
        for picture in pictures
        if picture.size == (16, 16)
        and picture.getpixel((15, 15)) == below
        and picture.getpixel((0, 0)) != below
    ]


def opened(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        return picture.convert("RGBA")


async def test_an_unknown_job_cannot_be_canceled(hosted: RunningServer) -> None:
    """Canceling a job that a comfyserve does not have is an error that names it."""
    async with AsyncClient(hosted.url) as client:
        with pytest.raises(NotFound, match="There is no job 'nope'"):
            await client.cancel("nope")


async def test_a_graph_is_refused_before_it_waits(hosted: RunningServer) -> None:
    """A graph that no backend would run is refused with what is wrong in which node."""
    async with AsyncClient(hosted.url) as client:
        with pytest.raises(GraphRejected, match="NoSuchNode") as raised:
            await client.run({"4": {"class_type": "NoSuchNode", "inputs": {}}})

    assert raised.value.node_errors.keys() == {"4"}


async def test_a_comfyserve_that_is_gone_is_called_so(hosted: RunningServer) -> None:
    """Once it is known that a comfyserve was there, that is what no longer answers."""
    async with dropping_proxy(hosted.url) as proxy, AsyncClient(proxy.url) as client:
        await client.system_stats()
        await proxy.vanish()

        with pytest.raises(BackendUnreachable, match="No comfyserve answers at"):
            await client.system_stats()


@pytest.mark.parametrize(
    ("health", "kind"),
    [
        (web.json_response({"status": "healthy", "server": "comfyserve"}), "comfyserve"),
        (web.json_response({"status": "healthy", "upstream": "reachable"}), "official"),
        (web.json_response({"status": 7}), "ComfyUI"),
        (web.json_response(["status"]), "ComfyUI"),
        (web.Response(text="<html>Hello</html>", content_type="text/html"), "ComfyUI"),
        (web.Response(status=403), "ComfyUI"),
        (web.Response(status=302, headers={"Location": "/login"}), "ComfyUI"),
        (web.Response(status=503, text='{"status": "unwell"}'), "ComfyUI"),
        (None, "ComfyUI"),
    ],
)
async def test_the_kind_of_a_server_is_found_out(health: web.Response | None, kind: Kind) -> None:
    """One question tells a comfyserve from a ComfyUI, whatever lies before either."""
    async with tiny_server() as server:
        if health is not None:
            server.on["GET /api/v2/health"] = health
        async with session(Address(server.url)) as http:
            assert await kind_of(http) == kind

        assert len(server.requests) == 1


async def test_the_kind_is_asked_once(engine: RunningEngine) -> None:
    """A client asks what its server is when it first needs it, and nobody before that."""
    async with AsyncClient("http://127.0.0.1:9") as client:
        with pytest.raises(BackendUnreachable, match="No ComfyUI answers at"):
            await client.system_stats()
    async with AsyncClient(engine.url) as client:
        assert (await client.system_stats())["system"]["comfyui_version"]


async def test_an_official_server_runs_jobs(
    hosted: RunningServer, picture: Path, tmp_path: Path
) -> None:
    """A server with the official API and no more runs jobs with files, and tells how they end."""
    async with official_proxy(hosted.url) as url, AsyncClient(url, output_dir=tmp_path) as client:
        made = await client.run(inverting(), image=picture)
        handle = await client.submit(ticking(600, 50))
        await handle.cancel()
        with pytest.raises(NodeFailed, match="no more paint"):
            await client.run(failing())

        assert made.outputs[0].to_bytes().startswith(b"\x89PNG")
        assert await handle.wait(10) == JobStatus.CANCELED


async def test_an_official_server_names_its_jobs(hosted: RunningServer) -> None:
    """Where the server gives jobs their ids, a handle has that id from the start."""
    async with official_proxy(hosted.url) as url, AsyncClient(url) as client:
        handle = await client.submit(emitting())
        await handle.result(20)

    async with session(Address(hosted.url)) as http:
        job = await Api(http, Timeouts(), is_official=False).job(handle.id)
    assert job["status"] == "succeeded"
