"""`/ws`: one listener for each socket, fed from its own outbox."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from aiohttp import WSMsgType, web

from comfyserve.engine.messages import event, status
from comfyserve.engine.sockets import Listener, Sockets

GOODBYE_SECONDS = 1.0


class SocketRoute:
    """Opens sockets and closes them.

    *remaining* tells how many prompts run or wait; *current* whose prompt runs and which node.
    """

    def __init__(
        self,
        sockets: Sockets,
        features: Mapping[str, Any],
        remaining: Callable[[], int],
        current: Callable[[], tuple[str | None, str] | None],
    ) -> None:
        self.sockets = sockets
        self.features = features
        self.remaining = remaining
        self.current = current
        self._open: set[web.WebSocketResponse] = set()

    def all(self) -> list[web.RouteDef]:
        return [web.get("/ws", self.connect)]

    async def connect(self, request: web.Request) -> web.WebSocketResponse:
        # Compressing previews costs the CPU that the nodes need, and gains nothing.
        socket = web.WebSocketResponse(timeout=GOODBYE_SECONDS, compress=False)
        await socket.prepare(request)
        listener = Listener(request.query.get("clientId") or uuid.uuid4().hex)
        self._greet(listener)
        self.sockets.add(listener)
        self._open.add(socket)
        try:
            async with asyncio.TaskGroup() as tasks:
                sending = tasks.create_task(_send(socket, listener))
                watching = tasks.create_task(_hang_up_when_lost(request, listener))
                await self._hear(socket, listener)
                sending.cancel()
                watching.cancel()
        finally:
            self.sockets.remove(listener)
            self._open.discard(socket)
        return socket

    async def close_all(self) -> None:
        """Say goodbye to everyone: the server stops."""
        async with asyncio.TaskGroup() as goodbyes:
            for socket in list(self._open):
                goodbyes.create_task(_say_goodbye(socket))

    def _greet(self, listener: Listener) -> None:
        """The first words on a socket; who comes back while its prompt runs learns where it is."""
        listener.outbox.put(status(self.remaining(), listener.sid))
        running = self.current()
        if running is not None and running[0] == listener.sid:
            listener.outbox.put(event("executing", {"node": running[1]}))

    async def _hear(self, socket: web.WebSocketResponse, listener: Listener) -> None:
        """Hear the socket until it closes.

        Only the first JSON object counts, and only if it tells the client's features.
        """
        is_first = True
        async for message in socket:
            if message.type is not WSMsgType.TEXT or not is_first:
                continue
            try:
                said = json.loads(message.data)
            except (ValueError, RecursionError):
                continue
            if not isinstance(said, dict):
                continue
            is_first = False
            if said.get("type") == "feature_flags":
                flags = said.get("data")
                wants = isinstance(flags, dict) and flags.get("supports_preview_metadata")
                listener.wants_named_previews = bool(wants)
                listener.outbox.put(event("feature_flags", self.features))


async def _send(socket: web.WebSocketResponse, listener: Listener) -> None:
    while True:
        message = await listener.outbox.take()
        try:
            if isinstance(message.frame, str):
                await socket.send_str(message.frame)
            else:
                await socket.send_bytes(message.frame)
        except ConnectionError:
            return


async def _hang_up_when_lost(request: web.Request, listener: Listener) -> None:
    await listener.outbox.lost.wait()
    if request.transport is not None:
        request.transport.abort()  # a goodbye would wait for one who does not read


async def _say_goodbye(socket: web.WebSocketResponse) -> None:
    with suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(GOODBYE_SECONDS):
            await socket.close(code=1001, message=b"the engine stops")
