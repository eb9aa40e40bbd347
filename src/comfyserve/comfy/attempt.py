"""What the messages of one prompt add up to: how far it is, and what is known of its end."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Hashable, Iterable, Mapping
from typing import Any, Final

from comfyserve.comfy.protocol import (
    Cached,
    Ended,
    Executed,
    Executing,
    Failed,
    Interrupted,
    Message,
    NodeStates,
    NodeText,
    Picture,
    Started,
    Step,
    Succeeded,
)
from comfyserve.jobs import Progress, UsualTimes

_LEAST_STEPS: Final = 2
"""Steps a node must have done before its pace says anything."""


_MOST_STEPS: Final = 10_000
"""As many as a sampler takes; more says nothing of the work it does."""


_PACE_STEPS: Final = 50
"""How many of the latest steps tell the pace."""

_ALMOST: Final = 0.99
"""All nodes are done, but their outputs are not here yet."""

_AT_MOST: Final = 1.25
"""How much longer the rest of a node may take than the pace of its steps says."""


class Attempt:
    """The state of one prompt, built up message by message; it does no I/O and knows no clock.

    *graph* is the graph as submitted and *nodes* the ones that are expected to run; *now* is
    always a count of seconds that only grows. *usual* is what such runs took before.
    """

    def __init__(
        self,
        graph: Mapping[str, Any],
        nodes: Iterable[str],
        now: float,
        usual: UsualTimes | None = None,
    ) -> None:
        self._graph = graph
        self._usual = usual or UsualTimes()
        self._weights = {node: _weight(graph[node]) for node in nodes}
        self._submitted_at = now
        self._started_at: float | None = None
        self._ended_at: float | None = None
        self._done: set[str] = set()
        self._weight = sum(self._weights.values())
        self._weight_done = 0.0
        self._cached: frozenset[str] = frozenset()
        self._node: str | None = None
        self._node_since = now
        self._step: tuple[float, float] | None = None
        self._step_times: deque[float] = deque(maxlen=_PACE_STEPS)
        self._step_since: float | None = None
        self._durations: dict[str, float] = {}
        self._message: str | None = None
        self._highest = 0.0
        self.last_words: list[Failed | Interrupted | Succeeded] = []
        self.has_ended = False

    @property
    def has_started(self) -> bool:
        """The prompt has left the server's queue, as far as anybody said."""
        return self._started_at is not None

    @property
    def cached(self) -> frozenset[str]:
        """The nodes whose results were there already."""
        return self._cached

    @property
    def done(self) -> frozenset[str]:
        """The nodes that are done with, cached ones among them."""
        return frozenset(self._done)

    @property
    def node(self) -> str | None:
        """The node that runs now."""
        return self._node

    def class_of(self, node_id: str | None) -> str | None:
        """The class of a node of the graph, also for one inside an expanded node."""
        for name in (node_id, (node_id or "").split(".")[0]):
            node = self._graph.get(name) if name is not None else None
            if isinstance(node, Mapping):
                return str(node.get("class_type"))
        return None

    def hear(self, message: Message, now: float) -> bool:
        """Take a message in; True when the progress may have changed."""
        match message:
            case Started():
                self.start(now)
            case Cached(nodes=nodes):
                self.start(now)
                self._cached = frozenset(nodes)
                self._finish(nodes)
            case Executing(display_id=node):
                self.start(now)
                self._enter(node, now)
            case Step(node_id=node, value=value, maximum=maximum):
                self.start(now)
                self._make_step(node, value, maximum, now)
            case NodeStates(nodes=states):
                self.start(now)
                self._finish(
                    state.display_id
                    for node, state in states.items()
                    if state.finished and node == state.display_id
                )
            case Executed(node_id=node):
                self._finish((node,))
            case NodeText(text=text):
                self._message = text
            case Failed() | Interrupted() | Succeeded():
                self.last_words.append(message)
            case Ended():
                self.end(now)
            case _:
                return False
        return not isinstance(message, Picture)

    def start(self, now: float) -> None:
        """The prompt runs, whoever said so."""
        if self._started_at is None:
            self._started_at = now
            self._node_since = now

    def end(self, now: float) -> None:
        """The prompt has ended, whoever said so."""
        self.start(now)
        if self._ended_at is None:
            self._leave(now)
            self._ended_at = now
        self.has_ended = True

    @property
    def standing(self) -> Hashable:
        """What a progress says besides its times; cheap, and equal while nothing has changed."""
        self._highest = max(self._highest, self._part_done())
        return (self._highest, len(self._done), self._node, self._step, self._message)

    def progress(self, now: float) -> Progress:
        """The whole picture at this moment."""
        self._highest = max(self._highest, self._part_done())
        node = self._graph.get(self._node or "")
        meta = node.get("_meta") if isinstance(node, Mapping) else None
        title = meta.get("title") if isinstance(meta, Mapping) else None
        return Progress(
            value=self._highest,
            nodes_done=len(self._done),
            nodes_total=len(self._weights),
            current_node=self._node,
            current_node_class=self.class_of(self._node),
            current_node_title=title if isinstance(title, str) else None,
            step=None if self._step is None else int(self._step[0]),
            steps=None if self._step is None else int(self._step[1]),
            message=self._message,
            elapsed=self.seconds_running(now),
            remaining=self._remaining(now),
        )

    def completed(self, now: float) -> Progress:
        """The picture of an attempt that did all it had to."""
        self._highest = 1.0
        total = len(self._weights)
        return Progress(
            value=1.0,
            nodes_done=total,
            nodes_total=total,
            elapsed=self.seconds_running(now),
            remaining=(0.0, 0.0),
        )

    def seconds_queued(self, now: float) -> float:
        """How long it waited, up to now if it waits still."""
        return (self._started_at if self._started_at is not None else now) - self._submitted_at

    def seconds_running(self, now: float) -> float:
        """How long it ran, up to now if it runs still."""
        if self._started_at is None:
            return 0.0
        return (self._ended_at if self._ended_at is not None else now) - self._started_at

    @property
    def seconds_by_node(self) -> Mapping[str, float]:
        """How long each node ran that is done with."""
        return dict(self._durations)

    def _enter(self, node: str, now: float) -> None:
        if node != self._node:
            self._leave(now)
            self._node = node
            self._node_since = now

    def _leave(self, now: float) -> None:
        """The server runs one node after the other, so leaving one means it is done."""
        if self._node is not None:
            self._finish((self._node,))
            spent = now - self._node_since
            self._durations[self._node] = self._durations.get(self._node, 0.0) + spent
        self._node = self._step = self._step_since = self._message = None
        self._step_times.clear()

    def _make_step(self, node: str | None, value: float, maximum: float, now: float) -> None:
        if node is not None and self._node is None and node in self._graph:
            self._enter(node, now)
        if self._step is not None and self._step_since is not None and value > self._step[0]:
            pace = (now - self._step_since) / (value - self._step[0])
            self._step_times.append(pace)
        self._step = (value, maximum)
        self._step_since = now

    def _finish(self, nodes: Iterable[str]) -> None:
        """These nodes are done; ones inside an expanded node do not count by themselves."""
        for node in (self._weights.keys() & set(nodes)) - self._done:
            self._done.add(node)
            self._weight_done += self._weights[node]

    def _part_done(self) -> float:
        if not self._weight:
            return 0.0
        done = self._weight_done
        if self._node in self._weights and self._node not in self._done and self._step:
            value, maximum = self._step
            done += self._weights[self._node] * min(1.0, value / maximum if maximum > 0 else 0.0)
        return min(_ALMOST, done / self._weight)

    def _remaining(self, now: float) -> tuple[float, float] | None:
        """From what such runs took before, and from the pace of the running node's steps."""
        if self._usual.nodes:
            return self._rest_as_usual(now)
        if (whole := self._usual.whole) is not None:
            return whole.rest(self.seconds_running(now))
        return self._rest_by_pace(now)

    def _rest_as_usual(self, now: float) -> tuple[float, float]:
        """The rest of the running node, and what the nodes take that are still to come."""
        usual = self._usual.nodes
        come = [usual[node] for node in self._left if node in usual]
        mean, spread = sum(one.mean for one in come), math.hypot(*(one.spread for one in come))
        least, most = 0.0, 0.0
        if (here := self._rest_of_steps(now)) is not None:
            least, most = here, here * _AT_MOST
        elif self._node is not None and self._node in usual:
            least, most = usual[self._node].rest(now - self._node_since)
        return (max(0.0, least + mean - spread), most + mean + spread)

    def _rest_by_pace(self, now: float) -> tuple[float, float] | None:
        """Where nothing like it ran before, the other nodes may take what those did so far."""
        if (here := self._rest_of_steps(now)) is None:
            return None
        pace = statistics.median(self._step_times)
        usual = statistics.median(self._durations.values()) if self._durations else pace
        slowest = max(self._durations.values(), default=pace)
        return (here, here * _AT_MOST + len(self._left) * max(usual, slowest / 2))

    def _rest_of_steps(self, now: float) -> float | None:
        """What the running node still takes at the pace of its steps, once they have one."""
        if self._step is None or len(self._step_times) < _LEAST_STEPS:
            return None
        value, maximum = self._step
        since = now - (self._step_since if self._step_since is not None else now)
        return max(0.0, (maximum - value) * statistics.median(self._step_times) - since)

    @property
    def _left(self) -> set[str]:
        """The nodes whose turn is still to come."""
        return self._weights.keys() - self._done - {self._node or ""}


def _weight(node: object) -> float:
    """How much of the bar a node gets: a sampler's share grows with its steps."""
    inputs = node.get("inputs") if isinstance(node, Mapping) else None
    steps = inputs.get("steps") if isinstance(inputs, Mapping) else None
    if not isinstance(steps, int) or isinstance(steps, bool):
        return 1.0
    return float(min(max(1, steps), _MOST_STEPS))
