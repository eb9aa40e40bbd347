"""Somebody who listens to one job, and what waits for them to be read."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from itertools import chain
from typing import Final, Self

from comfyserve.events import Event, PreviewDrawn, ProgressMade, StatusChanged
from comfyserve.refusals import ListenerTooSlow

MOST_UNREAD: Final = 1000
"""How many events may wait for one listener."""

MOST_PREVIEWS: Final = 4
"""How many of them may be previews, which are big."""


class Listener:
    """The events of one job as they come, in their order; iterate it, or `take` all that waits.

    What is not read in time is lost in this order: previews, then progress and places in the
    queue, always the oldest first. Where only events that last are left and still nobody reads,
    the listener is hung up: reading raises `ListenerTooSlow` at once. It ends quietly after
    `close`, once what came before is read. One task may read at a time. *has_lost_progress*
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
        self._is_woken = False
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

    @property
    def has_ended(self) -> bool:
        """Nothing is there to be read, and nothing more comes."""
        return self._closed and not (self._previews or self._passing or self._lasting)

    def forget_passing(self) -> None:
        """Drop what is not read yet and has no number, as after everything was read elsewhere."""
        self._previews.clear()
        self._passing.clear()

    async def take(self) -> Sequence[Event]:
        """All that waits, in its order, once anything does; nothing after `wake` and at the end."""
        # Takes events only in the moment it returns them, so a canceled wait loses nothing.
        while not (events := self._take_all()):
            if self._closed or self._is_woken:
                break
            await self._wait()
        self._is_woken = False
        return events

    def wake(self) -> None:
        """End the wait of who wants to `take`, although there may be nothing for him."""
        self._is_woken = True
        self._ring()

    def close(self) -> None:
        """Nothing more comes."""
        self._closed = True
        self._ring()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        while (event := self._next()) is None:
            if self._closed:
                raise StopAsyncIteration
            await self._wait()
        return event

    async def _wait(self) -> None:
        self._bell = asyncio.get_running_loop().create_future()
        await self._bell

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

    def _take_all(self) -> Sequence[Event]:
        lanes = self._filled()
        if not lanes:
            return ()
        if len(lanes) == 1:
            events = [event for _, event in lanes[0]]
        else:
            events = [event for _, event in sorted(chain(*lanes), key=_order)]
        for lane in lanes:
            lane.clear()
        return events

    def _next(self) -> Event | None:
        lanes = self._filled()
        if not lanes:
            return None
        return min(lanes, key=lambda lane: lane[0][0]).popleft()[1]

    def _filled(self) -> list[_Lane]:
        if self._too_slow:
            raise ListenerTooSlow(self._job_id)
        return [lane for lane in (self._previews, self._passing, self._lasting) if lane]

    def _ring(self) -> None:
        if self._bell is not None and not self._bell.done():
            self._bell.set_result(None)


def _order(waiting: tuple[int, Event]) -> int:
    return waiting[0]


_Lane = deque[tuple[int, Event]]
