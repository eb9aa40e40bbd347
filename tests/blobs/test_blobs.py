"""Bytes that are kept by their hash."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import pytest
from blake3 import blake3

from comfyserve.blobs import Blobs, blob_key
from comfyserve.errors import OutputUnwritable
from comfyserve.refusals import BlobNotFound

MIB = 2**20
ABSENT = f"blake3:{'0' * 64}"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "dätä folder"


@pytest.fixture
async def blobs(root: Path) -> Blobs:
    """An empty place for blobs, in which nothing is too young to be collected."""
    return await Blobs.open(root, grace=0)


def files_in(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


async def keep(blobs: Blobs, data: bytes) -> str:
    """The hash of *data*, kept and no longer held."""
    async with blobs.keeping() as kept, kept.open() as writer:
        for start in range(0, len(data), MIB):
            await writer.write(data[start : start + MIB])
    return writer.hash


async def read(blobs: Blobs, hash: str, start: int = 0, end: int | None = None) -> bytes:
    async with blobs.read(hash, start, end) as chunks:
        return b"".join([chunk async for chunk in chunks])


async def nothing_is_used(hashes: Sequence[str]) -> frozenset[str]:
    return frozenset(hashes)


@pytest.mark.parametrize("size", [0, 1, 1000, MIB, 3 * MIB + 1])
async def test_bytes_come_back_as_they_were(blobs: Blobs, root: Path, size: int) -> None:
    """Whatever was written is read again, under the hash of its content and nowhere else."""
    data = bytes(range(256)) * (size // 256 + 1)
    data = data[:size]

    hash = await keep(blobs, data)

    assert hash == f"blake3:{blake3(data).hexdigest()}"
    assert await read(blobs, hash) == data
    assert files_in(root) == [blob_key(hash)]
    assert (await blobs.head(hash)).size_bytes == size


@pytest.mark.parametrize(
    ("start", "end"), [(0, 10), (5, 6), (90, 200), (99, None), (100, None), (7, 7), (50, 20)]
)
async def test_a_range_is_what_a_slice_would_be(blobs: Blobs, start: int, end: int | None) -> None:
    """Reading from and up to somewhere gives what slicing the bytes gives, also past the end."""
    data = bytes(range(100))
    hash = await keep(blobs, data)

    assert await read(blobs, hash, start, end) == data[start:end]


@pytest.mark.parametrize("size", [1, 1000, 2**17, 2**18, 2**18 + 1, MIB])
async def test_bytes_come_back_whatever_the_chunks(blobs: Blobs, size: int) -> None:
    """In however small or large pieces bytes come, they are kept whole and in order."""
    data = bytes(range(251)) * (min(3 * MIB, 700 * size) // 251)

    async with blobs.keeping() as kept, kept.open() as writer:
        for start in range(0, len(data), size):
            await writer.write(data[start : start + size])

    assert await read(blobs, writer.hash) == data
    assert blobs.path(writer.hash).read_bytes() == data


async def test_the_writer_says_where_the_bytes_are(blobs: Blobs, root: Path) -> None:
    """An output's location is the blob's key, its size what was written."""
    async with blobs.keeping() as kept:
        async with kept.open("../../evil.png", "../up", True) as writer:
            await writer.write(b"abc")
            await writer.write(b"def")
        assert kept.hashes == [writer.hash]

    assert (writer.location, writer.size_bytes) == (blob_key(writer.hash), 6)
    assert (root / writer.location).read_bytes() == b"abcdef"


async def test_the_same_bytes_are_kept_once(blobs: Blobs, root: Path) -> None:
    """Many who write the same at once get one file, and none is left behind."""
    data = b"same" * 100_000

    hashes = await asyncio.gather(*(keep(blobs, data) for _ in range(8)))

    assert len(set(hashes)) == 1
    assert files_in(root) == [blob_key(hashes[0])]


@pytest.mark.parametrize("size", [10, 3 * MIB])
async def test_what_failed_leaves_nothing(blobs: Blobs, root: Path, size: int) -> None:
    """An error while bytes arrive is told as it is, and keeps nothing of them."""
    with pytest.raises(ConnectionResetError):
        async with blobs.keeping() as kept, kept.open() as writer:
            await writer.write(b"x" * size)
            raise ConnectionResetError

    assert files_in(root) == []


@pytest.mark.parametrize("size", [10, 3 * MIB])
async def test_what_was_canceled_leaves_nothing(blobs: Blobs, root: Path, size: int) -> None:
    """A writer that is canceled in the middle keeps nothing."""
    begun = asyncio.Event()

    async def write() -> None:
        async with blobs.keeping() as kept, kept.open() as writer:
            await writer.write(b"x" * size)
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(write())
    await asyncio.wait_for(begun.wait(), 20)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert task.cancelled()
    assert files_in(root) == []


async def test_what_a_killed_process_left_is_swept(root: Path) -> None:
    """Opening removes what arrived only in part, and nothing that is kept."""
    blobs = await Blobs.open(root)
    hash = await keep(blobs, b"kept")
    (root / "incoming" / "half").write_bytes(b"half")

    again = await Blobs.open(root)

    assert files_in(root) == [blob_key(hash)]
    assert await read(again, hash) == b"kept"


@pytest.mark.parametrize("hash", [ABSENT, "", "blake3:", "sha256:00", "blake3:../../etc/passwd"])
async def test_what_is_not_kept_is_said_so(blobs: Blobs, hash: str) -> None:
    """A hash that is unknown, or none at all, is not found by any way of asking."""
    assert not await blobs.exists(hash)
    with pytest.raises(BlobNotFound):
        await blobs.head(hash)
    with pytest.raises(BlobNotFound):
        await read(blobs, hash)
    with pytest.raises(BlobNotFound):
        async with blobs.hold(hash):
            pass


async def test_a_folder_that_takes_nothing_is_told(tmp_path: Path) -> None:
    """Where a file stands in the folder's way, or the folder is gone, the error names the place."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputUnwritable, match="file"):
        await Blobs.open(tmp_path / "file")

    blobs = await Blobs.open(tmp_path / "data")
    (tmp_path / "data" / "incoming").rmdir()
    (tmp_path / "data" / "incoming").write_bytes(b"in the way")
    with pytest.raises(OutputUnwritable, match="incoming"):
        await keep(blobs, b"abc")


FULL = """
import asyncio, resource, sys
from pathlib import Path
from comfyserve.blobs import Blobs
from comfyserve.errors import OutputUnwritable

async def main():
    blobs = await Blobs.open(Path(sys.argv[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
    try:
        async with blobs.keeping() as kept, kept.open() as writer:
            for _ in range(8):
                await writer.write(bytes(2**20))
    except OutputUnwritable as error:
        print(error)

asyncio.run(main())
"""


if sys.platform != "win32":  # whose limits and figures are others

    def test_a_disk_that_takes_no_more_is_told(root: Path) -> None:
        """Bytes that do not fit fail with the reason, and leave nothing."""
        ended = subprocess.run(
            [sys.executable, "-c", FULL, str(root)], capture_output=True, text=True, timeout=60
        )

        assert "cannot be written" in ended.stdout, ended.stderr
        assert files_in(root) == []


async def test_memory_stays_flat(blobs: Blobs) -> None:
    """64 MiB pass through, in and out, with a few MiB of memory."""
    chunk = bytes(256 * 1024)
    tracemalloc.start()
    try:
        async with blobs.keeping() as kept, kept.open() as writer:
            for _ in range(256):
                await writer.write(chunk)
        async with blobs.read(writer.hash) as chunks:
            size = sum([len(one) async for one in chunks])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert size == 64 * MIB
    assert peak < 4 * MIB


RESIDENT = """
import asyncio, resource, sys
from pathlib import Path
from comfyserve.blobs import Blobs

async def main():
    blobs = await Blobs.open(Path(sys.argv[1]))
    async def once(count):
        async with blobs.keeping() as kept, kept.open() as writer:
            for n in range(count):
                await writer.write(bytes([n % 256]) * 2**18)
        async with blobs.read(writer.hash) as chunks:
            async for chunk in chunks:
                pass
    await once(16)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    await once(256)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)

asyncio.run(main())
"""


if sys.platform != "win32":  # whose limits and figures are others

    def test_resident_memory_stays_flat(root: Path) -> None:
        """What the library underneath holds of 64 MiB stays within a few MiB as well."""
        ended = subprocess.run(
            [sys.executable, "-c", RESIDENT, str(root)], capture_output=True, text=True, timeout=60
        )

        grown = int(ended.stdout) * (1 if sys.platform == "darwin" else 1024)
        assert grown < 24 * MIB, ended.stderr


async def test_only_the_unused_is_collected(blobs: Blobs, root: Path) -> None:
    """What the caller says is used stays, the rest goes, and a stranger's file is left alone."""
    used, unused = await keep(blobs, b"used"), await keep(blobs, b"unused")
    (root / "blobs" / "README").write_text("not ours", encoding="utf-8")

    async def ask(hashes: Sequence[str]) -> frozenset[str]:
        return frozenset(hashes) - {used}

    assert await blobs.collect(ask) == 1
    assert await blobs.exists(used)
    assert not await blobs.exists(unused)
    assert (root / "blobs" / "README").exists()


async def test_what_is_held_or_young_is_not_collected(blobs: Blobs, root: Path) -> None:
    """Nothing goes that was just written, or that somebody holds who may refer to it."""
    hash = await keep(blobs, b"abc")
    young = await Blobs.open(root, grace=3600)

    assert await young.collect(nothing_is_used) == 0
    async with blobs.hold(hash) as blob:
        assert await blobs.collect(nothing_is_used) == 0
        assert blob.size_bytes == 3
    async with blobs.keeping() as kept:
        async with kept.open() as writer:
            await writer.write(b"abc")
        assert await blobs.collect(nothing_is_used) == 0
    assert await blobs.collect(nothing_is_used) == 1
    assert files_in(root) == []


async def test_who_writes_what_is_being_collected_writes_it_anew(blobs: Blobs) -> None:
    """Bytes that come again while the old ones go are kept, not taken for those that are there."""
    hash = await keep(blobs, b"abc")
    again: list[asyncio.Task[str]] = []

    async def ask(hashes: Sequence[str]) -> frozenset[str]:
        again.append(asyncio.create_task(keep(blobs, b"abc")))
        _, waiting = await asyncio.wait(again, timeout=0.2)
        assert waiting
        return frozenset(hashes)

    assert await blobs.collect(ask) == 1
    assert await asyncio.wait_for(again[0], 20) == hash
    assert await read(blobs, hash) == b"abc"


async def test_deleting_twice_is_no_error(blobs: Blobs) -> None:
    """A blob that is gone is as good as deleted."""
    hash = await keep(blobs, b"abc")

    await blobs.delete(hash)
    await blobs.delete(hash)

    assert not await blobs.exists(hash)
