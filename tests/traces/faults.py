"""What can go wrong on the way to a ComfyUI, as values a test hands to a `Replay`.

Where a fault says `at`, it means the moment just before a message is sent, named by

- a number: the n-th message (from 0) since the first POST /prompt, for the client played;
- a text: the first message of that type (`executing`, `executed`, `binary`, ..), or `"end"` for
  the one that ends a job (`executing` without a node);
- a function: the first message for which it is true.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from tests.traces.lines import Sent

At: TypeAlias = int | str | Callable[[Sent], bool]
"""A moment in the stream of messages; see the module's text."""


@dataclass(frozen=True, slots=True)
class DropSocket:
    """Cut the socket's connection without a close frame, then refuse the next *refuse* tries.

    The message at which it is cut is lost.
    """

    at: At
    refuse: int = 0


@dataclass(frozen=True, slots=True)
class RefuseSockets:
    """Answer the first *times* tries to open a socket with 503."""

    times: int


@dataclass(frozen=True, slots=True)
class GoSilent:
    """Keep the sockets open and send nothing more, while HTTP tells the truth.

    `forever` False: a socket opened later hears again.
    """

    at: At
    forever: bool = True


@dataclass(frozen=True, slots=True)
class Kill:
    """The server dies: every connection is cut, the port is closed. See `Replay.restart`."""

    at: At


@dataclass(frozen=True, slots=True)
class Hold:
    """Stand still until `Replay.release`, or until the client interrupts or deletes the job."""

    at: At


@dataclass(frozen=True, slots=True)
class Vanish:
    """The job leaves the queue as if deleted by someone else: no more messages, no history.

    `status`: tell the new queue length, as ComfyUI does.
    """

    at: At = 0
    status: bool = True


@dataclass(frozen=True, slots=True)
class Inject:
    """Send these texts and binary frames of our own making, then go on.

    `$PROMPT_ID` in a text stands for the client's id of the job at that moment.
    """

    at: At
    frames: tuple[str | bytes, ...]


@dataclass(frozen=True, slots=True)
class Withhold:
    """Never send messages of this type (`binary` for frames, `"end"` for the last one)."""

    type: str


@dataclass(frozen=True, slots=True)
class HoldAnswer:
    """Answer POST /prompt only after that many messages of the run were sent, or its end."""

    messages: int


@dataclass(frozen=True, slots=True)
class EmptyHistory:
    """The first *reads* of a finished job's history are still `{}`."""

    reads: int


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer requests with this, whatever is true.

    `path` is a pattern (`/history/*`) matched without query and without /api. `body`: bytes and
    text as they are (text/plain), else JSON. `times`: only so often, then the truth again.
    `after`: let that many such requests through first.
    """

    path: str
    status: int = 200
    body: Any = b""
    method: str = "*"
    times: int | None = None
    after: int = 0


@dataclass(frozen=True, slots=True)
class Hang:
    """Take requests for `path` (a pattern) and never answer; `times` and `after` as in Answer."""

    path: str
    method: str = "*"
    times: int | None = None
    after: int = 0


Fault: TypeAlias = (
    DropSocket
    | RefuseSockets
    | GoSilent
    | Kill
    | Hold
    | Vanish
    | Inject
    | Withhold
    | HoldAnswer
    | EmptyHistory
    | Answer
    | Hang
)


def is_now(at: At, position: int, message: Sent) -> bool:
    """Is the moment *at* just before this message?"""
    if isinstance(at, int):
        return at == position
    if isinstance(at, str):
        return is_type(at, message)
    return at(message)


def is_type(name: str, message: Sent) -> bool:
    """Is the message of this type? `"end"` is the message that ends a job."""
    return message.is_end if name == "end" else message.type == name
