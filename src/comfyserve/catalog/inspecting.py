"""A look at a workflow that somebody brings: what it takes and gives, and where it would run."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from comfyserve.catalog.drift import Drift, misfits, remembering
from comfyserve.catalog.entry import Entry, Published
from comfyserve.catalog.reading import read_published
from comfyserve.errors import ComfyServeError
from comfyserve.workflows.node_catalog import NodeCatalog
from comfyserve.workflows.workflow import Workflow


@dataclass(frozen=True, slots=True)
class Inspected:
    """What a workflow would be if it were on offer; *workflow* is described by a backend's nodes
    where any are known."""

    entry: Entry
    workflow: Workflow | None
    drift: tuple[Drift, ...]


async def inspect(published: Published, nodes: Mapping[str, NodeCatalog]) -> Inspected:
    """Look at what was brought beside the event loop; *nodes* are those of each backend.

    Raises `ComfyServeError` for what is no workflow.
    """
    return await asyncio.to_thread(_inspected, published, dict(nodes))


def _inspected(published: Published, nodes: Mapping[str, NodeCatalog]) -> Inspected:
    entry = read_published(published)
    if entry.workflow is None:
        return Inspected(entry, None, ())
    known = {id(catalog): catalog for catalog in nodes.values()}
    near = remembering()
    found = {key: misfits(entry.workflow, catalog, near) for key, catalog in known.items()}
    drift = tuple(
        Drift.of(published.name, backend, misfit)
        for backend, catalog in nodes.items()
        for misfit in found[id(catalog)]
    )
    best = min(nodes.values(), key=lambda catalog: bool(found[id(catalog)]), default=None)
    return Inspected(entry, _described(entry.workflow, best), drift)


def _described(workflow: Workflow, catalog: NodeCatalog | None) -> Workflow:
    if catalog is None:
        return workflow
    try:
        return workflow.described_by(catalog, strict=False)
    except ComfyServeError:
        return workflow
