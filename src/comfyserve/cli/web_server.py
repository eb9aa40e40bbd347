"""The application behind a listening socket, from its first request to its last."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Generator
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

import uvicorn
from fastapi import FastAPI

from comfyserve.cli.socket_protocol import PING_EVERY, PONG_WITHIN, SocketProtocol
from comfyserve.events import NumberedEvent
from comfyserve.host import Host, open_host
from comfyserve.server import guards, logs
from comfyserve.server.app import create_app
from comfyserve.server.joined_writes import JoinedWrites
from comfyserve.server.metrics import Metrics
from comfyserve.server.sockets import Sockets
from comfyserve.server.streams import HANG_UP
from comfyserve.settings import Settings

_KEPT_ALIVE: Final = 75
"""Seconds that a silent connection stays open between two requests."""

_LARGEST_HEAD: Final = 1 << 16
"""Bytes that may come before a request's headers have ended."""

_LARGEST_MESSAGE: Final = 1 << 20
"""Bytes that a message on a socket may have where nobody says otherwise."""

_LAST_ANSWERS_WITHIN: Final = 3
"""Seconds that requests may still take once jobs and streams have ended."""


async def prepare(settings: Settings) -> None:
    """Begin to log. Raises `AddressUnsafe`."""
    await guards.refuse_unsafe(settings)
    logs.set_up(settings.log_level, as_json=settings.log_json)


async def answer(
    settings: Settings, listener: socket.socket, ready: Callable[[], None], stop: asyncio.Event
) -> None:
    """Answer what comes to *listener* until *stop* is set; *ready* is called once it does.

    Then running jobs get the grace period, while requests are still answered. Raises what
    `open_host` raises.
    """
    app = create_app(_opener(settings), settings)
    # Not left to the web server, which would only log what is wrong and end.
    async with app.router.lifespan_context(app):
        web = web_server_of(app, ready, largest_message=settings.body_cap)
        async with asyncio.TaskGroup() as tasks:
            stopping = tasks.create_task(_stop(web, app, stop), name="stop")
            await web.serve(sockets=[listener])
            stopping.cancel()


async def _stop(web: uvicorn.Server, app: FastAPI, stop: asyncio.Event) -> None:
    await stop.wait()
    host: Host = app.state.host
    sockets: Sockets = app.state.sockets
    await host.stop()
    await sockets.stop()
    web.should_exit = True


def _opener(settings: Settings) -> Callable[[Metrics], AbstractAsyncContextManager[Host]]:
    def open_counted(metrics: Metrics) -> AbstractAsyncContextManager[Host]:
        def watch(event: NumberedEvent) -> None:
            metrics.watch(event)
            logs.watch(event)

        return open_host(settings, watch=watch)

    return open_counted


def web_server_of(
    app: FastAPI, ready: Callable[[], None], *, largest_message: int = _LARGEST_MESSAGE
) -> uvicorn.Server:
    """The web server for the app; it leaves signals and the app's lifespan to its caller.

    *largest_message* is how many bytes a message on a socket may have.
    """
    return _WebServer(
        uvicorn.Config(
            app,
            http=_protocol(),
            ws=SocketProtocol,
            ws_max_size=largest_message,
            ws_ping_interval=PING_EVERY,
            ws_ping_timeout=PONG_WITHIN,
            # Pictures are compressed already, and it costs memory for each connection.
            ws_per_message_deflate=False,
            h11_max_incomplete_event_size=_LARGEST_HEAD,
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=_KEPT_ALIVE,
            timeout_graceful_shutdown=_LAST_ANSWERS_WITHIN,
        ),
        ready,
    )


class _WebServer(uvicorn.Server):
    """Says when it answers, and leaves signals to us."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def _protocol() -> type[asyncio.Protocol]:
    """The fastest reader of HTTP that is there, with connections that a stream may cut."""
    try:
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
    except ModuleNotFoundError:  # as on Windows
        return _slower_protocol()

    class Cuttable(HttpToolsProtocol):
        _head: int | None = 0  # bytes of a head that is not whole yet; None once it is
        _has_ended = False

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(JoinedWrites(transport))
            self.app = _cuttable(self.app, transport)

        def data_received(self, data: bytes) -> None:
            self._has_ended = False
            super().data_received(data)
            if self._head is not None and not self._has_ended:
                self._head += len(data)
                if self._head > _LARGEST_HEAD and not self.transport.is_closing():
                    self.send_400_response("The headers are too large.")

        def on_headers_complete(self) -> None:
            self._head = None
            super().on_headers_complete()

        def on_message_complete(self) -> None:
            self._head, self._has_ended = 0, True
            super().on_message_complete()

    return Cuttable


def _slower_protocol() -> type[asyncio.Protocol]:
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Cuttable(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(JoinedWrites(transport))
            self.app = _cuttable(self.app, transport)

    return Cuttable


def _cuttable(app: Any, transport: asyncio.Transport) -> Any:
    """The application of one connection, told how to cut it."""

    def told(scope: Any, receive: Any, send: Any) -> Any:
        scope.setdefault("extensions", {})[HANG_UP] = transport.abort
        return app(scope, receive, send)

    return told
