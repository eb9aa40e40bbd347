"""Server-sent events: what happens to one job, told to whoever listens over HTTP.

Who does not read is hung up after `SEND_WITHIN` seconds; what came too fast for him until then was
left out by the feed. No listener slows another, and a stream leaves no task behind.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, OrderedDict
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager, suppress
from typing import Final

from fastapi import Request, Response
from starlette.types import Message, Receive, Scope, Send

from comfyserve.denials import InvalidRequest, TooManyStreams
from comfyserve.errors import ComfyServeError
from comfyserve.events import Event, Noted, OutputSaved, PreviewDrawn, ProgressMade, StatusChanged
from comfyserve.jobs import JobRecord, Standing
from comfyserve.refusals import ListenerTooSlow
from comfyserve.server import documents
from comfyserve.server.links import Links

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

_MOST_KEPT_FRAMES: Final = 64

_LARGEST_NUMBER: Final = 2**53


class Streams:
    """All streams of one server: how many are open, and the frames that several of them send.

    *most* is how many an owner may have open.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken: Counter[str] = Counter()
        self.frames = Frames()

    @property
    def open(self) -> int:
        """How many streams are open right now."""
        return self._taken.total()

    @contextmanager
    def place(self, owner: str) -> Iterator[None]:
        """A place for one stream. Raises `TooManyStreams`."""
        if self._taken[owner] >= self._most:
            raise TooManyStreams(self._most)
        self._taken[owner] += 1
        try:
            yield
        finally:
            self._taken[owner] -= 1
            if not self._taken[owner]:
                del self._taken[owner]


class Frames:
    """Events as frames; each is made once, however many streams of a kind send it."""

    def __init__(self) -> None:
        self._made: OrderedDict[tuple[int, Links, bool], tuple[Event, bytes]] = OrderedDict()

    def frame(self, event: Event, links: Links, record: JobRecord, numbered: bool) -> bytes:
        """The frame of the event, with its number where one is wanted and it has one."""
        key = id(event), links, numbered
        if (made := self._made.get(key)) is not None:
            return made[1]
        name, document = documents.event_frame(event, links, record.expires_at)
        data = documents.encoded(document)
        number = None if isinstance(event, ProgressMade | PreviewDrawn) else event.seq
        mark = f"id: {number}\n" if numbered and number is not None else ""
        frame = b"event: %b\n%bdata: %b\n\n" % (name.encode(), mark.encode(), data)
        # The event is kept beside its frame, so that no other gets its identity meanwhile.
        self._made[key] = event, frame
        if len(self._made) > _MOST_KEPT_FRAMES:
            self._made.popitem(last=False)
        return frame


async def v2_events(request: Request, job_id: str, *, owner: str, links: Links) -> Response:
    """The stream of the Comfy API v2: how the job stands, then what happens, to its end.

    Raises `NotFound`; sending the answer raises `TooManyStreams`.
    """
    queue, streams = request.app.state.host.job_queue, request.app.state.streams
    standing = await queue.get(job_id, owner)
    line = Line(streams.frames, links, standing.record, numbered=False, pause=V2_PAUSE)
    if standing.record.status.is_terminal:
        return EventStream(streams, line, owner, before=_all_of(standing))
    live = queue.follow(job_id, standing.record.last_event, owner=owner, since=standing)
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
    if after > record.last_event:
        raise InvalidRequest(
            f"The job has {record.last_event} events so far, so none can follow number {after}."
        )
    if record.status.is_terminal and after == record.last_event:
        return Response(status_code=204)
    line = Line(streams.frames, links, record, numbered=True, pause=0)
    live = queue.follow(job_id, after, owner=owner, since=standing)
    return EventStream(streams, line, owner, live=live)


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
        live: AsyncGenerator[Event] | None = None,
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
            self._line.connect(send)
            tasks = [
                asyncio.create_task(self._tell(head), name="events told"),
                asyncio.create_task(self._line.keep(), name="stream kept alive"),
                asyncio.create_task(_gone(receive), name="listener leaving"),
            ]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                ends = await asyncio.gather(*tasks, return_exceptions=True)
            failures = [end for end in ends if isinstance(end, Exception)]
            if any(isinstance(failure, _Stuck) for failure in failures):
                await _hang_up(scope, receive)
            elif failures:
                raise failures[0]

    async def _tell(self, head: Message) -> None:
        await self._line.begin(head, self._before)
        if self._live is not None:
            async with aclosing(self._live) as live:
                await self._tell_live(live)
        await self._line.end()

    async def _tell_live(self, live: AsyncGenerator[Event]) -> None:
        try:
            async for event in live:
                await self._line.tell(event)
                if event.is_last:
                    return
        except ListenerTooSlow as error:
            log.info("A listener was hung up: %s", error, extra={"job_id": error.job_id})
        except ComfyServeError as error:
            log.warning("A stream ended early: %s", error)


class Line:
    """What one listener is sent: which frames, and when.

    *pause* is the least time in seconds between two frames of progress and between two previews;
    the newest wins, and the last of both always come before the last status.
    """

    def __init__(
        self, frames: Frames, links: Links, record: JobRecord, *, numbered: bool, pause: float
    ) -> None:
        self._frames = frames
        self._links = links
        self._record = record
        self._numbered = numbered
        self._pause = pause
        self._turn = asyncio.Lock()
        self._held: dict[type[Event], Event] = {}
        self._told_at: dict[type[Event], float] = {}
        self._spoke_at = _now()
        self._sending_since: float | None = None
        self._begun = asyncio.Event()
        self._bell = asyncio.Event()

    def connect(self, send: Send) -> None:
        """Where the frames go."""
        self._send = send

    async def begin(self, head: Message, events: tuple[Event, ...]) -> None:
        """Send the head at once, so that a listener knows he is heard, and the first events."""
        with _patience():
            async with self._turn, asyncio.timeout(SEND_WITHIN):
                await self._sent(head)
                await self._sent(_body(b"".join(self._frame(event) for event in events)))
        self._begun.set()

    async def tell(self, event: Event) -> None:
        """Send the event, or hold it back until its time has come."""
        if isinstance(event, ProgressMade | PreviewDrawn) and self._pause:
            if _now() < self._due(type(event)):
                self._held[type(event)] = event
                self._bell.set()
                return
            self._held.pop(type(event), None)
            self._told_at[type(event)] = _now()
        last: list[Event] = [event]
        if event.is_last:
            held = [self._held[kind] for kind in (PreviewDrawn, ProgressMade) if kind in self._held]
            self._held.clear()
            last = [*held, event]
        await self._speak(b"".join(self._frame(each) for each in last), ends=event.is_last)

    async def end(self) -> None:
        """End the stream as one that is whole."""
        await self._speak(b"", ends=True)

    async def keep(self) -> None:
        """Send what was held back once its time has come, and a comment in too long a silence.

        It also notices that a listener takes nothing, which costs less than a deadline for every
        frame of every listener.
        """
        await self._begun.wait()
        while self._begun.is_set():
            self._bell.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(self._next_look()):
                    await self._bell.wait()
            if self._sending_since is None:
                with _patience():
                    async with asyncio.timeout(SEND_WITHIN):
                        await self._speak_of_late()
            elif _now() >= self._sending_since + SEND_WITHIN:
                raise _Stuck

    def _next_look(self) -> float:
        if self._sending_since is not None:
            return self._sending_since + SEND_WITHIN
        dues = [self._due(kind) for kind in self._held]
        return min([*dues, self._spoke_at + KEEPALIVE, _now() + SEND_WITHIN])

    async def _speak_of_late(self) -> None:
        late = [self._held.pop(kind) for kind in [*self._held] if _now() >= self._due(kind)]
        for event in late:
            self._told_at[type(event)] = _now()
        if late:
            await self._speak(b"".join(self._frame(event) for event in late))
        elif _now() >= self._spoke_at + KEEPALIVE:
            await self._speak(_SILENCE)

    def _due(self, kind: type[Event]) -> float:
        return self._told_at.get(kind, float("-inf")) + self._pause

    def _frame(self, event: Event) -> bytes:
        if isinstance(event, Noted) and not self._numbered:
            return b""  # the contract has this frame, but says that it is not sent yet
        return self._frames.frame(event, self._links, self._record, self._numbered)

    async def _speak(self, frame: bytes, *, ends: bool = False) -> None:
        async with self._turn:
            if (frame or ends) and self._begun.is_set():
                await self._sent(_body(frame, more=not ends))
            if ends:
                self._begun.clear()

    async def _sent(self, message: Message) -> None:
        self._sending_since = _now()
        try:
            await self._send(message)
        finally:
            self._sending_since = None
        self._spoke_at = _now()
        if self._held:
            self._bell.set()


class _Stuck(Exception):
    """The listener took nothing for so long that nobody waits for him any more."""


@contextmanager
def _patience() -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        raise _Stuck from None


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
