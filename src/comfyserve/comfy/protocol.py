"""ComfyUI's words on the wire, read without I/O: a frame or an answer becomes a typed value.

Nothing here raises on foreign input: what cannot be read becomes `Unreadable`, what is read but
means nothing to us becomes `Ignored`. The facts come from recorded sessions of a real server.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

FEATURE_FLAGS: Final = '{"type":"feature_flags","data":{"supports_preview_metadata":true}}'
"""The first message a client sends, or previews never say which node they are of."""

FLAWS: Final = (KeyError, TypeError, ValueError, AttributeError, RecursionError)
"""What reading a message raises when it is not as it should be."""


@dataclass(frozen=True, slots=True)
class QueueLength:
    """The server's queue changed; *remaining* counts running and waiting prompts."""

    remaining: int
    prompt_id: None = None


@dataclass(frozen=True, slots=True)
class Started:
    """A prompt left the queue and runs."""

    prompt_id: str


@dataclass(frozen=True, slots=True)
class Cached:
    """The nodes that need not run, because their results are still there."""

    prompt_id: str
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Executing:
    """A node begins. Right after a reconnect nobody says which prompt it belongs to."""

    prompt_id: str | None
    node_id: str
    display_id: str


@dataclass(frozen=True, slots=True)
class Step:
    """The running node is at step *value* of *maximum*."""

    prompt_id: str | None
    node_id: str | None
    value: float
    maximum: float


@dataclass(frozen=True, slots=True)
class NodeState:
    """How far one node is, as the cumulative report tells it."""

    display_id: str
    value: float
    maximum: float
    finished: bool


@dataclass(frozen=True, slots=True)
class NodeStates:
    """The cumulative report over all nodes that ran so far."""

    prompt_id: str
    nodes: Mapping[str, NodeState]


@dataclass(frozen=True, slots=True)
class Executed:
    """A node showed something: *ui* is the same object as in the history."""

    prompt_id: str
    node_id: str
    ui: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The server calls the run a success; history may not hold it yet."""

    prompt_id: str


@dataclass(frozen=True, slots=True)
class Failed:
    """A node raised, or blocked its run with a message."""

    prompt_id: str
    node_id: str | None
    class_type: str | None
    message: str
    exception_type: str
    traceback: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The run was interrupted before *node_id*."""

    prompt_id: str
    node_id: str | None
    class_type: str | None


@dataclass(frozen=True, slots=True)
class Ended:
    """The very last word of a run; history is complete. It does not say how it ended."""

    prompt_id: str


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture frame: a latent preview, or an image that is itself an output."""

    prompt_id: str | None
    node_id: str | None
    content_type: str
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class NodeText:
    """A line of text that a node shows while it works."""

    node_id: str
    text: str
    prompt_id: None = None


@dataclass(frozen=True, slots=True)
class Ignored:
    """A message of a kind that says nothing about our jobs."""

    kind: str
    prompt_id: None = None


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A frame that is not what ComfyUI sends; *reason* is for the log."""

    reason: str
    prompt_id: None = None


Message = (
    QueueLength
    | Started
    | Cached
    | Executing
    | Step
    | NodeStates
    | Executed
    | Succeeded
    | Failed
    | Interrupted
    | Ended
    | Picture
    | NodeText
    | Ignored
    | Unreadable
)


def read_text_frame(text: str) -> Message:
    """The message in a WebSocket text frame."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return Unreadable("a text frame is not JSON")
    if not isinstance(document, dict) or not isinstance(document.get("type"), str):
        return Unreadable("a text frame has no type")
    kind, data = document["type"], document.get("data")
    try:
        return read_message(kind, data if isinstance(data, dict) else {})
    except FLAWS as error:
        return Unreadable(f"a {kind!r} message lacks what it should hold ({error})")


def read_message(kind: str, data: Mapping[str, Any]) -> Message:
    """The message of that *kind*; raises one of `FLAWS` when facts are missing or absurd."""
    match kind:
        case "status":
            return QueueLength(int(_count(data["status"]["exec_info"]["queue_remaining"])))
        case "execution_start":
            return Started(_name(data["prompt_id"]))
        case "execution_cached":
            return Cached(_name(data["prompt_id"]), tuple(map(_name, data.get("nodes") or ())))
        case "executing":
            return _read_executing(data)
        case "progress":
            return Step(
                _optional(data.get("prompt_id")),
                _optional(data.get("node")),
                _count(data["value"]),
                _count(data["max"]),
            )
        case "progress_state":
            return _read_states(data)
        case "executed":
            ui = data.get("output")
            return Executed(
                _name(data["prompt_id"]), _name(data["node"]), ui if isinstance(ui, dict) else {}
            )
        case "execution_success":
            return Succeeded(_name(data["prompt_id"]))
        case "execution_error":
            return _read_failure(data)
        case "execution_interrupted":
            return Interrupted(
                _name(data["prompt_id"]),
                _optional(data.get("node_id")),
                _optional(data.get("node_type")),
            )
        case _:
            return Ignored(kind)


def read_binary_frame(frame: bytes) -> Message:
    """The message in a WebSocket binary frame: a picture, or a node's text."""
    event = int.from_bytes(frame[:4], "big") if len(frame) >= 8 else None
    match event:
        case 1:
            return Picture(None, None, _PICTURE_TYPES.get(_word(frame), "image/jpeg"), frame[8:])
        case 3:
            return _read_node_text(frame)
        case 4:
            return _read_described_picture(frame)
        case None:
            return Unreadable(f"a binary frame of {len(frame)} bytes has no head")
        case _:
            return Ignored(f"binary event {event}")


_PICTURE_TYPES = {1: "image/jpeg", 2: "image/png"}


def _read_executing(data: Mapping[str, Any]) -> Message:
    prompt_id = _optional(data.get("prompt_id"))
    if data["node"] is not None:
        node = _name(data["node"])
        return Executing(prompt_id, node, _optional(data.get("display_node")) or node)
    return Ignored("executing nothing") if prompt_id is None else Ended(prompt_id)


def _read_states(data: Mapping[str, Any]) -> NodeStates:
    nodes = {
        str(node): NodeState(
            display_id=_optional(state.get("display_node_id")) or str(node),
            value=_count(state["value"]),
            maximum=_count(state["max"]),
            finished=state.get("state") == "finished",
        )
        for node, state in data["nodes"].items()
    }
    return NodeStates(_name(data["prompt_id"]), nodes)


def _read_failure(data: Mapping[str, Any]) -> Failed:
    lines = data.get("traceback")
    return Failed(
        prompt_id=_name(data["prompt_id"]),
        node_id=_optional(data.get("node_id")),
        class_type=_optional(data.get("node_type")),
        message=str(data.get("exception_message") or "").strip(),
        exception_type=str(data.get("exception_type") or "Exception"),
        traceback=tuple(map(str, lines)) if isinstance(lines, list) else (),
    )


def _read_node_text(frame: bytes) -> Message:
    length = _word(frame)
    node, text = frame[8 : 8 + length], frame[8 + length :]
    if len(node) < length:
        return Unreadable("a text frame ends inside its node id")
    return NodeText(node.decode(errors="replace"), text.decode(errors="replace"))


def _read_described_picture(frame: bytes) -> Message:
    length = _word(frame)
    head, data = frame[8 : 8 + length], frame[8 + length :]
    try:
        about = json.loads(head)
    except (ValueError, RecursionError):
        return Unreadable("a preview's description is not JSON")
    if len(head) < length or not isinstance(about, dict):
        return Unreadable("a preview frame ends inside its description")
    kind = about.get("image_type")
    try:
        prompt_id = _optional(about.get("prompt_id"))
        node = _optional(about.get("display_node_id") or about.get("node_id"))
    except TypeError as error:
        return Unreadable(f"a preview's description names no node or prompt ({error})")
    return Picture(prompt_id, node, kind if isinstance(kind, str) else "image/jpeg", data)


def _word(frame: bytes) -> int:
    return int.from_bytes(frame[4:8], "big")


def _name(value: object) -> str:
    if isinstance(value, (str, int)) and not isinstance(value, bool):
        return str(value)
    raise TypeError(f"a value of type {type(value).__name__} is no id")


def _count(value: Any) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError("a count has no end")
    return number


def _optional(value: object) -> str | None:
    return None if value is None else _name(value)
