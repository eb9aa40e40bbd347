"""The fleet: backends that come and go, and which of them can run what."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from comfyserve.comfy.backend import Backend
from comfyserve.errors import BackendUnreachable
from comfyserve.fleet.catalogs import Catalogs, Known
from comfyserve.fleet.member import CATALOG_PAUSE, Kept, Member
from comfyserve.workflows.needs import Lack, Needs
from comfyserve.workflows.node_catalog import NodeCatalog

log = logging.getLogger(__name__)

PATIENCE: Final = 30.0
"""Seconds for which all backends answer and none has what a job needs, until one gets the job all
the same, so that its caller is told why it cannot run."""

_LEAVING_WITHIN: Final = 10.0
"""Seconds that giving back the jobs of a backend that is removed may take."""

_LOOK_WITHIN: Final = 2.0
"""Seconds that somebody who only looks waits for backends to answer."""

GiveBack = Callable[[Member], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Lacking:
    """What backend *number* (from 1) does not have of some needs; None where nobody knows yet."""

    number: int
    member: Member
    lacks: tuple[Lack, ...] | None


class Fleet:
    """All backends; see `Fleet.open`.

    *version* counts up with every change: a backend comes, goes, is drained, added or removed, or
    has other nodes than before.
    """

    def __init__(
        self,
        *,
        keep: Kept | None = None,
        patience: float = PATIENCE,
        catalog_pause: float = CATALOG_PAUSE,
    ) -> None:
        self.members: tuple[Member, ...] = ()
        self.version = 0
        self._catalogs = Catalogs()
        self._keep = keep
        self._patience = patience
        self._catalog_pause = catalog_pause
        self._watches: dict[Member, asyncio.Task[None]] = {}
        self._news = asyncio.Event()
        self._give_back: GiveBack | None = None
        self._has_waited = False
        self._alarm: asyncio.TimerHandle | None = None

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        backends: Iterable[Backend] = (),
        *,
        draining: Collection[str] = (),
        known: Mapping[str, bytes] | None = None,
        keep: Kept | None = None,
        patience: float = PATIENCE,
        catalog_pause: float = CATALOG_PAUSE,
    ) -> AsyncIterator[Fleet]:
        """Open the *backends*, which are the fleet's from now on, for the time of the block.

        Those named in *draining* take no jobs. *known* is what was kept of their nodes, as
        `Known.packed`, by their names; *keep* is called with what they tell anew. It does not wait
        for the backends; `Member.wait_until_up` does.
        """
        fleet = cls(keep=keep, patience=patience, catalog_pause=catalog_pause)
        try:
            for backend in backends:
                packed = (known or {}).get(backend.url)
                await fleet.add(backend, is_draining=backend.url in draining, packed=packed)
            yield fleet
        finally:
            if fleet._alarm is not None:
                fleet._alarm.cancel()
            await asyncio.gather(*(fleet._end(member) for member in fleet.members))

    # Who belongs to it

    def member(self, name: str) -> Member | None:
        """The member of that name or id, if there is one."""
        return next((one for one in self.members if name in (one.name, one.id)), None)

    async def add(
        self, backend: Backend, *, is_draining: bool = False, packed: bytes | None = None
    ) -> Member:
        """Open a backend and watch over it from now on; one that is here already is no mistake."""
        if (there := self.member(backend.url)) is not None:
            return there
        member = Member(
            backend,
            catalogs=self._catalogs,
            changed=self._change,
            keep=self._keep,
            is_draining=is_draining,
            catalog_pause=self._catalog_pause,
        )
        if packed is not None:
            await self._remember(member, packed)
        await backend.__aenter__()
        watch = asyncio.create_task(member.watch(), name=f"watch over {member.name}")
        self._watches[member] = watch
        self.members = (*self.members, member)
        self._change()
        return member

    async def remove(self, member: Member) -> None:
        """Let a backend go: it gets nothing more, its jobs are given back, then it is closed."""
        if member not in self.members:
            return
        self.members = tuple(one for one in self.members if one is not member)
        self._change()
        try:
            if self._give_back is not None:
                async with asyncio.timeout(_LEAVING_WITHIN):
                    await self._give_back(member)
        except TimeoutError:
            log.warning("Jobs of a backend are not given back yet", extra={"backend": member.name})
        finally:
            await self._end(member)

    def before_leaving(self, give_back: GiveBack) -> None:
        """Have *give_back* called with each member that is removed, before it is closed."""
        self._give_back = give_back

    async def wait_for_change(self, since: int) -> int:
        """Return once `version` is another than *since*, with what it is then."""
        while self.version == since:
            await self._news.wait()
        return self.version

    # What they can do

    def can_run(self, member: Member, needs: Needs) -> bool:
        """Whether the backend has all that is needed, as far as is known; costs little.

        One whose nodes nobody knows yet can run what needs nothing. Whether it takes jobs at all
        is another question: `Member.takes_jobs`.
        """
        return bool(self.runnable(member, {needs.pool: needs}))

    def runnable(self, member: Member, pools: Mapping[str, Needs]) -> tuple[str, ...]:
        """Those of the *pools* (needs by name) whose jobs the backend can run; see `can_run`."""
        return tuple(pool for pool, needs in pools.items() if self._can_run(member, pool, needs))

    def lacking(self, needs: Needs) -> tuple[Lacking, ...]:
        """What each backend does not have of the *needs*, the nearest to having all first."""
        found = [
            Lacking(number, member, member.known.lacks(needs) if member.known else None)
            for number, member in enumerate(self.members, start=1)
        ]
        return tuple(sorted(found, key=_how_far))

    def catalogs(self) -> dict[str, NodeCatalog]:
        """The last known node catalogue of each backend, by its name."""
        return {one.name: one.catalog for one in self.members if one.catalog is not None}

    async def answers(self) -> bool:
        """Ask all backends now; whether any of them answers."""
        return any(await asyncio.gather(*(member.ask() for member in self.members)))

    async def reasons_against(self) -> list[str]:
        """Why no backend would take a job now, a sentence for each; they are asked for that.

        Empty where one would.
        """
        await self.answers()
        members = self.members
        if any(member.takes_jobs for member in members):
            return []
        return [
            f"Backend {number} of {len(members)}: {member.reason or 'It is draining.'}"
            for number, member in enumerate(members, start=1)
        ] or ["There is no backend."]

    async def look(self, within: float = _LOOK_WITHIN) -> None:
        """Ask those that are up now, for the counts of their queues; who is slow is left out."""
        looks = [asyncio.create_task(one.ask(), name="look") for one in self.members if one.is_up]
        if looks:
            _, late = await asyncio.wait(looks, timeout=within)
            for look in late:
                look.cancel()
            await asyncio.gather(*looks, return_exceptions=True)

    async def refresh(self) -> None:
        """Read the node catalogues of those that answer anew; who fails keeps the last one."""
        await asyncio.gather(*(member.ask() for member in self.members if not member.was_asked))
        await asyncio.gather(*(member.read_catalog() for member in self.members if member.is_up))

    async def object_info(self) -> bytes:
        """All node catalogues as one JSON document; of a class that several have, the first counts.

        Where none is known yet the backends are asked. Raises `BackendError` where none answers.
        """
        if not any(member.known for member in self.members):
            await self._learn_first()
        distinct = {one.known.digest: one.known for one in self.members if one.known}
        return await asyncio.to_thread(_merged, [*distinct.values()])

    # What it leans on

    def _can_run(self, member: Member, pool: str, needs: Needs) -> bool:
        if not pool:
            return True
        if member.known is None:
            return False
        return member.known.fits(pool, needs) or self._is_last_resort(member, pool, needs)

    def _is_last_resort(self, member: Member, pool: str, needs: Needs) -> bool:
        """Nobody has what is needed, and nobody is away who might: it had better be told."""
        if not self._has_waited:
            return False
        if any(one.known is not None and one.known.fits(pool, needs) for one in self.members):
            return False
        return self.lacking(needs)[0].member is member

    async def _remember(self, member: Member, packed: bytes) -> None:
        try:
            member.remember(await self._catalogs.unpack(packed))
        except ValueError as error:
            named = {"backend": member.name}
            log.warning("What was kept of a backend's nodes is lost: %s", error, extra=named)

    async def _learn_first(self) -> None:
        await self.answers()
        await self.refresh()
        if not any(member.known for member in self.members):
            first = next(iter(self.members), None)
            reason = first.reason.rstrip(".") if first else "there is no backend"
            raise BackendUnreachable(first.name if first else "", reason or "it tells no nodes")

    async def _end(self, member: Member) -> None:
        watch = self._watches.pop(member)
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)
        await member.backend.__aexit__(None, None, None)

    def _change(self) -> None:
        self._count_up()
        if self._alarm is not None:
            self._alarm.cancel()
        self._has_waited, self._alarm = False, None
        if self.members and all(one.takes_jobs and one.is_learned for one in self.members):
            loop = asyncio.get_running_loop()
            self._alarm = loop.call_later(self._patience, self._lose_patience)

    def _lose_patience(self) -> None:
        """Whoever might have what a job needs is here for long enough, and has told its nodes."""
        self._has_waited = True
        self._count_up()

    def _count_up(self) -> None:
        self.version += 1
        news, self._news = self._news, asyncio.Event()
        news.set()


def _how_far(lacking: Lacking) -> tuple[bool, int]:
    return lacking.lacks is None, len(lacking.lacks or ())


def _merged(known: Sequence[Known]) -> bytes:
    if len(known) == 1:
        return known[0].body()
    documents = [one.document() for one in known]
    together = {name: node for info in reversed(documents) for name, node in info.items()}
    return json.dumps(together, separators=(",", ":")).encode()
