"""References to assets in a graph become names that nodes take, and files that have to be there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from comfyserve.asset_library import AssetLibrary
from comfyserve.assets import Asset, Upload
from comfyserve.blobs import Blobs
from comfyserve.comfy.uploads import file_name, prepare
from comfyserve.events import OutputSaved
from comfyserve.jobs import JobFile, JobStatus
from comfyserve.refusals import MissingAsset
from comfyserve.store import Store
from comfyserve.workflows.graph import Graph
from tests.store.samples import output, running, status, submission

PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)
MASK = b"\x89PNG\r\n\x1a\n" + bytes(200)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """An empty store."""
    async with Store.open(tmp_path) as opened:
        yield opened


@pytest.fixture
async def blobs(tmp_path: Path) -> Blobs:
    """An empty place for bytes."""
    return await Blobs.open(tmp_path, grace=0)


@pytest.fixture
def library(store: Store, blobs: Blobs) -> AssetLibrary:
    """An empty library."""
    return AssetLibrary(store.assets, blobs, store.idempotency, retention=60.0, upload_cap=2**20)


async def uploaded(
    library: AssetLibrary, data: bytes, name: str = "a.png", owner: str = ""
) -> Asset:
    async def chunks() -> AsyncIterator[bytes]:
        yield data

    return (await library.upload(chunks(), file_path=name, owner=owner)).asset


def reference(asset: Asset | str | None, **more: object) -> dict[str, Any]:
    id = asset.id if isinstance(asset, Asset) else asset
    return {"__type": "core/ASSET", "info": {"id": id, **more}}


def graph(**inputs: object) -> Graph:
    return {"1": {"class_type": "LoadImage", "inputs": inputs}}


def name_of(data: bytes, ending: str) -> str:
    return f"comfyserve/{blake3(data).hexdigest()[:32]}{ending}"


async def test_references_become_names(library: AssetLibrary) -> None:
    """Every reference gives its place to the file's name, and each file is listed once."""
    cat = await uploaded(library, PNG, "in/löwe.JPG")
    text = await uploaded(library, b"words", "notes.MD")
    asked = graph(image=reference(cat), more=[{"x": reference(text)}, reference(cat)], n=1)

    resolved = await library.resolve(asked)

    picture, notes = name_of(PNG, ".png"), name_of(b"words", ".md")
    assert resolved.graph == graph(image=picture, more=[{"x": notes}, picture], n=1)
    assert resolved.files == (
        JobFile((("1", "image"), ("1", "more", 1)), cat.hash, "löwe.png", cat.id),
        JobFile((("1", "more", 0, "x"),), text.hash, "notes.MD", text.id),
    )
    assert asked["1"]["inputs"]["image"] == reference(cat)


async def test_a_graph_without_references_is_left_alone(library: AssetLibrary) -> None:
    """Where nothing is referred to, nothing changes, however odd the graph."""
    for plain in (graph(image="cat.png"), {}, {"1": 5}):
        resolved = await library.resolve(plain)
        assert (resolved.graph, resolved.files) == (plain, ())


@pytest.mark.parametrize(
    ("data", "name", "declared"),
    [
        (PNG, "cat.jpeg", None),
        (b"\x00odd", "thing.glb", "image/png"),
        (b"\x00odd", "no ending", "audio/flac"),
        (b"", "empty.png", "image/png"),
        (b"{}", "a.json", None),
        (b"text", "a.löwe", None),
    ],
)
async def test_the_name_is_the_one_that_an_upload_gets(
    library: AssetLibrary, blobs: Blobs, data: bytes, name: str, declared: str | None
) -> None:
    """The name in the graph is just what bringing the file to a backend names it."""

    async def chunks() -> AsyncIterator[bytes]:
        yield data

    asset = (await library.upload(chunks(), file_path=name, declared_type=declared)).asset

    resolved = await library.resolve(graph(image=reference(asset)))

    (file,) = resolved.files
    upload = Upload(file.name, path=blobs.path(file.hash), hash=file.hash)
    brought = file_name(upload, *prepare(upload), mask_of=None)
    assert resolved.graph == graph(image=f"comfyserve/{brought}")


async def test_all_that_is_missing_is_named(library: AssetLibrary) -> None:
    """Unknown, foreign and malformed references fail together, with every missing id."""
    hers = await uploaded(library, PNG, owner="ann")
    mine = await uploaded(library, MASK)
    wanted = graph(
        a=reference("gone"),
        b=reference(hers, hash=hers.hash),
        c=reference(mine),
        d=[reference("gone"), reference("\ud800"), reference("x\0")],
        e=reference(None, hash=hers.hash),
        f=reference(None, hash="blake3:../.."),
    )

    with pytest.raises(MissingAsset) as refused:
        await library.resolve(wanted)

    lacking = ["gone", hers.id, "\ud800", "x\0", hers.hash, "blake3:../.."]
    assert refused.value.details == {"missing_ids": lacking}


async def test_a_malformed_reference_is_missing_too(library: AssetLibrary) -> None:
    """A reference that says nothing fails with its place, as one that leads nowhere."""
    with pytest.raises(MissingAsset, match=r"1\.image.*no 'id'"):
        await library.resolve(graph(image=reference(None)))


async def test_an_id_is_never_overridden(library: AssetLibrary) -> None:
    """What a reference says of hash and path changes nothing about the asset it names."""
    cat, mask = await uploaded(library, PNG), await uploaded(library, MASK)

    resolved = await library.resolve(
        graph(image=reference(cat, hash=mask.hash, file_path="../../etc/passwd"))
    )

    assert resolved.graph == graph(image=name_of(PNG, ".png"))


async def test_a_hash_alone_is_the_owners_newest(library: AssetLibrary) -> None:
    """Without an id the newest of the owner's assets over these bytes is meant."""
    await uploaded(library, PNG, "old.png")
    newest = await uploaded(library, PNG, "new.png")
    await uploaded(library, PNG, "hers.png", owner="ann")

    resolved = await library.resolve(graph(image=reference(None, hash=newest.hash)))

    assert [file.asset_id for file in resolved.files] == [newest.id]


async def test_an_output_is_an_asset_like_all_others(library: AssetLibrary, store: Store) -> None:
    """What an earlier job made can be referred to by its id, and submitted again."""
    lease = await running(store, expires_at=4e9)
    saved = [OutputSaved(lease.job_id, output("made.png", location="x"))]
    await store.jobs.finish(lease, status(lease, JobStatus.SUCCEEDED), events=saved)
    (made,) = (await store.jobs.get(lease.job_id)).outputs

    resolved = await library.resolve(graph(image=reference(made.id)))

    assert [file.hash for file in resolved.files] == [made.hash]
    again = submission(graph=resolved.graph, files=resolved.files)
    await store.jobs.submit(again)
    assert await store.jobs.graph(again.id) == resolved.graph


async def test_a_mask_is_laid_over_an_image_elsewhere(library: AssetLibrary) -> None:
    """A mask gives its place to the masked image, whose place it names; it comes last."""
    cat, mask = await uploaded(library, PNG), await uploaded(library, MASK)
    wanted: dict[str, Any] = {
        "1": {"class_type": "LoadImage", "inputs": {"image": reference(mask, mask_of=["2", "x"])}},
        "2": {"class_type": "LoadImage", "inputs": {"x": reference(cat)}},
    }

    resolved = await library.resolve(wanted)

    original = name_of(PNG, ".png")
    pair = blake3(f"{blake3(MASK).hexdigest()} over {original}".encode()).hexdigest()
    assert resolved.graph["2"]["inputs"] == {"x": original}
    assert resolved.graph["1"]["inputs"] == {"image": f"comfyserve/{pair[:32]}.png"}
    assert resolved.files == (
        JobFile((("2", "x"),), cat.hash, "a.png", cat.id),
        JobFile((("1", "image"),), mask.hash, "a.png", mask.id, ("2", "x")),
    )


async def test_a_mask_brings_its_image_along(library: AssetLibrary) -> None:
    """Where mask and image share a place, the image goes there first and the mask over it."""
    cat, mask = await uploaded(library, PNG), await uploaded(library, MASK)
    place = ("1", "image")

    resolved = await library.resolve(graph(image=reference(mask, mask_of=reference(cat))))

    assert [(file.hash, file.targets, file.mask_of) for file in resolved.files] == [
        (cat.hash, (place,), None),
        (mask.hash, (place,), place),
    ]
    assert resolved.graph["1"]["inputs"]["image"] != name_of(PNG, ".png")


async def test_a_mask_of_a_file_that_the_server_has(library: AssetLibrary) -> None:
    """A mask of an image by name leaves that name in its place until it is laid over it."""
    mask = await uploaded(library, MASK)
    place = ("1", "image")

    resolved = await library.resolve(graph(image=reference(mask, mask_of="cat.png")))

    assert resolved.graph == graph(image="cat.png")
    assert resolved.files == (JobFile((place,), mask.hash, "a.png", mask.id, place),)


@pytest.mark.parametrize("over", [["2", "x"], ["1", "steps"], ["1", "other"], ["1", "none", 0]])
async def test_a_mask_of_no_image_is_refused(library: AssetLibrary, over: object) -> None:
    """A mask of nothing, of a number or of another mask is no mask."""
    mask = await uploaded(library, MASK)
    wanted = graph(
        image=reference(mask, mask_of=over), steps=4, other=reference(mask, mask_of="cat.png")
    )

    with pytest.raises(MissingAsset, match=r"The mask at '1\.image'"):
        await library.resolve(wanted)


async def test_thousands_of_references_are_found(library: AssetLibrary) -> None:
    """A graph may refer to more assets than a query takes values."""
    cat = await uploaded(library, PNG)
    many = [reference(cat), *(reference(f"gone {n}") for n in range(12_000))]

    with pytest.raises(MissingAsset) as refused:
        await library.resolve(graph(image=many))

    assert len(refused.value.missing_ids) == 12_000
