"""Which workflows fit which backends: worked out in a thread, and only where something changed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from comfyserve.catalog.drift import Drift, Misfit, Nearest, misfits, remembering
from comfyserve.catalog.entry import Entry
from comfyserve.workflows.node_catalog import NodeCatalog
from comfyserve.workflows.workflow import Workflow

log = logging.getLogger(__name__)

_AT_A_TIME: Final = 50
"""Workflows that are held against a catalogue before others get their turn."""


@dataclass(frozen=True, slots=True)
class _Fitted:
    """What came of one workflow and one catalogue, which are named to know them again."""

    workflow: Workflow
    catalog: NodeCatalog
    misfits: tuple[Misfit, ...]


class Fitting:
    """The last known node catalogue of each backend, and what does not fit them."""

    def __init__(self) -> None:
        self.catalogs: dict[str, NodeCatalog] = {}
        self._fitted: dict[tuple[str, int], _Fitted] = {}
        self._near: dict[int, Nearest] = {}

    async def learn(self, catalogs: Mapping[str, NodeCatalog]) -> bool:
        """These are all backends now, the preferred one first; whether that is news."""
        before = self.catalogs
        self.catalogs = await asyncio.to_thread(_interned, dict(catalogs), [*before.values()])
        ids = {id(catalog) for catalog in self.catalogs.values()}
        self._near = {key: self._near.get(key) or remembering() for key in ids}
        now = [(backend, id(catalog)) for backend, catalog in self.catalogs.items()]
        return now != [(backend, id(catalog)) for backend, catalog in before.items()]

    async def fit(self, entries: Iterable[Entry]) -> None:
        """Work out what is not known yet of *entries*, and forget what is none of theirs."""
        wanted = {
            (entry.name, id(catalog)): (entry.workflow, catalog)
            for entry in entries
            if entry.workflow is not None
            for catalog in self.catalogs.values()
        }
        self._fitted = {
            key: fitted
            for key, fitted in self._fitted.items()
            if key in wanted and fitted.workflow is wanted[key][0]
        }
        missing = [key for key in wanted if key not in self._fitted]
        for start in range(0, len(missing), _AT_A_TIME):
            keys = missing[start : start + _AT_A_TIME]
            pairs = [(*wanted[key], self._near[key[1]]) for key in keys]
            found = await asyncio.to_thread(_fitted, pairs)
            self._fitted.update(zip(keys, found, strict=True))

    def drift(self, name: str) -> tuple[Drift, ...]:
        """Where this workflow does not fit, as far as it was worked out."""
        return tuple(
            Drift.of(name, backend, misfit)
            for backend, catalog in self.catalogs.items()
            if (fitted := self._fitted.get((name, id(catalog))))
            for misfit in fitted.misfits
        )

    def best(self, name: str) -> NodeCatalog | None:
        """The catalogue of the first backend that the workflow fits, else of the first."""
        for catalog in self.catalogs.values():
            fitted = self._fitted.get((name, id(catalog)))
            if fitted is not None and not fitted.misfits:
                return catalog
        return next(iter(self.catalogs.values()), None)


def _fitted(pairs: Sequence[tuple[Workflow, NodeCatalog, Nearest]]) -> list[_Fitted]:
    return [_fitted_one(*pair) for pair in pairs]


def _fitted_one(workflow: Workflow, catalog: NodeCatalog, near: Nearest) -> _Fitted:
    try:
        return _Fitted(workflow, catalog, misfits(workflow, catalog, near))
    except Exception:
        # What custom nodes write into a catalogue must not keep the others from being told.
        log.exception("A workflow could not be held against a backend: %s", workflow.name)
        return _Fitted(workflow, catalog, ())


def _interned(
    catalogs: Mapping[str, NodeCatalog], known: Sequence[NodeCatalog]
) -> dict[str, NodeCatalog]:
    """The catalogues, each only once: backends of a fleet mostly have the same."""
    kept = list(known)
    interned: dict[str, NodeCatalog] = {}
    for backend, catalog in catalogs.items():
        same = next((one for one in kept if one is catalog or one == catalog), None)
        if same is None:
            kept.append(catalog)
        interned[backend] = catalog if same is None else same
    return interned
