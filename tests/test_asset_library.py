"""Assets for those who bring, name and use them."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from comfyserve.asset_library import AssetLibrary, Minted
from comfyserve.assets import Asset
from comfyserve.blobs import Blobs, blob_key
from comfyserve.denials import InvalidRequest, PayloadTooLarge
from comfyserve.errors import ComfyServeError, OutputUnwritable
from comfyserve.jobs import JobFile
from comfyserve.refusals import (
    AssetInUse,
    BlobNotFound,
    DiskCapReached,
    HashMismatch,
    IdempotencyKeyReused,
    NotFound,
)
from comfyserve.store import Store, UsedKey
from tests.store.samples import START, Clock, submission

PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)
WEEK = 7 * 86400.0
ABSENT = f"blake3:{'0' * 64}"
MIB = 2**20


def hash_of(data: bytes) -> str:
    return f"blake3:{blake3(data).hexdigest()}"


async def pieces(data: bytes, size: int = 64) -> AsyncIterator[bytes]:
    """The data as it may arrive."""
    for start in range(0, len(data), size):
        yield data[start : start + size]
        await asyncio.sleep(0)


def key(name: str = "k1") -> UsedKey:
    return UsedKey("", "POST /assets", name, "", START + 86400)


@pytest.fixture
def clock() -> Clock:
    """The time as everything sees it."""
    return Clock()


@pytest.fixture
async def store(tmp_path: Path, clock: Clock) -> AsyncIterator[Store]:
    """An empty store."""
    async with Store.open(tmp_path, clock=clock) as opened:
        yield opened


@pytest.fixture
async def blobs(tmp_path: Path) -> Blobs:
    """An empty place for bytes, in which nothing is too young to be collected."""
    return await Blobs.open(tmp_path, grace=0)


Opener = Callable[..., AssetLibrary]


@pytest.fixture
def opened(store: Store, blobs: Blobs, clock: Clock) -> Opener:
    """Makes a library with these limits."""

    def make(**limits: Any) -> AssetLibrary:
        known: Mapping[str, Any] = {"retention": WEEK, "upload_cap": 10 * MIB, "clock": clock}
        return AssetLibrary(store.assets, blobs, store.idempotency, **{**known, **limits})

    return make


@pytest.fixture
def library(opened: Opener) -> AssetLibrary:
    """An empty library with room for everything."""
    return opened()


def files_in(root: Path) -> list[str]:
    """All bytes that lie there, arrived or arriving."""
    found = (path for name in ("blobs", "incoming") for path in (root / name).rglob("*"))
    return sorted(path.relative_to(root).as_posix() for path in found if path.is_file())


async def read(library: AssetLibrary, asset: Asset) -> bytes:
    async with library.content(asset) as chunks:
        return b"".join([chunk async for chunk in chunks])


async def test_what_was_uploaded_is_there(library: AssetLibrary, clock: Clock) -> None:
    """An upload is an asset with its true hash, size and type, kept for the usual time."""
    minted = await library.upload(
        pieces(PNG), owner="ann", file_path="in/cat.bin", declared_type="x/y", tags=("input",)
    )

    assert minted.created_new
    asset = await library.get(minted.asset.id, "ann")
    assert asset == minted.asset
    assert (asset.hash, asset.size_bytes) == (hash_of(PNG), len(PNG))
    assert (asset.content_type, asset.file_path) == ("image/png", "in/cat.bin")
    assert (asset.tags, asset.created_at, asset.expires_at) == (("input",), START, START + WEEK)
    assert await read(library, asset) == PNG


@pytest.mark.parametrize(
    ("data", "name", "declared", "type"),
    [
        (PNG, "a.txt", "text/plain", "image/png"),
        (b"hello", "a.png", "image/png", "text/plain"),
        (b"{}", "a.json", None, "application/json"),
        (b"\x00\x01\x02", "a.bin", "model/x-Odd; charset=x", "model/x-odd"),
        (b"\x00\x01\x02", "a.bin", None, "application/octet-stream"),
        (b"\x00\x01\x02", "a.bin", "no type\r\nX-Evil: 1", "application/octet-stream"),
        (b"", "a.png", "image/png", "image/png"),
        (b"", "a.png", None, "application/octet-stream"),
    ],
)
async def test_the_content_tells_its_type(
    library: AssetLibrary, data: bytes, name: str, declared: str | None, type: str
) -> None:
    """What a caller declares counts only where the bytes themselves say nothing."""
    minted = await library.upload(pieces(data), file_path=name, declared_type=declared)

    assert (minted.asset.content_type, minted.asset.size_bytes) == (type, len(data))
    assert await read(library, minted.asset) == data


async def test_the_same_bytes_are_kept_once(library: AssetLibrary, tmp_path: Path) -> None:
    """Bytes that come twenty times at once are twenty assets, one file, and new once."""
    data = os.urandom(300_000)

    minted = await asyncio.gather(
        *(library.upload(pieces(data, 5000), file_path=f"{n}.bin") for n in range(20))
    )

    assert Counter(one.created_new for one in minted) == {False: 19, True: 1}
    assert len({one.asset.id for one in minted}) == 20
    assert files_in(tmp_path) == [blob_key(hash_of(data))]


async def test_too_many_bytes_leave_nothing(opened: Opener, tmp_path: Path) -> None:
    """An upload past the limit is refused while it comes; one of just that size is taken."""
    library = opened(upload_cap=1000)
    seen = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal seen
        while seen < 100_000:
            seen += 100
            yield bytes(100)

    with pytest.raises(PayloadTooLarge) as refused:
        await library.upload(endless(), file_path="a.bin", key=key())

    assert refused.value.most == 1000
    assert seen == 1100
    assert files_in(tmp_path) == []
    assert (await library.upload(pieces(bytes(1000)), file_path="a", key=key())).created_new


async def test_other_bytes_than_announced_leave_nothing(
    library: AssetLibrary, store: Store, tmp_path: Path
) -> None:
    """Where the hash is not the announced one nothing is kept; in capitals it is the same."""
    with pytest.raises(HashMismatch) as refused:
        await library.upload(pieces(PNG), file_path="a.png", expected_hash=ABSENT)

    assert refused.value.details == {"expected": ABSENT, "found": hash_of(PNG)}
    assert files_in(tmp_path) == []
    assert (await store.assets.list()).items == ()
    assert not await library.has(hash_of(PNG))
    said = hash_of(PNG).upper()
    assert (await library.upload(pieces(PNG), file_path="a", expected_hash=said)).created_new


async def test_a_mismatch_takes_nothing_from_others(library: AssetLibrary) -> None:
    """Bytes that somebody has already stay when someone else announces them wrongly."""
    kept = (await library.upload(pieces(PNG), file_path="a.png")).asset

    with pytest.raises(HashMismatch):
        await library.upload(pieces(PNG), owner="bob", file_path="a", expected_hash="nonsense")
    await library.sweep()

    assert await read(library, kept) == PNG


@pytest.mark.parametrize("how", ["raises", "is canceled"])
async def test_who_hangs_up_leaves_nothing(library: AssetLibrary, tmp_path: Path, how: str) -> None:
    """An upload that breaks off leaves no byte behind, and its key may be used again."""
    began = asyncio.Event()

    async def breaking_off() -> AsyncIterator[bytes]:
        yield bytes(3 * MIB)
        began.set()
        if how == "raises":
            raise ConnectionError("gone")
        await asyncio.Event().wait()

    task = asyncio.create_task(library.upload(breaking_off(), file_path="a", key=key()))
    async with asyncio.timeout(10):
        await began.wait()
        if how == "is canceled":
            task.cancel()
        with pytest.raises((ConnectionError, asyncio.CancelledError)):
            await task

    assert files_in(tmp_path) == []
    assert (await library.upload(pieces(PNG), file_path="a", key=key())).created_new


async def test_a_canceled_upload_is_whole_or_nothing(
    library: AssetLibrary, store: Store, tmp_path: Path
) -> None:
    """Whenever an upload is canceled, there is either an asset with its bytes, or neither."""
    for moment in range(60):
        data = b"%d" % moment * 1000
        task = asyncio.create_task(library.upload(pieces(data, 4000), file_path="a"))
        await asyncio.sleep(moment / 5000)
        task.cancel()
        await asyncio.wait({task})
        await library.sweep()

        assets = (await store.assets.list(limit=100)).items
        for asset in assets:
            assert len(await read(library, asset)) == asset.size_bytes
        assert files_in(tmp_path) == sorted(blob_key(asset.hash) for asset in assets)


async def test_a_disk_that_is_full_is_told(
    library: AssetLibrary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the disk refuses the bytes, the upload fails clearly and its key is good again."""
    (tmp_path / "incoming").rmdir()
    (tmp_path / "incoming").write_bytes(b"")

    with pytest.raises(OutputUnwritable):
        await library.upload(pieces(bytes(3 * MIB), MIB), file_path="a", key=key())

    (tmp_path / "incoming").unlink()
    (tmp_path / "incoming").mkdir()
    assert files_in(tmp_path) == []
    assert (await library.upload(pieces(PNG), file_path="a", key=key())).created_new


async def test_a_key_is_good_for_one_upload(library: AssetLibrary) -> None:
    """A key that an upload used up is refused, however many come with it at once."""

    async def one() -> Minted | ComfyServeError:
        try:
            return await library.upload(pieces(PNG), file_path="a", key=key())
        except IdempotencyKeyReused as error:
            return error

    made = await asyncio.gather(*(one() for _ in range(8)))

    assert sum(isinstance(each, Minted) for each in made) == 1


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        ("photo.png", "photo.png"),
        ("models/checkpoints/x.safetensors", "models/checkpoints/x.safetensors"),
        ("folder\\löwe \U0001f981.png", "folder/löwe \U0001f981.png"),
        ("./a//b.png", "a/b.png"),
        ("a/..b/c..", "a/..b/c.."),
        ("", "names no file"),
        ("./", "names no file"),
        ("/etc/passwd", "has to be relative"),
        ("\\\\server\\share", "has to be relative"),
        ("C:\\a.png", "has to be relative"),
        ("c:a.png", "has to be relative"),
        ("../a.png", "lead out of its folder"),
        ("a\\..\\..\\b.png", "lead out of its folder"),
        ("a\0.png", "characters that no name has"),
        ("a\r\nb", "characters that no name has"),
        ("\ud800.png", "characters that no name has"),
        ("x" * 5000, "5,000 characters"),
    ],
)
async def test_a_file_path_is_safe_or_refused(
    library: AssetLibrary, tmp_path: Path, path: str, kept: str
) -> None:
    """A name is relative, with slashes, and leads nowhere; else a sentence says what is wrong."""
    try:
        said = str((await library.upload(pieces(PNG), file_path=path)).asset.file_path)
    except InvalidRequest as error:
        said = str(error)
        assert error.details == {"field": "file_path"}
        assert files_in(tmp_path) == []

    assert kept in said
    assert len(said) < 200


@pytest.mark.parametrize("seconds", [59, 604_801, 0, -1, True])
async def test_how_long_has_limits(library: AssetLibrary, seconds: int) -> None:
    """Outside of 60 seconds to 7 days a wish is refused, wherever it is made."""
    with pytest.raises(InvalidRequest, match="expires_in"):
        await library.upload(pieces(PNG), file_path="a", expires_in=seconds)
    with pytest.raises(InvalidRequest, match="expires_in"):
        await library.from_hash(hash_of(PNG), expires_in=seconds)


@pytest.mark.parametrize("tags", [("",), ("a\n",), ("x" * 257,), ("a",) * 65])
async def test_tags_have_limits(library: AssetLibrary, tags: tuple[str, ...]) -> None:
    """Tags are some short plain texts."""
    with pytest.raises(InvalidRequest, match="tag"):
        await library.upload(pieces(PNG), file_path="a", tags=tags)


async def test_a_hash_is_enough_for_its_owner(library: AssetLibrary) -> None:
    """Over bytes he has, an owner gets an asset under each name once, without sending them."""
    first = (await library.upload(pieces(PNG), file_path="a.png")).asset

    same = await library.from_hash(first.hash, file_path="a.png")
    other = await library.from_hash(first.hash, file_path="b.png", tags=("input",))
    nameless = await library.from_hash(first.hash)
    again = await library.from_hash(first.hash)

    assert (same.asset.id, same.is_same, same.created_new) == (first.id, True, False)
    assert (other.asset.file_path, other.is_same, other.created_new) == ("b.png", False, False)
    assert (other.asset.content_type, other.asset.size_bytes) == ("image/png", len(PNG))
    assert nameless.asset.id not in (first.id, other.asset.id)
    assert (again.asset.id, again.is_same) == (nameless.asset.id, True)


async def test_many_who_ask_at_once_get_the_same(library: AssetLibrary) -> None:
    """One reference is made, however many ask for it at once."""
    first = (await library.upload(pieces(PNG), file_path="a.png")).asset

    made = await asyncio.gather(
        *(library.from_hash(first.hash, file_path="b.png") for _ in range(10))
    )

    assert len({one.asset.id for one in made}) == 1
    assert sum(not one.is_same for one in made) == 1


async def test_a_reference_is_only_ever_kept_longer(library: AssetLibrary, clock: Clock) -> None:
    """To refer to bytes again keeps their asset longer, and never shorter."""
    first = (await library.upload(pieces(PNG), file_path="a", expires_in=3600)).asset

    shorter = await library.from_hash(first.hash, file_path="a", expires_in=60)
    longer = await library.from_hash(first.hash, file_path="a", expires_in=7200)

    assert (shorter.asset.id, shorter.asset.expires_at) == (first.id, START + 3600)
    assert (longer.asset.id, longer.asset.expires_at) == (first.id, START + 7200)
    assert (await library.get(first.id)).expires_at == START + 7200


async def test_the_bytes_of_others_are_not_there(library: AssetLibrary) -> None:
    """Neither a hash nor an id opens what belongs to somebody else."""
    hers = (await library.upload(pieces(PNG), owner="ann", file_path="a.png")).asset

    assert await library.has(hers.hash, "ann")
    assert not await library.has(hers.hash, "bob")
    with pytest.raises(BlobNotFound):
        await library.from_hash(hers.hash, owner="bob")
    with pytest.raises(NotFound):
        await library.get(hers.id, "bob")
    with pytest.raises(NotFound):
        await library.delete(hers.id, "bob")
    his = await library.upload(pieces(PNG), owner="bob", file_path="b.png")
    assert not his.created_new
    assert await library.has(hers.hash, "bob")


@pytest.mark.parametrize("hash", ["", "x", ABSENT, "blake3:../../etc/passwd", "blake3:\ud800"])
async def test_what_is_no_hash_is_no_bytes(library: AssetLibrary, hash: str) -> None:
    """A hash that nobody brought, or that is none, leads to nothing."""
    assert not await library.has(hash)
    with pytest.raises(BlobNotFound):
        await library.from_hash(hash)


@pytest.mark.parametrize("id", ["", "x", "\ud800", "a\0b", "x" * 100_000])
async def test_what_is_no_id_is_not_found(library: AssetLibrary, id: str) -> None:
    """An id that nobody gave out is not found, whatever is in it."""
    with pytest.raises(NotFound):
        await library.get(id)
    with pytest.raises(NotFound):
        await library.delete(id)


async def test_what_is_deleted_is_gone_but_not_for_others(
    library: AssetLibrary, tmp_path: Path
) -> None:
    """The bytes go with the last asset over them, and not before."""
    one = (await library.upload(pieces(PNG), file_path="a")).asset
    two = (await library.upload(pieces(PNG), owner="bob", file_path="b")).asset

    await library.delete(one.id)
    await library.sweep()
    with pytest.raises(NotFound):
        await library.delete(one.id)
    assert await read(library, two) == PNG
    await library.delete(two.id)
    await library.sweep()

    assert files_in(tmp_path) == []


async def test_what_a_job_needs_stays(library: AssetLibrary, store: Store, clock: Clock) -> None:
    """An asset that a waiting job needs can neither be deleted nor swept away."""
    asset = (await library.upload(pieces(PNG), file_path="a", expires_in=60)).asset
    file = JobFile((("1", "image"),), asset.hash, "a.png", asset.id)
    job = submission(files=(file,))
    await store.jobs.submit(job)

    with pytest.raises(AssetInUse):
        await library.delete(asset.id)
    clock.pass_seconds(61)
    await library.sweep()
    assert await read(library, asset) == PNG
    await store.jobs.cancel(job.id)
    await library.sweep()

    assert (await store.assets.several([asset.id])) == []


async def test_what_expired_is_gone(library: AssetLibrary, clock: Clock, tmp_path: Path) -> None:
    """Past its time an asset is not there, and a sweep takes all of them and their bytes."""
    minted = await asyncio.gather(
        *(library.upload(pieces(b"%d" % n), file_path="a", expires_in=60) for n in range(210))
    )
    stays = (await library.upload(pieces(PNG), file_path="a")).asset
    clock.pass_seconds(61)

    with pytest.raises(NotFound):
        await library.get(minted[0].asset.id)
    assert not await library.has(minted[0].asset.hash)
    await library.sweep()

    assert files_in(tmp_path) == [blob_key(stays.hash)]


async def test_no_more_is_kept_than_may_be(opened: Opener, tmp_path: Path) -> None:
    """All bytes together stay below the cap; where something is deleted, there is room again."""
    library = opened(disk_cap=10_000)
    first = (await library.upload(pieces(bytes(6000)), file_path="a")).asset

    with pytest.raises(DiskCapReached):
        await library.upload(pieces(os.urandom(6000)), file_path="b", key=key())
    assert files_in(tmp_path) == [blob_key(first.hash)]
    await library.upload(pieces(os.urandom(4000)), file_path="b", key=key())
    with pytest.raises(DiskCapReached) as refused:
        await library.refuse_when_full()
    assert refused.value.most == 10_000
    with pytest.raises(DiskCapReached):
        await library.upload(pieces(b"x"), file_path="c")

    await library.delete(first.id)
    await library.refuse_when_full()
    await library.upload(pieces(os.urandom(6000)), file_path="c")


async def test_many_uploads_at_once_stay_below_the_cap(
    opened: Opener, store: Store, tmp_path: Path
) -> None:
    """What is on its way counts too, so that many at once do not go past the cap together."""
    library = opened(disk_cap=100_000)

    made = await asyncio.gather(
        *(library.upload(pieces(os.urandom(30_000), 1000), file_path="a") for _ in range(10)),
        return_exceptions=True,
    )

    refused = [one for one in made if isinstance(one, DiskCapReached)]
    assert len(refused) >= 7
    assert await store.assets.total_bytes() <= 100_000
    assert len(files_in(tmp_path)) == 10 - len(refused)


async def test_room_is_made_before_anything_is_refused(
    opened: Opener, store: Store, tmp_path: Path, clock: Clock
) -> None:
    """A full disk is swept, young bytes and all, before an upload is refused."""
    careful = await Blobs.open(tmp_path, grace=3600)
    library = AssetLibrary(
        store.assets,
        careful,
        store.idempotency,
        retention=WEEK,
        upload_cap=MIB,
        disk_cap=10_000,
        clock=clock,
    )
    await library.upload(pieces(os.urandom(10_000)), file_path="a", expires_in=60)
    clock.pass_seconds(61)

    await library.upload(pieces(os.urandom(10_000)), file_path="b")

    assert await store.assets.total_bytes() == 10_000
    assert len(files_in(tmp_path)) == 1
