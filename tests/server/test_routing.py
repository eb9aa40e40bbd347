"""The shortcut to direct routes: it finds what the router would find, and nothing else."""

from __future__ import annotations

import httpx
import pytest
from fastapi import FastAPI, Request, Response
from starlette.types import Receive, Scope, Send

from comfyserve.server.routing import Shortcut, direct_router


def shortened() -> Shortcut:
    """Direct routes behind the shortcut; what it leaves alone is status 418."""
    router = direct_router("/things")

    @router.get("/named")
    async def named(request: Request) -> Response:
        return Response("the named")

    @router.get("/{id}")
    async def one(request: Request) -> Response:
        return Response(f"one: {request.path_params['id']} of {request.app.title}")

    @router.get("/{id}/parts")
    @router.head("/{id}/parts")
    async def parts(request: Request) -> Response:
        return Response(f"parts: {request.path_params['id']}")

    async def routed(scope: Scope, receive: Receive, send: Send) -> None:
        await Response(status_code=418)(scope, receive, send)

    app = FastAPI(title="the app")
    return Shortcut(app, routed, [router])


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("GET", "/things/named", 200, "the named"),
        ("GET", "/things/a%20b", 200, "one: a b of the app"),
        ("GET", "/things/7/parts", 200, "parts: 7"),
        ("HEAD", "/things/7/parts", 200, ""),
        ("POST", "/things/7", 418, ""),
        ("GET", "/things/", 418, ""),
        ("GET", "/things/7/", 418, ""),
        ("GET", "/things//parts", 418, ""),
        ("GET", "/things/a%2Fb", 418, ""),
        ("GET", "/other/7", 418, ""),
        ("GET", "/", 418, ""),
    ],
)
async def test_a_path_finds_the_route_of_its_shape(
    method: str, path: str, status: int, text: str
) -> None:
    """What no direct route is for goes on to the router, which has the words for it."""
    transport = httpx.ASGITransport(shortened())
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        answer = await client.request(method, path)

    assert answer.status_code == status
    if method != "HEAD":
        assert answer.text == text
