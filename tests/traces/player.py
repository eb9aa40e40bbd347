"""Plays the lines of a recording to our client, in their order and at a scaled pace."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from tests.traces import faults as fault
from tests.traces.ledger import Job, Ledger
from tests.traces.lines import Closed, Opened, Request, Response, Sent
from tests.traces.recording import Recording, Run
from tests.traces.seen import SeenRequest
from tests.traces.sockets import Sockets

_ANSWERED_WITHIN = 5.0
_SHORTEST_SLEEP = 0.001


@dataclass(eq=False, slots=True)
class Posted:
    """A POST /prompt of our client on its way: the reply it waits for, and when it has it.

    The reply None stands for a connection that the server cuts.
    """

    seen: SeenRequest
    reply: asyncio.Future[Response | None]
    written: asyncio.Event = field(default_factory=asyncio.Event)


class Player:
    """Walks through a recording. At each recorded POST /prompt that is ours it waits for our
    client's; all else happens by itself.

    Ours are the first *jobs* recorded posts from run *first* on, and any later one that comes when
    nothing of ours is running. The rest is somebody else's.
    """

    def __init__(
        self,
        recording: Recording,
        ledger: Ledger,
        sockets: Sockets,
        *,
        speed: float,
        first: int,
        jobs: int,
        client: str,
        faults: Sequence[fault.Fault],
        patience: float,
        restarts: bool,
        kill: Callable[[], Awaitable[None]],
        restart: Callable[[], Awaitable[None]],
    ) -> None:
        self.latest: Run = recording.runs[first]
        """The run that our client posted last (before that: the one it will post)."""
        self.position = 0
        """How many messages came since the first post."""
        self.dead = False
        self.finished = asyncio.Event()
        self._recording = recording
        self._ledger = ledger
        self._sockets = sockets
        self._speed = speed
        self._first = first
        self._jobs = jobs
        self._heard = recording.sockets(client)
        self._faults = list(faults)
        self._patience = patience
        self._restarts = restarts
        self._kill = kill
        self._restart = restart
        self._posts: deque[Posted] = deque()
        self._waiting: dict[int, Posted] = {}
        self._answers = {run.answer.id: run for run in recording.runs if run.answer is not None}
        self._runs = {run.post: run for run in recording.runs}
        self._held: tuple[Run, int] | None = None
        self._interrupted: list[Job] = []
        self._nudged = asyncio.Event()
        self._releases = 0
        self._start = (0.0, 0.0)

    def submit(self, seen: SeenRequest) -> Posted:
        """Take a POST /prompt of our client; its reply comes when the recording has one."""
        posted = Posted(seen, asyncio.get_running_loop().create_future())
        if self.finished.is_set():
            posted.reply.set_result(_no_more_runs(self._recording.name))
        else:
            self._posts.append(posted)
            self._nudged.set()
        return posted

    def interrupt(self, prompt_id: str | None) -> None:
        """Stop the running job, if its id is this one (or none is given)."""
        job = self._ledger.running
        if job is not None and prompt_id in (None, job.prompt_id) and not job.cut:
            self._interrupted.append(job)
            self._nudged.set()

    async def vanish(self, job: Job, status: bool = True) -> None:
        """Take a job out of the queue, as if deleted there."""
        job.gone = True
        self._nudged.set()
        if status:
            await self._sockets.send(json.dumps(self._ledger.status().message), None)

    def release(self) -> None:
        """Go on after a Hold, or do not stand still at the next one."""
        self._releases += 1
        self._nudged.set()

    def die(self) -> None:
        """Play nothing more until the client posts to a living server again."""
        self.dead = True
        while self._posts:
            self._posts.popleft().reply.cancel()
        self._waiting.clear()
        self._held = None
        self._nudged.set()

    async def play(self) -> None:
        """Play to the end of the recording."""
        self._begin()
        lines = self._recording.lines
        for index in range(self._recording.runs[self._first].post, len(lines)):
            line = lines[index]
            if self.dead and not self._wakes(index):
                continue
            await self._until(line.at)
            self._ledger.settle(index)
            match line:
                case Request() if index in self._runs:
                    await self._meet(self._runs[index])
                case Response() if line.id in self._answers:
                    await self._answer(self._answers[line.id])
                case Sent() if line.socket in self._heard and not line.greeting:
                    await self._play_message(index, line)
                case Closed(by_server=True):
                    await self._kill()
                case Closed() if line.socket in self._heard:
                    if (job := self._lasting(index)) is not None:
                        self._sockets.drop(job.client_id)
                case Opened() if line.socket in self._heard:
                    await self._open(index)
            await self._answer_held(over=isinstance(line, Sent) and line.is_end)
        await self._answer_held(over=True)
        self.finished.set()
        for posted in self._posts:
            if not posted.reply.done():
                posted.reply.set_result(_no_more_runs(self._recording.name))

    def _begin(self) -> None:
        run = self._recording.runs[self._first]
        for other in self._recording.waiting_before(run):
            self._ledger.add(_theirs(other))
        self._ledger.settle(run.post)
        self._keep_time(self._recording.lines[run.post].at)

    def _wakes(self, index: int) -> bool:
        """Does a dead server come back at this line? (Or our client wait for it there?)"""
        line = self._recording.lines[index]
        return index in self._runs or (self._restarts and isinstance(line, Opened))

    async def _until(self, at: float) -> None:
        loop = asyncio.get_running_loop()
        began, began_at = self._start
        due = began + (at - began_at) / self._speed
        await asyncio.sleep(0)
        while True:
            await self._obey()
            delay = due - loop.time()
            if self.dead or delay < _SHORTEST_SLEEP:
                return
            await self._nap(delay)

    async def _nap(self, seconds: float | None) -> None:
        self._nudged.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._nudged.wait()

    def _keep_time(self, at: float) -> None:
        self._start = (asyncio.get_running_loop().time(), at)

    async def _obey(self) -> None:
        while self._interrupted:
            job = self._interrupted.pop()
            if not job.active:
                continue
            message = job.interruption()
            job.cut = True
            await self._deliver(message, job, last_words=True)
            job.ended = True
            await self._deliver(self._ledger.status(), None)
            null = {"node": None, "prompt_id": job.prompt_id}
            end = Sent(0.0, "", {"type": "executing", "data": null})
            await self._deliver(end, job, last_words=True)

    async def _meet(self, run: Run) -> None:
        ours_run = any(job.ours and job.active for job in self._ledger.jobs)
        awaited = run.index < self._first + self._jobs
        if not (awaited or self.dead or not ours_run or self._posts):
            if run.accepted:
                self._ledger.add(_theirs(run))
            return
        await self._answer_held(over=True)
        posted = await self._next_post()
        self.dead = False
        self._keep_time(self._recording.lines[run.post].at)
        self._waiting[run.index] = posted
        self.latest = run
        if run.accepted:
            self._ledger.add(_ours(run, posted.seen))
        if run.answer is None:
            posted.reply.set_result(None)
            return
        limit = next((f.messages for f in self._faults if isinstance(f, fault.HoldAnswer)), 0)
        self._held = (run, self.position + limit) if limit else None

    async def _next_post(self) -> Posted:
        while True:
            await self._obey()
            while self._posts:
                posted = self._posts.popleft()
                if not posted.reply.done():  # else its client went away before its turn
                    return posted
            await self._nap(None)

    async def _answer(self, run: Run) -> None:
        if self._held is not None and self._held[0] is run:
            return
        posted = self._waiting.pop(run.index, None)
        if posted is None or run.answer is None or posted.reply.done():
            return
        posted.reply.set_result(run.answer)
        with suppress(TimeoutError):
            async with asyncio.timeout(_ANSWERED_WITHIN):
                await posted.written.wait()

    async def _answer_held(self, *, over: bool) -> None:
        if self._held is None:
            return
        run, position = self._held
        if self.position >= position or over:
            self._held = None
            await self._answer(run)

    async def _play_message(self, index: int, line: Sent) -> None:
        if line.type == "status":
            if self._ledger.cut_at(index):
                return  # told when it was interrupted
            job = None
        elif line.prompt_id is not None:
            job = self._ledger.recorded(line.prompt_id)
        else:
            job = self._ledger.busy_at(index)  # frames do not name their job
        if job is None or not job.dropped:
            await self._deliver(self._ledger.rewrite(line), job)

    async def _deliver(self, message: Sent, job: Job | None, *, last_words: bool = False) -> None:
        """Let the faults of this moment happen, then send a message, unless it got lost."""
        receiver = self._receiver(message, job)
        await self._fail(message, job, receiver)
        if self.dead or (job is not None and job.dropped and not last_words):
            return
        self.position += 1
        if job is not None and message.frame is None:
            job.tell(message)
        withheld = (f.type for f in self._faults if isinstance(f, fault.Withhold))
        if any(fault.is_type(name, message) for name in withheld):
            return
        if message.frame is not None:
            await self._sockets.send(message.frame, receiver)
        else:
            await self._sockets.send(json.dumps(message.message), receiver)

    def _receiver(self, message: Sent, job: Job | None) -> str | None:
        """The client id a message goes to; None is everyone."""
        if message.type == "status":
            return None
        ours = [j for j in self._ledger.jobs if j.ours]
        owner = job if job is not None and job.ours else (ours[-1] if ours else None)
        return owner.client_id or None if owner is not None else None

    async def _fail(self, message: Sent, job: Job | None, receiver: str | None) -> None:
        for now in [f for f in self._faults if _is_due(f, self.position, message)]:
            self._faults.remove(now)
            match now:
                case fault.Hold():
                    await self._hold(job)
                case fault.Inject():
                    for frame in now.frames:
                        await self._sockets.send(_filled(frame, job), receiver)
                case fault.DropSocket():
                    self._sockets.refusals = now.refuse
                    self._sockets.drop()
                case fault.GoSilent():
                    self._sockets.go_silent(now.forever)
                case fault.Vanish():
                    ours = [j for j in self._ledger.jobs if j.ours and j.active]
                    for gone in ours[-1:]:
                        await self.vanish(gone, now.status)
                case fault.Kill():
                    await self._kill()
                    return

    async def _hold(self, job: Job | None) -> None:
        at = self._start
        stood = asyncio.get_running_loop().time()
        await self._obey()
        while not (self._releases or self.dead or (job is not None and job.dropped)):
            await self._nap(None)
            await self._obey()
        self._releases = max(0, self._releases - 1)
        waited = asyncio.get_running_loop().time() - stood
        self._start = (at[0] + waited, at[1])

    def _lasting(self, index: int) -> Job | None:
        """A job of ours that goes on beyond this line."""
        for job in self._ledger.jobs:
            if job.ours and job.active and (job.run.end is None or job.run.end > index):
                return job
        return None

    async def _open(self, index: int) -> None:
        if self.dead:
            await self._restart()
            return
        job = self._lasting(index)
        if job is None or not job.client_id:
            return
        for line in self._recording.lines[index + 1 : index + 4]:
            if isinstance(line, Sent) and line.greeting and line.type == "executing":
                job.node = line.data["node"]  # where the job came to while nobody listened
        await self._sockets.wait_for(job.client_id, self._patience)
        self._keep_time(self._recording.lines[index].at)


def _is_due(one: fault.Fault, position: int, message: Sent) -> bool:
    at: fault.At | None = getattr(one, "at", None)
    return at is not None and fault.is_now(at, position, message)


def _filled(frame: str | bytes, job: Job | None) -> str | bytes:
    if isinstance(frame, bytes) or job is None:
        return frame
    return frame.replace("$PROMPT_ID", job.prompt_id)


def _ours(run: Run, seen: SeenRequest) -> Job:
    body = seen.json if isinstance(seen.json, dict) else {}
    extra = body.get("extra_data")
    inner = extra.get("client_id", "") if isinstance(extra, dict) else ""
    prompt_id = str(body["prompt_id"]) if "prompt_id" in body else run.prompt_id
    return Job(run, prompt_id, str(body.get("client_id", inner)), body, ours=True)


def _theirs(run: Run) -> Job:
    return Job(run, run.prompt_id, run.client_id, run.body, ours=False)


def _no_more_runs(name: str) -> Response:
    text = f"the recording {name!r} holds no more POST /prompt to play".encode()
    return Response(0.0, -1, 500, "text/plain", text)
