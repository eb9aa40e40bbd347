"""A client of nothing but aiohttp: it does just what its test says and remembers what it heard."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest

from tests.traces.replay import Replay

DEADLINE = 10.0
ME = "tester"
_LAST = "that was all"


@dataclass
class Plain:
    """A client that does just what its test says, with nothing but aiohttp."""

    replay: Replay
    http: aiohttp.ClientSession
    socket: Any = None
    heard: list[Any] = field(default_factory=list)
    greetings: list[Any] = field(default_factory=list)
    reopens: bool = False
    _reader: asyncio.Task[None] | None = None
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def open_socket(self) -> None:
        self.socket = await self.http.ws_connect(
            f"{self.replay.url}/ws?clientId={ME}", max_msg_size=0
        )
        self._reader = asyncio.create_task(self._read())

    async def try_socket(self) -> int:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await self.http.ws_connect(f"{self.replay.url}/ws?clientId={ME}")
        return refused.value.status

    async def close_socket(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait({self._reader})
        if self.socket is not None:
            await self.socket.close()

    async def submit(self) -> str:
        mine = str(uuid.uuid4())
        status, reply = await self.post(
            "/prompt", {"prompt": {"9": {}}, "prompt_id": mine, "client_id": ME}
        )
        assert (status, reply["prompt_id"]) == (200, mine)
        return mine

    async def post(self, path: str, body: Any) -> tuple[int, Any]:
        sent = {"data" if isinstance(body, aiohttp.FormData) else "json": body}
        async with asyncio.timeout(DEADLINE):
            async with self.http.post(self.replay.url + path, **sent) as answer:
                text = await answer.text()
                with suppress(ValueError):
                    return answer.status, json.loads(text)
                return answer.status, text

    async def raw(self, path: str, **query: str) -> tuple[int, bytes]:
        async with self.http.get(self.replay.url + path, params=query) as answer:
            return answer.status, await answer.read()

    async def get(self, path: str) -> Any:
        status, body = await self.raw(path)
        assert status == 200
        return json.loads(body)

    async def view(self, name: str, subfolder: str = "", kind: str = "output") -> tuple[int, bytes]:
        return await self.raw("/view", filename=name, subfolder=subfolder, type=kind)

    async def hear(self, wanted: Any) -> None:
        await until(lambda: any(isinstance(m, dict) and wanted(m) for m in self.heard), self._news)

    async def hear_end(self) -> None:
        def ended(message: Any) -> bool:
            return message["type"] == "executing" and message["data"]["node"] is None

        count = sum(isinstance(m, dict) and ended(m) for m in self.heard)
        last = self.heard and isinstance(self.heard[-1], dict) and ended(self.heard[-1])
        if not last:
            await until(
                lambda: sum(isinstance(m, dict) and ended(m) for m in self.heard) > count,
                self._news,
            )

    async def hear_all(self) -> None:
        async with asyncio.timeout(DEADLINE):
            while _LAST not in self.heard:
                await self.replay.send(json.dumps(_LAST))  # again: a socket may be on its way back
                await asyncio.sleep(0.001)
        self.heard = self.heard[: self.heard.index(_LAST)]

    async def hear_end_of_socket(self) -> None:
        assert self._reader is not None
        await within(self._reader)

    async def ended(self, prompt_id: str) -> Any:
        entry: Any = {}
        async with asyncio.timeout(DEADLINE):
            while not entry:
                entry = await self.get(f"/history/{prompt_id}")
        return entry[prompt_id]

    async def until_gone(self, prompt_id: str) -> None:
        async with asyncio.timeout(DEADLINE):
            while prompt_id in json.dumps(await self.get("/queue")):
                pass

    async def _read(self) -> None:
        await self._hear_socket()
        while self.reopens:
            with suppress(aiohttp.ClientConnectionError):
                self.socket = await self.http.ws_connect(
                    f"{self.replay.url}/ws?clientId={ME}", max_msg_size=0
                )
                await self._hear_socket()
            await asyncio.sleep(0.001)

    async def _hear_socket(self) -> None:
        async for message in self.socket:
            said: Any = message.data
            with suppress(ValueError):
                said = json.loads(said) if isinstance(said, str) else said
            self._take(said)
            self._news.set()

    def _take(self, said: Any) -> None:
        data = said.get("data", {}) if isinstance(said, dict) else {}
        unasked = isinstance(said, dict) and said["type"] == "executing" and "prompt_id" not in data
        flags = isinstance(said, dict) and said["type"] == "feature_flags"
        (self.greetings if unasked or flags or "sid" in data else self.heard).append(said)


@asynccontextmanager
async def plain_client(
    replay: Replay, *, opens: bool = True, reopens: bool = False
) -> AsyncIterator[Plain]:
    async with aiohttp.ClientSession() as http:
        me = Plain(replay, http, reopens=reopens)
        if opens:
            await me.open_socket()
        yield me
        await me.close_socket()


async def within(waited: Any) -> Any:
    async with asyncio.timeout(DEADLINE):
        return await waited


async def until(condition: Any, news: asyncio.Event | None = None) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():
            if news is None:
                await asyncio.sleep(0.001)
                continue
            news.clear()
            await news.wait()
