"""The backends that jobs can go to: which of them answer, and what nodes they have."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from comfyserve.comfy.backend import Backend
from comfyserve.comfy.socket import Listener, Nudged, SocketOpened
from comfyserve.errors import BackendError, BackendUnreachable
from comfyserve.workflows.node_catalog import NodeCatalog

log = logging.getLogger(__name__)

FIRST_PAUSE: Final = 0.2
LONGEST_PAUSE: Final = 5.0
"""Seconds between two questions to a backend that does not answer, at first and at most."""

_DEAF_PAUSE: Final = 5.0
_QUIET_PAUSE: Final = 30.0
"""Seconds between two questions to one that answers, without and with an open socket."""


class Fleet:
    """All backends; see `Fleet.open`."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = tuple(members)

    @classmethod
    @asynccontextmanager
    async def open(cls, backends: Sequence[Backend]) -> AsyncIterator[Fleet]:
        """Watch the *backends*, which are open already, for the time of the block.

        It does not wait for them; `Member.wait_until_up` does.
        """
        fleet = cls([Member(backend) for backend in backends])
        watches = [
            asyncio.create_task(member.watch(), name=f"watch over {member.name}")
            for member in fleet.members
        ]
        try:
            yield fleet
        finally:
            for watch in watches:
                watch.cancel()
            await asyncio.gather(*watches, return_exceptions=True)

    def member(self, name: str) -> Member | None:
        """The member of that name, if there is one."""
        return next((member for member in self.members if member.name == name), None)

    async def answers(self) -> bool:
        """Ask all backends now; whether any of them answers."""
        return any(await asyncio.gather(*(member.ask() for member in self.members)))

    async def refresh(self) -> None:
        """Read the node catalogues of those that answer anew; who fails keeps the last one."""
        await asyncio.gather(*(member.read_catalog() for member in self.members if member.is_up))

    async def object_info(self) -> Mapping[str, Any]:
        """All node catalogues as one document; of a class that several have, the first counts.

        Where none is known yet the first backend is asked. Raises `BackendError` where it does
        not answer.
        """
        known = [info for member in self.members if (info := member.object_info) is not None]
        if not known:
            first = self.members[0]
            if not await first.ask():
                raise BackendUnreachable(first.name, first.reason.rstrip("."))
            known = [await first.backend.object_info()]
        return {name: node for info in reversed(known) for name, node in info.items()}


class Member:
    """One backend and what is known of it.

    *reason* says why it is not up; *since* is when that changed last, in seconds since the epoch.
    """

    def __init__(self, backend: Backend) -> None:
        self.name = backend.url
        self.backend = backend
        self.reason = "It was not asked yet."
        self.since = time.time()
        self._up = asyncio.Event()
        self._news = Listener()
        self._is_learned = False

    @property
    def is_up(self) -> bool:
        """It answered when it was asked last, and no job has found otherwise since."""
        return self._up.is_set()

    @property
    def catalog(self) -> NodeCatalog | None:
        """The last node catalogue it told."""
        return self.backend.known_catalog

    @property
    def object_info(self) -> Mapping[str, Any] | None:
        """The same as a document."""
        return self.backend.known_object_info

    async def wait_until_up(self) -> None:
        """Return once it answers; at once if it does."""
        await self._up.wait()

    def suspect(self, reason: str) -> None:
        """A job found that it does not answer: it counts as down until it was asked again."""
        self._mark_down(reason)
        self._news.put_now(Nudged())

    async def ask(self) -> bool:
        """Ask it now whether it answers, and remember that."""
        try:
            await self.backend.queue()
        except BackendError as error:
            was_up = self.is_up
            self._mark_down(_reason(error))
            if was_up:
                self._news.put_now(Nudged())
            return False
        self._mark_up()
        return True

    async def read_catalog(self) -> None:
        """Read its node catalogue anew; where it does not tell one, the last one stays."""
        try:
            await self.backend.node_catalog(refresh=True)
        except BackendError as error:
            log.warning("A backend does not tell its nodes: %s", error, extra=self._named)
        else:
            self._is_learned = True

    async def watch(self) -> None:
        """Notice when it goes and comes; ends only by being canceled."""
        with self.backend.socket.watching() as self._news:
            pause = FIRST_PAUSE
            while True:
                if await self.ask():
                    await self._until_in_doubt()
                    pause = FIRST_PAUSE
                else:
                    await self._pause(pause)
                    pause = min(pause * 2, LONGEST_PAUSE)

    async def _until_in_doubt(self) -> None:
        """It answers: learn its nodes, then wait for news, or until it is time to ask again."""
        if not self._is_learned:
            await self.read_catalog()
        is_heard = self.backend.socket.is_open
        news = await self._news.hear(_QUIET_PAUSE if is_heard else _DEAF_PAUSE)
        if isinstance(news, SocketOpened):
            # It may have been restarted, with other nodes.
            self._is_learned = False
        if isinstance(news, Nudged):
            # A job found it wanting, though it may well answer: it must not fail job after job.
            await asyncio.sleep(FIRST_PAUSE)

    async def _pause(self, seconds: float) -> None:
        """Wait that long, or until the socket opens, which tells that it is there again."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while (left := end - loop.time()) > 0:
            if isinstance(await self._news.hear(left), SocketOpened):
                return

    def _mark_up(self) -> None:
        if not self.is_up:
            log.info("A backend answers: %s", self.name, extra=self._named)
            self.since = time.time()
            self.reason = ""
            self._up.set()

    def _mark_down(self, reason: str) -> None:
        if self.is_up or self.reason != reason:
            log.warning("A backend is down: %s: %s", self.name, reason, extra=self._named)
        if self.is_up:
            self.since = time.time()
            self._is_learned = False
            self._up.clear()
        self.reason = reason

    @property
    def _named(self) -> Mapping[str, str]:
        return {"backend": self.name}


def _reason(error: BackendError) -> str:
    """Why it is down, without its address and without advice: callers may read this."""
    if isinstance(error, BackendUnreachable):
        return f"It does not answer ({error.reason.rstrip('.')})."
    return f"It does not do what it should ({error.reason.rstrip('.')})."
