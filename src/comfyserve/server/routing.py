"""Routes that answer for themselves: the document describes them, nothing stands in between."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Receive, Scope, Send


class DirectRoute(APIRoute):
    """A route whose function takes the request and gives the response, at no further cost.

    What it takes and answers is declared for the document alone.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        return self.endpoint


def direct_router(prefix: str = "") -> APIRouter:
    """A router of such routes."""
    return APIRouter(prefix=prefix, route_class=DirectRoute)


class Shortcut:
    """Answers what asks for a direct route, found by the shape of its path instead of by trying
    one route after the other; all else goes to *routed*.

    Each route has at most one place for a name in its path. *app* is what requests call theirs.
    """

    def __init__(self, app: ASGIApp, routed: ASGIApp, routers: Iterable[APIRouter]) -> None:
        self._app = app
        self._routed = routed
        self._routes: dict[_Shape, tuple[DirectRoute, str]] = {}
        self._places: dict[int, tuple[int, ...]] = {}
        for router in routers:
            for route in router.routes:
                if isinstance(route, DirectRoute):
                    self._add(route)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = self._found(scope) if scope["type"] == "http" else None
        if found is None:
            await self._routed(scope, receive, send)
            return
        route, params = found
        scope["app"], scope["route"], scope["path_params"] = self._app, route, params
        response = await route.endpoint(Request(scope, receive, send))
        await response(scope, receive, send)

    def _add(self, route: DirectRoute) -> None:
        parts = route.path.split("/")
        places = [at for at, part in enumerate(parts) if part.startswith("{")]
        if len(places) > 1 or any(":" in part for part in parts):
            return
        at = places[0] if places else 0
        name = parts[at][1:-1]
        parts[at] = ""
        for method in route.methods or ():
            self._routes.setdefault((method, at, *parts), (route, name))
        known = self._places.get(len(parts), ())
        # A path that is one by its letters is no name.
        self._places[len(parts)] = tuple(sorted({*known, at}))

    def _found(self, scope: Scope) -> tuple[DirectRoute, dict[str, str]] | None:
        if scope.get("root_path"):
            return None
        parts = scope["path"].split("/")
        for at in self._places.get(len(parts), ()):
            told = parts[at]
            if bool(told) is not bool(at):
                continue
            parts[at] = ""
            found = self._routes.get((scope["method"], at, *parts))
            parts[at] = told
            if found is not None:
                return found[0], ({found[1]: told} if at else {})
        return None


_Shape = tuple[str | int, ...]
"""The method, where in the path a name stands (0: nowhere), and the path's parts without it."""
