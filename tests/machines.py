"""A place where one engine after the other listens on the same port, as after a restart."""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack
from pathlib import Path

from tests.engines import RunningEngine, running_engine


class Machine:
    """Engines that share an address and their files, one at a time."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._folder = folder
        self._engines = ExitStack()
        self._engine: RunningEngine | None = None

    async def start(self, *, test_nodes: bool = True) -> None:
        """Start an engine, which knows nothing of the one before but its files."""

        def begin() -> RunningEngine:
            engine = running_engine(self._folder, test_nodes=test_nodes, port=self.port)
            return self._engines.enter_context(engine)

        self._engine = await asyncio.to_thread(begin)

    def kill(self) -> None:
        """End it as a crash would."""
        assert self._engine is not None
        self._engine.kill()

    def close(self) -> None:
        """End whatever still runs."""
        self._engines.close()
