"""A small server for the real frontend: its own files, and what it asks of a ComfyUI at start.

It tells the truth of an empty ComfyUI: the recorded node catalogue, no history, no user files.
"""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web

from tests.golden import OBJECT_INFO

COMFYUI_VERSION = "0.3.64"

# No dialog may wait for a person, and nothing is asked of the network.
SETTINGS: dict[str, Any] = {
    "Comfy.TutorialCompleted": True,
    "Comfy.InstalledVersion": "1.58.1",
    "Comfy.Workflow.Persist": False,
    "Comfy.Workflow.ShowMissingModelsWarning": False,
    "Comfy.Workflow.ShowMissingNodesWarning": False,
    "Comfy.Validation.Workflows": True,
    "Comfy.Notification.ShowVersionUpdates": False,
}

ANSWERS: dict[str, Any] = {
    "/settings": SETTINGS,
    "/users": {"storage": "server", "migrated": True},
    "/system_stats": {
        "system": {
            "os": "posix",
            "ram_total": 16 << 30,
            "ram_free": 8 << 30,
            "comfyui_version": COMFYUI_VERSION,
            "python_version": "3.11",
            "pytorch_version": "2",
            "embedded_python": False,
            "argv": ["main.py"],
        },
        "devices": [],
    },
    "/prompt": {"exec_info": {"queue_remaining": 0}},
    "/queue": {"queue_running": [], "queue_pending": []},
    "/history": {},
    "/jobs": {
        "jobs": [],
        "pagination": {"offset": 0, "limit": 200, "total": 0, "has_more": False},
    },
    "/extensions": [],
    "/embeddings": [],
    "/features": {},
    "/i18n": {},
    "/userdata": [],
    "/v2/userdata": [],
    "/workflow_templates": {},
    "/global_subgraphs": {},
    "/node_replacements": {},
    "/models": [],
    "/experiment/models": [],
}


@asynccontextmanager
async def serve_frontend() -> AsyncIterator[str]:
    """The address of a running server, on this machine's loopback only."""
    package = importlib.resources.files("comfyui_frontend_package")
    with importlib.resources.as_file(package / "static") as static:
        runner = web.AppRunner(_application(static), access_log=None, shutdown_timeout=1)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
        finally:
            await runner.cleanup()


def _application(static: Path) -> web.Application:
    app = web.Application()
    catalog = OBJECT_INFO.read_text(encoding="utf-8")

    async def page(_: web.Request) -> web.StreamResponse:
        return web.FileResponse(static / "index.html")

    async def object_info(_: web.Request) -> web.Response:
        return web.Response(text=catalog, content_type="application/json")

    app.router.add_get("/", page)
    app.router.add_get("/ws", _socket)
    app.router.add_get("/api/object_info", object_info)
    app.router.add_get("/api{path:/.*}", _answer)
    app.router.add_post("/api/settings{rest:.*}", _accept)
    app.router.add_static("/", static)
    return app


async def _answer(request: web.Request) -> web.Response:
    path = request.match_info["path"].rstrip("/")
    if path not in ANSWERS:
        raise web.HTTPNotFound
    return web.json_response(ANSWERS[path])


async def _accept(_: web.Request) -> web.Response:
    return web.Response()


async def _socket(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    status = {"status": {"exec_info": {"queue_remaining": 0}}, "sid": "golden"}
    await socket.send_str(json.dumps({"type": "status", "data": status}))
    async for message in socket:
        if message.type is WSMsgType.ERROR:
            break
    return socket
