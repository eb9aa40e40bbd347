"""Starts `comfyserve serve` as a real process, for tests of everything that talks to one.

>>> with running_server(folder, backends=[engine.url], timeout=5) as server:  # doctest: +SKIP
...     server.kill()
...     server.start()  # the same port, the same folder
"""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tests.engines import engine_environment

START_SECONDS = 30.0
STOP_SECONDS = 20.0
READY = "comfyserve listening on "
_PREFIX = "COMFYSERVE_"


class RunningServer:
    """A server that keeps its data in *folder*; after `stop` or `kill` it may `start` again.

    *url*, once known, stays: a server that starts again listens on the port it had.
    """

    def __init__(
        self,
        folder: Path,
        *,
        backends: Sequence[str],
        port: int = 0,
        python_flags: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
        **settings: object,
    ) -> None:
        self.folder = folder
        self.url = ""
        self.port = port
        self._backends = tuple(backends)
        self._before = [*prefix, sys.executable, *python_flags]
        self._environment = dict(environment or {})
        self._settings = settings
        self._process: subprocess.Popen[str] | None = None
        self._ears: list[_Ear] = []

    @property
    def process(self) -> subprocess.Popen[str]:
        """The latest process, whether it still runs or not."""
        assert self._process is not None, "the server was never started"
        return self._process

    @property
    def stdout(self) -> str:
        """All that the latest process said on stdout until now."""
        return self._ears[0].text

    @property
    def stderr(self) -> str:
        """All that the latest process said on stderr until now."""
        return self._ears[1].text

    def start(self, **settings: object) -> None:
        """Start it and wait until it listens; *settings* override those of the time before.

        Raises RuntimeError, with what it said, when it is not ready in time.
        """
        self.launch(**settings)
        line = self._ears[0].first_line(START_SECONDS)
        if not line.startswith(READY):
            self.end()
            raise RuntimeError(
                f"the server was not ready, and ended with {self.process.returncode}: "
                f"{line!r}\n{self.stderr}"
            )
        self.url = line.removeprefix(READY).strip()
        self.port = int(self.url.rpartition(":")[2])

    def launch(self, **settings: object) -> None:
        """Start it without waiting for anything, as for one that is to refuse."""
        assert self._process is None or self._process.poll() is not None, "it runs already"
        self._close()
        self._settings = {**self._settings, **settings}
        command = [*self._before, "-m", "comfyserve", "serve"]
        command += [f"--port={self.port}", f"--data={self.folder}"]
        command += [f"--backend={url}" for url in self._backends]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            env={
                **engine_environment(),
                **{_PREFIX + name.upper(): _told(value) for name, value in self._settings.items()},
                **self._environment,
            },
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._ears = [_Ear(self._process.stdout), _Ear(self._process.stderr)]

    def terminate(self) -> None:
        """Ask it to end, and do not wait."""
        self.process.terminate()

    def wait(self, seconds: float = STOP_SECONDS) -> int:
        """Wait until it has ended; its exit code, once all that it said was read."""
        code = self.process.wait(seconds)
        for ear in self._ears:
            ear.join()
        return code

    def stop(self) -> int:
        """Ask it to end, and wait until it has; its exit code."""
        self.terminate()
        return self.wait()

    def kill(self) -> None:
        """End it at once, as a crash or a power cut would."""
        self.process.kill()
        self.wait()

    def end(self) -> None:
        """See to it that it is gone and nothing of it is left open."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(STOP_SECONDS)
        self._close()

    def _close(self) -> None:
        for ear in self._ears:
            ear.join()
        if self._process is not None:
            for stream in (self._process.stdout, self._process.stderr):
                if stream is not None:
                    stream.close()


@contextmanager
def running_server(
    folder: Path,
    *,
    backends: Sequence[str],
    port: int = 0,
    python_flags: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    prefix: Sequence[str] = (),
    **settings: object,
) -> Iterator[RunningServer]:
    """A server on a free loopback port, with its data in *folder*; gone when the context ends.

    *settings* are those of `comfyserve.settings.Settings`, told in the environment. *prefix* is
    a command that runs the server's, without a process of its own. Raises RuntimeError, with
    what the server said, when it is not ready in time.
    """
    server = RunningServer(
        folder,
        backends=backends,
        port=port,
        python_flags=python_flags,
        environment=environment,
        prefix=prefix,
        **settings,
    )
    try:
        server.start()
        yield server
    finally:
        server.end()


class _Ear:
    """Reads a stream to its end on a thread, so that whoever writes to it never waits."""

    def __init__(self, stream: IO[str]) -> None:
        self._lines: list[str] = []
        self._first: queue.Queue[str] = queue.Queue()
        self._thread = threading.Thread(target=self._listen, args=(stream,), daemon=True)
        self._thread.start()

    @property
    def text(self) -> str:
        return "".join(self._lines)

    def first_line(self, seconds: float) -> str:
        """The first line; empty when there is none within *seconds*, or none ever."""
        try:
            return self._first.get(timeout=seconds)
        except queue.Empty:
            return ""

    def join(self) -> None:
        """Wait for the end of the stream."""
        self._thread.join(STOP_SECONDS)

    def _listen(self, stream: IO[str]) -> None:
        for line in stream:
            self._lines.append(line)
            if len(self._lines) == 1:
                self._first.put(line)
        if not self._lines:
            self._first.put("")


def _told(value: object) -> str:
    """A setting's value as the environment tells it."""
    match value:
        case None:
            return "none"
        case bool():
            return str(value).lower()
        case str():
            return value
        case list() | tuple():
            return " ".join(_told(each) for each in value)
        case _:
            return str(value)
