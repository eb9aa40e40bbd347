"""Somebody who listens to one job, and what waits for them to be read."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, Self

from comfyserve.events import Event, PreviewDrawn, ProgressMade, StatusChanged
from comfyserve.refusals import ListenerTooSlow

MOST_UNREAD: Final = 1000
"""How many events may wait for one listener."""

MOST_PREVIEWS: Final = 4
"""How many of them may be previews, which are big."""


class Listener:
    """The events of one job as they come, in their order; iterate it.

    What is not read in time is lost in this order: previews, then progress and places in the
    queue, always the oldest first. Where only events that last are left and still nobody reads,
    the listener is hung up: the iteration raises `ListenerTooSlow` at once. It ends quietly after
    `close`, once what came before is read. One task may iterate at a time. *has_lost_progress*
    tells whether anything but previews was lost.
    """

    def __init__(self, job_id: str, most_unread: int = MOST_UNREAD) -> None:
        self.has_lost_progress = False
        self._job_id = job_id
        self._most = most_unread
        self._previews: _Lane = deque()
        self._passing: _Lane = deque()
        self._lasting: _Lane = deque()
        self._count = 0
        self._bell: asyncio.Future[None] | None = None
        self._closed = False
        self._too_slow = False

    def put(self, event: Event) -> None:
        """Let the listener have the event. Never waits."""
        if self._closed or self._too_slow:
            return
        self._count += 1
        self._lane_of(event).append((self._count, event))
        if len(self._previews) > MOST_PREVIEWS:
            self._previews.popleft()
        if len(self._previews) + len(self._passing) + len(self._lasting) > self._most:
            self._make_room()
        self._ring()

    @property
    def has_lasting(self) -> bool:
        """An event that lasts is there to be read."""
        return bool(self._lasting)

    def forget_passing(self) -> None:
        """Drop what is not read yet and has no number, as after everything was read elsewhere."""
        self._previews.clear()
        self._passing.clear()

    def close(self) -> None:
        """Nothing more comes."""
        self._closed = True
        self._ring()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        # Takes an event only in the moment it returns it, so a canceled wait loses nothing.
        while (event := self._next()) is None:
            if self._closed:
                raise StopAsyncIteration
            self._bell = asyncio.get_running_loop().create_future()
            await self._bell
        return event

    def _lane_of(self, event: Event) -> _Lane:
        match event:
            case PreviewDrawn():
                return self._previews
            case ProgressMade() | StatusChanged(seq=None):
                return self._passing
            case _:
                return self._lasting

    def _make_room(self) -> None:
        if self._previews:
            self._previews.popleft()
        elif self._passing:
            self._passing.popleft()
            self.has_lost_progress = True
        else:
            self._lasting.clear()
            self._too_slow = True

    def _next(self) -> Event | None:
        if self._too_slow:
            raise ListenerTooSlow(self._job_id)
        lanes = [lane for lane in (self._previews, self._passing, self._lasting) if lane]
        if not lanes:
            return None
        return min(lanes, key=lambda lane: lane[0][0]).popleft()[1]

    def _ring(self) -> None:
        if self._bell is not None and not self._bell.done():
            self._bell.set_result(None)


_Lane = deque[tuple[int, Event]]
