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
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import time
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import obstore
from blake3 import blake3
from obstore.exceptions import BaseError
from obstore.store import LocalStore

from comfyserve.assets import content_hash
from comfyserve.blobs.durable import sync_file, sync_folders
from comfyserve.blobs.holds import Holds
from comfyserve.errors import OutputUnwritable
from comfyserve.refusals import BlobNotFound, StoreUnavailable
from comfyserve.unbroken import unbroken

if TYPE_CHECKING:
    from obstore import AsyncWritableFile

BUFFER_SIZE: Final = 1 << 20
"""Bytes that are gathered before they go to the disk."""

_READ_SIZE: Final = 1 << 18

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
    """The blobs of one folder. One process writes there; any number may read."""

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
        blob = await self.head(hash)
        end = blob.size_bytes if end is None else min(end, blob.size_bytes)
        if start < 0 or start >= end:
            yield _nothing()
            return
        with self._read_errors(hash):
            found = await obstore.get_async(
                self._store, blob_key(hash), options={"range": (start, end)}
            )
        yield self._chunks(hash, found.stream(min_chunk_size=_READ_SIZE))

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
        arriving = f"{_ARRIVING}/{secrets.token_hex(16)}"
        path = self._root / arriving
        file = obstore.open_writer_async(
            self._store, arriving, buffer_size=BUFFER_SIZE, max_concurrency=1
        )
        try:
            async with BlobWriter(file, path) as writer:
                yield writer
            await unbroken(self._settle(arriving, writer, kept))
        finally:
            # Where a thread still has it open, Windows keeps it, and the next `open` removes it.
            with suppress(OSError):
                path.unlink(missing_ok=True)

    async def _settle(self, arriving: str, writer: BlobWriter, kept: KeptBytes) -> None:
        """Give the bytes their name, unless they are there already."""
        hash = content_hash(writer.digest())
        target = blob_key(hash)
        await self._holds.take(hash)
        kept.hashes.append(hash)
        with _disk_errors(self._root / target):
            if not await self.exists(hash):
                await asyncio.to_thread(sync_file, self._root / arriving)
                await obstore.rename_async(self._store, arriving, target)
            # Also where the bytes were there: who brought them may still be waiting for this.
            await asyncio.to_thread(self._sync_name, (self._root / target).parent)
        writer.hash, writer.location = hash, target

    def _sync_name(self, folder: Path) -> None:
        sync_folders(folder, folder if folder in self._lasting else self._root)
        self._lasting.add(folder)

    async def _chunks(self, hash: str, stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        with self._read_errors(hash):
            async for chunk in stream:
                yield bytes(chunk)

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

    def __init__(self, file: AsyncWritableFile, path: Path) -> None:
        self.size_bytes = 0
        self._file = file
        self._path = path
        self._hasher = blake3()
        self._gathered: list[bytes] = []
        self._gathered_bytes = 0

    async def __aenter__(self) -> Self:
        await self._file.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with _disk_errors(self._path):
            try:
                if error is None:
                    await self._hand_over()
            finally:
                await unbroken(self._file.__aexit__(kind, error, trace))

    async def write(self, chunk: bytes) -> None:
        """Take the next bytes."""
        self._hasher.update(chunk)
        self.size_bytes += len(chunk)
        self._gathered.append(chunk)
        self._gathered_bytes += len(chunk)
        if self._gathered_bytes >= _HANDED_OVER:
            with _disk_errors(self._path):
                await self._hand_over()

    async def _hand_over(self) -> None:
        gathered, self._gathered, self._gathered_bytes = self._gathered, [], 0
        if gathered:
            whole = gathered[0] if len(gathered) == 1 else b"".join(gathered)
            await unbroken(self._file.write(whole))

    def digest(self) -> str:
        """The hash of what came so far, as hex."""
        return self._hasher.hexdigest()


def _prepare(root: Path) -> None:
    for folder in (root / _KEPT, root / _ARRIVING):
        folder.mkdir(parents=True, exist_ok=True)
    for left in (root / _ARRIVING).iterdir():
        left.unlink(missing_ok=True)


def _hash_at(key: str) -> str | None:
    """The hash whose blob lies at *key*; None for a file that is none of ours."""
    hash = content_hash("".join(key.split("/")[1:]))
    return hash if _HASH.fullmatch(hash) and blob_key(hash) == key else None


async def _nothing() -> AsyncIterator[bytes]:
    for chunk in list[bytes]():
        yield chunk


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, BaseError) as error:
        raise OutputUnwritable(str(path), _reason(error)) from error


def _reason(error: Exception) -> str:
    told = error.strerror if isinstance(error, OSError) else None
    return told or str(error).partition("\n")[0]
