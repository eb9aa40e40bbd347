"""What waits, what runs and what ran: the one desk between the server and the worker thread."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

LONGEST_HISTORY = 10_000


@dataclass(frozen=True, slots=True)
class Prompt:
    """A graph in the queue, with what ComfyUI's protocol says beside it.

    *number* orders the queue, lowest first. *outputs* are the output nodes that can run.
    """

    number: float
    prompt_id: str
    graph: dict[str, Any]
    extra_data: dict[str, Any]
    outputs: tuple[str, ...]

    @property
    def client_id(self) -> str | None:
        """Whose prompt it is; None if nobody's, so that all may hear of its progress."""
        owner: str | None = self.extra_data.get("client_id")
        return owner

    def listed(self) -> list[Any]:
        """The prompt as `/queue` and `/history` list it."""
        return [self.number, self.prompt_id, self.graph, self.extra_data, list(self.outputs)]


@dataclass(frozen=True, slots=True)
class Chore:
    """Something to give back between two prompts: cached results, loaded models."""

    free_memory: bool = False
    unload_models: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a prompt ended: the parts of its history entry."""

    outputs: dict[str, Any] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)
    messages: tuple[tuple[str, dict[str, Any]], ...] = ()
    completed: bool = False

    def entry(self, prompt: Prompt) -> dict[str, Any]:
        """The prompt's entry in `/history`."""
        return {
            "prompt": prompt.listed(),
            "outputs": self.outputs,
            "status": {
                "status_str": "success" if self.completed else "error",
                "completed": self.completed,
                "messages": [list(message) for message in self.messages],
            },
            "meta": self.meta,
        }


class PromptQueue:
    """The queue and the history. Every method may be called from any thread.

    *changed* is called with the number of prompts that run or wait whenever that may have changed.
    """

    def __init__(self, changed: Callable[[int], None]) -> None:
        self._changed = changed
        self._lock = threading.RLock()
        self._something = threading.Condition(self._lock)
        self._waiting: list[tuple[float, str, int, Prompt]] = []
        self._arrivals = itertools.count()
        self._running: Prompt | None = None
        self._history: dict[str, dict[str, Any]] = {}
        self._chore: Chore | None = None
        self._closed = False
        self._interrupted = threading.Event()

    def put(self, prompt: Prompt) -> None:
        with self._lock:
            place = (prompt.number, prompt.prompt_id, next(self._arrivals), prompt)
            heapq.heappush(self._waiting, place)
            self._something.notify()
            self._tell()

    def take(self) -> Prompt | Chore | None:
        """Wait for the next prompt or chore; None when the queue is closed.

        What is taken runs from now on: an interrupt that comes later is for it alone.
        """
        with self._something:
            while not (self._closed or self._chore or self._waiting):
                self._something.wait()
            if self._closed:
                return None
            if self._chore:
                chore, self._chore = self._chore, None
                return chore
            self._running = heapq.heappop(self._waiting)[-1]
            self._interrupted.clear()
            self._tell()
            return self._running

    def finish(self, prompt: Prompt, outcome: Outcome) -> None:
        """Write the running *prompt* into the history, and make room for the next."""
        with self._lock:
            self._running = None
            self._history.pop(prompt.prompt_id, None)
            self._history[prompt.prompt_id] = outcome.entry(prompt)
            while len(self._history) > LONGEST_HISTORY:
                del self._history[next(iter(self._history))]
            self._tell()

    def close(self) -> None:
        """End the worker: what runs is interrupted, what waits is left."""
        with self._something:
            self._closed = True
            self._interrupted.set()
            self._something.notify_all()

    @property
    def interrupted(self) -> bool:
        """Whether the running prompt should end."""
        return self._interrupted.is_set()

    def interrupt(self, prompt_id: str | None = None) -> bool:
        """Interrupt what runs, or only if it is *prompt_id*; whether there was such a one."""
        with self._lock:
            if self._running is None or prompt_id not in (None, self._running.prompt_id):
                return False
            self._interrupted.set()
            return True

    def delete(self, prompt_ids: Collection[str]) -> bool:
        """Take prompts out of the queue; whether any waited there."""
        with self._lock:
            kept = [place for place in self._waiting if place[1] not in prompt_ids]
            found = len(kept) < len(self._waiting)
            self._waiting = kept
            heapq.heapify(self._waiting)
            if found:
                self._tell()
            return found

    def clear(self) -> None:
        """Take out all that waits."""
        with self._lock:
            self._waiting = []
            self._tell()

    def free(self, chore: Chore) -> None:
        """Have the worker do *chore* before the next prompt."""
        with self._something:
            before = self._chore or Chore()
            self._chore = Chore(
                before.free_memory or chore.free_memory,
                before.unload_models or chore.unload_models,
            )
            self._something.notify()

    @property
    def remaining(self) -> int:
        """How many prompts run or wait."""
        with self._lock:
            return len(self._waiting) + (self._running is not None)

    def running(self) -> list[Prompt]:
        with self._lock:
            return [] if self._running is None else [self._running]

    def pending(self) -> list[Prompt]:
        """What waits, in the order it will run."""
        with self._lock:
            return [prompt for *_, prompt in sorted(self._waiting, key=lambda place: place[:3])]

    def history(self) -> dict[str, dict[str, Any]]:
        """The entries of what ran, the oldest first."""
        with self._lock:
            return dict(self._history)

    def forget(self, prompt_ids: Collection[str] | None = None) -> None:
        """Drop history entries, all for None."""
        with self._lock:
            for prompt_id in list(self._history) if prompt_ids is None else prompt_ids:
                self._history.pop(prompt_id, None)

    def _tell(self) -> None:
        self._changed(self.remaining)
