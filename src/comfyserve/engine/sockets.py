"""The open sockets: who hears what, and what happens to those who do not listen.

Everything here runs on the event loop; `Announcer` is the way in for other threads.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVarTuple, Unpack

from comfyserve.engine.messages import Message, Picture, Weight

Told = TypeVarTuple("Told")

COMFORTABLE_BYTES = 4 * 2**20
COMFORTABLE_COUNT = 512
MOST_BYTES = 64 * 2**20
MOST_COUNT = 4096


class Outbox:
    """The messages one socket has yet to read, within bounds.

    Beyond the comfortable size the oldest previews go, then the oldest progress, but never the
    newest of each; what is needed stays. When even that is too much the listener is `lost`, and
    should be hung up on.
    """

    def __init__(self) -> None:
        self._waiting: deque[Message] = deque()
        self._bytes = 0
        self._counts = dict.fromkeys(Weight, 0)
        self._arrived = asyncio.Event()
        self.lost = asyncio.Event()

    def put(self, message: Message) -> None:
        """Add a message. Never waits."""
        if self._bytes > MOST_BYTES or len(self._waiting) >= MOST_COUNT:
            self.lost.set()  # judged before adding: one huge message alone is no one's fault
        if self.lost.is_set():
            return
        self._waiting.append(message)
        self._count(message, 1)
        self._make_room()
        self._arrived.set()

    async def take(self) -> Message:
        """The next message, when there is one."""
        while not self._waiting:
            self._arrived.clear()
            await self._arrived.wait()
        message = self._waiting.popleft()
        self._count(message, -1)
        return message

    def _count(self, message: Message, change: int) -> None:
        self._bytes += change * message.size
        self._counts[message.weight] += change

    def _make_room(self) -> None:
        for weight in (Weight.PREVIEW, Weight.PROGRESS):
            if self._has_too_many(weight):
                kept: deque[Message] = deque()
                for message in self._waiting:  # the oldest first
                    if message.weight is weight and self._has_too_many(weight):
                        self._count(message, -1)
                    else:
                        kept.append(message)
                self._waiting = kept

    def _has_too_many(self, weight: Weight) -> bool:
        count = sum(self._counts.values())
        is_crowded = self._bytes > COMFORTABLE_BYTES or count > COMFORTABLE_COUNT
        return is_crowded and self._counts[weight] > 1


@dataclass(slots=True, eq=False)
class Listener:
    """One open socket: the id it goes by, and whether it asked for named previews."""

    sid: str
    outbox: Outbox = field(default_factory=Outbox)
    wants_named_previews: bool = False


class Sockets:
    """All listeners by their id. Of several with the same id the newest hears."""

    def __init__(self) -> None:
        self._listeners: dict[str, list[Listener]] = {}

    def add(self, listener: Listener) -> None:
        self._listeners.setdefault(listener.sid, []).append(listener)

    def remove(self, listener: Listener) -> None:
        """Forget one that closed; an older one with the same id hears again."""
        same = self._listeners[listener.sid]
        same.remove(listener)
        if not same:
            del self._listeners[listener.sid]

    def hearing(self, owner: str | None) -> list[Listener]:
        """Who hears what is said to *owner*: that one if it is here, or everyone for None."""
        if owner is not None:
            return [same[-1] for same in (self._listeners.get(owner),) if same]
        return [same[-1] for same in self._listeners.values()]

    def is_heard(self, owner: str | None) -> bool:
        return bool(self._listeners) if owner is None else owner in self._listeners

    def say(self, message: Message, owner: str | None) -> None:
        for listener in self.hearing(owner):
            listener.outbox.put(message)

    def step(self, progress: Message, picture: Picture | None, owner: str | None) -> None:
        """Tell of a step: a named preview comes before its progress, a plain one after."""
        for listener in self.hearing(owner):
            if picture is not None and listener.wants_named_previews:
                listener.outbox.put(picture.named)
            listener.outbox.put(progress)
            if picture is not None and not listener.wants_named_previews:
                listener.outbox.put(picture.plain)

    def show(self, picture: Picture, owner: str | None) -> None:
        for listener in self.hearing(owner):
            listener.outbox.put(picture.named if listener.wants_named_previews else picture.plain)


class Announcer:
    """Says things on the sockets from any thread, in the order they are said."""

    def __init__(self, sockets: Sockets, loop: asyncio.AbstractEventLoop) -> None:
        self._sockets = sockets
        self._loop = loop

    def say(self, message: Message, owner: str | None) -> None:
        self._call(self._sockets.say, message, owner)

    def step(self, progress: Message, picture: Picture | None, owner: str | None) -> None:
        self._call(self._sockets.step, progress, picture, owner)

    def show(self, picture: Picture, owner: str | None) -> None:
        self._call(self._sockets.show, picture, owner)

    def _call(self, tell: Callable[[Unpack[Told]], None], *told: *Told) -> None:
        with suppress(RuntimeError):  # the loop has closed: nobody is left to hear
            self._loop.call_soon_threadsafe(tell, *told)

    def is_heard(self, owner: str | None) -> bool:
        """Whether anyone would hear it now; a guess that spares work, from any thread."""
        return self._sockets.is_heard(owner)
