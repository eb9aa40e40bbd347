"""The assets for those who bring, name and use them: upload, dedup, references, retention.

Bytes are written and hashed while they arrive, and last before they are announced. Nobody gets at
bytes of which he has no asset himself: a hash alone opens nothing.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Final
from uuid import uuid4

from comfyserve.asset_library.room import Arrival, Room
from comfyserve.asset_library.staging import Resolved, Wanted
from comfyserve.assets import HEAD_SIZE, Asset, content_type
from comfyserve.blobs import Blobs, BlobWriter
from comfyserve.denials import InvalidRequest, PayloadTooLarge
from comfyserve.errors import ComfyServeError
from comfyserve.refusals import BlobNotFound, HashMismatch, NotFound
from comfyserve.store import Assets, IdempotencyKeys, UsedKey
from comfyserve.unbroken import unbroken
from comfyserve.workflows.graph import Graph, shown

SHORTEST: Final = 60
"""The fewest seconds that a caller may want an asset kept for."""

LONGEST: Final = 604_800
"""The most seconds that a caller may want an asset kept for."""

_LONGEST_PATH: Final = 1024
_MOST_TAGS: Final = 64
_LONGEST_TAG: Final = 256
_MOST_AT_ONCE: Final = 5000
"""How many assets one query asks for; databases take no more values than so and so many."""

_SWEEP: Final = 200
"""How many expired assets are forgotten in one transaction."""

_HASH: Final = re.compile(r"blake3:[0-9a-f]{64}")
_MIME: Final = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,63}/[a-z0-9][a-z0-9!#$&^_.+-]{0,63}")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_UNKNOWN: Final = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Minted:
    """An asset that somebody asked for.

    *created_new* tells that nobody had brought its bytes before, *is_same* that the asset was
    there already and now is kept at least as long as asked.
    """

    asset: Asset
    created_new: bool
    is_same: bool = False


@dataclass(frozen=True, slots=True)
class UploadDetails:
    """What a caller says of the bytes he brings; *expires_in* is in seconds."""

    file_path: str
    declared_type: str | None = None
    expected_hash: str | None = None
    tags: Sequence[str] = ()
    expires_in: int | None = None


class AssetLibrary:
    """All assets of a server. Where an *owner* is given, those of others are not there.

    Uploads are kept for *retention* seconds if nothing else is asked, and may have *upload_cap*
    bytes each; all kept bytes together *disk_cap*, where one is given. All raise
    `StoreUnavailable` where the database or the disk fails.
    """

    def __init__(
        self,
        assets: Assets,
        blobs: Blobs,
        idempotency: IdempotencyKeys,
        *,
        retention: float,
        upload_cap: int,
        disk_cap: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._assets = assets
        self._blobs = blobs
        self._idempotency = idempotency
        self._retention = retention
        self._upload_cap = upload_cap
        self._clock = clock
        self._room = Room(assets, disk_cap, self._sweep)
        self._minting = asyncio.Lock()
        self._sweeping = asyncio.Lock()
        self._sweeps = 0

    async def upload(
        self,
        chunks: AsyncIterable[bytes],
        *,
        owner: str = "",
        file_path: str,
        declared_type: str | None = None,
        expected_hash: str | None = None,
        tags: Sequence[str] = (),
        expires_in: int | None = None,
        key: UsedKey | None = None,
    ) -> Minted:
        """Keep the bytes that come, and mint an asset over them.

        The content tells its type; *declared_type* counts only where it tells nothing. Where
        this raises, nothing is kept and the key is good again. Raises `InvalidRequest`,
        `PayloadTooLarge`, `HashMismatch`, `DiskCapReached`, `IdempotencyKeyReused` and
        `OutputUnwritable`.
        """
        details = UploadDetails(file_path, declared_type, expected_hash, tags, expires_in)
        self._asked(owner, details)
        return await self.upload_told_later(chunks, lambda: details, owner=owner, key=key)

    async def upload_told_later(
        self,
        chunks: AsyncIterable[bytes],
        details: Callable[[], UploadDetails],
        *,
        owner: str = "",
        key: UsedKey | None = None,
    ) -> Minted:
        """`upload` for who knows what the bytes are only once they all came."""
        await self.refuse_when_full()
        async with self._using(key) as use, self._blobs.keeping() as kept:
            with self._room.arriving() as arrival:
                async with kept.open() as writer:
                    head = await self._take(chunks, writer, arrival)
                    told = details()
                    asked = self._asked(owner, told)
                    _check_hash(writer, told.expected_hash)
                type = _type_of(head, told.file_path, told.declared_type)
                asset = asked.asset(writer.hash, writer.size_bytes, type, self._clock())
                return await unbroken(self._mint(asset, use))

    async def from_hash(
        self,
        hash: str,
        *,
        owner: str = "",
        file_path: str | None = None,
        tags: Sequence[str] = (),
        expires_in: int | None = None,
    ) -> Minted:
        """An asset over bytes of which the owner has one, under another name or for longer.

        One that he brought under just this name is given again. Raises `BlobNotFound`, also for
        the bytes of others, and `InvalidRequest`.
        """
        asked = _Asked.of(owner, file_path, tags, self._kept_for(expires_in))
        if not _HASH.fullmatch(hash):
            raise BlobNotFound([hash])
        async with self._minting, self._blobs.hold(hash):
            source = await self._assets.of_hash(hash, owner)
            if source is None:
                raise BlobNotFound([hash])
            if (same := await self._same(hash, asked)) is not None:
                return Minted(same, created_new=False, is_same=True)
            asset = asked.asset(hash, source.size_bytes, source.content_type, self._clock())
            return replace(await unbroken(self._mint(asset, _Use())), created_new=False)

    async def has(self, hash: str, owner: str = "") -> bool:
        """Whether `from_hash` would give an asset."""
        if not _HASH.fullmatch(hash) or await self._assets.of_hash(hash, owner) is None:
            return False
        return await self._blobs.exists(hash)

    async def get(self, asset_id: str, owner: str | None = None) -> Asset:
        """The asset. Raises `NotFound`."""
        if _CONTROL.search(asset_id):  # no database takes all of them
            raise NotFound("asset", asset_id)
        return await self._assets.get(asset_id, owner)

    async def delete(self, asset_id: str, owner: str | None = None) -> None:
        """Forget the asset; its bytes go once nothing refers to them any more.

        Raises `NotFound`, and `AssetInUse` while a job that is not over needs it.
        """
        await self.get(asset_id, owner)
        await self._assets.delete(asset_id, owner)
        self._room.forget_size()

    def content(
        self, asset: Asset, start: int = 0, end: int | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Its bytes from *start* up to before *end*, in chunks. Raises `BlobNotFound`."""
        return self._blobs.read(asset.hash, start, end)

    async def resolve(self, graph: Graph, owner: str = "") -> Resolved:
        """The graph as it can run, with the files it needs, for its references to assets.

        What a reference says besides its id is never believed. Raises `MissingAsset`, naming all
        that are not there or say nothing. Until the job is submitted an asset may still go; then
        submitting raises `BlobNotFound`.
        """
        wanted = Wanted.of(graph)
        ids = [id for id in wanted.ids if not _CONTROL.search(id)]
        hashes = [hash for hash in wanted.hashes if _HASH.fullmatch(hash)]
        found: list[Asset] = []
        for start in range(0, max(len(ids), len(hashes)), _MOST_AT_ONCE):
            some = slice(start, start + _MOST_AT_ONCE)
            found += await self._assets.several(ids[some], owner, hashes=hashes[some])
        return wanted.resolved(found)

    async def sweep(self) -> None:
        """Forget the assets whose time is over, and delete the bytes that nothing refers to."""
        await self._sweep(grace=None)

    async def refuse_when_full(self) -> None:
        """Raise `DiskCapReached` while all kept bytes are as many as may be, also after a sweep."""
        await self._room.refuse_when_full()

    def _asked(self, owner: str, told: UploadDetails) -> _Asked:
        return _Asked.of(owner, told.file_path, told.tags, self._kept_for(told.expires_in))

    def _kept_for(self, expires_in: int | None) -> float:
        if expires_in is None:
            return self._retention
        if isinstance(expires_in, bool) or not SHORTEST <= expires_in <= LONGEST:
            raise InvalidRequest(
                f"expires_in is {shown(expires_in)}. It takes {SHORTEST} to {LONGEST:,} seconds.",
                {"field": "expires_in"},
            )
        return float(expires_in)

    async def _take(
        self, chunks: AsyncIterable[bytes], writer: BlobWriter, arrival: Arrival
    ) -> bytes:
        """Write what comes, as much as may come; how it begins."""
        head = b""
        async for chunk in chunks:
            if writer.size_bytes + len(chunk) > self._upload_cap:
                raise PayloadTooLarge("An asset", self._upload_cap)
            await arrival.grow(len(chunk))
            await writer.write(chunk)
            if len(head) < HEAD_SIZE:
                head += chunk[: HEAD_SIZE - len(head)]
        return head

    async def _mint(self, asset: Asset, use: _Use) -> Minted:
        are_new = await self._assets.add(asset)
        use.is_spent = True
        if are_new:
            self._room.note(asset.size_bytes)
        return Minted(asset, created_new=are_new)

    async def _same(self, hash: str, asked: _Asked) -> Asset | None:
        """The reference that is there already, its time extended."""
        same = await self._assets.reference(hash, asked.owner, asked.file_path)
        if same is None:
            return None
        await self._assets.extend(same.id, self._clock() + asked.seconds)
        with suppress(NotFound):  # it went in this moment, so another is made
            return await self._assets.get(same.id, asked.owner)
        return None

    @asynccontextmanager
    async def _using(self, key: UsedKey | None) -> AsyncIterator[_Use]:
        """Use a key up for the block; where it ends without what it was for, it is good again."""
        use = _Use()
        if key is not None:
            await self._idempotency.use(key)
        try:
            yield use
        except BaseException:
            if key is not None and not use.is_spent:
                with suppress(ComfyServeError):  # why the block ended is the news
                    await unbroken(self._idempotency.release(key))
            raise

    async def _sweep(self, *, grace: float | None) -> None:
        begun = self._sweeps
        async with self._sweeping:
            if self._sweeps > begun:  # one began after this was asked for, and is over
                return
            self._sweeps += 1
            while await self._assets.delete_expired(self._clock(), _SWEEP) == _SWEEP:
                continue
            await self._blobs.collect(self._assets.forget_unused_blobs, grace=grace)
            self._room.forget_size()


@dataclass(slots=True)
class _Use:
    """Whether what a key was used for came to be."""

    is_spent: bool = False


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a caller wants an asset to be like."""

    owner: str
    file_path: str | None
    tags: tuple[str, ...]
    seconds: float

    @classmethod
    def of(cls, owner: str, file_path: str | None, tags: Sequence[str], seconds: float) -> _Asked:
        path = None if file_path is None else _checked_path(file_path)
        return cls(owner, path, _checked_tags(tags), seconds)

    def asset(self, hash: str, size_bytes: int, type: str, now: float) -> Asset:
        return Asset(
            id=str(uuid4()),
            owner=self.owner,
            hash=hash,
            size_bytes=size_bytes,
            content_type=type,
            created_at=now,
            file_path=self.file_path,
            tags=self.tags,
            expires_at=now + self.seconds,
        )


def _check_hash(writer: BlobWriter, expected: str | None) -> None:
    found = f"blake3:{writer.digest()}"
    if expected is not None and expected.strip().lower() != found:
        raise HashMismatch(expected, found)


def _type_of(head: bytes, name: str, declared: str | None) -> str:
    told = content_type(head, name) if head else _UNKNOWN
    wished = (declared or "").partition(";")[0].strip().lower()
    return wished if told == _UNKNOWN and _MIME.fullmatch(wished) else told


def _checked_path(path: str) -> str:
    """The name that somebody gave a file, folders and all, written with slashes.

    It never leads to a file of ours; but who gets it back may use it as one.
    """
    parts = [part for part in path.replace("\\", "/").split("/") if part not in ("", ".")]
    if len(path) > _LONGEST_PATH:
        problem = f"has {len(path):,} characters; {_LONGEST_PATH:,} is the most"
    elif not parts:
        problem = f"is {shown(path)}, which names no file"
    elif _CONTROL.search(path):
        problem = "holds characters that no name has"
    elif path[0] in "/\\" or re.match(r"[A-Za-z]:", path):
        problem = f"is {shown(path)}. It has to be relative, such as 'photo.png'"
    elif ".." in parts:
        problem = f"is {shown(path)}. It cannot lead out of its folder with '..'"
    else:
        return "/".join(parts)
    raise InvalidRequest(f"file_path {problem}.", {"field": "file_path"})


def _checked_tags(tags: Sequence[str]) -> tuple[str, ...]:
    if len(tags) > _MOST_TAGS:
        problem = f"There are {len(tags)} tags; {_MOST_TAGS} is the most."
    elif any(len(tag) > _LONGEST_TAG or not tag or _CONTROL.search(tag) for tag in tags):
        problem = f"A tag has 1 to {_LONGEST_TAG} characters, and none of them is a control one."
    else:
        return tuple(dict.fromkeys(tags))
    raise InvalidRequest(problem, {"field": "tags"})
