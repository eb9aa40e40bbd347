"""How long jobs take, learned from those that ran: by workflow, by backend, by node.

>>> subject_of("portrait", {})
'workflow:portrait'
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from comfyserve.jobs import Timings, Usual, UsualTimes
from comfyserve.refusals import StoreUnavailable
from comfyserve.store import LearnedTime, Times
from comfyserve.workflows.graph import Graph

log = logging.getLogger(__name__)

UNKNOWN: Final = 1.0
"""Seconds that a job is taken for while nothing at all was learned."""

MOST_SUBJECTS: Final = 500
"""Kinds of jobs whose times are kept; those that ran the longest time ago are forgotten."""

MOST_NODES: Final = 50
"""Nodes of one kind of job whose times are kept, the slowest."""

MOST_BACKENDS: Final = 32
"""Backends of one kind of job whose times are kept, those that ran it last."""

SAVED_EVERY: Final = 5.0
"""Seconds in which what is learned is gathered before it is written."""

_MEMORY: Final = 0.2
"""The part that the latest run has in what is known, once there were some."""

_MATTERS: Final = 0.01
"""The part of a run that a node must take to be worth a time of its own."""

_HASH_BYTES: Final = 12

_ANY: Final = ""
"""Stands for all backends, for all kinds of jobs, and for the whole of a run."""

_Key = tuple[str, str, str]


def subject_of(workflow: str | None, graph: Graph) -> str:
    """What kind of job it is: its workflow's name, else what its graph looks like.

    Graphs with the same nodes, joined in the same way, look the same whatever their values are.
    """
    if workflow is not None:
        return kind_of(workflow)
    shape = json.dumps(_shape(graph), separators=(",", ":"))
    return "graph:" + hashlib.blake2b(shape.encode(), digest_size=_HASH_BYTES).hexdigest()


def kind_of(workflow: str) -> str:
    """The subject of all jobs of that workflow."""
    return f"workflow:{workflow}"


class LearnedTimes:
    """What jobs took so far, the latest counting the most; see `LearnedTimes.open`.

    It is held in memory and never asks anybody. *clock* gives seconds since the epoch.
    """

    def __init__(
        self, known: Iterable[LearnedTime] = (), *, clock: Callable[[], float] = time.time
    ) -> None:
        self._clock = clock
        self._subjects: dict[str, dict[_Key, LearnedTime]] = {}
        self._unsaved: dict[_Key, LearnedTime] = {}
        self._news = asyncio.Event()
        for one in sorted(known, key=lambda one: one.seen_at):
            self._keep(one)
            self._forget_oldest()

    @classmethod
    @asynccontextmanager
    async def open(cls, times: Times) -> AsyncIterator[LearnedTimes]:
        """What *times* knows, for the time of the block; what is learned meanwhile goes there.

        Raises `StoreUnavailable` where it cannot be read.
        """
        learned = cls(await times.load())
        saving = asyncio.create_task(learned._save_again_and_again(times), name="learned times")
        try:
            yield learned
        finally:
            saving.cancel()
            await asyncio.gather(saving, return_exceptions=True)
            await learned._save(times)

    def learn(self, subject: str, backend: str, timings: Timings) -> None:
        """Take in what a job of that kind took that ran well, and whose results were made anew."""
        if not _is_time(timings.running):
            return
        for place in (backend, _ANY):
            self._take_in((_ANY, place, _ANY), timings.running)
            self._take_in((subject, place, _ANY), timings.running)
            for node, seconds in _that_matter(timings).items():
                self._take_in((subject, place, node), seconds)
            self._drop_quickest(subject, place)
        for kind in (_ANY, subject):
            self._forget_backends(kind)
        self._forget_oldest()
        self._news.set()

    def usual(self, subject: str, backend: str = _ANY) -> UsualTimes:
        """What such jobs take on *backend*; where none ran there, what they take anywhere."""
        known = self._subjects.get(subject, {})
        place = backend if (subject, backend, _ANY) in known else _ANY
        whole = known.get((subject, place, _ANY))
        if whole is None:
            return UsualTimes()
        nodes = {
            key[2]: _usual(one) for key, one in known.items() if key[1] == place and key[2] != _ANY
        }
        return UsualTimes(_usual(whole), nodes)

    def estimate(self, subject: str, backend: str = _ANY) -> float:
        """The seconds such a job may take; of one that never ran, what jobs take on average."""
        known = self._subjects.get(subject, {})
        one = known.get((subject, backend, _ANY)) or known.get((subject, _ANY, _ANY))
        if one is not None:
            return one.mean
        usual = self.of_any_job
        return UNKNOWN if usual is None else usual.mean

    @property
    def of_any_job(self) -> Usual | None:
        """What a job takes, whichever it is; None before the first."""
        one = self._subjects.get(_ANY, {}).get((_ANY, _ANY, _ANY))
        return None if one is None else _usual(one)

    def _take_in(self, key: _Key, seconds: float) -> None:
        known, now = self._subjects.get(key[0], {}).get(key), self._clock()
        if known is None:
            one = LearnedTime(*key, count=1, mean=seconds, spread=0.0, seen_at=now)
        else:
            part = max(1 / (known.count + 1), _MEMORY)
            off = seconds - known.mean
            spread = math.sqrt((1 - part) * (known.spread**2 + part * off**2))
            mean = known.mean + part * off
            one = LearnedTime(*key, count=known.count + 1, mean=mean, spread=spread, seen_at=now)
        self._keep(one)
        self._unsaved[key] = one

    def _keep(self, one: LearnedTime) -> None:
        """Keep it, its kind of job the latest of all."""
        kept = self._subjects.pop(one.subject, {})
        kept[one.subject, one.backend, one.node] = one
        self._subjects[one.subject] = kept

    def _drop_quickest(self, subject: str, backend: str) -> None:
        kept = self._subjects[subject]
        nodes = [one for key, one in kept.items() if key[1] == backend and key[2] != _ANY]
        for one in sorted(nodes, key=lambda one: one.mean, reverse=True)[MOST_NODES:]:
            self._drop(kept, (subject, backend, one.node))

    def _forget_backends(self, subject: str) -> None:
        """Backends come and go; those that did not run it for the longest time go first."""
        kept = self._subjects[subject]
        wholes = [one for key, one in kept.items() if key[1] != _ANY and key[2] == _ANY]
        for one in sorted(wholes, key=lambda one: one.seen_at)[:-MOST_BACKENDS]:
            for key in [key for key in kept if key[1] == one.backend]:
                self._drop(kept, key)

    def _forget_oldest(self) -> None:
        while len(self._subjects) > MOST_SUBJECTS + 1:  # all jobs are a kind too
            oldest = next(subject for subject in self._subjects if subject != _ANY)
            for key in self._subjects.pop(oldest):
                self._unsaved.pop(key, None)

    def _drop(self, kept: dict[_Key, LearnedTime], key: _Key) -> None:
        del kept[key]
        self._unsaved.pop(key, None)

    async def _save_again_and_again(self, times: Times) -> None:
        while True:
            await self._news.wait()
            await asyncio.sleep(SAVED_EVERY)
            self._news.clear()
            await self._save(times)

    async def _save(self, times: Times) -> None:
        """Write what is new; where the store is not there, it is new still."""
        unsaved, self._unsaved = self._unsaved, {}
        if not unsaved:
            return
        try:
            await times.save(tuple(unsaved.values()))
        except Exception as error:
            is_known = isinstance(error, StoreUnavailable)
            log.warning("What jobs took is not kept yet: %s", error, exc_info=not is_known)
            self._unsaved = {**unsaved, **self._unsaved}
            self._news.set()


def _shape(graph: Graph) -> list[Any]:
    nodes = []
    for node_id, node in sorted(graph.items()):
        if not isinstance(node, Mapping):
            continue
        inputs = node.get("inputs")
        links = [
            [name, value[0], value[1]]
            for name, value in sorted(inputs.items() if isinstance(inputs, Mapping) else ())
            if isinstance(value, list) and len(value) == 2 and str(value[0]) in graph
        ]
        nodes.append([node_id, str(node.get("class_type")), links])
    return nodes


def _usual(one: LearnedTime) -> Usual:
    """Few runs say little of how much others stray from them."""
    return Usual(one.mean, max(one.spread, one.mean / (2 * one.count)))


def _that_matter(timings: Timings) -> Mapping[str, float]:
    least = timings.running * _MATTERS
    return {
        node: seconds
        for node, seconds in timings.nodes.items()
        if node != _ANY and _is_time(seconds) and seconds >= least
    }


def _is_time(seconds: float) -> bool:
    return math.isfinite(seconds) and seconds >= 0
