"""The least a program can do to run a job on a ComfyUI: what comfyserve is measured against.

One session, one socket, no checks, no files, no second look when a message is lost.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import aiohttp


@dataclass(frozen=True, slots=True)
class BareClient:
    """A persistent connection to one ComfyUI."""

    url: str
    client_id: str
    session: aiohttp.ClientSession
    socket: aiohttp.ClientWebSocketResponse

    async def run(self, graph: Mapping[str, Any]) -> bytes:
        """Run *graph* and return the bytes of its first picture."""
        prompt_id = str(uuid4())
        body = {"prompt": graph, "prompt_id": prompt_id, "client_id": self.client_id}
        async with self.session.post(f"{self.url}/prompt", json=body) as answer:
            answer.raise_for_status()
        await self._wait_for_end(prompt_id)
        async with self.session.get(f"{self.url}/history/{prompt_id}") as answer:
            outputs = (await answer.json())[prompt_id]["outputs"]
        picture = next(iter(outputs.values()))["images"][0]
        async with self.session.get(f"{self.url}/view", params=picture) as answer:
            answer.raise_for_status()
            return await answer.read()

    async def _wait_for_end(self, prompt_id: str) -> None:
        async for message in self.socket:
            if message.type is not aiohttp.WSMsgType.TEXT:
                continue
            content = json.loads(message.data)
            data = content["data"]
            ended = content["type"] == "executing" and data["node"] is None
            if ended and data.get("prompt_id") == prompt_id:
                return
        raise ConnectionError("the socket closed before the job ended")


@asynccontextmanager
async def connect(url: str) -> AsyncIterator[BareClient]:
    """Open the session and the socket, and close both."""
    client_id = uuid4().hex
    timeout = aiohttp.ClientTimeout(total=60)
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.ws_connect(f"{url}/ws", params={"clientId": client_id}) as socket,
    ):
        yield BareClient(url, client_id, session, socket)
