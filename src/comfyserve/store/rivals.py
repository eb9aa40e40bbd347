"""Which pools compete for the same backends, as far as the backends' offers have shown it."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from comfyserve.jobs import Offer

_MOST_BACKENDS: Final = 1024
_MOST_POOLS: Final = 1024
"""Pools remembered for a backend in which nothing waits now."""


@dataclass(frozen=True, slots=True)
class Field:
    """The pools whose jobs are before or behind each other, and the backends that run them."""

    pools: frozenset[str]
    backends: frozenset[str]


class Rivals:
    """What each backend was seen to run. Learned on the event loop, asked for on any thread."""

    def __init__(self) -> None:
        self._runs: Mapping[str, frozenset[str]] = {}

    def learn(self, offers: Iterable[Offer], waiting: Iterable[str]) -> None:
        """Of all pools in which jobs are *waiting* these backends run those that they offer."""
        # A new mapping each time: other threads go on reading the old one.
        runs = dict(self._runs)
        for offer in offers:
            before, offered = runs.pop(offer.backend, frozenset()), frozenset(offer.pools)
            if offered != before:
                offered |= before.difference(waiting) if len(before) < _MOST_POOLS else set()
            runs[offer.backend] = offered
        while len(runs) > _MOST_BACKENDS:
            del runs[next(iter(runs))]
        self._runs = runs

    def of(self, pool: str, waiting: Container[str]) -> Field | None:
        """Those that compete with a pool; of the pools only those that are *waiting*.

        A pool that no backend offered yet competes with all others. None where nothing is known.
        """
        runs = self._runs
        backends = {name for name, pools in runs.items() if pool in pools} or set(runs)
        if not backends:
            return None
        pools = frozenset[str]().union(*(runs[name] for name in backends))
        return Field(
            frozenset(name for name in pools if name in waiting) | {pool}, frozenset(backends)
        )
