"""The built-in engine as a child of the command."""

from __future__ import annotations

import asyncio
from asyncio.subprocess import Process
from typing import Any

import aiohttp
import pytest

from comfyserve.cli.engine_process import lasting_engine

SECONDS = 60.0


async def test_an_engine_that_dies_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so, and the engine answers at the same address; no engine is left in the end."""
    engines: list[Process] = []
    start = asyncio.create_subprocess_exec

    async def watched(*command: str, **options: Any) -> Process:
        engines.append(await start(*command, **options))
        return engines[-1]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", watched)
    said: asyncio.Queue[str] = asyncio.Queue()
    async with asyncio.timeout(SECONDS), lasting_engine(said.put_nowait) as url:
        engines[0].kill()

        assert "starts again in 0.5 s" in await said.get()
        assert await said.get() == "The built-in engine is there again."
        async with aiohttp.ClientSession() as session, session.get(f"{url}/queue") as answer:
            assert answer.status == 200

    assert [engine.returncode is None for engine in engines] == [False, False]
    assert said.empty()
