"""What waits to be sent on one socket: little, and never what is old where there is newer."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Final

Message = str | bytes
"""A text or a binary message, as it is sent."""

Send = Callable[[Message], Awaitable[None]]

MOST_WAITING: Final = 256
"""How many messages that must not be lost may wait."""

MOST_BYTES: Final = 4 << 20
"""How many characters and bytes these may have together; a longer one waits alone."""

MOST_PREVIEWS: Final = 16
"""How many previews may wait, which are big."""


class Passing(Enum):
    """What only the latest of counts, for each job."""

    PREVIEW = "preview"
    PROGRESS = "progress"


class Outbox:
    """What waits to be sent by *send*; `run` sends it, in its order.

    Whoever `put`s what must not be lost waits for room. What is only passing never waits: of each
    job the latest progress and the latest preview are there to be sent, and of previews only a
    few. So a client that reads slowly gets less of both, and one that does not read at all holds
    up nobody but what is told on this socket.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._lasting: deque[tuple[int, Message]] = deque()
        self._waiting_bytes = 0
        self._passing: dict[Passing, OrderedDict[str, tuple[int, Message]]] = {
            kind: OrderedDict() for kind in Passing
        }
        self._count = 0
        self._changed = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._is_empty = asyncio.Event()
        self._is_empty.set()
        self._sending_since: float | None = None
        self.is_closed = False
        self._clock = asyncio.get_running_loop().time

    @property
    def waiting(self) -> int:
        """How many messages wait for their turn."""
        return len(self._lasting) + sum(map(len, self._passing.values()))

    @property
    def stuck_for(self) -> float:
        """For how many seconds the client has made no room for the message that is its turn."""
        return 0.0 if self._sending_since is None else self._clock() - self._sending_since

    async def put(self, message: Message) -> None:
        """Have a message sent that must not be lost, once there is room for it."""
        while not self._has_room.is_set():
            await self._has_room.wait()
        self.put_last(message)

    def put_last(self, message: Message) -> None:
        """Have a message sent after which nothing else comes, whether there is room or not."""
        if self.is_closed:
            return
        self._lasting.append((self._next_count(), message))
        self._waiting_bytes += len(message)
        self._note_room()
        self._ring()

    def put_latest(self, kind: Passing, job_id: str, message: Message) -> None:
        """Have a message sent instead of the job's last one of this kind. Never waits."""
        if self.is_closed:
            return
        there = self._passing[kind]
        there[job_id] = self._next_count(), message
        there.move_to_end(job_id)
        if kind is Passing.PREVIEW and len(there) > MOST_PREVIEWS:
            there.popitem(last=False)
        self._ring()

    def drop_latest(self, job_id: str) -> None:
        """What is passing and of this job is of no interest any more."""
        for there in self._passing.values():
            there.pop(job_id, None)

    def close(self) -> None:
        """Nobody reads any more: nothing is taken in, and nobody waits for room."""
        self.is_closed = True
        self._has_room.set()

    async def run(self) -> None:
        """Send what comes, until canceled. Raises what *send* raises."""
        while True:
            while (message := self._take()) is not None:
                self._sending_since = self._clock()
                await self._send(message)
                self._sending_since = None
            self._is_empty.set()
            self._changed.clear()
            await self._changed.wait()

    async def emptied(self) -> None:
        """Return once all is sent."""
        await self._is_empty.wait()

    def _take(self) -> Message | None:
        """What was put first of all that waits."""
        kinds = [kind for kind, there in self._passing.items() if there]
        kind = min(kinds, key=self._first_of, default=None)
        if kind is not None and (not self._lasting or self._first_of(kind) < self._lasting[0][0]):
            return self._passing[kind].popitem(last=False)[1][1]
        if not self._lasting:
            return None
        message = self._lasting.popleft()[1]
        self._waiting_bytes -= len(message)
        self._note_room()
        return message

    def _first_of(self, kind: Passing) -> int:
        return next(iter(self._passing[kind].values()))[0]

    def _note_room(self) -> None:
        has_room = len(self._lasting) < MOST_WAITING and self._waiting_bytes < MOST_BYTES
        if has_room or self.is_closed:
            self._has_room.set()
        else:
            self._has_room.clear()

    def _next_count(self) -> int:
        self._count += 1
        return self._count

    def _ring(self) -> None:
        self._is_empty.clear()
        self._changed.set()
