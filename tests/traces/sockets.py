"""The sockets of the played server, with ComfyUI's own way of keeping them."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from aiohttp import WSMsgType, web

from tests.traces.lines import Object
from tests.traces.seen import SeenSocket

FLAGS: Object = {"supports_preview_metadata": True, "max_upload_size": 104857600}
"""What the recorded server says of itself."""


@dataclass(eq=False, slots=True)
class _Open:
    client_id: str
    socket: web.WebSocketResponse
    transport: asyncio.Transport | None
    cut: bool = False
    deaf: bool = False


class Sockets:
    """Every socket our client opened. The newest of a client id gets that client's messages.

    As in ComfyUI, an older socket of the same id that closes takes the newer one's place in the
    register with it: the newer stays open and hears nothing more.
    """

    def __init__(self, greetings: Callable[[str], list[Object]]) -> None:
        self.seen: list[SeenSocket] = []
        self.refusals = 0
        """How many of the next tries to open a socket get a 503."""
        self.silent = False
        self._greetings = greetings
        self._open: list[_Open] = []
        self._registered: dict[str, _Open] = {}
        self._changed = asyncio.Event()

    async def serve(self, request: web.Request, at: float) -> web.StreamResponse:
        """Hold one socket of our client from its opening to its end."""
        if self.refusals > 0:
            self.refusals -= 1
            return web.Response(status=503)
        client_id = request.query.get("clientId") or uuid.uuid4().hex
        socket = web.WebSocketResponse(max_msg_size=0, timeout=1.0)
        await socket.prepare(request)
        opened = _Open(client_id, socket, request.transport)
        seen = SeenSocket(at, request.query.get("clientId", ""), dict(request.headers))
        self.seen.append(seen)
        self._open.append(opened)
        self._registered[client_id] = opened
        try:
            await self._converse(opened, seen)
        finally:
            self._open.remove(opened)
            if not opened.cut:
                self._registered.pop(client_id, None)
        return socket

    async def send(self, payload: str | bytes, client_id: str | None) -> None:
        """Send to the socket registered for a client id, or to all that are registered."""
        if self.silent:
            return
        for opened in list(self._registered.values()):
            if client_id in (None, opened.client_id) and not opened.deaf:
                await _send(opened, payload)

    def go_silent(self, forever: bool) -> None:
        """Send nothing more: on any socket, or only on those which are open now."""
        self.silent = forever
        for opened in self._open:
            opened.deaf = True

    def drop(self, client_id: str | None = None) -> int:
        """Cut the sockets of a client, or of all, without a close frame; say how many."""
        cut = [o for o in self._open if client_id in (None, o.client_id)]
        for opened in cut:
            opened.cut = True
            if self._registered.get(opened.client_id) is opened:
                del self._registered[opened.client_id]
            if opened.transport is not None:
                opened.transport.abort()
        return len(cut)

    async def wait_for(self, client_id: str, seconds: float) -> None:
        """Wait until that client has a registered socket, at most so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while client_id not in self._registered:
                    self._changed.clear()
                    await self._changed.wait()

    async def _converse(self, opened: _Open, seen: SeenSocket) -> None:
        for message in self._greetings(opened.client_id):
            await _send(opened, json.dumps(message))
        self._changed.set()  # whoever waits for this socket goes on after the greeting
        async for said in opened.socket:
            if said.type is not WSMsgType.TEXT:
                continue
            seen.said.append(said.data)
            if len(seen.said) == 1 and _says_flags(said.data):
                await _send(opened, json.dumps({"type": "feature_flags", "data": FLAGS}))


async def _send(opened: _Open, payload: str | bytes) -> None:
    with suppress(ConnectionError):  # the client may be gone; the server goes on
        if isinstance(payload, str):
            await opened.socket.send_str(payload)
        else:
            await opened.socket.send_bytes(payload)


def _says_flags(text: str) -> bool:
    try:
        said = json.loads(text)
    except ValueError:
        return False
    return isinstance(said, dict) and said.get("type") == "feature_flags"
