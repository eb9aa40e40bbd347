"""Idempotency keys: each is good for one request, until its time is over."""

from __future__ import annotations

from typing import Final

from sqlalchemy import delete

from comfyserve.store import tables
from comfyserve.store.database import Database
from comfyserve.store.submissions import UsedKey, use_key

_KEYS: Final = tables.idempotency_keys.c


class IdempotencyKeys:
    """The keys that were used. A job's own is used up by `Jobs.submit`, together with the job."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def use(self, key: UsedKey) -> None:
        """Use a key up. Raises `IdempotencyKeyReused` where it was before."""
        now = self._database.now()
        await self._database.do(lambda sql: use_key(sql, key, now))

    async def release(self, key: UsedKey) -> None:
        """Make a key good again, as nothing came of its request; a job's key stays used."""
        async with self._database.writing() as connection:
            await connection.execute(
                delete(tables.idempotency_keys).where(
                    _KEYS.owner == key.owner,
                    _KEYS.route == key.route,
                    _KEYS.key == key.key,
                    _KEYS.job_id.is_(None),
                )
            )

    async def delete_expired(self, before: float) -> int:
        """Forget the keys whose time was over before then; says how many it were."""
        async with self._database.writing() as connection:
            over = delete(tables.idempotency_keys).where(_KEYS.expires_at < before)
            return (await connection.execute(over)).rowcount
