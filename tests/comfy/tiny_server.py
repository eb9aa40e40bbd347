"""A small real server on loopback: as much of ComfyUI as one test needs, as broken as it asks."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import WSMsgType, web

from tests.traces import seen
from tests.traces.seen import SeenRequest

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(eq=False)
class TinyServer:
    """Answers what it was told to; remembers all that it was asked.

    *on* maps ``"GET /queue"`` to a handler, or to a ready answer. *files* are what ``/view`` has,
    by ``(type, subfolder, filename)``; uploads land there.
    """

    url: str = ""
    on: dict[str, Handler | web.Response] = field(default_factory=dict)
    files: dict[tuple[str, str, str], bytes] = field(default_factory=dict)
    requests: list[SeenRequest] = field(default_factory=list)
    sockets: list[web.WebSocketResponse] = field(default_factory=list)
    client_ids: list[str] = field(default_factory=list)
    said: asyncio.Queue[str] = field(default_factory=lambda: asyncio.Queue(maxsize=64))
    connected: asyncio.Queue[web.WebSocketResponse] = field(
        default_factory=lambda: asyncio.Queue(maxsize=64)
    )

    def asked(self, what: str) -> list[SeenRequest]:
        """The requests like ``"GET /queue"`` so far."""
        return [r for r in self.requests if f"{r.method} {r.path}" == what]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer a request as told, else like a ComfyUI that has only files."""
        if request.path.endswith("/ws") and "Upgrade" in request.headers:
            return await self._socket(request)
        self.requests.append(await seen.read(request, 0.0))
        handler = self.on.get(f"{request.method} {request.path}")
        if isinstance(handler, web.Response):
            return web.Response(
                status=handler.status, body=handler.body, headers=handler.headers.copy()
            )
        if handler is not None:
            return await handler(request)
        match request.method, request.path:
            case (("GET" | "HEAD"), "/view"):
                return self._view(request)
            case "POST", ("/upload/image" | "/upload/mask"):
                return self._upload(self.requests[-1])
            case _:
                return web.Response(status=404)

    def _view(self, request: web.Request) -> web.Response:
        query = request.query
        place = (query.get("type", "output"), query.get("subfolder", ""), query["filename"])
        body = self.files.get(place)
        return web.Response(status=404) if body is None else web.Response(body=body)

    def _upload(self, request: SeenRequest) -> web.Response:
        image = request.part("image")
        folder, name = request.text("subfolder"), image.filename or ""
        self.files[(request.text("type"), folder, name)] = image.content
        return web.json_response({"name": name, "subfolder": folder, "type": "input"})

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        handler = self.on.get("GET /ws")
        if isinstance(handler, web.Response):
            return handler
        if handler is not None:
            return await handler(request)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.sockets.append(socket)
        self.client_ids.append(request.query.get("clientId", ""))
        await socket.send_json(
            {"type": "status", "data": {"status": {"exec_info": {"queue_remaining": 0}}}}
        )
        self.connected.put_nowait(socket)
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                self.said.put_nowait(message.data)
        return socket


@asynccontextmanager
async def tiny_server(tls: ssl.SSLContext | None = None) -> AsyncIterator[TinyServer]:
    """Serve on a free loopback port while the block lasts; whoever hangs is then cut off."""
    server = TinyServer()
    application = web.Application(client_max_size=1 << 26)
    application.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        port = runner.addresses[0][1]
        server.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
        yield server
    finally:
        for socket in server.sockets:
            await socket.close()
        await runner.cleanup()


async def hang(_request: web.Request) -> web.Response:
    """Never answer."""
    await asyncio.Event().wait()
    raise AssertionError("nobody sets it")


async def cut(request: web.Request) -> web.StreamResponse:
    """Announce a thousand bytes, send half of them, and hang up."""
    response = web.StreamResponse()
    response.content_length = 1000
    await response.prepare(request)
    await response.write(b"x" * 500)
    assert request.transport is not None
    request.transport.close()
    return response


async def stall(request: web.Request) -> web.StreamResponse:
    """Announce a thousand bytes, send half of them, and stay silent."""
    response = web.StreamResponse()
    response.content_length = 1000
    await response.prepare(request)
    await response.write(b"x" * 500)
    return await hang(request)
