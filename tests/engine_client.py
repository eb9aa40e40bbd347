"""A plain client of the built-in engine, for its own tests: one socket, every message kept."""

from __future__ import annotations

import asyncio
import json
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

PATIENCE = 15.0

Graph = dict[str, Any]


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    """One node of a graph."""
    return {"class_type": class_type, "inputs": inputs}


@dataclass(slots=True)
class EngineClient:
    """Submits graphs and hears what becomes of them. `heard` holds messages and binary frames."""

    session: aiohttp.ClientSession
    socket: aiohttp.ClientWebSocketResponse
    client_id: str
    heard: list[dict[str, Any] | bytes] = field(default_factory=list)
    ended: set[str] = field(default_factory=set)
    stepping: set[str] = field(default_factory=set)

    async def submit(self, graph: Graph, **others: Any) -> str:
        """Queue *graph*, which must be accepted; its prompt id."""
        body = {"prompt": graph, "client_id": self.client_id, **others}
        async with self.session.post("/prompt", json=body) as answer:
            told = await answer.json()
            assert answer.status == 200, told
            prompt_id: str = told["prompt_id"]
            return prompt_id

    async def run(self, graph: Graph, **others: Any) -> list[dict[str, Any] | bytes]:
        """Queue *graph* and hear it to its end; everything heard since."""
        before = len(self.heard)
        prompt_id = await self.submit(graph, **others)
        await self.hear(lambda: self.has_ended(prompt_id))
        return self.heard[before:]

    async def hear(self, enough: Callable[[], bool]) -> None:
        """Read the socket until *enough*, or fail when that takes too long."""
        deadline = time.monotonic() + PATIENCE
        while not enough():
            message = await self.socket.receive(timeout=max(0.1, deadline - time.monotonic()))
            assert message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY), message
            is_text = message.type is aiohttp.WSMsgType.TEXT
            self._keep(json.loads(message.data) if is_text else message.data)

    def _keep(self, message: dict[str, Any] | bytes) -> None:
        self.heard.append(message)
        if isinstance(message, bytes):
            return
        if message["type"] == "progress":
            self.stepping.add(message["data"]["prompt_id"])
        if message["type"] == "executing" and message["data"]["node"] is None:
            self.ended.add(message["data"]["prompt_id"])

    async def say_features(self, features: dict[str, Any]) -> None:
        """Tell the client's features, and hear the engine's answer: all that was said before."""
        await self.socket.send_json({"type": "feature_flags", "data": features})
        await self.hear(lambda: bool(self.messages("feature_flags")))

    def messages(self, kind: str, prompt_id: str | None = None) -> list[dict[str, Any]]:
        """The data of every message of that kind, about one prompt or about any."""
        return [
            each["data"]
            for each in self.heard
            if isinstance(each, dict)
            and each["type"] == kind
            and prompt_id in (None, each["data"].get("prompt_id"))
        ]

    def has_ended(self, prompt_id: str) -> bool:
        return prompt_id in self.ended

    def is_stepping(self, prompt_id: str) -> bool:
        return prompt_id in self.stepping

    async def get(self, path: str) -> Any:
        """The JSON at *path*."""
        async with self.session.get(path) as answer:
            return await answer.json()

    async def post(self, path: str, body: Any) -> Any:
        """The JSON, or the empty text, that a command is answered with; it must be accepted."""
        async with self.session.post(path, json=body) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json() if answer.content_length else ""

    async def entry(self, prompt_id: str) -> dict[str, Any]:
        """A prompt's history entry, once there is one."""
        deadline = time.monotonic() + PATIENCE
        while not (found := await self.get(f"/history/{prompt_id}")):
            assert time.monotonic() < deadline, f"{prompt_id} never came into the history"
            await asyncio.sleep(0.01)
        entry: dict[str, Any] = found[prompt_id]
        return entry

    async def forget(self) -> None:
        """Have the engine forget cached results, models and history."""
        await self.post("/free", {"free_memory": True, "unload_models": True})
        await self.post("/history", {"clear": True})


@asynccontextmanager
async def engine_client(
    url: str, client_id: str = "tester", *, named_previews: bool = False
) -> AsyncIterator[EngineClient]:
    """A client that has been greeted, and has told its features if it wants *named_previews*."""
    timeout = aiohttp.ClientTimeout(total=PATIENCE)
    async with (
        aiohttp.ClientSession(url, timeout=timeout) as session,
        session.ws_connect(f"/ws?clientId={client_id}", max_msg_size=2**28) as socket,
    ):
        client = EngineClient(session, socket, client_id)
        await client.hear(lambda: bool(client.messages("status")))
        if named_previews:
            await client.say_features({"supports_preview_metadata": True})
        yield client


def kinds(heard: list[dict[str, Any] | bytes]) -> list[str]:
    """Each message as its type, with what tells it from others of its type."""
    return [_kind(each) for each in heard]


def _kind(message: dict[str, Any] | bytes) -> str:
    if isinstance(message, bytes):
        return f"event {struct.unpack('>I', message[:4])[0]}"
    data = message["data"]
    match message["type"]:
        case "status":
            return f"status {data['status']['exec_info']['queue_remaining']}"
        case "executing" | "executed":
            return f"{message['type']} {data['node']}"
        case "progress":
            return f"progress {data['value']}/{data['max']}"
        case "progress_state":
            last = list(data["nodes"].values())[-1]
            return f"state {last['node_id']} {last['state']} {last['value']:g}/{last['max']:g}"
        case kind:
            return str(kind)
