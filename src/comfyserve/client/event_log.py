"""What happened to one job, for any number of listeners, each at its own pace."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import replace

from comfyserve.events import Event, PreviewDrawn, ProgressMade
from comfyserve.jobs import Progress

AT_MOST_WAITING = 256
"""Events a slow listener may leave waiting before it starts to lose previews and progress."""


class EventLog:
    """Keeps the numbered events of a job, and passes all of them on live.

    A late listener gets the numbered events that came before, then the latest progress and
    preview, then what happens. A slow one loses its oldest previews first, then its oldest
    progress, never a numbered event.
    """

    def __init__(self) -> None:
        self._numbered: list[Event] = []
        self._progress: ProgressMade | None = None
        self._preview: PreviewDrawn | None = None
        self._listeners: set[_Listener] = set()
        self._broken_off: Exception | None = None

    @property
    def ended(self) -> bool:
        """The job's last event is here."""
        return bool(self._numbered) and self._numbered[-1].is_last

    @property
    def progress(self) -> Progress:
        """How far the job is."""
        return self._progress.progress if self._progress else Progress()

    def add(self, event: Event) -> None:
        """Number the event if it is a lasting one, and let every listener hear it."""
        match event:
            case ProgressMade():
                self._progress = event
            case PreviewDrawn():
                self._preview = event
            case _:
                event = replace(event, seq=len(self._numbered) + 1)
                self._numbered.append(event)
        for listener in self._listeners:
            listener.hear(event)

    def break_off(self, reason: Exception) -> None:
        """Nothing more will be known of the job; listeners that heard all get *reason* raised."""
        self._broken_off = reason
        for listener in self._listeners:
            listener.wake()

    async def follow(self, after: int = 0) -> AsyncGenerator[Event]:
        """Yield the events after number *after*, in order, until the job's last one."""
        listener = _Listener(self._missed(after))
        if self.ended and not listener.waiting:
            return
        self._listeners.add(listener)
        try:
            while True:
                while not listener.waiting:
                    if self._broken_off is not None:
                        raise self._broken_off
                    await listener.wait()
                event = listener.waiting.popleft()
                yield event
                if event.is_last:
                    return
        finally:
            self._listeners.discard(listener)

    def _missed(self, after: int) -> list[Event]:
        live = [event for event in (self._progress, self._preview) if event is not None]
        return [*self._numbered[max(after, 0) :], *([] if self.ended else live)]


class _Listener:
    def __init__(self, missed: list[Event]) -> None:
        self.waiting: deque[Event] = deque(missed)
        self._heard = asyncio.Event()

    def hear(self, event: Event) -> None:
        self.waiting.append(event)
        if len(self.waiting) > AT_MOST_WAITING:
            self._let_go()
        self.wake()

    def wake(self) -> None:
        self._heard.set()

    async def wait(self) -> None:
        """Return once something may have changed since the last call."""
        await self._heard.wait()
        self._heard.clear()

    def _let_go(self) -> None:
        for kind in (PreviewDrawn, ProgressMade):
            oldest = next((event for event in self.waiting if isinstance(event, kind)), None)
            if oldest is not None:
                self.waiting.remove(oldest)
                return
