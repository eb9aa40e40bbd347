"""A server that answers like an idle ComfyUI with just the nodes that a test wants."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import WSMsgType, web

SAVE: Mapping[str, Any] = {"output_node": True, "input": {"required": {"images": ["IMAGE"]}}}


def loader(*models: str) -> Mapping[str, Any]:
    """A node that loads one of these models."""
    return {"input": {"required": {"ckpt_name": [list(models)]}}, "output": ["MODEL", "IMAGE"]}


def nodes(*models: str, **others: Mapping[str, Any]) -> dict[str, Any]:
    """What a server tells that has these models, and nodes besides."""
    return {"CheckpointLoaderSimple": loader(*models), "SaveImage": SAVE, **others}


def loading(model: str, **others: str) -> dict[str, Any]:
    """A graph that loads a model, with nodes without inputs beside it: id to class."""
    return {
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": model}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["4", 1]}},
        **{id: {"class_type": name, "inputs": {}} for id, name in others.items()},
    }


class StandIn:
    """What the server answers: *object_info* may be replaced at any time; *asked* counts."""

    def __init__(self, object_info: Mapping[str, Any]) -> None:
        self.object_info = object_info
        self.asked: Counter[str] = Counter()
        self.url = ""
        self._sockets: set[web.WebSocketResponse] = set()

    async def drop_sockets(self) -> None:
        """Cut all sockets, as a restart would."""
        for socket in [*self._sockets]:
            await socket.close()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked[request.path] += 1
        match request.path:
            case "/ws":
                return await self._greet(request)
            case "/queue":
                return web.json_response({"queue_running": [], "queue_pending": []})
            case "/object_info":
                return web.Response(body=json.dumps(self.object_info).encode())
            case "/system_stats":
                device = {"name": "cuda:0 A Card", "type": "cuda", "vram_total": 8 << 30}
                system = {"comfyui_version": "0.3.50"}
                return web.json_response({"system": system, "devices": [device]})
        return web.Response(status=404)

    async def _greet(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self._sockets.add(socket)
        try:
            status = {"status": {"exec_info": {"queue_remaining": 0}}, "sid": "x"}
            await socket.send_json({"type": "status", "data": status})
            async for message in socket:
                if message.type is WSMsgType.ERROR:
                    break
        finally:
            self._sockets.discard(socket)
        return socket


@asynccontextmanager
async def standing_in(object_info: Mapping[str, Any]) -> AsyncIterator[StandIn]:
    """Such a server on a free loopback port, for the time of the block."""
    stand_in = StandIn(object_info)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", stand_in.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.5)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        stand_in.url = f"http://{host}:{port}"
        yield stand_in
    finally:
        await stand_in.drop_sockets()
        await runner.cleanup()
