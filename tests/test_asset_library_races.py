"""However bringing, naming, using, deleting and sweeping interleave, no needed byte is lost."""

from __future__ import annotations

import asyncio
import os
import random
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path

from comfyserve.asset_library import AssetLibrary
from comfyserve.assets import Asset
from comfyserve.blobs import Blobs
from comfyserve.jobs import Offer
from comfyserve.refusals import AssetInUse, BlobNotFound, MissingAsset, NotFound
from comfyserve.store import Store
from tests.store.samples import submission

CONTENTS = [os.urandom(3000) for _ in range(6)]
MIB = 2**20


class _World:
    """Callers that do everything at once with the same few bytes, for a number of rounds."""

    def __init__(self, store: Store, blobs: Blobs, seed: int) -> None:
        self.store = store
        self.blobs = blobs
        self.library = AssetLibrary(
            store.assets, blobs, store.idempotency, retention=3600, upload_cap=MIB
        )
        self.random = random.Random(seed)
        self.submitted: list[str] = []
        self.refused = 0

    async def be_busy(self) -> None:
        doings = [self.upload, self.refer, self.submit, self.delete, self.sweep]
        for _ in range(20):
            await self.random.choices(doings, weights=(5, 2, 1, 3, 4))[0]()

    async def upload(self) -> None:
        await self.library.upload(self._chunks(self.random.choice(CONTENTS)), file_path="a.bin")

    async def refer(self) -> None:
        for asset in await self._some():
            try:
                await self.library.from_hash(asset.hash, file_path=f"{self.random.random()}")
            except BlobNotFound:
                self.refused += 1

    async def submit(self) -> None:
        for asset in await self._some():
            told = {"__type": "core/ASSET", "info": {"id": asset.id}}
            graph = {"1": {"class_type": "Load", "inputs": {"file": told}}}
            try:
                resolved = await self.library.resolve(graph)
                await self._pass()
                job = submission(graph=resolved.graph, files=resolved.files, expires_at=4e9)
                await self.store.jobs.submit(job)
            except (MissingAsset, BlobNotFound):
                self.refused += 1
            else:
                self.submitted.append(job.id)
                if len(self.submitted) % 2:
                    await self.store.jobs.cancel(job.id)
                    await self.store.jobs.delete(job.id)

    async def delete(self) -> None:
        """Leave nobody who needs some of the bytes, so that a sweep takes them."""
        for asset in (await self.store.assets.list(limit=50)).items:
            try:
                await self.library.delete(asset.id)
            except (NotFound, AssetInUse):
                self.refused += 1

    async def sweep(self) -> None:
        await self.library.sweep()

    async def _some(self) -> list[Asset]:
        found = list((await self.store.assets.list(limit=50)).items)
        return self.random.sample(found, min(2, len(found)))

    async def _chunks(self, data: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(data), 1000):
            await self._pass()
            yield data[start : start + 1000]

    async def _pass(self) -> None:
        await asyncio.sleep(self.random.choice((0, 0, 0.001, 0.003)))


async def test_no_byte_that_is_needed_is_ever_swept_away(tmp_path: Path) -> None:
    """With nothing too young to be swept, every asset and every job that waits has its bytes."""
    for seed in range(3):
        folder = tmp_path / str(seed)
        blobs = await Blobs.open(folder, grace=0)
        async with Store.open(folder) as store:
            world = _World(store, blobs, seed)

            await asyncio.gather(*(world.be_busy() for _ in range(8)))

            assert len(world.submitted) > 1
            for asset in (await store.assets.list(limit=1000)).items:
                assert (await blobs.head(asset.hash)).size_bytes == asset.size_bytes
            claims = 0
            while (claim := await store.jobs.claim("h", [Offer("b", ("",))], lease=30)) is not None:
                claims += 1
                for file in claim.files:
                    assert await blobs.exists(file.hash)
            assert claims == len(world.submitted) // 2


async def test_a_large_upload_is_never_whole_in_memory(tmp_path: Path) -> None:
    """Sixty megabytes go in and out with a few megabytes of memory more than before."""
    blobs = await Blobs.open(tmp_path)

    async def megabytes(count: int) -> AsyncIterator[bytes]:
        for number in range(count):
            yield number.to_bytes(8, "big") * (MIB // 8)

    async with Store.open(tmp_path) as store:
        library = AssetLibrary(
            store.assets, blobs, store.idempotency, retention=3600, upload_cap=1000 * MIB
        )
        tracemalloc.start()
        try:
            asset = (await library.upload(megabytes(60), file_path="large.bin")).asset
            async with library.content(asset) as chunks:
                size = sum([len(chunk) async for chunk in chunks])
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

    assert size == asset.size_bytes == 60 * MIB
    assert peak < 12 * MIB
