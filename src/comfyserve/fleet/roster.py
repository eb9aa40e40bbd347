"""Who belongs to the fleet, and that it stays so: backends added and drained while we run."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import urlsplit

from comfyserve.comfy.backend import Backend
from comfyserve.denials import BackendAlreadyThere, BackendNotAdded, BackendNotFound
from comfyserve.errors import BackendError
from comfyserve.fleet.catalogs import Known
from comfyserve.fleet.fleet import Fleet
from comfyserve.fleet.member import Member
from comfyserve.refusals import StoreUnavailable
from comfyserve.store import Backends

log = logging.getLogger(__name__)

_LEARNED_WITHIN: Final = 5.0
"""Seconds that whoever adds a backend waits for what it tells of itself."""

Origin = Literal["settings", "added"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A backend to be, and what opens its door."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    token: str | None = field(default=None, repr=False)
    verify_tls: bool = True

    @property
    def can_be_kept(self) -> bool:
        """Its address is all there is: no secrets, which are never stored, and no exception."""
        has_user = "@" in urlsplit(self.url if "://" in self.url else f"//{self.url}").netloc
        return not (self.headers or self.token or has_user) and self.verify_tls


Connect = Callable[[Wanted], Backend]
"""Makes the backend, which nobody has opened yet. Raises `InvalidAddress`."""


@dataclass(frozen=True, slots=True)
class Membership:
    """How a member came to the fleet; what is not *kept* is gone after the next start."""

    origin: Origin
    is_kept: bool


class Roster:
    """Lets backends join, leave and rest; see `Roster.open`."""

    def __init__(self, fleet: Fleet, kept: Backends, connect: Connect) -> None:
        self.fleet = fleet
        self._kept = kept
        self._connect = connect
        self._memberships: dict[str, Membership] = {}
        self._lock = asyncio.Lock()

    @classmethod
    @asynccontextmanager
    async def open(
        cls, kept: Backends, connect: Connect, configured: Sequence[Wanted]
    ) -> AsyncIterator[Roster]:
        """The fleet of those that are *configured* and those that were added before, as they were
        when they were last known, for the time of the block.

        Raises `InvalidAddress` and `StoreUnavailable`.
        """
        backends = [connect(wanted) for wanted in configured]
        memberships = {backend.url: Membership("settings", True) for backend in backends}
        rows = await kept.list()
        for row in rows:
            if row.is_added and row.url not in memberships:
                backends.append(connect(Wanted(row.url)))
                memberships[row.url] = Membership("added", True)
        catalogs = {row.url: row.object_info for row in await kept.catalogs()}
        for url in {row.url for row in rows} | catalogs.keys():
            if url not in memberships:
                await kept.delete(url)

        async def keep(url: str, known: Known) -> None:
            if url in roster._memberships:
                await _kept_if_possible(kept, url, known)

        draining = {row.url for row in rows if row.is_draining}
        async with Fleet.open(backends, draining=draining, known=catalogs, keep=keep) as fleet:
            roster = cls(fleet, kept, connect)
            roster._memberships = memberships
            yield roster

    def membership(self, member: Member) -> Membership:
        """Where a member comes from, and whether it stays."""
        return self._memberships[member.name]

    def find(self, name: str) -> Member:
        """The member of that id or address. Raises `BackendNotFound`."""
        if (member := self.fleet.member(name)) is None:
            raise BackendNotFound(name)
        return member

    async def add(self, wanted: Wanted, *, must_answer: bool = False) -> Member:
        """Let a backend join, and ask it at once; one that does not answer joins as down.

        It is there after the next start too, if it `can_be_kept`. Raises `InvalidAddress`,
        `BackendAlreadyThere`, `StoreUnavailable`, and where it *must_answer* `BackendNotAdded`.
        """
        async with self._lock:
            backend = self._connect(wanted)
            if self.fleet.member(backend.url) is not None:
                raise BackendAlreadyThere
            if must_answer:
                await self._ask_stranger(wanted)
            if wanted.can_be_kept:
                await self._kept.put(backend.url, is_added=True, is_draining=False)
            self._memberships[backend.url] = Membership("added", wanted.can_be_kept)
            member = await self.fleet.add(backend)
        log.info("A backend was added: %s", member.name, extra={"backend": member.name})
        await _learn(member)
        return member

    async def drain(self, member: Member) -> None:
        """Let what runs there end, and bring it nothing new. Raises `StoreUnavailable`."""
        await self._set_draining(member, True)

    async def resume(self, member: Member) -> None:
        """Bring it jobs again. Raises `StoreUnavailable`."""
        await self._set_draining(member, False)

    async def remove(self, member: Member) -> Membership:
        """Let it go; its jobs go back to the queue. What it was there as.

        One of the settings comes back with the next start. Raises `BackendNotFound` where somebody
        else was quicker, and `StoreUnavailable`.
        """
        async with self._lock:
            membership = self._memberships.get(member.name)
            if membership is None or member not in self.fleet.members:
                raise BackendNotFound(member.id)
            await self._kept.delete(member.name)
            del self._memberships[member.name]
            log.info("A backend was removed: %s", member.name, extra={"backend": member.name})
            await self.fleet.remove(member)
        return membership

    async def _set_draining(self, member: Member, is_draining: bool) -> None:
        async with self._lock:
            membership = self._memberships.get(member.name)
            if membership is None:
                raise BackendNotFound(member.id)
            if membership.is_kept:
                is_added = membership.origin == "added"
                await self._kept.put(member.name, is_added=is_added, is_draining=is_draining)
            member.drain(is_draining)

    async def _ask_stranger(self, wanted: Wanted) -> None:
        try:
            async with self._connect(wanted) as backend:
                await backend.queue()
        except BackendError as error:
            raise BackendNotAdded(error.reason) from error


async def _learn(member: Member) -> None:
    """Ask it now, so that who added it is told what came of it."""
    try:
        async with asyncio.timeout(_LEARNED_WITHIN):
            if await member.ask():
                await member.read_catalog()
    except TimeoutError:
        log.warning("A backend takes long to tell its nodes", extra={"backend": member.name})


async def _kept_if_possible(kept: Backends, url: str, known: Known) -> None:
    try:
        await kept.put_catalog(url, known.packed, time.time())
    except StoreUnavailable as error:
        log.warning("A backend's nodes are not kept: %s", error, extra={"backend": url})
