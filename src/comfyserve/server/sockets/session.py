"""The life of one socket: its client is let in, heard, watched over, and told when it ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from typing import Final

from starlette.websockets import WebSocket, WebSocketDisconnect

from comfyserve.access import Access, Caller
from comfyserve.denials import InvalidRequest, RateLimited, TooManyStreams, Unauthorized
from comfyserve.refusals import StoreUnavailable
from comfyserve.server.keys import KeyDoor
from comfyserve.server.sockets import endings, messages
from comfyserve.server.sockets.answers import Answers
from comfyserve.server.sockets.endings import Ending
from comfyserve.server.sockets.messages import Asked, Id, Previews
from comfyserve.server.sockets.outbox import Message, Outbox
from comfyserve.server.sockets.sockets import Sockets

AUTH_WITHIN: Final = 10.0
"""Seconds in which a client has to say who it is."""

LOOK_EVERY: Final = 0.5
"""Seconds between two looks at whether the client reads, and whether its key still is good."""

READ_WITHIN: Final = 30.0
"""Seconds that a client may take to make room for one message before it is hung up."""

LAST_WORDS_WITHIN: Final = 2.0
"""Seconds that what was said last may take to be sent before the connection is closed."""

HANDED_IN_WITHIN: Final = 60.0
"""Seconds that jobs may still take to be handed in once their client is gone."""

MOST_GARBLED: Final = 20
"""How many messages one after the other may make no sense."""

LET_IN: Final = "comfyserve.websocket.let_in"
"""The scope extension by which a server takes larger messages once it is known who sends them."""

log = logging.getLogger(__name__)

_AUTH_FIRST: Final = "This server asks for a key. Send it in a message 'auth' before all others."
_NO_BYTES: Final = (
    "Messages are JSON texts. Files are uploaded to /api/v2/assets, or sent as data: addresses."
)


class Session:
    """One socket; see `run`."""

    def __init__(self, websocket: WebSocket, sockets: Sockets) -> None:
        state = websocket.app.state
        self._websocket = websocket
        self._sockets = sockets
        self._access: Access = state.host.access
        self._door: KeyDoor = state.key_door
        self._garbled = 0
        self._places = ExitStack()
        self._outbox = Outbox(self._send)
        self._ending: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        self._answers: Answers | None = None

    async def run(self, close: Callable[[Ending], Awaitable[None]]) -> None:
        """Talk until client or server are through, then *close* the connection.

        Jobs that are just being handed in still are; then those are canceled that shall not
        outlive their socket, unless it is the server that goes.
        """
        loop = asyncio.get_running_loop()
        with self._places, suppress(TimeoutError):
            async with asyncio.timeout(None) as limit, asyncio.TaskGroup() as handing_in:
                try:
                    ending = await self._talk(handing_in)
                except Exception:
                    log.exception("A socket broke")
                    ending = endings.BROKEN
                self._outbox.close()
                if ending is endings.TOO_SLOW:
                    log.info("A socket whose client reads nothing is hung up")
                await close(ending)
                limit.reschedule(loop.time() + HANDED_IN_WITHIN)
        if self._answers is not None and ending is not endings.STOPPING:
            await self._answers.cancel_jobs()

    def stop(self) -> None:
        """The server is about to stop."""
        self._end(endings.STOPPING)

    async def _talk(self, handing_in: asyncio.TaskGroup) -> Ending:
        async with asyncio.TaskGroup() as talking:
            sending = talking.create_task(self._send_all(), name="socket's sender")
            others = [
                talking.create_task(self._hear(talking, handing_in), name="socket's ear"),
                talking.create_task(self._watch(), name="socket's watch"),
            ]
            ending = await self._ending
            for task in others:
                task.cancel()
            if ending not in endings.NOBODY_HEARS:
                await self._say_last_words(ending)
            self._outbox.close()
            sending.cancel()
            if self._answers is not None:
                self._answers.follows.cancel()
        return ending

    async def _say_last_words(self, ending: Ending) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_WITHIN):
                if ending is endings.STOPPING and self._answers is not None:
                    await self._answers.follows.over()  # they tell what happened until now
                await self._outbox.emptied()

    def _end(self, ending: Ending) -> None:
        if not self._ending.done():
            self._ending.set_result(ending)

    async def _send_all(self) -> None:
        try:
            await self._outbox.run()
        except WebSocketDisconnect:
            self._end(endings.LEFT)

    async def _send(self, message: Message) -> None:
        try:
            if isinstance(message, str):
                await self._websocket.send_text(message)
            else:
                await self._websocket.send_bytes(message)
        except RuntimeError:  # a server's word for a connection that it has closed by now
            raise WebSocketDisconnect from None

    async def _watch(self) -> None:
        """Notice a client that does not read, and one whose key was revoked."""
        while not self._ending.done():
            await asyncio.sleep(LOOK_EVERY)
            if self._outbox.stuck_for >= READ_WITHIN:
                self._end(endings.TOO_SLOW)
            elif self._answers is not None:
                await self._renew(self._answers)

    async def _renew(self, answers: Answers) -> bool:
        """Whether the client may still be here."""
        try:
            answers.caller = await self._access.renewed(answers.caller)
        except Unauthorized as error:
            self._refuse(None, error, endings.KEY_ENDED)
            return False
        except StoreUnavailable as error:
            log.warning("Whether a socket's key still is good is not known: %s", error)
        return True

    async def _hear(self, talking: asyncio.TaskGroup, handing_in: asyncio.TaskGroup) -> None:
        """Let the client in, then answer what it says."""
        if (entered := await self._who_comes()) is None:
            return
        caller, id, previews = entered
        try:
            self._places.enter_context(self._sockets.place(caller.owner))
        except TooManyStreams as error:
            self._refuse(id, error, endings.TOO_MANY)
            return
        if (let_in := self._websocket.scope.get("extensions", {}).get(LET_IN)) is not None:
            let_in()
        answers = self._answers = Answers(
            self._websocket,
            caller,
            previews,
            self._outbox,
            talking,
            handing_in,
            too_slow=lambda: self._end(endings.TOO_SLOW),
        )
        await answers.greet(id)
        while (asked := await self._next()) is not None:
            if not await self._renew(answers):
                return
            await answers.answer(asked)

    async def _who_comes(self) -> tuple[Caller, Id, Previews] | None:
        """Who the client is, and the id of the message that said so; None where it may not be."""
        caller: Caller | None = self._websocket.scope["state"].get("caller")
        try:
            return caller or await self._door.caller(None), None, "binary"
        except Unauthorized:
            return await self._be_told_who_comes()
        except StoreUnavailable as error:
            self._refuse(None, error, endings.UNAVAILABLE)
            return None

    async def _be_told_who_comes(self) -> tuple[Caller, Id, Previews] | None:
        try:
            with self._sockets.place(None):
                async with asyncio.timeout(AUTH_WITHIN):
                    while (asked := await self._next()) is not None:
                        if (told := await self._authenticated(asked)) is not None:
                            return told
        except TooManyStreams as error:
            self._refuse(None, error, endings.TOO_MANY)
        except TimeoutError:
            self._end(endings.UNAUTHENTICATED)
        return None

    async def _authenticated(self, asked: Asked) -> tuple[Caller, Id, Previews] | None:
        """Who the client says that it is; None where it said something else, or cannot come in."""
        if asked.type != "auth":
            await self._outbox.put(messages.error(asked.id, Unauthorized(_AUTH_FIRST)))
            return None
        try:
            token, previews = asked.text("token"), asked.previews() or "binary"
            return await self._door.caller(token), asked.id, previews
        except InvalidRequest as error:
            await self._outbox.put(messages.error(asked.id, error))
        except Unauthorized as error:
            self._refuse(asked.id, error, endings.KEY_REFUSED)
        except RateLimited as error:
            self._refuse(asked.id, error, endings.TOO_MANY)
        except StoreUnavailable as error:
            self._refuse(asked.id, error, endings.UNAVAILABLE)
        return None

    async def _next(self) -> Asked | None:
        """The next message that makes sense; None once the conversation is over."""
        while not self._ending.done():
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                self._end(endings.LEFT)
                return None
            asked: Asked | None = None
            try:
                if (text := message.get("text")) is None:
                    raise InvalidRequest(_NO_BYTES)
                asked = messages.read(text)
                asked.check()
                self._garbled = 0
                return asked
            except InvalidRequest as error:
                await self._note_garbled(None if asked is None else asked.id, error)
        return None

    async def _note_garbled(self, id: Id, error: InvalidRequest) -> None:
        self._garbled += 1
        if self._garbled >= MOST_GARBLED:
            self._refuse(id, error, endings.GARBLED)
        else:
            await self._outbox.put(messages.error(id, error))

    def _refuse(self, id: Id, error: Exception, ending: Ending) -> None:
        self._outbox.put_last(messages.error(id, error))
        self._end(ending)
