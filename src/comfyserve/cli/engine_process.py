"""The built-in engine as a child process that does not outlive us."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

from comfyserve.errors import EngineUnavailable

READY_WITHIN = 60.0
"""Seconds the engine may take to load its model and listen."""

STOPS_WITHIN = 5.0
"""Seconds it may take to stop before it is killed."""

FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 30.0
"""Seconds before an engine that ended is started again, at first and at most."""

STEADY: Final = 60.0
"""Seconds after which an engine has run well enough for the pauses to begin anew."""


@asynccontextmanager
async def engine_process() -> AsyncIterator[str]:
    """Start the engine on a free port of this machine, and give its address.

    Raises `EngineUnavailable` with what the engine said.
    """
    with _folder() as folder:
        engine = _Engine(folder)
        try:
            yield await engine.start()
        finally:
            await engine.stop()


@asynccontextmanager
async def lasting_engine(say: Callable[[str], None]) -> AsyncIterator[str]:
    """Like `engine_process`, but one that ends is started again, at the same address.

    *say* is told so. A Ctrl-C in our terminal does not reach it: it is there until the block ends.
    """
    with _folder() as folder:
        engine = _Engine(folder, is_apart=True)
        try:
            url = await engine.start()
            keeping = asyncio.create_task(_keep_running(engine, say), name="engine kept running")
            try:
                yield url
            finally:
                keeping.cancel()
                await asyncio.gather(keeping, return_exceptions=True)
        finally:
            await engine.stop()


async def _keep_running(engine: _Engine, say: Callable[[str], None]) -> None:
    clock = asyncio.get_running_loop().time
    pause = FIRST_PAUSE
    while True:
        began = clock()
        code = await engine.ended()
        pause = FIRST_PAUSE if clock() - began >= STEADY else pause
        say(f"The built-in engine ended with {code}; it starts again in {pause:g} s.")
        await asyncio.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE)
        try:
            await engine.start()
        except EngineUnavailable as error:
            say(str(error))
        else:
            say("The built-in engine is there again.")


def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="comfyserve-", ignore_cleanup_errors=True)


class _Engine:
    """An engine that keeps its files in *folder*, and its port once it had one.

    One that *is_apart* does not get the signals that a terminal sends to all of us.
    """

    def __init__(self, folder: str, *, is_apart: bool = False) -> None:
        self._folder = folder
        self._is_apart = is_apart
        self._port = "0"
        self._process: Process | None = None
        self._draining: asyncio.Task[None] | None = None

    async def start(self) -> str:
        """Start it, and give its address once it listens. Raises `EngineUnavailable`."""
        await self.stop()
        command = ["-m", "comfyserve.engine", "--port", self._port, "--folder", self._folder]
        # It ends with its stdin, whose other end goes with us, even if we are killed.
        command.append("--until-stdin-closes")
        group = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0) if self._is_apart else 0
        self._process = process = await asyncio.create_subprocess_exec(
            sys.executable,
            *command,
            stdin=PIPE,
            stdout=PIPE,
            stderr=STDOUT,
            start_new_session=self._is_apart,
            creationflags=group,
        )
        assert process.stdout is not None
        url = await _ready(process.stdout)
        self._port = url.rpartition(":")[2].rstrip("/")
        self._draining = asyncio.create_task(_drain(process.stdout), name="engine's words")
        return url

    async def ended(self) -> int | None:
        """Wait until it has ended; with which code, where it was started at all."""
        return None if self._process is None else await self._process.wait()

    async def stop(self) -> None:
        """End it, if it runs."""
        if self._draining is not None:
            self._draining.cancel()
        if self._process is not None:
            await _stop(self._process)


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
