"""The web server's WebSocket connections, with all bounded that an unfriendly peer could fill.

uvicorn's own answers every ping though nobody reads the answers, keeps any number of parts of one
message, cuts a connection off while its peer still sends, so that he never reads why, and waits
for ever for one that does not read. Here all of that has an end.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

from comfyserve.server.passing_on import PassingOn
from comfyserve.server.sockets.route import HANG_UP
from comfyserve.server.sockets.session import LET_IN

PING_EVERY: Final = 20.0
"""Seconds between two pings of ours."""

PONG_WITHIN: Final = 20.0
"""Seconds in which a peer has to answer one."""

_LARGEST_BEFORE: Final = 1 << 16
"""Bytes that a message may have before it is known who sends it."""

_MOST_PARTS: Final = 1024
"""How many frames one message may come in."""

_CLOSED_WITHIN: Final = 5.0
"""Seconds that a connection may take to end once nothing more is said on it."""

_HEAD_TOO_LARGE: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"Connection: close\r\nContent-Length: 0\r\n\r\n"
)

_quiet: Final = logging.getLogger("comfyserve.websocket")
_quiet.addHandler(logging.NullHandler())
_quiet.propagate = False


class SocketProtocol(WebSocketsSansIOProtocol):
    """One WebSocket connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # What a peer sends is no fault of the server's, and nothing for its log.
        self.logger = _quiet
        self._most = self.conn.max_message_size
        self.conn.max_message_size = min(_LARGEST_BEFORE, self._most or _LARGEST_BEFORE)
        self._app = self.app
        self.app = self._told

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        super().connection_made(_Ending(transport))

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.handshake_initiated:
            # It read the head, and took it for an attack: there is no request to be answered.
            self.handshake_initiated = True
            self.transport.write(_HEAD_TOO_LARGE)
            self.transport.close()

    async def send(self, message: Any) -> None:
        if self.close_sent:
            raise ClientDisconnected
        await super().send(message)

    def handle_ping(self) -> None:
        # Who does not read gets no more answers; the last one that he got will do.
        answer = b"".join(self.conn.data_to_send())
        if self.writable.is_set():
            self.transport.write(answer)

    def handle_cont(self, event: Frame) -> None:
        if len(self.frames) >= _MOST_PARTS:
            self.conn.fail(1009, "The message comes in too many parts.")
            self.handle_parser_exception()
            return
        super().handle_cont(event)

    def handle_parser_exception(self) -> None:
        """Say what is wrong, and take what still comes for a while, so that it can be read."""
        if self.close_sent:
            return
        said = self.conn.close_sent
        code, reason = (1002, "") if said is None else (said.code, said.reason)
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self._close_soon()

    def _hang_up(self, code: int, reason: str) -> None:
        """Close though the peer does not read: the last frame goes behind what waits for him."""
        if self.close_sent or self.transport.is_closing():
            self.transport.abort()
            return
        self.conn.send_close(code, reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self._close_soon()

    def _close_soon(self) -> None:
        self.close_sent = True
        self.stop_keepalive()
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        self.close_timer = self.loop.call_later(_CLOSED_WITHIN, self.transport.close)

    def _let_in(self) -> None:
        self.conn.max_message_size = self._most

    def _told(self, scope: Any, receive: Any, send: Any) -> Any:
        extensions = scope.setdefault("extensions", {})
        extensions[HANG_UP], extensions[LET_IN] = self._hang_up, self._let_in
        return self._app(scope, receive, send)


class _Ending(PassingOn):
    """The *transport* of a connection, which ends soon after it is closed, read or not."""

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__(transport)
        self._abort: asyncio.TimerHandle | None = None

    def close(self) -> None:
        super().close()
        if self._abort is None:
            self._abort = self._loop.call_later(_CLOSED_WITHIN, self.abort)
