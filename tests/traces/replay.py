"""A server that plays a recorded ComfyUI session to a real client, over real HTTP and WebSocket.

    async with Replay("txt2img", DropSocket("binary")) as replay:
        ...  # point a client at replay.url

It asks nothing of its client: the n-th POST /prompt plays the n-th recorded one, with the client's
own ids in place of the recorded ones, and reads are answered as the state at that point demands.
What can be made to go wrong is in `faults`; what the client did is in `requests` and `sockets`.
See README.md in this folder for how a recording is turned into a scenario.
"""

from __future__ import annotations

import asyncio
import json
from fnmatch import fnmatchcase
from types import TracebackType
from typing import Any

from aiohttp import web

from tests.traces import seen as reading
from tests.traces.desk import Desk
from tests.traces.faults import Answer, EmptyHistory, Fault, Hang, RefuseSockets
from tests.traces.ledger import Ledger
from tests.traces.player import Player
from tests.traces.recording import Recording
from tests.traces.seen import SeenRequest, SeenSocket
from tests.traces.sockets import Sockets

_LARGEST_BODY = 2**30


class Replay:
    """One recording, played on a free port of 127.0.0.1 for as long as the context is open.

    *faults*: what goes wrong, see `tests.traces.faults`.
    *speed*: recorded seconds per second; the order of messages is kept whatever it is.
    *run*: the recorded POST /prompt (from 0) that the client's first one plays. Earlier ones that
    were still queued then belong to somebody else.
    *jobs*: how many recorded posts from there on are the client's and waited for. A later one that
    comes while a job of ours is active belongs to somebody else and happens by itself; one that
    comes afterwards is waited for again.
    *client*: the recorded client id whose messages are heard; left out: the one of that post (or
    the first to open a socket, if the post names none).
    *patience*: seconds to wait where the recorded client opened a socket again during a job, so
    that ours finds the job as it did.
    *restarts*: a server that died in the recording is there again where the recording says so.
    """

    def __init__(
        self,
        name: str,
        *faults: Fault,
        speed: float = 50.0,
        run: int = 0,
        jobs: int = 1,
        client: str | None = None,
        patience: float = 5.0,
        restarts: bool = False,
    ) -> None:
        self.recording = Recording.load(name)
        self.url = ""
        """Where the server listens, `http://127.0.0.1:PORT`; known once the context is open."""
        self.requests: list[SeenRequest] = []
        """Every HTTP request of the client but the openings of sockets, in order."""
        self._ledger = Ledger()
        self._sockets = Sockets(self._ledger.greetings)
        self._sockets.refusals = sum(f.times for f in faults if isinstance(f, RefuseSockets))
        self._overrules = [f for f in faults if isinstance(f, Answer | Hang)]
        self._matched = [0] * len(self._overrules)
        self._player = Player(
            self.recording,
            self._ledger,
            self._sockets,
            speed=speed,
            first=run,
            jobs=jobs,
            client=self.recording.listener(self.recording.runs[run]) if client is None else client,
            faults=faults,
            patience=patience,
            restarts=restarts,
            kill=self.kill,
            restart=self.restart,
        )
        empty_reads = sum(f.reads for f in faults if isinstance(f, EmptyHistory))
        self._desk = Desk(self.recording, self._ledger, self._player, empty_reads)
        self._port = 0

    @property
    def sockets(self) -> list[SeenSocket]:
        """Every socket the client opened, in order, and what it said on it."""
        return self._sockets.seen

    @property
    def position(self) -> int:
        """How many messages the server came to since the first post."""
        return self._player.position

    @property
    def finished(self) -> asyncio.Event:
        """Set when the whole recording was played."""
        return self._player.finished

    def calls(self, method: str, path: str) -> list[SeenRequest]:
        """The client's requests with this method and path (a pattern, without query and /api)."""
        return [r for r in self.requests if r.method == method and fnmatchcase(r.path, path)]

    def release(self) -> None:
        """Let the playing go on after a `Hold`; before one, it will not stand still there."""
        self._player.release()

    def drop_sockets(self, refuse: int = 0) -> None:
        """Cut every socket now, without a close frame, and refuse the next *refuse* tries."""
        self._sockets.refusals = refuse
        self._sockets.drop()

    def go_silent(self, forever: bool = True) -> None:
        """Send nothing more from now on; see `GoSilent`."""
        self._sockets.go_silent(forever)

    async def send(self, payload: str | bytes) -> None:
        """Send a message of our own making to every socket, now."""
        await self._sockets.send(payload, None)

    async def vanish(self, prompt_id: str) -> None:
        """Take a job out of the queue as if somebody else deleted it; KeyError if unknown."""
        job = self._ledger.job(prompt_id)
        if job is None:
            raise KeyError(prompt_id)
        await self._player.vanish(job)

    async def kill(self) -> None:
        """Die: cut every connection, close the port, forget every job."""
        self._player.die()
        self._ledger.clear()
        await self._site.stop()
        self._cut_connections()

    async def restart(self) -> None:
        """Listen again at the same address after `kill`, with an empty queue and history.

        The client's next POST /prompt plays the next recorded one.
        """
        self._site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await self._site.start()

    async def __aenter__(self) -> Replay:
        app = web.Application(client_max_size=_LARGEST_BODY)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0
        )
        await self._runner.setup()
        self._site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await self._site.start()
        self._port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self._port}"
        self._began = asyncio.get_running_loop().time()
        name = f"replay {self.recording.name}"
        self._playing = asyncio.create_task(self._player.play(), name=name)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._playing.cancel()
        self._cut_connections()
        await asyncio.wait({self._playing})
        await self._runner.cleanup()
        if not self._playing.cancelled():
            self._playing.result()  # a replay that broke is the reason of whatever else failed

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        at = asyncio.get_running_loop().time() - self._began
        path = request.path.removeprefix("/api") or "/"
        upgrade = request.headers.get("Upgrade", "").lower() == "websocket"
        read = None
        if not (path == "/ws" and upgrade):
            read = await reading.read(request, at)
            self.requests.append(read)
        match self._overruled(request.method, path):
            case Answer() as answer:
                return _answer(answer)
            case Hang():
                await asyncio.Event().wait()
        if read is None:
            return await self._sockets.serve(request, at)
        return await self._desk.answer(request, read)

    def _overruled(self, method: str, path: str) -> Answer | Hang | None:
        for number, fault in enumerate(self._overrules):
            if fault.method not in ("*", method) or not fnmatchcase(path, fault.path):
                continue
            self._matched[number] += 1
            count = self._matched[number] - fault.after
            if count > 0 and (fault.times is None or count <= fault.times):
                return fault
        return None

    def _cut_connections(self) -> None:
        self._sockets.drop()
        server: Any = self._runner.server
        for connection in server.connections:
            if connection.transport is not None:
                connection.transport.abort()


def _answer(fault: Answer) -> web.Response:
    match fault.body:
        case bytes() as body:
            return web.Response(status=fault.status, body=body)
        case str() as text:
            return web.Response(status=fault.status, text=text)
        case body:
            text = json.dumps(body)
            return web.Response(status=fault.status, text=text, content_type="application/json")
