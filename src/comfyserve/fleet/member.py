"""One backend and what is known of it: whether it answers, and what nodes it has."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Literal

from comfyserve.comfy.backend import Backend
from comfyserve.comfy.records import QueueState
from comfyserve.comfy.socket import Listener, Nudged, SocketOpened
from comfyserve.errors import BackendError, BackendUnreachable
from comfyserve.fleet.catalogs import Catalogs, Known
from comfyserve.workflows.node_catalog import NodeCatalog

log = logging.getLogger(__name__)

FIRST_PAUSE: Final = 0.2
LONGEST_PAUSE: Final = 5.0
"""Seconds between two questions to a backend that does not answer, at first and at most."""

_DEAF_PAUSE: Final = 5.0
_QUIET_PAUSE: Final = 30.0
"""Seconds between two questions to one that answers, without and with an open socket."""

CATALOG_PAUSE: Final = 60.0
_CATALOG_SHARE: Final = 100.0
"""Seconds between two readings of its nodes, and how many times longer than one reading it is at
least: a ComfyUI with many nodes does nothing else meanwhile."""

State = Literal["up", "draining", "down"]

Kept = Callable[[str, Known], Awaitable[None]]
"""Keeps what the backend of that name told of its nodes."""


@dataclass(frozen=True, slots=True)
class Device:
    """What a backend computes on; *memory* is in bytes, None where it does not say."""

    name: str
    kind: str
    memory: int | None


@dataclass(frozen=True, slots=True)
class System:
    """What a backend says of itself, as far as it does."""

    version: str = ""
    devices: tuple[Device, ...] = ()


class Member:
    """One backend of a fleet; see `fleet.Fleet`.

    *name* is its address, *id* a short name for it that tells nothing. *reason* says why it is
    down, without the address; *since* is when its state changed last, in seconds since the epoch.
    *waiting* and *running* count what was in its own queue when it was asked last.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        catalogs: Catalogs | None = None,
        changed: Callable[[], None] = lambda: None,
        keep: Kept | None = None,
        is_draining: bool = False,
        catalog_pause: float = CATALOG_PAUSE,
    ) -> None:
        self.name = backend.url
        self.id = hashlib.blake2b(self.name.encode(), digest_size=4).hexdigest()
        self.backend = backend
        self.known: Known | None = None
        self.system = System()
        self.queue: QueueState | None = None
        self.reason = "It was not asked yet."
        self.since = time.time()
        self.is_draining = is_draining
        self.was_asked = False
        self.is_learned = False
        self._up = asyncio.Event()
        self._news = Listener()
        self._catalogs = catalogs or Catalogs()
        self._changed = changed
        self._keep = keep
        self._pause_of_catalog = catalog_pause
        self._due = 0.0
        self._reading = asyncio.Lock()
        self._begun = 0
        self._told = 0, False

    @property
    def is_up(self) -> bool:
        """It answered when it was asked last, and no job has found otherwise since."""
        return self._up.is_set()

    @property
    def state(self) -> State:
        """``draining`` takes no new jobs, whether it answers or not."""
        if self.is_draining:
            return "draining"
        return "up" if self.is_up else "down"

    @property
    def takes_jobs(self) -> bool:
        """It answers, and is not to be emptied."""
        return self.is_up and not self.is_draining

    @property
    def catalog(self) -> NodeCatalog | None:
        """The last node catalogue that is known of it, also while it is down."""
        return self.known.catalog if self.known else None

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
            self.queue = await self.backend.queue()
        except BackendError as error:
            self.was_asked = True
            was_up = self.is_up
            self._mark_down(_reason(error))
            if was_up:
                self._news.put_now(Nudged())
            return False
        self.was_asked = True
        self._mark_up()
        return True

    async def read_catalog(self) -> bool:
        """Read its node catalogue anew; whether it told one. If not, the last one stays.

        Many who ask at once share a reading, but none that began before they asked.
        """
        asked = self._begun
        async with self._reading:
            if self._told[0] <= asked:
                self._begun += 1
                number = self._begun
                self._told = number, await self._read()
            return self._told[1]

    def remember(self, known: Known) -> None:
        """This is what it told of its nodes when it was last known."""
        self.known = known
        self.backend.know(known.catalog)

    def drain(self, is_draining: bool) -> None:
        """Whether it is to take no new jobs."""
        if self.is_draining != is_draining:
            self.is_draining = is_draining
            self.since = time.time()
            self._changed()

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
        loop = asyncio.get_running_loop()
        if not self.is_learned or loop.time() >= self._due:
            await self.read_catalog()
        is_heard = self.backend.socket.is_open
        patience = _QUIET_PAUSE if is_heard else _DEAF_PAUSE
        news = await self._news.hear(min(patience, max(0.0, self._due - loop.time())))
        if isinstance(news, SocketOpened):
            # It may have been restarted, with other nodes.
            self.is_learned = False
        if isinstance(news, Nudged):
            # A job found it wanting, though it may well answer: it must not fail job after job.
            await asyncio.sleep(FIRST_PAUSE)

    async def _read(self) -> bool:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        try:
            body = await self.backend.raw_object_info()
            known = await self._catalogs.read(body)
        except (BackendError, ValueError) as error:
            log.warning("A backend does not tell its nodes: %s", error, extra=self._named)
            self._due = loop.time() + _DEAF_PAUSE
            return False
        except Exception:
            # What custom nodes write there must not end the watch over their backend.
            log.exception("A backend's nodes cannot be read", extra=self._named)
            self._due = loop.time() + self._pause_of_catalog
            return False
        took = loop.time() - begun
        self._due = loop.time() + max(self._pause_of_catalog, _CATALOG_SHARE * took)
        was_learned, self.is_learned = self.is_learned, True
        if self.known is None or self.known.digest != known.digest:
            self.remember(known)
            self._changed()
            await self._keep_it(known)
        elif not was_learned:
            self._changed()
        if not was_learned:
            await self._ask_for_system()
        return True

    async def _keep_it(self, known: Known) -> None:
        if self._keep is not None:
            await self._keep(self.name, known)

    async def _ask_for_system(self) -> None:
        with suppress(BackendError):
            self.system = _system(await self.backend.system_stats())

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
            self._changed()

    def _mark_down(self, reason: str) -> None:
        if self.is_up or self.reason != reason:
            log.warning("A backend is down: %s: %s", self.name, reason, extra=self._named)
        was_up, self.reason = self.is_up, reason
        if was_up:
            self.since = time.time()
            self.is_learned = False
            self._up.clear()
            self._changed()

    @property
    def _named(self) -> Mapping[str, str]:
        return {"backend": self.name}


def _reason(error: BackendError) -> str:
    """Why it is down, without its address and without advice: callers may read this."""
    if isinstance(error, BackendUnreachable):
        return f"It does not answer ({error.reason.rstrip('.')})."
    return f"It does not do what it should ({error.reason.rstrip('.')})."


def _system(stats: Mapping[str, Any]) -> System:
    """What the answer to ``GET /system_stats`` says, as far as it makes sense."""
    said, devices = stats.get("system"), stats.get("devices")
    version = said.get("comfyui_version") if isinstance(said, dict) else None
    return System(
        version if isinstance(version, str) else "",
        tuple(
            _device(one)
            for one in (devices if isinstance(devices, list) else ())
            if isinstance(one, dict)
        ),
    )


def _device(said: Mapping[str, Any]) -> Device:
    memory = said.get("vram_total")
    is_number = isinstance(memory, int | float) and not isinstance(memory, bool)
    return Device(str(said.get("name", "")), str(said.get("type", "")), _bytes(memory, is_number))


def _bytes(memory: Any, is_number: bool) -> int | None:
    return int(memory) if is_number and 0 <= memory < 2**63 else None
