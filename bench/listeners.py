"""Many listeners to one job, in a process of their own: their work must not slow what is measured.

`Listeners` starts the process and talks to it; ``python -m bench.listeners HOST PORT`` is the
process. It does the least it can with what arrives: it notes when, and looks for two words.
"""

from __future__ import annotations

import asyncio
import gc
import json
import selectors
import socket
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from bench.budgets import WrongResult
from tests.engines import engine_environment

_PATIENCE_S = 60.0
_WAITS = b'"status":"queued"'
_BEGAN = b'"status":"running"'


@dataclass(frozen=True, slots=True)
class Listeners:
    """The process; it listens to one job at a time."""

    process: asyncio.subprocess.Process

    async def listen(self, path: str, count: int) -> None:
        """Open *count* connections to the stream at *path*; all were told that the job waits."""
        await self._ask({"path": path, "count": count})

    async def arrivals(self) -> Sequence[float]:
        """When each of them was told that the job began, in seconds since the epoch."""
        arrived = await self._answer()
        if not isinstance(arrived, list):
            raise WrongResult(f"the listeners told {arrived!r} where times were due")
        return arrived

    async def _ask(self, question: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(question).encode() + b"\n")
        await self.process.stdin.drain()
        if await self._answer() != "ready":
            raise WrongResult("the listeners were not ready")

    async def _answer(self) -> object:
        assert self.process.stdout is not None
        async with asyncio.timeout(_PATIENCE_S):
            line = await self.process.stdout.readline()
        if not line:
            raise WrongResult("the listeners gave up")
        return json.loads(line)


@asynccontextmanager
async def listeners_to(url: str) -> AsyncIterator[Listeners]:
    """Listeners to jobs of the server at *url*; gone when the context ends."""
    parts = urlsplit(url)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.listeners", str(parts.hostname), str(parts.port)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=engine_environment(),
        limit=1 << 20,
    )
    try:
        yield Listeners(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def _main() -> None:
    host, port = sys.argv[1], int(sys.argv[2])
    gc.disable()
    for line in sys.stdin:
        asked = json.loads(line)
        with ExitStack() as stack:
            sockets = [_connected(stack, host, port, asked["path"]) for _ in range(asked["count"])]
            _arrivals(sockets, _WAITS)
            print('"ready"', flush=True)
            print(json.dumps(_arrivals(sockets, _BEGAN)), flush=True)
        gc.collect()


def _connected(stack: ExitStack, host: str, port: int, path: str) -> socket.socket:
    connection = stack.enter_context(socket.create_connection((host, port), _PATIENCE_S))
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
    connection.setblocking(False)
    return connection


def _arrivals(sockets: Sequence[socket.socket], word: bytes) -> list[float]:
    """When *word* came to each of them. What came with it is of no interest."""
    end = time.monotonic() + _PATIENCE_S
    arrived: list[float] = []
    with selectors.DefaultSelector() as selector:
        for connection in sockets:
            selector.register(connection, selectors.EVENT_READ, bytearray())
        while len(arrived) < len(sockets) and time.monotonic() < end:
            for key, _ in selector.select(1.0):
                assert isinstance(key.fileobj, socket.socket)
                piece = key.fileobj.recv(1 << 16)
                now = time.time()
                if not piece:
                    raise ConnectionError(f"a stream ended without {word!r}")
                key.data.extend(piece)
                if word in key.data:
                    arrived.append(now)
                    selector.unregister(key.fileobj)
    if len(arrived) < len(sockets):
        raise TimeoutError(f"{len(arrived)} of {len(sockets)} streams brought {word!r}")
    return arrived


if __name__ == "__main__":
    _main()
