"""What may lie between a client and its server: connections that are cut, answers that get lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

from aiohttp import ClientSession, web


class DroppingProxy:
    """Passes TCP connections on to a server, and cuts them as it is told.

    Once *cut_after* is set, a connection is cut when that many bytes came from the server over
    it. While *swallow* is set, a connection that brings a request beginning so is cut before its
    answer. *cuts* counts both.
    """

    def __init__(self, target: str) -> None:
        self.url = ""
        self.cuts = 0
        self.passed = 0
        self.cut_after: int | None = None
        self.swallow: bytes | None = None
        parts = urlsplit(target)
        self._target = parts.hostname or "", parts.port or 80
        self._port = 0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    async def listen(self) -> None:
        """Take connections, always at the same address."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"

    @property
    def is_listening(self) -> bool:
        """Whether connections are taken right now."""
        return self._server is not None and self._server.is_serving()

    async def vanish(self) -> None:
        """Cut everything and refuse connections until `listen` is called again."""
        if self._server is not None:
            self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        if self._server is not None:
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            with suppress(OSError):
                there, back = await asyncio.open_connection(*self._target)
                try:
                    await self._pass_on(reader, writer, there, back)
                finally:
                    back.transport.abort()
        except asyncio.CancelledError:
            pass  # cut by `vanish`; asyncio would log what a handler raises
        finally:
            self._open.discard(task)
            writer.transport.abort()

    async def _pass_on(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        there: asyncio.StreamReader,
        back: asyncio.StreamWriter,
    ) -> None:
        cut = asyncio.Event()
        ways = [
            asyncio.create_task(self._requests(reader, back, cut)),
            asyncio.create_task(self._answers(there, writer, cut)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _requests(
        self, reader: asyncio.StreamReader, back: asyncio.StreamWriter, cut: asyncio.Event
    ) -> None:
        while data := await reader.read(1 << 16):
            if self.swallow is not None and data.startswith(self.swallow):
                self.swallow = None
                cut.set()
            back.write(data)
            await back.drain()

    async def _answers(
        self, there: asyncio.StreamReader, writer: asyncio.StreamWriter, cut: asyncio.Event
    ) -> None:
        count = 0
        while data := await there.read(1 << 12):
            if cut.is_set():
                self.cuts += 1
                return
            if self.cut_after is not None:
                data = data[: self.cut_after - count]
                count += len(data)
            self.passed += len(data)
            writer.write(data)
            await writer.drain()
            if self.cut_after is not None and count >= self.cut_after:
                self.cuts += 1
                return


@asynccontextmanager
async def dropping_proxy(target: str) -> AsyncIterator[DroppingProxy]:
    """A proxy before *target* on a free loopback port."""
    proxy = DroppingProxy(target)
    await proxy.listen()
    try:
        yield proxy
    finally:
        await proxy.vanish()


@asynccontextmanager
async def official_proxy(target: str) -> AsyncIterator[str]:
    """A server that speaks the Comfy API v2 and nothing else, in front of *target*; its address.

    It gives jobs ids of its own, and has neither a node catalogue nor numbered events.
    """

    async with ClientSession() as session:

        async def forward(request: web.Request) -> web.StreamResponse:
            if request.path == "/api/v2/health":
                return web.json_response({"status": "healthy", "upstream": "reachable"})
            headers = {
                name: value
                for name, value in request.headers.items()
                if name.lower() in ("content-type", "idempotency-key", "accept", "range")
            }
            async with session.request(
                request.method, target + request.path_qs, headers=headers, data=await request.read()
            ) as answer:
                told = web.StreamResponse(
                    status=answer.status, headers={"Content-Type": answer.headers["Content-Type"]}
                )
                await told.prepare(request)
                async for piece in answer.content.iter_any():
                    await told.write(piece)
                return told

        app = web.Application(client_max_size=1 << 26)
        app.router.add_route("*", "/api/v2/{rest:.*}", forward)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()
