"""How a run ended, read from its last words and its history: both are needed to be sure."""

from __future__ import annotations

from collections.abc import Iterable

from comfyserve.comfy.protocol import Failed, Interrupted, Message, Succeeded
from comfyserve.comfy.records import HistoryEntry
from comfyserve.errors import (
    JobBlocked,
    JobFailed,
    JobInterrupted,
    JobLost,
    NodeFailed,
    OutOfMemory,
)


def failure(
    last_words: Iterable[Message], entry: HistoryEntry | None, *, has_outputs: bool
) -> JobFailed | None:
    """Why the run counts as failed, or None if it succeeded.

    A blocked output calls itself an error and then a success, and history remembers only the
    success; it fails the job only when nothing else was made (see `blocked`).
    """
    words = list(last_words) or list(entry.messages if entry else ())
    for word in words:
        if isinstance(word, Interrupted):
            return _interrupted(word)
    failures = [word for word in words if isinstance(word, Failed)]
    for word in failures:
        if not _is_block(word):
            return _failed(word)
    if failures and not has_outputs:
        return _blocked(failures[-1])
    if not failures and entry is not None and not entry.completed:
        return JobFailed("The backend says that the job failed, and does not say why")
    if entry is None and not any(isinstance(word, Succeeded) for word in words):
        return JobLost("The backend ended the job and does not remember how")
    return None


def blocked(last_words: Iterable[Message]) -> list[JobBlocked]:
    """The outputs that were blocked with a message in a run that is otherwise a success."""
    return [_blocked(word) for word in last_words if isinstance(word, Failed) and _is_block(word)]


def _is_block(word: Failed) -> bool:
    return word.exception_type == "ExecutionBlocked"


def _interrupted(word: Interrupted) -> JobInterrupted:
    where = f" before node {word.node_id} ({word.class_type})" if word.node_id else ""
    return JobInterrupted(f"Someone else interrupted the job{where}")


def _failed(word: Failed) -> NodeFailed:
    message = word.message or "it gave no message"
    is_memory = (
        word.exception_type.endswith(("OutOfMemoryError", "MemoryError"))
        or "out of memory" in message.lower()
    )
    return (OutOfMemory if is_memory else NodeFailed)(
        message,
        node_id=word.node_id,
        class_type=word.class_type,
        exception_type=word.exception_type,
        traceback=word.traceback,
    )


def _blocked(word: Failed) -> JobBlocked:
    return JobBlocked(word.message, node_id=word.node_id, class_type=word.class_type)
