"""The assets that are kept, and which blobs nothing refers to."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from sqlalchemy import ColumnElement, Select, delete, exists, func, or_, select, update

from comfyserve.assets import Asset
from comfyserve.jobs import JobStatus
from comfyserve.refusals import AssetInUse, BlobNotFound, NotFound
from comfyserve.store import tables
from comfyserve.store.database import Database
from comfyserve.store.dialects import Row, Sql
from comfyserve.store.job_writes import keep_blob
from comfyserve.store.rows import Page, asset_of, dump, page_of, read_cursor, storable

_ASSETS: Final = tables.assets.c
_OVER: Final = tuple(str(status) for status in JobStatus if status.is_terminal)


class Assets:
    """Everything that can be done with kept assets.

    Where an *owner* is given, assets of others are not there; nor is one whose ``expires_at`` is
    past. All raise `StoreUnavailable` where the database fails.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, asset: Asset) -> bool:
        """Keep an asset over bytes that are kept; hold the bytes (`Blobs.hold`) meanwhile.

        Says whether the bytes were unknown before.
        """
        return await self._database.do(lambda sql: _add(sql, asset))

    async def get(self, asset_id: str, owner: str | None = None) -> Asset:
        """The asset. Raises `NotFound`."""
        now = self._database.now()
        row = await self._database.look(lambda sql: _find(sql, asset_id, owner, now))
        if row is None:
            raise NotFound("asset", asset_id)
        return asset_of(row)

    async def of_hash(
        self, hash: str, owner: str | None = None, *, file_path: str | None = None
    ) -> Asset | None:
        """The newest asset over these bytes, with that *file_path* where one is given."""
        query = self._there(owner).where(_ASSETS.hash == hash).order_by(_ASSETS.number.desc())
        if file_path is not None:
            query = query.where(_ASSETS.file_path == file_path)
        row = await self._database.row(query.limit(1))
        return None if row is None else asset_of(row)

    async def reference(self, hash: str, owner: str, file_path: str | None) -> Asset | None:
        """The newest asset over these bytes that its owner brought under just this name."""
        query = self._there(owner).where(
            _ASSETS.hash == hash,
            _ASSETS.file_path.is_not_distinct_from(file_path),
            _ASSETS.job_id.is_(None),
        )
        row = await self._database.row(query.order_by(_ASSETS.number.desc()).limit(1))
        return None if row is None else asset_of(row)

    async def several(
        self,
        asset_ids: Collection[str],
        owner: str | None = None,
        *,
        hashes: Collection[str] = (),
    ) -> list[Asset]:
        """Those of the assets that are there, and all over bytes with one of the *hashes*; the
        newest last."""
        wanted = or_(_ASSETS.id.in_(asset_ids), _ASSETS.hash.in_(hashes))
        query = self._there(owner).where(wanted).order_by(_ASSETS.number)
        return [asset_of(row) for row in await self._database.rows(query)]

    async def list(
        self, owner: str | None = None, *, cursor: str | None = None, limit: int = 50
    ) -> Page[Asset]:
        """The assets, newest first. Raises `InvalidCursor`."""
        query = self._there(owner).order_by(_ASSETS.number.desc()).limit(limit + 1)
        if cursor is not None:
            query = query.where(_ASSETS.number < read_cursor(cursor))
        rows = await self._database.rows(query)
        return page_of(rows, [asset_of(row) for row in rows], limit)

    async def extend(self, asset_id: str, expires_at: float | None) -> None:
        """Keep an asset at least until then, or for ever; never shorter than before."""
        later = update(tables.assets).where(_ASSETS.id == asset_id)
        if expires_at is not None:
            later = later.where(_ASSETS.expires_at < expires_at)
        async with self._database.writing() as connection:
            await connection.execute(later.values(expires_at=expires_at))

    async def delete(self, asset_id: str, owner: str | None = None) -> None:
        """Forget the record; the bytes stay while anything else refers to them.

        Raises `NotFound`, and `AssetInUse` while a job that is not over needs it.
        """
        using = (
            select(tables.jobs.c.id)
            .join(tables.job_files, tables.job_files.c.job_id == tables.jobs.c.id)
            .where(tables.job_files.c.asset_id == asset_id, tables.jobs.c.status.not_in(_OVER))
        )
        async with self._database.writing() as connection:
            there = self._there(owner).where(_ASSETS.id == asset_id)
            if (await connection.execute(there)).first() is None:
                raise NotFound("asset", asset_id)
            if (job_id := await connection.scalar(using.limit(1))) is not None:
                raise AssetInUse(asset_id, job_id)
            await connection.execute(delete(tables.assets).where(_ASSETS.id == asset_id))

    async def delete_expired(self, before: float, limit: int = 200) -> int:
        """Forget assets whose time was over before then, except those that a job still needs.

        Outputs go with their jobs, not before. Says how many it were.
        """
        in_use = exists().where(
            tables.job_files.c.asset_id == _ASSETS.id,
            tables.job_files.c.job_id == tables.jobs.c.id,
            tables.jobs.c.status.not_in(_OVER),
        )
        due = (
            select(_ASSETS.id)
            .where(_ASSETS.expires_at < before, _ASSETS.job_id.is_(None), ~in_use)
            .order_by(_ASSETS.expires_at)
            .limit(limit)
        )
        async with self._database.writing() as connection:
            done = await connection.execute(delete(tables.assets).where(_ASSETS.id.in_(due)))
        return done.rowcount

    async def forget_unused_blobs(self, hashes: Sequence[str]) -> frozenset[str]:
        """Those of the blobs that nothing refers to. From then on nothing can, until their bytes
        are kept anew; so the caller may delete them (see `Blobs.collect`)."""
        async with self._database.writing() as connection:
            used = select(tables.blobs.c.hash).where(tables.blobs.c.hash.in_(hashes), _is_used())
            kept = set((await connection.execute(used)).scalars())
            unused = frozenset(hashes) - kept
            await connection.execute(delete(tables.blobs).where(tables.blobs.c.hash.in_(unused)))
        return unused

    async def total_bytes(self) -> int:
        """The size of all kept bytes, those that several assets share counted once."""
        row = await self._database.row(select(func.sum(tables.blobs.c.size_bytes).label("size")))
        return 0 if row is None else int(row["size"] or 0)

    def _there(self, owner: str | None) -> Select[tuple[object, ...]]:
        unexpired = or_(_ASSETS.expires_at.is_(None), _ASSETS.expires_at > self._database.now())
        query: Select[tuple[object, ...]] = (
            select(tables.assets, tables.blobs.c.size_bytes)
            .join(tables.blobs, tables.blobs.c.hash == _ASSETS.hash)
            .where(unexpired)
        )
        return query if owner is None else query.where(_ASSETS.owner == owner)


def _is_used() -> ColumnElement[bool]:
    hash = tables.blobs.c.hash
    return or_(
        exists().where(tables.assets.c.hash == hash),
        exists().where(tables.job_files.c.hash == hash),
    )


def _find(sql: Sql, asset_id: str, owner: str | None, now: float) -> Row | None:
    """What `Assets._there` finds by its id; here, because it is asked for with every download."""
    return sql.row(
        "SELECT assets.*, blobs.size_bytes FROM assets JOIN blobs ON blobs.hash = assets.hash"
        " WHERE assets.id = :id AND (assets.expires_at IS NULL OR assets.expires_at > :now)"
        " AND (:owner IS NULL OR assets.owner = :owner)",
        id=asset_id,
        owner=owner,
        now=now,
    )


def _add(sql: Sql, asset: Asset) -> bool:
    are_new = keep_blob(sql, asset.hash, asset.size_bytes, asset.created_at)
    kept = sql.row("SELECT size_bytes FROM blobs WHERE hash = :hash", hash=asset.hash)
    if kept is None or kept["size_bytes"] != asset.size_bytes:
        raise BlobNotFound([asset.hash])
    sql.change(
        "INSERT INTO assets (id, owner, hash, content_type, file_path, tags, job_id, created_at,"
        " expires_at) VALUES (:id, :owner, :hash, :content_type, :file_path, :tags, :job_id,"
        " :created_at, :expires_at)",
        id=asset.id,
        owner=asset.owner,
        hash=asset.hash,
        content_type=asset.content_type,
        file_path=None if asset.file_path is None else storable(asset.file_path),
        tags=dump(asset.tags),
        job_id=asset.job_id,
        created_at=asset.created_at,
        expires_at=asset.expires_at,
    )
    return are_new
