"""Blobs: bytes that never change, kept under their blake3 hash.

blobs = await Blobs.open(folder)
async with blobs.keeping() as kept, kept.open("a.png", "", False) as writer:
    await writer.write(data)
async with blobs.read(writer.hash) as chunks: ..
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import time
from typing import Final

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore

from comfyserve.assets import content_hash
from comfyserve.blobs.durable import sync_folders
from comfyserve.blobs.files import Arriving, Reading
from comfyserve.blobs.holds import Holds
from comfyserve.errors import OutputUnwritable
from comfyserve.refusals import BlobNotFound, StoreUnavailable
from comfyserve.unbroken import unbroken

# Each time costs a way through another thread, which is much for a few bytes.
_HANDED_OVER: Final = 1 << 18

_KEPT: Final = "blobs"
_ARRIVING: Final = "incoming"
_HASH: Final = re.compile(r"blake3:[0-9a-f]{64}")

Unused = Callable[[Sequence[str]], Awaitable[frozenset[str]]]
"""Says which of the hashes nothing refers to, and sees to it that nothing can from then on."""


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes that are kept; *modified* is when they came, in seconds since the epoch."""

    hash: str
    size_bytes: int
    modified: float


def blob_key(hash: str) -> str:
    """Where a blob lies: ``blobs/ab/cdef..``. Raises `BlobNotFound` for what is no hash.

    >>> blob_key("blake3:" + "ab" * 32)
    'blobs/ab/ababababababababababababababababababababababababababababababab'
    """
    if not _HASH.fullmatch(hash):
        raise BlobNotFound([hash])
    digest = hash.removeprefix("blake3:")
    return f"{_KEPT}/{digest[:2]}/{digest[2:]}"


class Blobs:
    """The blobs of one folder. One process writes there; any number may read.

    What every job needs, to write and to read, is done with the files themselves: it takes one way
    through another thread where the bytes are few.
    """

    def __init__(self, root: Path, *, grace: float) -> None:
        self._root = root
        self._grace = grace
        self._store = LocalStore(root)
        self._holds = Holds()
        self._lasting: set[Path] = set()

    @classmethod
    async def open(cls, root: Path, *, grace: float = 3600.0) -> Blobs:
        """The blobs in *root*, which is made where it is missing; what arrived only in part goes.

        A blob that is younger than *grace* seconds is never collected. Raises `OutputUnwritable`.
        """
        with _disk_errors(root):
            await asyncio.to_thread(_prepare, root)
        return cls(root, grace=grace)

    @asynccontextmanager
    async def keeping(self) -> AsyncIterator[KeptBytes]:
        """A sink whose blobs are held for the time of the block, in which they get referred to."""
        kept = KeptBytes(self._write)
        try:
            yield kept
        finally:
            for hash in kept.hashes:
                self._holds.release(hash)

    @asynccontextmanager
    async def hold(self, hash: str) -> AsyncIterator[Blob]:
        """Have a blob stay for the time of the block. Raises `BlobNotFound`."""
        await self._holds.take(hash)
        try:
            yield await self.head(hash)
        finally:
            self._holds.release(hash)

    async def head(self, hash: str) -> Blob:
        """What is known of a blob. Raises `BlobNotFound`."""
        with self._read_errors(hash):
            meta = await obstore.head_async(self._store, blob_key(hash))
        return Blob(hash, meta["size"], meta["last_modified"].timestamp())

    async def exists(self, hash: str) -> bool:
        """Whether these bytes are kept."""
        try:
            await self.head(hash)
        except BlobNotFound:
            return False
        return True

    def path(self, hash: str) -> Path:
        """The file that these bytes are in, if they are kept. Raises `BlobNotFound` for what is
        no hash."""
        return self._root / blob_key(hash)

    @asynccontextmanager
    async def read(
        self, hash: str, start: int = 0, end: int | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The bytes from *start* up to before *end*, in chunks; beyond the last there are none.

        Raises `BlobNotFound`, and `StoreUnavailable` where the disk cannot be read.
        """
        reading = Reading(self.path(hash), start, end)
        try:
            with self._read_errors(hash):
                await unbroken(asyncio.to_thread(reading.begin))
            yield self._chunks(hash, reading)
        finally:
            reading.close()

    async def delete(self, hash: str) -> None:
        """Delete a blob, whoever refers to it; one that is not there is as good as deleted."""
        with _disk_errors(self._root / blob_key(hash)):
            try:
                await obstore.delete_async(self._store, blob_key(hash))
            except FileNotFoundError:
                return

    async def collect(self, unused: Unused, *, grace: float | None = None) -> int:
        """Delete what nobody refers to, holds, or wrote just now; says how many blobs it were.

        *unused* has the last word: it is asked while nobody can take hold of the blobs. Another
        *grace* than that of all collections may be given, as where there is no room left.
        """
        count, oldest = 0, time() - (self._grace if grace is None else grace)
        async for found in self._store.list(prefix=_KEPT, chunk_size=500):
            old = [meta for meta in found if meta["last_modified"].timestamp() <= oldest]
            hashes = [hash for meta in old if (hash := _hash_at(meta["path"]))]
            async with self._holds.collecting(hashes) as free:
                for hash in await unused(free) & frozenset(free) if free else ():
                    await self.delete(hash)
                    count += 1
        return count

    @asynccontextmanager
    async def _write(self, kept: KeptBytes) -> AsyncIterator[BlobWriter]:
        arriving = Arriving(self._root / _ARRIVING / secrets.token_hex(16))
        writer = BlobWriter(arriving)
        try:
            yield writer
            await unbroken(self._settle(writer, arriving, kept))
        finally:
            arriving.drop()

    async def _settle(self, writer: BlobWriter, arriving: Arriving, kept: KeptBytes) -> None:
        """Give the bytes their name, unless they are there already."""
        hash = content_hash(arriving.digest())
        target = blob_key(hash)
        await self._holds.take(hash)
        kept.hashes.append(hash)
        with _disk_errors(arriving.path):
            await asyncio.to_thread(self._keep, arriving, self._root / target)
        writer.hash, writer.location = hash, target

    def _keep(self, arriving: Arriving, target: Path) -> None:
        if not target.exists():
            arriving.become(target)
        # Also where the bytes were there: who brought them may still be waiting for this.
        self._sync_name(target.parent)

    def _sync_name(self, folder: Path) -> None:
        sync_folders(folder, folder if folder in self._lasting else self._root / _KEPT)
        self._lasting.add(folder)

    async def _chunks(self, hash: str, reading: Reading) -> AsyncIterator[bytes]:
        with self._read_errors(hash):
            while chunk := reading.take() or await unbroken(asyncio.to_thread(reading.more)):
                yield chunk

    @contextmanager
    def _read_errors(self, hash: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise BlobNotFound([hash]) from None
        except (OSError, BaseError) as error:
            raise StoreUnavailable(str(self._root), _reason(error)) from error


class KeptBytes:
    """A sink for bytes that arrive; *hashes* are the blobs they became."""

    def __init__(
        self, write: Callable[[KeptBytes], AbstractAsyncContextManager[BlobWriter]]
    ) -> None:
        self.hashes: list[str] = []
        self._write = write

    def open(
        self, name: str = "", subfolder: str = "", temp: bool = False
    ) -> AbstractAsyncContextManager[BlobWriter]:
        """Take some bytes; they are kept, for good, when the block ends without an error.

        What they were called is not for the blobs. Raises `OutputUnwritable` where the disk will
        not have them.
        """
        return self._write(self)


class BlobWriter:
    """Takes the bytes of one blob; *hash* and *location*, its key, are known at the end."""

    hash: str
    location: str

    def __init__(self, arriving: Arriving) -> None:
        self._arriving = arriving

    @property
    def size_bytes(self) -> int:
        """How many bytes came so far."""
        return self._arriving.size_bytes

    def digest(self) -> str:
        """The hash of what came so far, as hex."""
        return self._arriving.digest()

    async def write(self, chunk: bytes) -> None:
        """Take the next bytes."""
        self._arriving.take(chunk)
        if self._arriving.gathered_bytes >= _HANDED_OVER:
            with _disk_errors(self._arriving.path):
                await unbroken(asyncio.to_thread(self._arriving.write_down))


def _prepare(root: Path) -> None:
    for folder in (root / _KEPT, root / _ARRIVING):
        folder.mkdir(parents=True, exist_ok=True)
    for left in (root / _ARRIVING).iterdir():
        left.unlink(missing_ok=True)
    sync_folders(root / _KEPT, root)


def _hash_at(key: str) -> str | None:
    """The hash whose blob lies at *key*; None for a file that is none of ours."""
    hash = content_hash("".join(key.split("/")[1:]))
    return hash if _HASH.fullmatch(hash) and blob_key(hash) == key else None


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, BaseError) as error:
        raise OutputUnwritable(str(path), _reason(error)) from error


def _reason(error: Exception) -> str:
    told = error.strerror if isinstance(error, OSError) else None
    return told or str(error).partition("\n")[0]
