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
        """Run *graph* and return the bytes of its first file."""
        prompt_id = await self.submit(graph)
        await self._wait_for_end(prompt_id)
        entry = await self.entry(prompt_id)
        shown = (listed for outputs in entry["outputs"].values() for listed in outputs.values())
        file = next(each for listed in shown for each in listed if "filename" in each)
        async with self.session.get(f"{self.url}/view", params=file) as answer:
            answer.raise_for_status()
            return await answer.read()

    async def submit(self, graph: Mapping[str, Any]) -> str:
        """Queue *graph*; its prompt id."""
        prompt_id = str(uuid4())
        body = {"prompt": graph, "prompt_id": prompt_id, "client_id": self.client_id}
        async with self.session.post(f"{self.url}/prompt", json=body) as answer:
            answer.raise_for_status()
        return prompt_id

    async def entry(self, prompt_id: str) -> Mapping[str, Any]:
        """What the history says of a job that is over."""
        return await history_entry(self.session, self.url, prompt_id)

    async def upload(self, name: str, content: bytes) -> str:
        """Send an input file; the name that nodes find it by."""
        form = aiohttp.FormData()
        form.add_field("image", content, filename=name, content_type="image/png")
        async with self.session.post(f"{self.url}/upload/image", data=form) as answer:
            answer.raise_for_status()
            given: str = (await answer.json())["name"]
        return given

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


async def history_entry(
    session: aiohttp.ClientSession, url: str, prompt_id: str
) -> Mapping[str, Any]:
    """What the history of the ComfyUI at *url* says of a job that is over."""
    async with session.get(f"{url}/history/{prompt_id}") as answer:
        entry: Mapping[str, Any] = (await answer.json())[prompt_id]
    return entry


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
