"""Both official clients behind one door, so that each promise is written once and tested twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from comfy_sdk import AsyncComfy, Comfy, Workflow

PATIENCE = 20.0
"""Seconds within which a job of the tests is over, on a busy machine too."""


@dataclass(frozen=True, slots=True)
class Sdk:
    """One of the two clients, awaited. What it gives is the client's own object.

    The two are alike in their names only and share no type, so what they give has none here.
    """

    client: Any

    @property
    def is_async(self) -> bool:
        return isinstance(self.client, AsyncComfy)

    @property
    def wire(self) -> Any:
        """The layer below, for requests that the client itself would not send."""
        return self.client._low

    async def do(self, call: Callable[..., Any], *values: object, **named: object) -> Any:
        """What *call* gives, of whichever client it is a method."""
        if self.is_async:
            return await call(*values, **named)
        return await asyncio.to_thread(call, *values, **named)

    async def submit(self, graph: dict[str, Any], **named: object) -> Any:
        """Hand in *graph*, which may hold asset handles; the job."""
        return await self.do(self.client.submit, Workflow(graph), **named)

    async def run(self, graph: dict[str, Any]) -> Any:
        """Hand in *graph* and wait for its success; the job."""
        return await self.do(self.client.run, Workflow(graph), timeout=PATIENCE)

    async def wait(self, job: Any) -> Any:
        """The job when it is over."""
        return await self.do(job.wait, timeout=PATIENCE)

    async def all(self, found: Any) -> list[Any]:
        """Everything that an iterator of the client gives."""
        async with asyncio.timeout(PATIENCE):
            if self.is_async:
                return [each async for each in found]
            return await asyncio.to_thread(list, found)

    async def until(self, found: Any, enough: Callable[[Any], bool]) -> list[Any]:
        """What an iterator gives up to the first that is *enough*."""
        async with asyncio.timeout(PATIENCE):
            if self.is_async:
                return await _up_to(found, enough)
            return await asyncio.to_thread(_up_to_sync, found, enough)

    async def until_it_is(self, status: str, job: Any) -> Any:
        """The job once it has that status."""
        async with asyncio.timeout(PATIENCE):
            while job.status != status:
                await asyncio.sleep(0.02)
                await self.do(job.refresh)
        return job


async def _up_to(found: Any, enough: Callable[[Any], bool]) -> list[Any]:
    seen = []
    async for each in found:
        seen.append(each)
        if enough(each):
            break
    await found.aclose()
    return seen


def _up_to_sync(found: Any, enough: Callable[[Any], bool]) -> list[Any]:
    seen = []
    for each in found:
        seen.append(each)
        if enough(each):
            break
    found.close()
    return seen


@asynccontextmanager
async def sdk_for(kind: str, url: str, key: str | None = None) -> AsyncIterator[Sdk]:
    """The client of that *kind*, ``sync`` or ``async``, of the server at *url*, with that key."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMFY_BASE_URL", url)
        patch.delenv("COMFY_API_KEY", raising=False)
        if key is not None:
            patch.setenv("COMFY_API_KEY", key)
        client = AsyncComfy() if kind == "async" else Comfy()
    try:
        yield Sdk(client)
    finally:
        if isinstance(client, AsyncComfy):
            await client.aclose()
        else:
            client.close()
