"""The official client's assets and outputs: uploaded once, told truly, used as inputs."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.request import urlopen
from uuid import uuid4

import pytest
from blake3 import blake3
from comfy_sdk import NotFound
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.contract.graphs import Graph, bytes_of, files, picture, saved_again
from tests.contract.sdk import Sdk


async def test_an_upload_is_told_truly(sdk: Sdk) -> None:
    """An uploaded asset has the bytes' hash, size and type, and its URL gives these bytes."""
    content = _fresh_png((200, 30, 30))

    asset = sdk.client.assets.from_bytes(content, filename="röt.png", content_type="image/png")
    asset_id = await sdk.do(asset.commit)
    model = await sdk.do(sdk.wire.get_asset, asset_id)

    assert asset.created_new is True
    assert model.hash == asset.hash == _hash(content)
    assert (model.size_bytes, model.content_type) == (len(content), "image/png")
    assert model.file_path == "röt.png"
    assert model.expires_at > datetime.now(UTC)
    assert _fetched(str(model.url)) == content


async def test_the_same_bytes_are_sent_once(sdk: Sdk) -> None:
    """Bytes that are there already are not sent again; each caller has an asset of his own name."""
    content = _fresh_png((1, 2, 3))
    first = sdk.client.assets.from_bytes(content, filename="first.png")
    second = sdk.client.assets.from_bytes(content, filename="second.png")

    await sdk.do(first.commit)
    await sdk.do(second.commit)

    assert (first.created_new, second.created_new) == (True, False)
    assert first.hash == second.hash


async def test_bytes_are_known_by_their_hash(sdk: Sdk) -> None:
    """The look by hash says yes for what is kept, and an asset is made of it without bytes."""
    content = f"only once {uuid4()}".encode()
    assert not await sdk.do(sdk.wire.head_asset_by_hash, _hash(content))

    await sdk.do(sdk.client.assets.from_bytes(content, filename="a.txt").commit)
    made = await sdk.do(sdk.wire.asset_from_hash, _hash(content), file_path="b.txt")

    assert await sdk.do(sdk.wire.head_asset_by_hash, _hash(content))
    assert (made.created_new, made.hash, made.size_bytes) == (False, _hash(content), len(content))
    assert made.file_path == "b.txt"
    assert made.content_type.startswith("text/plain")


async def test_an_asset_is_found_and_deleted(sdk: Sdk) -> None:
    """`assets.get` finds an asset by its id; once deleted it is not found, nor deleted again."""
    asset = sdk.client.assets.from_bytes(_fresh_png((9, 9, 9)), filename="gone.png")
    asset_id = await sdk.do(asset.commit)
    found = await sdk.do(sdk.client.assets.get, asset_id)

    await sdk.do(sdk.client.assets.delete, asset_id)

    assert (found.id, found.file_path) == (asset_id, "gone.png")
    for call in (sdk.client.assets.get, sdk.client.assets.delete):
        with pytest.raises(NotFound):
            await sdk.do(call, asset_id)


async def test_deleting_one_leaves_the_other(sdk: Sdk) -> None:
    """Two assets of the same bytes: to delete one leaves the other's bytes whole."""
    content = _fresh_png((4, 5, 6))
    one = await sdk.do(sdk.client.assets.from_bytes(content, filename="one.png").commit)
    other = await sdk.do(sdk.client.assets.from_bytes(content, filename="other.png").commit)

    await sdk.do(sdk.client.assets.delete, one)

    assert other != one
    model = await sdk.do(sdk.wire.get_asset, other)
    assert _fetched(str(model.url)) == content


async def test_a_file_is_an_input(sdk: Sdk, tmp_path: Path) -> None:
    """An asset handle in a graph is uploaded and found by the node that loads it."""
    file = tmp_path / "ein Bild ü.png"
    file.write_bytes(_png((250, 10, 20)))

    job = await sdk.run(saved_again(sdk.client.assets.from_file(file)))

    assert _are_near(await _pixel(sdk, job), (5, 245, 235))


async def test_an_output_is_the_next_input(sdk: Sdk) -> None:
    """The output of one job goes into another by its id alone."""
    first = await sdk.run(picture())
    color = await _pixel(sdk, first)
    reference = {"__type": "core/ASSET", "info": {"id": first.outputs[0].id}}

    second = await sdk.run(saved_again(reference))

    assert _are_near(await _pixel(sdk, second), tuple(255 - part for part in color))


async def test_a_job_tells_the_files_it_ran_with(sdk: Sdk) -> None:
    """The graph of a job has names where references stood: what really ran."""
    asset = sdk.client.assets.from_bytes(_fresh_png((7, 7, 7)), filename="seen.png")
    job = await sdk.run(saved_again(asset))

    told: Graph = (await sdk.do(job.get_workflow)).graph

    assert isinstance(told["1"]["inputs"]["image"], str)
    assert told["1"]["inputs"]["image"].endswith(".png")


async def test_an_output_is_told_truly(sdk: Sdk) -> None:
    """An output has its real size, hash and type, its node, its job, and bytes to the last one."""
    size = 300_001
    job = await sdk.run(files("wörds.txt", size))

    (output,) = job.outputs
    content = await sdk.do(output.to_bytes)

    model = output._model
    assert content == bytes_of("comfy ", size)
    assert (output.size_bytes, model.hash) == (size, _hash(content))
    assert (output.node_id, output.name, output.job_id) == ("7", "wörds.txt", job.id)
    assert output.content_type.startswith("text/plain")
    assert [each.id for each in job.get_outputs("7")] == [output.id]
    assert _fetched(str(model.url)) == content


@pytest.mark.parametrize(
    ("name", "type", "content"),
    [
        ("a.mp4", "video", b"\0\0\0\x18ftypisom\0\0\0\0"),
        ("a.flac", "audio", b"fLaC\0\0\0\x22"),
        ("a.txt", "text", b"some text"),
        ("a.glb", "file", b"glTF\2\0\0\0"),
        ("a.latent", "latent", b'\x17\0\0\0\0\0\0\0{"latent_tensor":{}}'),
        ("a.unheard", "file", b"\0\1\2\xff"),
    ],
)
async def test_an_output_of_any_kind_arrives(
    sdk: Sdk, name: str, type: str, content: bytes
) -> None:
    """Nothing is dropped: video, audio, text, 3D and what nobody knows come as what they are."""
    job = await sdk.run(files(name, len(content), f"hex:{content.hex()}"))

    (output,) = job.outputs

    assert (output.name, output.type) == (name, type)
    assert await sdk.do(output.to_bytes) == content


async def test_an_output_goes_to_file_and_stream(sdk: Sdk, tmp_path: Path) -> None:
    """`to_file` and `to_stream` write all bytes, and a range only the ones asked for."""
    job = await sdk.run(files("range.bin", 5000))
    (output,) = job.outputs
    stream = io.BytesIO()

    file = await sdk.do(output.to_file, tmp_path / "all.bin")
    written = await sdk.do(output.to_stream, stream)
    part = await sdk.do(output.to_bytes, range=(6, 11))
    tail = await sdk.do(output.to_bytes, range=(4990, 99999))

    assert file.read_bytes() == stream.getvalue() == bytes_of("comfy ", 5000)
    assert (written, part, tail) == (5000, b"comfy ", bytes_of("comfy ", 5000)[4990:])


async def test_the_download_url_gives_the_bytes(sdk: Sdk) -> None:
    """The URL of an asset or an output is good for whoever fetches by URL."""
    content = _fresh_png((77, 1, 1))
    asset = sdk.client.assets.from_bytes(content, filename="url.png")
    job = await sdk.run(files("url.bin", 123))

    of_asset = await sdk.do(asset.get_download_url)
    of_output = await sdk.do(job.outputs[0].get_download_url)

    assert _fetched(of_asset.url) == content
    assert _fetched(of_output.url) == bytes_of("comfy ", 123)


async def test_a_large_upload_arrives_whole(sdk: Sdk, tmp_path: Path) -> None:
    """An upload of several megabytes is kept to its last byte."""
    file = tmp_path / "large.bin"
    file.write_bytes(uuid4().bytes * (5_000_000 // 16))

    asset = sdk.client.assets.from_file(file)
    model = await sdk.do(sdk.wire.get_asset, await sdk.do(asset.commit))

    assert (model.size_bytes, model.hash) == (file.stat().st_size, _hash(file.read_bytes()))


async def _pixel(sdk: Sdk, job: Any) -> tuple[int, ...]:
    """The first pixel of a job's picture."""
    (output,) = job.outputs
    with Image.open(io.BytesIO(await sdk.do(output.to_bytes))) as image:
        seen = image.convert("RGB").getpixel((0, 0))
    assert isinstance(seen, tuple)
    return seen


def _are_near(seen: tuple[int, ...], due: tuple[int, ...]) -> bool:
    """ComfyUI's way from byte to float and back may lose one."""
    return all(abs(one - other) <= 1 for one, other in zip(seen, due, strict=True))


def _png(color: tuple[int, int, int], note: str = "") -> bytes:
    target, told = io.BytesIO(), PngInfo()
    told.add_text("note", note)
    Image.new("RGB", (16, 16), color).save(target, "PNG", pnginfo=told)
    return target.getvalue()


def _fresh_png(color: tuple[int, int, int]) -> bytes:
    """A picture whose bytes nobody has sent before."""
    return _png(color, str(uuid4()))


def _hash(content: bytes) -> str:
    return f"blake3:{blake3(content).hexdigest()}"


def _fetched(url: str) -> bytes:
    with urlopen(url, timeout=10) as answer:
        content: bytes = answer.read()
    return content
