"""Server-sent events: what happens to one job, told to whoever listens over HTTP.

Who does not read is hung up after `SEND_WITHIN` seconds; what came too fast for him until then was
left out by the feed. No listener slows another, and a stream leaves no task behind.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, aclosing, suppress
from typing import Final

from fastapi import Request, Response
from starlette.types import Message, Receive, Scope, Send

from comfyserve.denials import InvalidRequest
from comfyserve.errors import ComfyServeError
from comfyserve.events import Event, Noted, OutputSaved, PreviewDrawn, ProgressMade, StatusChanged
from comfyserve.jobs import JobRecord, JobStatus, Standing
from comfyserve.refusals import ListenerTooSlow
from comfyserve.server.frames import Frames
from comfyserve.server.links import Links
from comfyserve.server.places import Places

KEEPALIVE: Final = 15.0
"""Seconds of silence after which a comment tells that the stream still stands."""

SEND_WITHIN: Final = 30.0
"""Seconds that a listener may take to make room for one frame before he is hung up."""

V2_PAUSE: Final = 0.5
"""Seconds between two frames of progress, and between two previews, on a v2 stream."""

HANG_UP: Final = "comfyserve.hang_up"
"""The scope extension by which a server lets a connection be cut at once."""

_SILENCE: Final = b": keepalive\n\n"

log = logging.getLogger(__name__)

_LARGEST_NUMBER: Final = 2**53


class Streams:
    """All streams of one server: how many are open, and the frames that several of them send.

    *most* is how many an owner may have open.
    """

    def __init__(self, most: int) -> None:
        self._places = Places(most)
        self.frames = Frames()

    @property
    def open(self) -> int:
        """How many streams are open right now."""
        return self._places.taken

    def place(self, owner: str) -> AbstractContextManager[None]:
        """A place for one stream. Raises `TooManyStreams`."""
        return self._places.place(owner)


async def v2_events(request: Request, job_id: str, *, owner: str, links: Links) -> Response:
    """The stream of the Comfy API v2: how the job stands, then what happens, to its end.

    Raises `NotFound`; sending the answer raises `TooManyStreams`.
    """
    queue, streams = request.app.state.host.job_queue, request.app.state.streams
    standing = await queue.get(job_id, owner)
    line = Line(streams.frames, links, standing.record, numbered=False, pause=V2_PAUSE)
    if standing.record.status.is_terminal:
        return EventStream(streams, line, owner, before=_all_of(standing))
    live = queue.follow_together(job_id, standing.record.last_event, owner=owner, since=standing)
    return EventStream(streams, line, owner, before=_so_far(standing), live=live)


async def our_events(request: Request, job_id: str, *, owner: str, links: Links) -> Response:
    """Our own stream: all that happened after a number, then what happens, to the job's end.

    The number is that of ``Last-Event-ID`` or of ``?after=``. Where nothing can come any more the
    answer is 204, which tells browsers not to ask again. Raises `InvalidRequest` and `NotFound`;
    sending the answer raises `TooManyStreams`.
    """
    queue, streams = request.app.state.host.job_queue, request.app.state.streams
    after = _after(request)
    standing = await queue.get(job_id, owner)
    record = standing.record
    refuse_future(record, after)
    if record.status.is_terminal and after == record.last_event:
        return Response(status_code=204)
    line = Line(streams.frames, links, record, numbered=True, pause=0)
    live = queue.follow_together(job_id, after, owner=owner, since=standing)
    return EventStream(streams, line, owner, live=live)


def refuse_future(record: JobRecord, after: int) -> None:
    """Raise `InvalidRequest` where the job never had an event of this number."""
    if after > record.last_event:
        raise InvalidRequest(
            f"The job has {record.last_event} events so far, so none can follow number {after}."
        )


def _after(request: Request) -> int:
    # A browser that comes back sends the header, and still the address it was first given.
    named = "Last-Event-ID" if "last-event-id" in request.headers else "after"
    text = request.headers.get("last-event-id", request.query_params.get("after", "0")).strip()
    if not (text.isascii() and text.isdecimal() and len(text) < 17 and int(text) < _LARGEST_NUMBER):
        raise InvalidRequest(
            f"{named} is {text[:40]!r}, but the number of an event is needed, such as 12."
        )
    return int(text)


def _so_far(standing: Standing) -> tuple[Event, ...]:
    record = standing.record
    status = StatusChanged(record.id, record.status, standing.queue_position)
    return (status, *(OutputSaved(record.id, output) for output in record.outputs))


def _all_of(standing: Standing) -> tuple[Event, ...]:
    record = standing.record
    progress = standing.progress or record.progress
    return (
        *(OutputSaved(record.id, output) for output in record.outputs),
        *([] if progress is None else [ProgressMade(record.id, progress)]),
        StatusChanged(
            record.id,
            record.status,
            error=record.error,
            outputs_reused=record.outputs_reused,
            timings=record.timings,
        ),
    )


class EventStream(Response):
    """The answer that is a stream: the events *before* at once, then those that come *live*.

    A terminal status ends it. One that ends without was left by the server, which is about to
    stop, or by us, because the listener was too slow; he may come back and resume.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        streams: Streams,
        line: Line,
        owner: str,
        *,
        before: tuple[Event, ...] = (),
        live: AsyncGenerator[Sequence[Event]] | None = None,
    ) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers({"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._streams = streams
        self._line = line
        self._owner = owner
        self._before = before
        self._live = live

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._streams.place(self._owner):
            head: Message = {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": self.raw_headers,
            }
            leaving = asyncio.create_task(_gone(receive), name="listener leaving")
            try:
                await self._tell_until_cut(head, send, leaving)
            finally:
                leaving.cancel()
                await self._line.close()
                await asyncio.gather(leaving, return_exceptions=True)
            if self._line.is_stuck:
                await _hang_up(scope, receive)

    async def _tell_until_cut(self, head: Message, send: Send, leaving: asyncio.Task[None]) -> None:
        """Tell all, or until the listener left or takes nothing."""
        is_over = False

        def cut(_: object = None) -> None:
            nonlocal is_over
            if not is_over:
                is_over = True
                turn.reschedule(_now())

        try:
            async with asyncio.timeout(None) as turn:
                leaving.add_done_callback(cut)
                self._line.connect(send, cut)
                try:
                    await self._tell(head)
                finally:
                    is_over = True
        except TimeoutError:
            if not turn.expired():
                raise

    async def _tell(self, head: Message) -> None:
        await self._line.begin(head, self._before)
        if self._live is not None:
            async with aclosing(self._live) as live:
                await self._tell_live(live)
        await self._line.end()
        # Others are told of the same end in this very turn: what is left to do here can wait.
        await asyncio.sleep(0)

    async def _tell_live(self, live: AsyncGenerator[Sequence[Event]]) -> None:
        try:
            async for events in live:
                await self._line.tell(events)
                if events[-1].is_last:
                    return
        except ListenerTooSlow as error:
            log.info("A listener was hung up: %s", error, extra={"job_id": error.job_id})
        except ComfyServeError as error:
            log.warning("A stream ended early: %s", error)


class Line:
    """What one listener is sent: which frames, and when.

    *pause* is the least time in seconds between two frames of progress and between two previews;
    the newest wins, and the last of both always come before the last status. *preface* are frames
    that come first.
    """

    def __init__(
        self,
        frames: Frames,
        links: Links,
        record: JobRecord,
        *,
        numbered: bool,
        pause: float,
        preface: bytes = b"",
    ) -> None:
        self._preface = preface
        self.is_stuck = False
        self._now = asyncio.get_running_loop().time
        self._frames = frames
        self._links = links
        self._record = record
        self._numbered = numbered
        self._pause = pause
        self._turn = asyncio.Lock()
        self._held: dict[type[Event], Event] = {}
        self._told_at: dict[type[Event], float] = {}
        self._stood: tuple[JobStatus, int | None] | None = None
        self._spoke_at = self._now()
        self._sending_since: float | None = None
        self._is_over = False
        self._late = b""
        self._speaking_late: asyncio.Task[None] | None = None
        self._look_at: asyncio.TimerHandle | None = None

    def connect(self, send: Send, cut: Callable[[], None]) -> None:
        """Where the frames go, and what to call once the listener *is_stuck*."""
        self._send = send
        self._cut = cut
        self._plan()

    async def begin(self, head: Message, events: tuple[Event, ...]) -> None:
        """Send the head at once, so that a listener knows he is heard, and the first events."""
        async with self._turn:
            await self._sent(head)
            told = b"".join(self._frame(event) for event in events)
            await self._sent(_body(self._preface + told))

    async def close(self) -> None:
        """Nothing is sent from here on."""
        self._is_over = True
        if self._look_at is not None:
            self._look_at.cancel()
        if self._speaking_late is not None:
            self._speaking_late.cancel()
            await asyncio.gather(self._speaking_late, return_exceptions=True)

    async def tell(self, events: Sequence[Event]) -> None:
        """Send the events together, each once its time has come."""
        frames = [frame for event in events for frame in self._frames_now(event)]
        ends = events[-1].is_last
        if frames or ends:
            await self._speak(b"".join(frames), ends=ends)

    async def end(self) -> None:
        """End the stream as one that is whole."""
        await self._speak(b"", ends=True)

    def _frames_now(self, event: Event) -> Iterator[bytes]:
        """The event's frame, unless it is held back; before the last one, all that was."""
        if self._pause and isinstance(event, ProgressMade | PreviewDrawn):
            if self._now() < self._due(type(event)):
                is_new = not self._held
                self._held[type(event)] = event
                if is_new:
                    self._plan()
                return
            self._held.pop(type(event), None)
            self._told_at[type(event)] = self._now()
        elif event.is_last and self._held:
            for kind in (PreviewDrawn, ProgressMade):
                if kind in self._held:
                    yield self._frame(self._held[kind])
            self._held.clear()
        yield self._frame(event)

    def _plan(self) -> None:
        if self._look_at is not None:
            self._look_at.cancel()
        self._look_at = asyncio.get_running_loop().call_at(self._next_look(), self._look)

    def _look(self) -> None:
        """Send what was held back once its time has come, and a comment in too long a silence.

        It also notices that a listener takes nothing. One look now and then costs less than a
        deadline for every frame of every listener.
        """
        if self._sending_since is None:
            self._late += self._frames_of_late()
            if self._late and (self._speaking_late is None or self._speaking_late.done()):
                self._speaking_late = asyncio.create_task(self._speak(b""), name="late frames")
        elif self._now() >= self._sending_since + SEND_WITHIN:
            self.is_stuck = True
            self._cut()
            return
        self._plan()

    def _next_look(self) -> float:
        if self._sending_since is not None:
            return self._sending_since + SEND_WITHIN
        dues = [self._due(kind) for kind in self._held]
        return min([*dues, self._spoke_at + KEEPALIVE, self._now() + SEND_WITHIN])

    def _frames_of_late(self) -> bytes:
        late = [self._held.pop(kind) for kind in [*self._held] if self._now() >= self._due(kind)]
        for event in late:
            self._told_at[type(event)] = self._now()
        if not late and self._now() >= self._spoke_at + KEEPALIVE:
            return _SILENCE
        return b"".join(self._frame(event) for event in late)

    def _due(self, kind: type[Event]) -> float:
        return self._told_at.get(kind, float("-inf")) + self._pause

    def _frame(self, event: Event) -> bytes:
        if isinstance(event, Noted) and not self._numbered:
            return b""  # the contract has this frame, but says that it is not sent yet
        if isinstance(event, StatusChanged):
            if event.seq is None and (event.status, event.queue_position) == self._stood:
                return b""  # how it stands was just said
            self._stood = event.status, event.queue_position
        return self._frames.frame(event, self._links, self._record, self._numbered)

    async def _speak(self, frame: bytes, *, ends: bool = False) -> None:
        async with self._turn:
            # What is late goes first, whoever speaks.
            frame, self._late = self._late + frame, b""
            if self._is_over:
                return
            self._is_over = ends
            if frame or ends:
                await self._sent(_body(frame, more=not ends))

    async def _sent(self, message: Message) -> None:
        self._spoke_at = self._sending_since = self._now()
        try:
            await self._send(message)
        finally:
            self._sending_since = None


def _body(content: bytes, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": content, "more_body": more}


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _hang_up(scope: Scope, receive: Receive) -> None:
    """Cut the connection, where the server lets us; else it is closed once all is taken."""
    log.info("A listener was hung up: he read nothing for %g s", SEND_WITHIN)
    if (cut := scope.get("extensions", {}).get(HANG_UP)) is not None:
        cut()
        with suppress(TimeoutError):
            async with asyncio.timeout(SEND_WITHIN):
                await _gone(receive)


def _now() -> float:
    return asyncio.get_running_loop().time()
