"""The application: which routes there are, what stands around them, what it opens and closes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from comfyserve import __version__
from comfyserve.host import Host
from comfyserve.server import backends, docs_page, guards, health, jobs, logs, metrics, sockets
from comfyserve.server.keys import KeyDoor
from comfyserve.server.links import Signer
from comfyserve.server.metrics import Metrics
from comfyserve.server.problems import Answered, told_http_error, told_unreadable
from comfyserve.server.routing import Shortcut
from comfyserve.server.sockets import Sockets
from comfyserve.server.streams import Streams
from comfyserve.server.v2 import assets as v2_assets
from comfyserve.server.v2 import jobs as v2_jobs
from comfyserve.server.workflows import call_routes
from comfyserve.server.workflows import routes as workflow_routes
from comfyserve.server.workflows.typed_paths import TypedPaths
from comfyserve.settings import Settings

OpenHost = Callable[[Metrics], AbstractAsyncContextManager[Host]]
"""Opens the house; what counts the events that last is given to it."""

_FILES_AT_A_TIME: Final = 2
"""Workflow files of callers that are read at once: each takes many times its size."""

_ABOUT: Final = (
    "Run ComfyUI workflows over HTTP: workflows by their names and inputs under `/api/workflows`, "
    "the Comfy API v2 under `/api/v2`, and numbered events, backends and the nodes' catalogue "
    "under `/api`."
)


def create_app(open: OpenHost, settings: Settings) -> FastAPI:
    """The application over the host that *open* opens when it starts, and closes when it ends."""
    counts = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open(counts) as host:
            app.state.host = host
            app.state.signer = Signer(host.access.links, settings.link_lifetime)
            yield

    app = _Application(
        title="comfyserve",
        version=__version__,
        description=_ABOUT,
        lifespan=lifespan,
        # Before FastAPI's own layers see what a route raises.
        middleware=[Middleware(Answered)],
        exception_handlers={
            HTTPException: told_http_error,
            RequestValidationError: told_unreadable,
        },
        redirect_slashes=False,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
    )
    app.state.settings = settings
    app.state.metrics = counts
    app.state.streams = Streams(settings.max_streams)
    app.state.few_files = asyncio.Semaphore(_FILES_AT_A_TIME)
    app.state.typed_paths = TypedPaths()
    app.state.graph_rules = guards.graph_rules(settings)
    rooms = (
        v2_jobs,
        v2_assets,
        workflow_routes,
        call_routes,
        jobs,
        backends,
        health,
        metrics,
        sockets,
        docs_page,
    )
    app.state.routers = [room.router for room in rooms]
    for router in app.state.routers:
        app.include_router(router)
    direct = (
        v2_jobs.router,
        v2_assets.router,
        workflow_routes.router,
        call_routes.router,
        jobs.router,
        backends.router,
    )
    asked = KeyDoor(Shortcut(app, app.routed, direct), lambda: app.state.host.access, settings)
    app.state.sockets, app.state.key_door = Sockets(settings.max_streams), asked
    app.door = _around(asked, settings, counts)
    return app


class _Application(FastAPI):
    """An application whose document holds the shapes that its routes name.

    Requests come in at its *door*, which stands around all else.
    """

    door: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.routed(scope, receive, send)
        else:
            await self.door(scope, receive, send)

    async def routed(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as FastAPI does, without the door."""
        await super().__call__(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        document = super().openapi()
        if "components" not in document:
            # Here and not above, so that a server begins without having made them.
            from comfyserve.server import models

            document["components"] = {"schemas": models.schemas(), "securitySchemes": _KEYS}
            # Without keys nobody is asked for one.
            document["security"] = [{name: []} for name in _KEYS] + [{}]
        return document


_KEYS: Final = {
    "bearerAuth": {"type": "http", "scheme": "bearer", "description": "A key, `cs_...`."},
    "keyAuth": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}


def _around(app: ASGIApp, settings: Settings, counts: Metrics) -> ASGIApp:
    """The application with what stands around it: few layers, as every message passes all."""

    def watch(scope: Scope, status: int, seconds: float) -> None:
        counts.answered(scope, status)
        logs.answered(scope, status, seconds)

    return Answered(guards.around(app, settings), watch)
