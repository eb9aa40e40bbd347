"""What a ComfyUI server keeps and tells when asked: history, queue, and what its nodes showed.

Read without I/O, like the messages of `protocol`; a document of another shape reads as None.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from comfyserve.comfy.protocol import FLAWS, Message, read_message

_DEEPEST = 8


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """What the server remembers of a run that ended.

    *uis* is what each node showed. *messages* are the run's last words; they alone tell an
    interrupted run from a failed one, and a blocked one from a success.
    """

    completed: bool
    uis: Mapping[str, Mapping[str, Any]]
    messages: tuple[Message, ...]


def read_history(document: object, prompt_id: str) -> HistoryEntry | None:
    """The entry of *prompt_id* in an answer of ``/history/{id}``, or None when it has none."""
    entry = document.get(prompt_id) if isinstance(document, dict) else None
    if not isinstance(entry, dict):
        return None
    status = entry.get("status")
    status = status if isinstance(status, dict) else {}
    outputs = entry.get("outputs")
    outputs = outputs if isinstance(outputs, dict) else {}
    return HistoryEntry(
        completed=status.get("status_str") == "success",
        uis={str(node): ui for node, ui in outputs.items() if isinstance(ui, dict)},
        messages=tuple(_read_history_messages(status.get("messages"))),
    )


@dataclass(frozen=True, slots=True)
class QueueState:
    """Who runs and who waits; *pending* is in the order in which they will run."""

    running: tuple[str, ...]
    pending: tuple[str, ...]


def read_queue(document: object) -> QueueState | None:
    """The answer of ``/queue``, or None when it is none."""
    if not isinstance(document, dict):
        return None
    running, pending = document.get("queue_running"), document.get("queue_pending")
    if not isinstance(running, list) or not isinstance(pending, list):
        return None
    return QueueState(
        running=tuple(prompt_id for _, prompt_id in _places(running)),
        # The list comes in heap order; they run by number, ties by id.
        pending=tuple(prompt_id for _, prompt_id in sorted(_places(pending))),
    )


@dataclass(frozen=True, slots=True)
class ShownFile:
    """A file that a node showed: where the server keeps it, and under which word."""

    node_id: str
    key: str
    index: int
    filename: str
    subfolder: str
    folder: str


@dataclass(frozen=True, slots=True)
class ShownText:
    """A string that a node showed."""

    node_id: str
    key: str
    index: int
    text: str


Shown = ShownFile | ShownText


def shown(node_id: str, ui: Mapping[str, Any]) -> Iterator[Shown]:
    """Every file and string in what a node showed, whatever word it used for it.

    Numbers, flags and empty lists (``animated: [true]``) describe others; they are no outputs.
    """
    for key, value in ui.items():
        yield from (
            _shown_value(node_id, str(key), index, leaf)
            for index, leaf in enumerate(_leaves(value, _DEEPEST))
        )


def _read_history_messages(messages: object) -> Iterator[Message]:
    for message in messages if isinstance(messages, list) else ():
        match message:
            case [str(kind), dict(data)]:
                try:
                    yield read_message(kind, data)
                except FLAWS:
                    continue


def _places(entries: list[Any]) -> Iterator[tuple[float, str]]:
    for entry in entries:
        match entry:
            case [int() | float() as number, str(prompt_id), *_]:
                yield number, prompt_id


def _leaves(value: Any, depth: int) -> Iterator[Mapping[str, Any] | str]:
    """The files and strings inside a value, in order."""
    match value:
        case str() | {"filename": str()}:
            yield value
        case list() | dict() if depth:
            for inner in value.values() if isinstance(value, dict) else value:
                yield from _leaves(inner, depth - 1)


def _shown_value(node_id: str, key: str, index: int, leaf: Mapping[str, Any] | str) -> Shown:
    if isinstance(leaf, str):
        return ShownText(node_id, key, index, leaf)
    return ShownFile(
        node_id,
        key,
        index,
        filename=str(leaf["filename"]),
        subfolder=_word(leaf.get("subfolder"), ""),
        folder=_word(leaf.get("type"), "output"),
    )


def _word(value: object, default: str) -> str:
    return value if isinstance(value, str) and value else default
