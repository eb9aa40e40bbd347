"""The application: which routes there are, what stands around them, what it opens and closes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from comfyserve import __version__
from comfyserve.host import Host
from comfyserve.server import docs_page, guards, health, jobs, metrics
from comfyserve.server.logs import Logged
from comfyserve.server.metrics import Counted, Metrics
from comfyserve.server.problems import Answered, told_http_error, told_unreadable
from comfyserve.server.streams import Streams
from comfyserve.server.v2 import assets as v2_assets
from comfyserve.server.v2 import jobs as v2_jobs
from comfyserve.settings import Settings

OpenHost = Callable[[Metrics], AbstractAsyncContextManager[Host]]
"""Opens the house; what counts the events that last is given to it."""

_ABOUT: Final = (
    "Run ComfyUI workflows over HTTP: the Comfy API v2 under `/api/v2`, and numbered events, jobs "
    "to forget and the nodes' catalogue under `/api`."
)


def create_app(open: OpenHost, settings: Settings) -> FastAPI:
    """The application over the host that *open* opens when it starts, and closes when it ends."""
    counts = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open(counts) as host:
            app.state.host = host
            yield

    app = _Application(
        title="comfyserve",
        version=__version__,
        description=_ABOUT,
        lifespan=lifespan,
        middleware=_around(settings, counts),
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
    for room in (v2_jobs, v2_assets, jobs, health, metrics, docs_page):
        app.include_router(room.router)
    return app


class _Application(FastAPI):
    """An application whose document holds the shapes that its routes name."""

    def openapi(self) -> dict[str, Any]:
        document = super().openapi()
        if "components" not in document:
            # Here and not above, so that a server begins without having made them.
            from comfyserve.server import models

            document["components"] = {"schemas": models.schemas()}
        return document


def _around(settings: Settings, counts: Metrics) -> list[Middleware]:
    """What stands around the routes, the first outermost."""
    cors, *others = guards.middleware(settings)
    return [
        Middleware(Answered),
        Middleware(Counted, metrics=counts),
        Middleware(Logged),
        cors,
        # Within what lets pages read answers, so that they can read those of errors, too.
        Middleware(Answered),
        *others,
    ]
