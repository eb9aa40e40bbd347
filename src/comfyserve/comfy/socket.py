"""The one WebSocket to a ComfyUI: it stays open while anybody listens, and tells who is meant.

The socket only makes things faster. It may be lost, deaf or silent at any time; whoever listens
is told of a loss and asks the server itself (`backend.Backend.whereabouts`).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

import aiohttp

from comfyserve.comfy.protocol import (
    FEATURE_FLAGS,
    Ended,
    Executing,
    Ignored,
    Message,
    NodeStates,
    NodeText,
    Picture,
    QueueLength,
    Started,
    Step,
    Unreadable,
    read_binary_frame,
    read_text_frame,
)

log = logging.getLogger(__name__)

LARGEST_FRAME: Final = 256 << 20
HEARTBEAT: Final = 30.0
FIRST_RETRY: Final = 0.1
LONGEST_RETRY: Final = 3.0

_CROWDED: Final = 64
_MOST_MESSAGES: Final = 20_000
_MOST_BYTES: Final = 64 << 20
_UNCLAIMED: Final = 256


@dataclass(frozen=True, slots=True)
class SocketOpened:
    """The socket is open, for the first time or again; nothing missed is sent again."""


@dataclass(frozen=True, slots=True)
class SocketLost:
    """The socket is gone; messages may be missing from here on."""

    reason: str


@dataclass(frozen=True, slots=True)
class Nudged:
    """Somebody on our own side wants the listener to look around."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """An output that was on its way is here."""


Heard = Message | SocketOpened | SocketLost | Nudged | Arrived


class Listener:
    """What is heard of one prompt, in order, in a queue with bounds.

    A slow listener first loses previews and progress. Pictures that are outputs are never lost:
    when too many wait, the socket is not read until there is room.
    """

    def __init__(self) -> None:
        self._messages: deque[Heard] = deque()
        self._bytes = 0
        self._waiter: asyncio.Future[None] | None = None
        self._room = asyncio.Event()
        self._room.set()

    async def hear(self, seconds: float) -> Heard | None:
        """The next message, or None when nothing came in that time."""
        if not self._messages:
            await self._something(seconds)
        if not self._messages:
            return None
        message = self._messages.popleft()
        self._bytes -= _weight(message)
        if self._bytes <= _MOST_BYTES:
            self._room.set()
        return message

    async def _something(self, seconds: float) -> None:
        """Wait for a message or the end of that time; cheaper than a timeout for each message."""
        loop = asyncio.get_running_loop()
        self._waiter = waiter = loop.create_future()
        timer = loop.call_later(seconds, _wake, waiter)
        try:
            await waiter
        finally:
            timer.cancel()
            self._waiter = None

    async def put(self, message: Heard) -> None:
        """Add a message; waits only for room for pictures that must not be lost."""
        if _weight(message):
            await self._room.wait()
        self.put_now(message)
        if self._bytes > _MOST_BYTES:
            self._room.clear()

    def put_now(self, message: Heard) -> None:
        """Add a message at once; an overfull queue loses what the history will tell again."""
        if len(self._messages) >= _CROWDED and _is_fleeting(message):
            kept = (other for other in self._messages if not _is_fleeting(other))
            self._messages = deque(kept)
        if len(self._messages) < _MOST_MESSAGES or _weight(message):
            self._messages.append(message)
            self._bytes += _weight(message)
        if self._waiter is not None:
            _wake(self._waiter)

    def close(self) -> None:
        """Nobody listens any more, so nobody waits for room."""
        self._bytes = -(1 << 62)
        self._room.set()


class Socket:
    """One server's WebSocket, reopened whenever it is lost while somebody listens."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        client_id: str,
        *,
        headers: Mapping[str, str],
        connect_timeout: float,
    ) -> None:
        self.client_id = client_id
        self.last_error = ""
        self._session = session
        self._url = url
        self._headers = headers
        self._connect_timeout = connect_timeout
        self._listeners: dict[str, Listener] = {}
        self._watchers: set[Listener] = set()
        self._unclaimed: deque[tuple[str, Message]] = deque(maxlen=_UNCLAIMED)
        self._running: str | None = None
        self._open = asyncio.Event()
        self._wanted = asyncio.Event()
        self._failed = asyncio.Event()
        self._urgent = asyncio.Event()
        self._socket: aiohttp.ClientWebSocketResponse | None = None

    @property
    def is_open(self) -> bool:
        """Messages can arrive right now."""
        return self._open.is_set()

    async def opened(self, seconds: float) -> bool:
        """Wait until it is open, or the first try failed, or the time is over."""
        if self._open.is_set():
            return True
        self._failed.clear()
        self._wanted.set()
        self._urgent.set()
        waits = [
            asyncio.create_task(event.wait(), name="socket opening")
            for event in (self._open, self._failed)
        ]
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return self._open.is_set()

    @contextmanager
    def listening(self, prompt_id: str) -> Iterator[Listener]:
        """Hear all that is said of that prompt while the context lasts."""
        listener = Listener()
        self._listeners[prompt_id] = listener
        self._wanted.set()
        try:
            yield listener
        finally:
            listener.close()
            for name in [name for name, other in self._listeners.items() if other is listener]:
                del self._listeners[name]

    @contextmanager
    def watching(self) -> Iterator[Listener]:
        """Hear when it opens and is lost while the context lasts, and keep it open meanwhile."""
        watcher = Listener()
        self._watchers.add(watcher)
        self._wanted.set()
        try:
            yield watcher
        finally:
            self._watchers.remove(watcher)

    def also(self, prompt_id: str, listener: Listener) -> None:
        """Give *listener* the messages of a prompt whose id the server chose itself."""
        self._listeners[prompt_id] = listener
        for name, message in self._unclaimed:
            if name == prompt_id:
                listener.put_now(message)

    async def reopen(self) -> None:
        """Close a socket that has gone deaf, so that a new one takes its place."""
        if self._socket is not None:
            await self._socket.close()

    async def run(self) -> None:
        """Keep the socket open while it is wanted; ends only by being canceled."""
        delay = FIRST_RETRY
        while True:
            await self._wanted.wait()
            if await self._connect_and_read():
                delay = FIRST_RETRY
            if not self._listeners and not self._watchers:
                self._wanted.clear()
                continue
            await self._pause(delay)
            delay = min(delay * 2, LONGEST_RETRY)

    async def _pause(self, seconds: float) -> None:
        """Wait before the next try, unless somebody cannot begin without it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._urgent.wait()
        self._urgent.clear()

    async def _connect_and_read(self) -> bool:
        """One life of the socket; True when it was open at all."""
        try:
            async with asyncio.timeout(self._connect_timeout):
                socket = await self._session.ws_connect(
                    f"{self._url}?clientId={self.client_id}",
                    headers=self._headers,
                    heartbeat=HEARTBEAT,
                    max_msg_size=LARGEST_FRAME,
                    timeout=aiohttp.ClientWSTimeout(ws_close=2.0),
                )
            async with socket:
                self._socket = socket
                await socket.send_str(FEATURE_FLAGS)
                await self._read(socket)
        except (aiohttp.ClientError, OSError, TimeoutError, UnicodeError) as error:
            is_slow = isinstance(error, TimeoutError)
            self.last_error = "no answer in time" if is_slow else str(error) or repr(error)
        finally:
            was_open = self._open.is_set()
            self._socket = None
            self._open.clear()
        self._failed.set()
        if was_open:
            self._tell_all(SocketLost(self.last_error))
        return was_open

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for frame in socket:
            # The server greets whoever it has registered; before that nobody is known to it.
            if not self._open.is_set():
                self._open.set()
                self._tell_all(SocketOpened())
            match frame.type:
                case aiohttp.WSMsgType.TEXT:
                    await self._deliver(read_text_frame(frame.data))
                case aiohttp.WSMsgType.BINARY:
                    await self._deliver(read_binary_frame(frame.data))
                case _:
                    break
        self.last_error = f"the server closed the socket (code {socket.close_code})"

    async def _deliver(self, message: Message) -> None:
        match message:
            case Unreadable(reason=reason):
                log.warning("%s: %s", self._url, reason)
            case Ignored():
                return
            case QueueLength():
                self._tell_all(message)
                return
            case Started(prompt_id=prompt_id):
                self._running = prompt_id
            case Ended(prompt_id=prompt_id) if self._running == prompt_id:
                self._running = None
            case _:
                pass
        listener = self._listener_of(message)
        if listener is not None:
            await listener.put(message)
        elif message.prompt_id is not None and not isinstance(message, Picture):
            self._unclaimed.append((message.prompt_id, message))

    def _listener_of(self, message: Message) -> Listener | None:
        if message.prompt_id is not None:
            return self._listeners.get(message.prompt_id)
        if not isinstance(message, (Executing, Step, Picture, NodeText)):
            return None
        # The server runs one prompt at a time, so a nameless message is about that one.
        if self._running is not None:
            return self._listeners.get(self._running)
        return next(iter(self._listeners.values())) if len(self._listeners) == 1 else None

    def _tell_all(self, news: SocketOpened | SocketLost | QueueLength) -> None:
        for listener in set(self._listeners.values()):
            listener.put_now(news)
        if not isinstance(news, QueueLength):
            for watcher in self._watchers:
                watcher.put_now(news)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _weight(message: Heard) -> int:
    """The bytes of a picture that must not be lost; everything else weighs nothing."""
    is_kept = isinstance(message, Picture) and message.content_type == "image/png"
    return len(message.data) if is_kept and isinstance(message, Picture) else 0


def _is_fleeting(message: Heard) -> bool:
    """What a later message of its kind makes worthless."""
    if isinstance(message, Picture):
        return message.content_type != "image/png"
    return isinstance(message, (Step, NodeStates, NodeText, QueueLength))
