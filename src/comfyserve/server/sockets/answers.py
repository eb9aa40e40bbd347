"""What a client that was let in asks for, and what it is answered."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Final

from starlette.websockets import WebSocket

from comfyserve.access import Caller, GraphRules
from comfyserve.denials import Forbidden, InvalidRequest
from comfyserve.errors import ComfyServeError
from comfyserve.host import Host
from comfyserve.refusals import NotFound
from comfyserve.server.documents import job_document
from comfyserve.server.keys import KeyDoor
from comfyserve.server.links import Links
from comfyserve.server.problems import status_of
from comfyserve.server.sockets import messages
from comfyserve.server.sockets.follows import ASKED, Follows, unfollowed
from comfyserve.server.sockets.messages import Asked, Id, Previews, said
from comfyserve.server.sockets.outbox import Outbox
from comfyserve.server.sockets.submissions import hand_in, read_wish
from comfyserve.server.streams import Streams, refuse_future

MOST_HANDED_IN: Final = 8
"""How many jobs of one client may be handed in at the same time."""

log = logging.getLogger(__name__)

_COUNTED: Final = frozenset({"submit", "follow", "cancel", "get"})
"""The messages that count as requests of the caller's key."""


class Answers:
    """Does what a client asks for and tells it so, or why not.

    *caller* is who it is, as of now. What it follows is told by tasks of *talking*, what it hands
    in is taken by tasks of *handing_in*. *too_slow* is called where it does not read.
    """

    def __init__(
        self,
        websocket: WebSocket,
        caller: Caller,
        previews: Previews,
        outbox: Outbox,
        talking: asyncio.TaskGroup,
        handing_in: asyncio.TaskGroup,
        *,
        too_slow: Callable[[], None],
    ) -> None:
        state = websocket.app.state
        self.caller = caller
        self._host: Host = state.host
        self._door: KeyDoor = state.key_door
        self._rules: GraphRules = state.graph_rules
        self._streams: Streams = state.streams
        signer = None if caller.key is None else state.signer
        self._links = Links.of(websocket.scope["state"]["base_url"], signer)
        self._outbox = outbox
        self._handing_in = handing_in
        self._may_hand_in = asyncio.Semaphore(MOST_HANDED_IN)
        self._to_cancel: set[str] = set()
        self._turn = asyncio.Lock()
        self.follows = Follows(
            talking,
            outbox,
            self._host.job_queue,
            self._streams.frames,
            self._links,
            previews=previews,
            too_slow=too_slow,
            ended=self._to_cancel.discard,
        )
        self._answers: dict[str, Callable[[Asked], Awaitable[None]]] = {
            "auth": self._auth,
            "hello": self._hello,
            "submit": self._submit_beside,
            "follow": self._follow,
            "unfollow": self._unfollow,
            "cancel": self._cancel,
            "get": self._get,
            "ping": self._ping,
        }

    async def greet(self, id: Id) -> None:
        """Say that the client is let in, as whom, and what it may do."""
        try:
            self._rules.require_graphs(self.caller)
            may_graphs = True
        except Forbidden:
            may_graphs = False
        await self._say(
            messages.ready(id, self.caller, self.follows.previews, may_graphs=may_graphs)
        )

    async def answer(self, asked: Asked) -> None:
        """Do what is asked for, and say so; what goes wrong is said, too."""
        await self._answered(asked, self._answers[asked.type])

    async def cancel_jobs(self) -> None:
        """Cancel the jobs that shall not outlive the socket."""
        for job_id in tuple(self._to_cancel):
            try:
                await self._host.job_queue.cancel(job_id, self.caller.owner)
            except NotFound:
                continue
            except ComfyServeError as error:
                log.warning("A job goes on without its socket: %s", error, extra={"job_id": job_id})

    async def _answered(self, asked: Asked, answer: Callable[[Asked], Awaitable[None]]) -> None:
        try:
            if asked.type in _COUNTED:
                await self._host.access.spend(self.caller)
            await answer(asked)
        except Exception as error:
            _log(asked, error)
            await self._say(messages.error(asked.id, error))

    async def _say(self, message: str) -> None:
        await self._outbox.put(message)

    async def _auth(self, asked: Asked) -> None:
        """A client may say who it is though nobody asks, or again."""
        previews = asked.previews()
        caller = await self._door.caller(asked.text("token"))
        if caller.owner != self.caller.owner:
            raise InvalidRequest("This socket speaks for another key. Open one for this key.")
        self.follows.previews = previews or self.follows.previews
        await self.greet(asked.id)

    async def _hello(self, asked: Asked) -> None:
        self.follows.previews = asked.previews() or self.follows.previews
        await self.greet(asked.id)

    async def _submit_beside(self, asked: Asked) -> None:
        """Take the job in while other messages are answered, such as those about other jobs."""
        await self._may_hand_in.acquire()
        task = self._handing_in.create_task(
            self._answered(asked, self._submit), name="handing in for a socket"
        )
        task.add_done_callback(lambda _: self._may_hand_in.release())

    async def _submit(self, asked: Asked) -> None:
        wish = read_wish(asked)
        with ExitStack() as held:
            if wish.follow:
                held.enter_context(self._streams.place(self.caller.owner))
            standing = await hand_in(self._host, self.caller, self._rules, wish)
            job_id = standing.record.id
            if wish.cancel_on_disconnect:
                self._to_cancel.add(job_id)
            async with self._turn:
                await self.follows.end(job_id)  # followed already where the job is one of before
                document = job_document(standing, self._links)
                await self._say(said("submitted", asked.id, job=document))
                if wish.follow and not self._outbox.is_closed:
                    self.follows.begin(standing, 0, held.pop_all())

    async def _follow(self, asked: Asked) -> None:
        job_id, after = asked.text("job_id"), asked.number("after")
        with ExitStack() as held:
            held.enter_context(self._streams.place(self.caller.owner))
            standing = await self._host.job_queue.get(job_id, self.caller.owner)
            refuse_future(standing.record, after)
            async with self._turn:
                await self.follows.end(job_id)
                await self._say(said("following", asked.id, job_id=job_id, after=after))
                self.follows.begin(standing, after, held.pop_all())

    async def _unfollow(self, asked: Asked) -> None:
        job_id = asked.text("job_id")
        async with self._turn:
            await self.follows.end(job_id)
            await self._say(unfollowed(asked.id, job_id, ASKED))

    async def _cancel(self, asked: Asked) -> None:
        standing = await self._host.job_queue.cancel(asked.text("job_id"), self.caller.owner)
        await self._say(said("canceled", asked.id, job=job_document(standing, self._links)))

    async def _get(self, asked: Asked) -> None:
        standing = await self._host.job_queue.get(asked.text("job_id"), self.caller.owner)
        await self._say(said("job", asked.id, job=job_document(standing, self._links)))

    async def _ping(self, asked: Asked) -> None:
        await self._say(said("pong", asked.id))


def _log(asked: Asked, error: Exception) -> None:
    """Tell those who run the server what its callers are not told."""
    if status_of(error) < 500:
        return
    known = isinstance(error, ComfyServeError)
    told = error if known else type(error).__name__
    log.error("A socket's %s failed: %s", asked.type, told, exc_info=None if known else error)
