"""Routes that answer for themselves: the document describes them, nothing stands in between."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute


class DirectRoute(APIRoute):
    """A route whose function takes the request and gives the response, at no further cost.

    What it takes and answers is declared for the document alone.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        return self.endpoint


def direct_router(prefix: str = "") -> APIRouter:
    """A router of such routes."""
    return APIRouter(prefix=prefix, route_class=DirectRoute)
