"""The keys of a server: made, ended, and asked for with every request."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self
from uuid import uuid4

from comfyserve.access.callers import Caller
from comfyserve.access.key_secrets import PREFIX, hash_of, is_whole, new_secret
from comfyserve.access.links import Links
from comfyserve.denials import InvalidRequest, KeyNotFound, TooManyJobs, Unauthorized
from comfyserve.refusals import StoreUnavailable
from comfyserve.store import DATABASE_NAME, Key, KnownKeys, Rate, Store
from comfyserve.store.keys import USE_NOTED_EVERY

if TYPE_CHECKING:
    from comfyserve.access.rates import Rates

NOTICED_WITHIN: Final = 1.0
"""Seconds until what another process did to the keys holds here."""

_NOTED_WITHIN: Final = 1.0
_MOST_LETTERS: Final = 100
_MOST: Final = 2**31 - 1

_MISSING: Final = "This server asks for a key. Send yours as 'Authorization: Bearer cs_...'."
_BROKEN: Final = "This is no whole key: it was mistyped or cut. Copy it again, from cs_ to its end."
_UNKNOWN: Final = "This key is not known here. Is it for another server?"
_REVOKED: Final = "This key was revoked. Ask for a new one."


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made, and its *secret*, which can never be had again."""

    key: Key
    secret: str = field(repr=False)


class Access:
    """Who may ask for what; see `Access.open`.

    Once a key was made, every request needs one, and that stays so when all are revoked: a server
    does not open up because somebody ended the last key. `reset` opens it again. Several processes
    may share the keys: what one does to them, the others notice within `NOTICED_WITHIN`.
    """

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self.links = Links(store)
        self._keys = store.keys
        self._jobs = store.jobs
        self._known = KnownKeys(-1, {})
        self._by_id: dict[str, Key] = {}
        self._clock = clock
        self._looking = asyncio.Lock()
        self._looked_at = -inf
        self._looks_begun = 0
        self._last_look = 0
        self._noted: dict[str, float] = {}
        self._places: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._rates: Rates | None = None

    @classmethod
    async def open(cls, store: Store, *, clock: Callable[[], float] = time.monotonic) -> Self:
        """The keys in *store*, for as long as it is open.

        *clock* counts seconds from anywhere. All methods raise `StoreUnavailable` where the
        database fails, rather than let anybody in.
        """
        access = cls(store, clock)
        await access._look()
        return access

    async def asks_for_keys(self) -> bool:
        """Whether every request needs a key."""
        await self._look_now_and_then()
        return len(self._known) > 0

    async def of(self, token: str | None) -> Caller:
        """Who sends this token, the secret of a key; any or none where no key is needed.

        Raises `Unauthorized`, saying what is wrong with it but never the token.
        """
        await self._look_now_and_then()
        key = await self._find(token) if token and is_whole(token) else None
        if not self._known:
            return Caller()
        if not token:
            raise Unauthorized(_MISSING)
        if key is None:
            raise Unauthorized(_UNKNOWN if is_whole(token) else _BROKEN)
        if not key.is_living:
            raise Unauthorized(_REVOKED)
        await self._note_use(key)
        return Caller(key)

    async def renewed(self, caller: Caller) -> Caller:
        """The caller as it is by now, for who stays longer than a request takes.

        Raises `Unauthorized` where its key was ended, or where one is needed now.
        """
        if caller.key is None:
            return await self.of(None)
        await self._look_now_and_then()
        key = self._by_id.get(caller.key.id)
        if key is None or not key.is_living:
            raise Unauthorized(_UNKNOWN if key is None else _REVOKED)
        return Caller(key)

    async def create(
        self,
        name: str,
        *,
        workflows: Iterable[str] | None = None,
        may_graphs: bool = False,
        may_publish: bool = False,
        is_admin: bool = False,
        rate: Rate | str | None = None,
        concurrent: int | None = None,
        priority_max: int = 0,
    ) -> NewKey:
        """Make a key; see `Key` for what it may. Without *workflows* it may run all of them.

        Raises `InvalidRequest`, and `KeyNameTaken` where a living key has the name.
        """
        key = Key(
            id=str(uuid4()),
            name=_checked_name(name),
            created_at=self._keys.now(),
            workflows=None if workflows is None else _checked_workflows(workflows),
            may_graphs=may_graphs,
            may_publish=may_publish,
            is_admin=is_admin,
            rate=Rate.parse(rate) if isinstance(rate, str) else rate,
            concurrent=_checked_number("concurrent", concurrent, least=1),
            priority_max=_checked_number("priority_max", priority_max, least=0) or 0,
        )
        secret = new_secret()
        await self._keys.add(key, hash_of(secret))
        await self._look()
        return NewKey(key, secret)

    async def list(self) -> tuple[Key, ...]:
        """Every key, revoked ones too, the oldest first."""
        return await self._keys.list()

    async def revoke(self, which: str) -> Key:
        """End a living key for ever: that of this name or id, or of this secret.

        Its jobs go on, and what it made stays. Raises `KeyNotFound`.
        """
        key = await self._keys.revoke(await self._id_of(which) if _is_secret(which) else which)
        await self._look()
        return key

    async def reset(self) -> int:
        """Forget every key, so that no request needs one, as before the first was made.

        What the keys made still belongs to them, so nobody sees it. Says how many they were.
        """
        forgotten = await self._keys.forget_all()
        await self._look()
        return forgotten

    async def spend(self, caller: Caller) -> None:
        """Count one request of the caller. Raises `RateLimited` where its rate is used up."""
        if caller.rate is None:
            return
        if self._rates is None:
            # The library takes a tenth of a second to load, and few servers need it.
            from comfyserve.access.rates import Rates

            self._rates = Rates()
        await self._rates.spend(caller.owner, caller.rate)

    @asynccontextmanager
    async def place(self, caller: Caller) -> AsyncIterator[None]:
        """Room for one more job of the caller, to be handed in inside the block.

        Raises `TooManyJobs` where as many are unfinished as may be. One after the other comes in,
        so that none slips through between the count and the job; other processes count for
        themselves.
        """
        if (most := caller.concurrent) is None:
            yield
            return
        async with self._places[caller.owner]:
            if await self._jobs.unfinished(caller.owner, most) >= most:
                raise TooManyJobs(most)
            yield

    async def verify(self, path: str, token: str) -> None:
        """Let a signed link open *path*. Raises `LinkExpired` and `Forbidden`; see `Links`."""
        await self._look_now_and_then()
        self.links.verify(path, token, self._keys.now())

    async def _id_of(self, secret: str) -> str:
        await self._look()
        key = self._known.of(hash_of(secret)) if is_whole(secret) else None
        if key is None:
            raise KeyNotFound(f"{PREFIX}...")
        return key.id

    async def _find(self, secret: str) -> Key | None:
        secret_hash = hash_of(secret)
        if key := self._known.of(secret_hash):
            return key
        # Another process may have made it a moment ago, and its holder shall not wait.
        await self._look()
        return self._known.of(secret_hash)

    async def _look_now_and_then(self) -> None:
        if self._clock() - self._looked_at > NOTICED_WITHIN:
            await self._look()

    async def _look(self) -> None:
        """Know the keys as they are now, or later; all who ask together share one look."""
        # Counted, as a clock may stand still between somebody's look and a change after it.
        begun = self._looks_begun
        async with self._looking:
            if self._last_look > begun:
                return
            self._looks_begun += 1
            now = self._clock()
            await self.links.refresh()
            if (known := await self._keys.known(unless=self._known.change)) is not None:
                self._take(known)
            self._looked_at, self._last_look = now, self._looks_begun

    def _take(self, known: KnownKeys) -> None:
        self._known = known
        self._by_id = {key.id: key for key in known}
        self._noted = {id: at for id, at in self._noted.items() if id in self._by_id}

    async def _note_use(self, key: Key) -> None:
        now = self._clock()
        if now - self._noted.get(key.id, -inf) < USE_NOTED_EVERY:
            return
        self._noted[key.id] = now
        # A disk that is full or busy must not turn those away who only look, nor keep them long.
        with suppress(StoreUnavailable, TimeoutError):
            async with asyncio.timeout(_NOTED_WITHIN):
                await self._keys.note_use(key.id)


async def has_keys(folder: Path) -> bool:
    """Whether a server that keeps its data in *folder* would ask for keys.

    The folder may be in use, and is not made where it is missing. Raises `StoreUnavailable`.
    """
    if not (folder / DATABASE_NAME).is_file():
        return False
    async with Store.open_beside(folder) as store:
        return bool(await store.keys.list())


def _is_secret(text: str) -> bool:
    return text.lower().startswith(PREFIX)


def _checked_name(name: str) -> str:
    if _is_secret(name):  # so that a secret given by mistake is never kept or told as a name
        raise InvalidRequest(f"A key's name cannot begin with {PREFIX}, as the secrets do.")
    if not _is_word(name):
        raise InvalidRequest(
            f"{name[:_MOST_LETTERS]!r} cannot name a key. Give 1 to {_MOST_LETTERS} printable "
            "characters, without space at either end."
        )
    return name


def _checked_workflows(workflows: Iterable[str]) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(workflows))
    for name in names:
        if not _is_word(name):
            raise InvalidRequest(f"{name[:_MOST_LETTERS]!r} cannot be the name of a workflow.")
    return names


def _is_word(text: str) -> bool:
    return 0 < len(text) <= _MOST_LETTERS and text.isprintable() and text == text.strip()


def _checked_number(field: str, number: int | None, *, least: int) -> int | None:
    if number is not None and not least <= number <= _MOST:
        raise InvalidRequest(f"{field} is {number}, but has to be from {least} to {_MOST}.")
    return number
