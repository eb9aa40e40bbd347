"""The built-in engine as a child process that does not outlive us."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from comfyserve.errors import EngineUnavailable

READY_WITHIN = 60.0
"""Seconds the engine may take to load its model and listen."""

STOPS_WITHIN = 5.0
"""Seconds it may take to stop before it is killed."""


@asynccontextmanager
async def engine_process() -> AsyncIterator[str]:
    """Start the engine on a free port of this machine, and give its address.

    Raises `EngineUnavailable` with what the engine said.
    """
    with tempfile.TemporaryDirectory(prefix="comfyserve-", ignore_cleanup_errors=True) as folder:
        command = [sys.executable, "-m", "comfyserve.engine", "--port", "0", "--folder", folder]
        # It ends with its stdin, whose other end goes with us, even if we are killed.
        command.append("--until-stdin-closes")
        process = await asyncio.create_subprocess_exec(
            *command, stdin=PIPE, stdout=PIPE, stderr=STDOUT
        )
        assert process.stdout is not None
        try:
            url = await _ready(process.stdout)
            draining = asyncio.create_task(_drain(process.stdout), name="engine's words")
            try:
                yield url
            finally:
                draining.cancel()
        finally:
            await _stop(process)


async def _ready(words: asyncio.StreamReader) -> str:
    said: list[str] = []
    try:
        async with asyncio.timeout(READY_WITHIN):
            async for line in words:
                said.append(line.decode(errors="replace").strip())
                if "listening on http://" in said[-1]:
                    return said[-1].split()[-1]
    except TimeoutError:
        said.append(f"it was not ready within {READY_WITHIN:g} s")
    words_said = "\n".join(said[-20:]) or "it ended without a word"
    raise EngineUnavailable(words_said.replace("The built-in engine ", "it ", 1))


async def _drain(words: asyncio.StreamReader) -> None:
    """Take what the engine says and drop it, so that it never waits to be read."""
    while await words.read(1 << 16):
        pass


async def _stop(process: Process) -> None:
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(STOPS_WITHIN):
            await process.wait()
    except TimeoutError:
        await _kill(process)
    except asyncio.CancelledError:
        await _kill(process)
        raise


async def _kill(process: Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()
    await process.wait()
