"""Following one prompt on a backend until it has ended, whatever the socket says or keeps back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final, Literal

from comfyserve.comfy.attempt import Attempt
from comfyserve.comfy.backend import Backend, Gone, Running, Waiting
from comfyserve.comfy.protocol import Executing, Message, QueueLength
from comfyserve.comfy.records import HistoryEntry
from comfyserve.comfy.socket import Heard, Listener, Nudged, SocketLost, SocketOpened
from comfyserve.errors import BackendError, BackendUnreachable, JobLost, JobRemoved

_LAST_WORD: Final = 0.5
"""Seconds to wait for the very last message once a run has said how it ended."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that does not end the job, but that whoever waits should know."""

    level: Literal["info", "warning"]
    message: str


News = Message | Waiting | Trouble | None
"""What came: a message, a place in the queue, a trouble; None is a moment to look around."""


class WasCanceled(Exception):
    """The prompt is off the backend, as asked."""


class Following:
    """One prompt, from its acceptance to its end.

    Silence is what does not name this prompt: the server's own news and other people's jobs
    never put off the moment when it is asked. Who comes *is_late*, when it may have run already,
    asks at once.
    """

    def __init__(
        self,
        backend: Backend,
        prompt_id: str,
        attempt: Attempt,
        listener: Listener,
        *,
        clock: Callable[[], float],
        is_canceling: Callable[[], bool],
        is_late: bool = False,
    ) -> None:
        self.entry: HistoryEntry | None = None
        self.was_deaf = is_late
        self._backend = backend
        self._prompt_id = prompt_id
        self._attempt = attempt
        self._listener = listener
        self._clock = clock
        self._is_canceling = is_canceling
        self._settled_at = clock()
        self._asked_at = clock()
        self._away_since: float | None = None
        self._heard_from_start: set[str] = set()
        if is_late:
            listener.put_now(Nudged())

    async def news(self) -> AsyncIterator[News]:
        """Yield what comes until the prompt has ended; the attempt has heard it already.

        Raises `WasCanceled`, `JobLost` or `JobRemoved` when the prompt is no longer there.
        """
        while not self._attempt.has_ended:
            due = self._settled_at + self._patience()
            heard = await self._listener.hear(max(0.0, due - self._clock()))
            for news in self._take(heard):
                yield news
            if self._must_ask(heard, is_due=self._clock() >= due):
                yield await self._ask(is_silent=self._clock() >= due)

    def heard_all_of(self, node_id: str) -> bool:
        """Whether the socket was open all the while that node ran."""
        return not self.was_deaf or node_id in self._heard_from_start

    def _patience(self) -> float:
        """How long nothing may be heard of the prompt before the server itself is asked."""
        timeouts = self._backend.timeouts
        if self._attempt.last_words:
            return min(_LAST_WORD, timeouts.silence)
        is_blind = self._away_since is not None or not self._backend.socket.is_open
        return timeouts.poll if is_blind or self._is_canceling() else timeouts.silence

    def _take(self, heard: Heard | None) -> list[News]:
        if isinstance(heard, SocketLost):
            self._miss()
            return [Trouble("info", f"Live messages were lost ({heard.reason}).")]
        if not isinstance(heard, Message):
            return [None]
        self._attempt.hear(heard, self._clock())
        if heard.prompt_id == self._prompt_id:
            self._settled_at = self._clock()
            if isinstance(heard, Executing):
                self._heard_from_start.add(heard.display_id)
        return [heard]

    def _miss(self) -> None:
        """From now on messages may be missing of every node that is not done with."""
        self.was_deaf = True
        self._heard_from_start &= self._attempt.done

    def _must_ask(self, heard: Heard | None, *, is_due: bool) -> bool:
        if self._attempt.has_ended:
            return False
        match heard:
            case SocketLost() | SocketOpened() | Nudged():
                return True
            case QueueLength() if not self._attempt.has_started:
                return is_due or self._clock() - self._asked_at >= self._backend.timeouts.poll
            case _:
                return is_due

    async def _ask(self, *, is_silent: bool) -> News:
        """Learn the truth from the server; while it does not answer, that is the news."""
        began = self._clock()
        try:
            found = await self._backend.whereabouts(self._prompt_id)
        except BackendError as error:
            return self._unanswered(error, began)
        finally:
            self._asked_at = self._settled_at = self._clock()
        self._away_since = None
        knew = bool(self._attempt.last_words), self._attempt.has_started
        match found:
            case HistoryEntry():
                self.entry = found
                self._attempt.end(self._clock())
            case Running():
                self._attempt.start(self._clock())
            case Gone():
                self._explain_absence()
                self._attempt.end(self._clock())
            case Waiting():
                return found
        knew_end, knew_start = knew
        knew_all = knew_end if self._attempt.has_ended else knew_start
        if is_silent and not knew_all and self._backend.socket.is_open:
            # It is open and says nothing of what happened: the server has forgotten it.
            self._miss()
            await self._backend.socket.reopen()
        return None

    def _unanswered(self, error: BackendError, began: float) -> News:
        """The server does not answer: say so at first, and give up when it lasts."""
        timeouts = self._backend.timeouts
        refused = isinstance(error, BackendUnreachable) and error.refused
        most = timeouts.lost if refused else timeouts.away
        is_first = self._away_since is None
        self._away_since = began if self._away_since is None else self._away_since
        if self._clock() - self._away_since >= most:
            message = f"The backend was lost while the job was there: {error.reason}"
            raise JobLost(message) from error
        if not is_first:
            return None
        reason = f"The backend does not answer ({error.reason})"
        return Trouble("warning", f"{reason}; asking again for up to {most:g} s.")

    def _explain_absence(self) -> None:
        """Raise why the server no longer knows the prompt, unless its end was heard."""
        if self._attempt.last_words:
            return
        if self._is_canceling():
            raise WasCanceled
        if self._attempt.has_started or self.was_deaf:
            raise JobLost(
                "The backend no longer knows the job. It was restarted, or its history was cleared"
            )
        raise JobRemoved("Someone else removed the job from the backend's queue")
