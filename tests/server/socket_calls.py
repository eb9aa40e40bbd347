"""A client of `/api/ws` for tests: asks, and hears each job of many on one socket."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

Said = dict[str, Any]

SECONDS = 20.0
"""Seconds that a test waits for what must come."""

OVER = frozenset({"succeeded", "failed", "canceled", "expired"})


class Socket:
    """One open socket; every wait has a deadline.

    All that was heard and that nobody waited for is kept: *events* by job, *previews* as they
    came, heads and pictures; *closed_because* is the reason of the server's last frame.
    """

    def __init__(self, connection: aiohttp.ClientWebSocketResponse) -> None:
        self.connection = connection
        self.events: defaultdict[str, list[Said]] = defaultdict(list)
        self.unfollowed: dict[str, Said] = {}
        self.previews: list[tuple[Said, bytes]] = []
        self.closed_because = ""
        self._others: list[Said] = []
        self._asked = 0

    @property
    def closed_with(self) -> int | None:
        """The code that the server closed with, once it did."""
        return self.connection.close_code

    async def ask(self, type: str, **fields: Any) -> Said:
        """Send a message, and give the answer that has its id."""
        self._asked += 1
        id = fields.pop("id", self._asked)
        await self.say(type, id=id, **fields)
        return await self.answer_to(id)

    async def answer_to(self, id: str | int) -> Said:
        """The answer to the message of this id."""
        return await self.until(lambda said: said.get("id") == id)

    async def say(self, type: str, **fields: Any) -> None:
        """Send a message, and wait for nothing."""
        await self.connection.send_json({"type": type, **fields})

    async def send(self, message: str | bytes) -> None:
        """Send anything."""
        if isinstance(message, str):
            await self.connection.send_str(message)
        else:
            await self.connection.send_bytes(message)

    async def next(self, type: str) -> Said:
        """The next message of this type that is no event."""
        return await self.until(lambda said: said["type"] == type)

    async def until(self, is_it: Callable[[Said], bool]) -> Said:
        """The first message that it is, of those that came and those that come."""
        for said in self._others:
            if is_it(said):
                self._others.remove(said)
                return said
        async with asyncio.timeout(SECONDS):
            while True:
                heard = await self._hear()
                if heard is not None and is_it(heard):
                    self._others.remove(heard)
                    return heard

    async def submit(self, **fields: Any) -> Said:
        """Hand in a job; as it stands."""
        answer = await self.ask("submit", **fields)
        assert answer["type"] == "submitted", answer
        job = answer["job"]
        assert isinstance(job, dict)
        return job

    async def until_over(self, job_id: str) -> Said:
        """The job once it is over, without being told so."""
        async with asyncio.timeout(SECONDS):
            while True:
                job: Said = (await self.ask("get", job_id=job_id))["job"]
                if job["status"] in OVER:
                    return job
                await asyncio.sleep(0.05)

    async def hear_to_end(self, job_id: str) -> list[Said]:
        """All events of a job, once it is not followed any more."""
        async with asyncio.timeout(SECONDS):
            while job_id not in self.unfollowed:
                await self._hear()
        return self.events[job_id]

    async def hear_event(self, job_id: str, is_it: Callable[[Said], bool]) -> Said:
        """The first event of the job that it is."""
        async with asyncio.timeout(SECONDS):
            while True:
                for event in self.events[job_id]:
                    if is_it(event):
                        return event
                await self._hear()

    async def closed(self) -> int:
        """The code with which the server closes, whatever comes before."""
        async with asyncio.timeout(SECONDS):
            while not self.connection.closed:
                await self._hear(may_close=True)
        assert self.connection.close_code is not None
        return self.connection.close_code

    async def _hear(self, *, may_close: bool = False) -> Said | None:
        message = await self.connection.receive()
        if message.type is aiohttp.WSMsgType.BINARY:
            self.previews.append(picture(message.data))
            return None
        if message.type is aiohttp.WSMsgType.CLOSE:
            self.closed_because = message.extra or ""
        if message.type is not aiohttp.WSMsgType.TEXT:
            assert may_close, f"the socket ended: {message}, {self.connection.close_code}"
            return None
        said: Said = json.loads(message.data)
        if said["type"] == "event":
            self.events[said["job_id"]].append(said)
            return None
        if said["type"] == "unfollowed":
            self.unfollowed[said["job_id"]] = said
        self._others.append(said)
        return said


@asynccontextmanager
async def socket(url: str, *, until_ready: bool = True, **options: Any) -> AsyncIterator[Socket]:
    """A socket to the server at *url*; let in already where nothing else is asked for."""
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{url}/api/ws", max_msg_size=0, **options) as connection,
    ):
        opened = Socket(connection)
        if until_ready:
            await opened.next("ready")
        yield opened


def numbers(events: list[Said]) -> list[int]:
    """The numbers of the events that have one."""
    return [event["seq"] for event in events if event["seq"] is not None]


def picture(message: bytes) -> tuple[Said, bytes]:
    """The head and the picture of a binary message."""
    size = int.from_bytes(message[:4], "big")
    head = json.loads(message[4 : 4 + size])
    assert isinstance(head, dict)
    return head, message[4 + size :]
