"""However writing, referring, deleting and collecting interleave, no referenced byte is lost."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from comfyserve.blobs import Blobs
from comfyserve.refusals import BlobNotFound, NotFound
from comfyserve.store import Store
from tests.store.samples import START, asset

CONTENTS = [b"fox", b"owl"]

MOMENT = 0.004

# Who does what, how many moments from now, and how many moments each lets pass in the middle.
DOINGS = st.lists(
    st.tuples(
        st.sampled_from(["upload", "refer", "delete", "collect"]),
        st.sampled_from(CONTENTS),
        st.integers(0, 9),
        st.integers(0, 9),
    ),
    min_size=3,
    max_size=10,
)


@settings(max_examples=25)
@given(DOINGS)
@example([("upload", b"fox", 0, 9), *(("collect", b"fox", begin, 0) for begin in range(1, 9))])
@example([("upload", b"fox", 0, 0), ("refer", b"fox", 4, 9), ("delete", b"fox", 6, 0)])
def test_no_referenced_blob_is_ever_collected(doings: list[tuple[str, bytes, int, int]]) -> None:
    """After all of it, every asset's bytes are there, and one more collection leaves no others."""
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_do_all(Path(folder), doings))


async def _do_all(folder: Path, doings: list[tuple[str, bytes, int, int]]) -> None:
    blobs = await Blobs.open(folder, grace=-60)
    async with Store.open(folder, clock=lambda: START) as store:
        people = _People(blobs, store)
        async with asyncio.TaskGroup() as group:
            for what, content, begin, pause in doings:
                group.create_task(people.do(what, content, begin, pause))
        await people.everything_referred_to_is_there()
        await blobs.collect(store.assets.forget_unused_blobs)
        await people.everything_referred_to_is_there()
        used = {one.hash for one in (await store.assets.list()).items}
        kept = [path for path in (folder / "blobs").rglob("*") if path.is_file()]
        assert len(kept) == len(used)
        assert list((folder / "incoming").iterdir()) == []


class _People:
    """Those who use the blobs of one store, each with a pace of their own."""

    def __init__(self, blobs: Blobs, store: Store) -> None:
        self._blobs = blobs
        self._store = store

    async def do(self, what: str, content: bytes, begin: int, pause: int) -> None:
        await _pass(begin)
        match what:
            case "upload":
                await self._upload(content, pause)
            case "refer":
                await self._refer(pause)
            case "delete":
                await self._delete()
            case "collect":
                await self._blobs.collect(_Asked(self._store, pause))

    async def everything_referred_to_is_there(self) -> None:
        for one in (await self._store.assets.list()).items:
            assert await self._blobs.exists(one.hash)

    async def _upload(self, content: bytes, pause: int) -> None:
        async with self._blobs.keeping() as kept:
            async with kept.open() as writer:
                await writer.write(content)
            await _pass(pause)
            await self._store.assets.add(asset(hash=writer.hash, size_bytes=len(content)))

    async def _refer(self, pause: int) -> None:
        """What a caller does who knows only the hash."""
        items = (await self._store.assets.list()).items
        for one in items[:1]:
            try:
                async with self._blobs.hold(one.hash) as blob:
                    await _pass(pause)
                    made = asset(hash=blob.hash, size_bytes=blob.size_bytes)
                    await self._store.assets.add(made)
            except BlobNotFound:
                return

    async def _delete(self) -> None:
        for one in (await self._store.assets.list()).items[:2]:
            try:
                await self._store.assets.delete(one.id)
            except NotFound:
                continue


class _Asked:
    """The store's answer to a collector, that takes its time on both sides."""

    def __init__(self, store: Store, pause: int) -> None:
        self._store = store
        self._pause = pause

    async def __call__(self, hashes: Sequence[str]) -> frozenset[str]:
        await _pass(self._pause)
        unused = await self._store.assets.forget_unused_blobs(hashes)
        await _pass(self._pause)
        return unused


async def _pass(moments: int) -> None:
    await asyncio.sleep(moments * MOMENT)
