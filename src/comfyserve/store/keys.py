"""The API keys that were made: who may do what, and how often.

>>> Rate.parse("60/m")
Rate(amount=60, seconds=60)
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hmac import compare_digest
from typing import Final, Self

from comfyserve.denials import InvalidRequest, KeyNameTaken, KeyNotFound
from comfyserve.errors import nearest
from comfyserve.store import tables
from comfyserve.store.counters import counted, increase
from comfyserve.store.database import Database
from comfyserve.store.dialects import Row, Sql
from comfyserve.store.rows import dump

CHANGES: Final = "keys"
"""The counter that every change of a key but its use increases."""

USE_NOTED_EVERY: Final = 60.0
"""Seconds in which the use of a key is noted once at most."""

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_RATE: Final = re.compile(
    r"(?P<amount>[1-9]\d{0,8})\s*/\s*"
    r"(?:(?P<s>s|sec|seconds?)|(?P<m>m|min|minutes?)|(?P<h>h|hours?)|(?P<d>d|days?))"
)


@dataclass(frozen=True, slots=True)
class Rate:
    """How often something may be done: *amount* times in any *seconds*."""

    amount: int
    seconds: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """The rate that a text such as ``60/m``, ``5/s`` or ``1000/day`` means.

        Raises `InvalidRequest`.
        """
        if (match := _RATE.fullmatch(text.strip().lower())) is None:
            raise InvalidRequest(
                f"{text[:40]!r} is no rate. Give a whole number from 1 and a time, "
                "such as 5/s, 60/m, 500/h or 1000/day."
            )
        return cls(int(match["amount"]), next(_UNITS[unit] for unit in _UNITS if match[unit]))

    def __str__(self) -> str:
        unit = next((unit for unit, size in _UNITS.items() if size == self.seconds), None)
        return f"{self.amount}/{unit or f'{self.seconds}s'}"


@dataclass(frozen=True, slots=True)
class Key:
    """A key, without its secret. What it makes belongs to its `owner`, which is itself.

    *workflows* are the names of those it may run, None for all; *concurrent* is how many of its
    jobs may be unfinished at once, *priority_max* the highest priority it may ask for. Times are
    seconds since the epoch; *last_used_at* is exact to a minute.
    """

    id: str
    name: str
    created_at: float
    workflows: tuple[str, ...] | None = None
    may_graphs: bool = False
    may_publish: bool = False
    is_admin: bool = False
    rate: Rate | None = None
    concurrent: int | None = None
    priority_max: int = 0
    revoked_at: float | None = None
    last_used_at: float | None = None

    @property
    def owner(self) -> str:
        """Who owns what is made with the key."""
        return self.id

    @property
    def is_living(self) -> bool:
        """It was not revoked."""
        return self.revoked_at is None


@dataclass(frozen=True, slots=True)
class KnownKeys:
    """All keys at one moment; *change* is what the counter `CHANGES` said then."""

    change: int
    _by_place: Mapping[str, tuple[str, Key]] = field(repr=False)

    def __len__(self) -> int:
        return len(self._by_place)

    def __iter__(self) -> Iterator[Key]:
        return (key for _, key in self._by_place.values())

    def of(self, secret_hash: str) -> Key | None:
        """The key whose secret has this hash.

        Found by the hash's beginning and then compared in a time that is always the same.
        """
        known, key = self._by_place.get(_place(secret_hash), ("", None))
        return key if compare_digest(known, secret_hash) else None


def _place(secret_hash: str) -> str:
    return secret_hash[:32]


class Keys:
    """Everything that can be done with kept keys. Secrets never come here, only their hashes.

    All raise `StoreUnavailable` where the database fails.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, key: Key, secret_hash: str) -> None:
        """Keep a new key. Raises `KeyNameTaken` where a living one has its name."""
        await self._database.do(lambda sql: _add(sql, key, secret_hash))

    async def list(self) -> tuple[Key, ...]:
        """Every key, revoked ones too, the oldest first."""
        return await self._database.look(lambda sql: tuple(map(_key_of, _all(sql))))

    async def known(self, unless: int | None = None) -> KnownKeys | None:
        """Every key, to be found by its secret's hash; None where nothing changed since *unless*.

        That is one look at one row, so it may be asked again and again.
        """
        return await self._database.look(lambda sql: _known(sql, unless))

    async def revoke(self, name_or_id: str) -> Key:
        """End a living key for ever. Raises `KeyNotFound`."""
        now = self._database.now()
        return await self._database.do(lambda sql: _revoke(sql, name_or_id, now))

    async def forget_all(self) -> int:
        """Forget every key, living or revoked, as if none had ever been made.

        Says how many they were.
        """
        return await self._database.do(_forget_all)

    async def note_use(self, key_id: str) -> None:
        """Note that the key was used now, unless that was noted a moment ago."""
        now = self._database.now()
        await self._database.do(lambda sql: _note_use(sql, key_id, now))

    def now(self) -> float:
        """The time as the store sees it, in seconds since the epoch."""
        return self._database.now()


def _add(sql: Sql, key: Key, secret_hash: str) -> None:
    is_new = sql.change(
        "INSERT INTO keys (id, name, secret_hash, workflows, may_graphs, may_publish, is_admin,"
        " rate, concurrent, priority_max, created_at) VALUES (:id, :name, :secret_hash,"
        " :workflows, :may_graphs, :may_publish, :is_admin, :rate, :concurrent, :priority_max,"
        " :created_at) ON CONFLICT DO NOTHING",
        id=key.id,
        name=key.name,
        secret_hash=secret_hash,
        workflows=None if key.workflows is None else dump(key.workflows),
        may_graphs=key.may_graphs,
        may_publish=key.may_publish,
        is_admin=key.is_admin,
        rate=None if key.rate is None else dump([key.rate.amount, key.rate.seconds]),
        concurrent=key.concurrent,
        priority_max=key.priority_max,
        created_at=key.created_at,
    )
    if not is_new:
        raise KeyNameTaken(key.name)
    increase(sql, CHANGES)


def _all(sql: Sql) -> Sequence[Row]:
    return sql.rows("SELECT * FROM keys ORDER BY number")


def _known(sql: Sql, unless: int | None) -> KnownKeys | None:
    change = counted(sql, CHANGES)
    if change == unless:
        return None
    keys = ((row["secret_hash"], _key_of(row)) for row in _all(sql))
    return KnownKeys(change, {_place(hash): (hash, key) for hash, key in keys})


def _revoke(sql: Sql, name_or_id: str, now: float) -> Key:
    row = sql.row(
        "UPDATE keys SET revoked_at = :now WHERE number = (SELECT number FROM keys"
        f" WHERE {tables.LIVING} AND (id = :wanted OR name = :wanted)"
        " ORDER BY CASE WHEN id = :wanted THEN 0 ELSE 1 END LIMIT 1) RETURNING *",
        wanted=name_or_id,
        now=now,
    )
    if row is None:
        raise _not_found(sql, name_or_id)
    increase(sql, CHANGES)
    return _key_of(row)


def _not_found(sql: Sql, name_or_id: str) -> KeyNotFound:
    there = sql.row("SELECT 1 AS n FROM keys WHERE id = :it OR name = :it LIMIT 1", it=name_or_id)
    living = sql.rows(f"SELECT name FROM keys WHERE {tables.LIVING} ORDER BY name")
    names = [row["name"] for row in living]
    return KeyNotFound(name_or_id, was_revoked=there is not None, near=nearest(name_or_id, names))


def _forget_all(sql: Sql) -> int:
    increase(sql, CHANGES)
    return sql.change("DELETE FROM keys")


def _note_use(sql: Sql, key_id: str, now: float) -> None:
    # Asked of the database too, as each process that serves notes for itself.
    sql.change(
        "UPDATE keys SET last_used_at = :now WHERE id = :id"
        " AND (last_used_at IS NULL OR last_used_at <= :before)",
        id=key_id,
        now=now,
        before=now - USE_NOTED_EVERY,
    )


def _key_of(row: Row) -> Key:
    workflows, rate = (
        None if row[name] is None else json.loads(row[name]) for name in ("workflows", "rate")
    )
    return Key(
        id=row["id"],
        name=row["name"],
        created_at=row["created_at"],
        workflows=None if workflows is None else tuple(workflows),
        may_graphs=bool(row["may_graphs"]),
        may_publish=bool(row["may_publish"]),
        is_admin=bool(row["is_admin"]),
        rate=None if rate is None else Rate(*rate),
        concurrent=row["concurrent"],
        priority_max=row["priority_max"],
        revoked_at=row["revoked_at"],
        last_used_at=row["last_used_at"],
    )
