"""The built-in engine as a server: everything wired together, started and stopped."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from aiohttp import web

from comfyserve.engine.answers import Refused
from comfyserve.engine.errors import AddressInUse, AddressUnusable, BadFolder
from comfyserve.engine.executor import Executor
from comfyserve.engine.folders import FOLDER_TYPES, Folders
from comfyserve.engine.info_routes import InfoRoutes
from comfyserve.engine.jobs_api import JobRoutes
from comfyserve.engine.messages import status
from comfyserve.engine.origin import is_foreign
from comfyserve.engine.prompt_queue import PromptQueue
from comfyserve.engine.prompt_routes import PromptRoutes
from comfyserve.engine.registry import Registry, builtin_registry
from comfyserve.engine.socket_route import SocketRoute
from comfyserve.engine.sockets import Announcer, Sockets
from comfyserve.engine.upload_routes import UploadRoutes
from comfyserve.engine.view_route import ViewRoute
from comfyserve.engine.worker import Worker

PreviewMethod = Literal["auto", "none"]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

PORTS = range(65536)
STOP_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How to run the engine.

    *port* 0 takes a free one. *folder* holds ``input``, ``output`` and ``temp``; None is a
    temporary one that is removed at the end. *max_upload_size* is in megabytes (MiB). *on_ready*
    is called with the engine's address once it answers. With *until_stdin_closes* `serve` also
    ends when nobody holds the other end of stdin any more, however they ended.
    """

    host: str = "127.0.0.1"
    port: int = 8188
    folder: Path | None = None
    test_nodes: bool = False
    preview_method: PreviewMethod = "auto"
    max_upload_size: float = 100
    until_stdin_closes: bool = False
    on_ready: Callable[[str], None] = lambda url: None


def serve(options: EngineOptions) -> None:
    """Run the engine until it is interrupted (Ctrl-C, SIGINT or SIGTERM).

    Raises `MissingParts`, `AddressInUse`, `AddressUnusable` or `BadFolder` when it cannot start.
    """
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve_until_signalled(options))


@asynccontextmanager
async def running(options: EngineOptions) -> AsyncIterator[str]:
    """The engine inside a running event loop, for as long as the context lasts; its address."""
    registry = builtin_registry(test_nodes=options.test_nodes)
    with ExitStack() as stack:
        root = options.folder
        if root is None:
            temporary = tempfile.TemporaryDirectory(
                prefix="comfyserve-engine-", ignore_cleanup_errors=True
            )
            root = Path(stack.enter_context(temporary))
        folders = Folders(root)
        try:
            for kind in FOLDER_TYPES:
                folders.path(kind)
        except OSError as error:
            raise BadFolder(root, error.strerror or str(error)) from error
        engine = _Engine(options, registry, folders)
        await engine.start()
        try:
            yield engine.url
        finally:
            await engine.stop()


class _Engine:
    """The parts of one engine."""

    def __init__(self, options: EngineOptions, registry: Registry, folders: Folders) -> None:
        self.options = options
        sockets = Sockets()
        announcer = Announcer(sockets, asyncio.get_running_loop())
        queue = PromptQueue(lambda remaining: announcer.say(status(remaining), None))
        executor = Executor(
            registry,
            folders,
            announcer,
            lambda: queue.interrupted,
            previews=options.preview_method == "auto",
        )
        self.worker = Worker(queue, executor)
        largest = round(options.max_upload_size * 2**20)
        info = InfoRoutes(registry, folders, largest)
        self.socket_route = SocketRoute(
            sockets, info.features, lambda: queue.remaining, lambda: executor.current
        )
        app = web.Application(client_max_size=largest, middlewares=[_guard])
        rooms = (
            info,
            self.socket_route,
            PromptRoutes(queue, registry, folders),
            ViewRoute(folders),
            UploadRoutes(folders, largest),
        )
        routes = [route for room in rooms for route in room.all()]
        app.router.add_routes(routes)
        app.router.add_routes(
            web.RouteDef(route.method, f"/api{route.path}", route.handler, route.kwargs)
            for route in routes
        )
        app.router.add_routes(JobRoutes(queue).all())
        self.runner = web.AppRunner(app, access_log=None, shutdown_timeout=STOP_SECONDS)
        self.url = ""

    async def start(self) -> None:
        await self.runner.setup()
        host, port = self.options.host, self.options.port
        try:
            await web.TCPSite(self.runner, host, port).start()
        except OSError as error:
            await self.runner.cleanup()
            if error.errno == errno.EADDRINUSE:
                raise AddressInUse(host, port) from error
            raise AddressUnusable(host, port, error.strerror or str(error)) from error
        port = self.runner.addresses[0][1]
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        self.worker.start()

    async def stop(self) -> None:
        await asyncio.to_thread(self.worker.stop, STOP_SECONDS)
        await self.socket_route.close_all()
        await self.runner.cleanup()


@web.middleware
async def _guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What holds for every route: pages of elsewhere are refused, refusals have one shape."""
    if is_foreign(request.headers.get("Host"), request.headers.get("Origin")):
        return web.Response(status=403)
    if request.method == "OPTIONS":
        return web.Response()
    try:
        return await handler(request)
    except Refused as refused:
        return refused.answer()


async def _serve_until_signalled(options: EngineOptions) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        # Not on Windows, where Ctrl-C arrives as a KeyboardInterrupt instead.
        with suppress(NotImplementedError, ValueError, RuntimeError):
            loop.add_signal_handler(number, stopped.set)
    if options.until_stdin_closes:
        _watch_stdin(loop, stopped)
    async with running(options) as url:
        options.on_ready(url)
        await stopped.wait()


def _watch_stdin(loop: asyncio.AbstractEventLoop, stopped: asyncio.Event) -> None:
    """Set *stopped* at the end of stdin.

    A thread waits for it, as event loops on Windows cannot; it ends with the process. It reads
    below Python's own stdin, whose lock a waiting thread would hold when the process ends.
    """

    def wait() -> None:
        with suppress(OSError):
            while os.read(0, 1024):
                pass
        with suppress(RuntimeError):  # the loop has ended by itself
            loop.call_soon_threadsafe(stopped.set)

    threading.Thread(target=wait, name="end of stdin", daemon=True).start()
