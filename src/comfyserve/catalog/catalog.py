"""The catalogue: every workflow on offer by name, as fresh as its files.

A file of the folder that holds a workflow, now or before a broken edit, has its name; a published
workflow of the same name waits behind it, and is offered once the file is gone. A file that never
held a workflow takes no name from a published one.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from comfyserve.catalog.changes import Change, Changes, Listeners
from comfyserve.catalog.drift import Drift
from comfyserve.catalog.entry import Entry, Picture, Published
from comfyserve.catalog.fitting import Fitting
from comfyserve.catalog.folder import PATIENCE, Folder, Look
from comfyserve.catalog.names import check_name, key_of, name_of
from comfyserve.catalog.reading import published_picture, read_picture, read_published
from comfyserve.errors import ComfyServeError, nearest
from comfyserve.refusals import (
    WorkflowBroken,
    WorkflowFolderMissing,
    WorkflowNameRefused,
    WorkflowNotFound,
)
from comfyserve.workflows.node_catalog import NodeCatalog
from comfyserve.workflows.workflow import Workflow

log = logging.getLogger(__name__)

PAUSE: Final = 0.3
"""Seconds between two looks at the folder."""

SHORT_PAUSE: Final = 0.1
"""Seconds until the next look where a file seems to be just being written."""

_SHARE: Final = 30
_SHARE_OF_FEW: Final = 2
"""How many times longer than a look took the pause after it is, at least; the second where a file
seems to be just being written."""

_RECENT: Final = 8
"""The looks by which it is told how long one takes."""

_MOST_DESCRIBED: Final = 256
"""Workflows that are kept as a backend's nodes describe them."""

_MOST_LOGGED: Final = 20
"""Workflows that the log names at a time: a model that goes may take hundreds with it."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What keeps a file from being offered as it is now; without a *name* it is the folder's."""

    name: str | None
    message: str


class Catalog:
    """The workflows on offer; see `Catalog.open`."""

    def __init__(self, folder: Folder | None) -> None:
        self.folder_problem: str | None = None
        self._folder = folder
        self._of_folder: dict[str, Entry] = {}
        self._of_published: dict[str, Entry] = {}
        self._published: dict[str, Published] = {}
        self._entries: dict[str, Entry] = {}
        self._by_name: dict[str, Entry] = {}
        self._drift: dict[str, tuple[Drift, ...]] = {}
        self._fitting = Fitting()
        self._described: dict[tuple[str, int], tuple[Workflow, NodeCatalog, Workflow]] = {}
        self._listeners = Listeners()
        self._lock = asyncio.Lock()

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        folder: str | os.PathLike[str] | None,
        *,
        published: Iterable[Published] = (),
        catalogs: Mapping[str, NodeCatalog] | None = None,
        pause: float = PAUSE,
        patience: float = PATIENCE,
    ) -> AsyncIterator[Catalog]:
        """Read the *folder*, flat and without what lies deeper, and watch it during the block.

        *published* are workflows that were handed in, *catalogs* the last known node catalogue of
        each backend. Seconds lie between two looks (*pause*) and until a broken file is told
        (*patience*). Raises `WorkflowFolderMissing`; a folder that goes away later keeps what it
        had on offer.
        """
        path = None if folder is None else await asyncio.to_thread(_checked, Path(folder))
        catalog = cls(None if path is None else Folder(path, patience=patience))
        await catalog.learn(catalogs or {})
        await catalog.set_published(published)
        await catalog._read_all()
        watch = asyncio.create_task(catalog._watch(pause), name="watch over the workflows")
        try:
            yield catalog
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
            catalog._listeners.close()

    # What is on offer

    def __getitem__(self, name: str) -> Entry:
        """What there is under exactly this name. Raises `WorkflowNotFound`."""
        try:
            return self._by_name[name]
        except KeyError:
            raise WorkflowNotFound(name, self._names_like(name)) from None

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __len__(self) -> int:
        return len(self._by_name)

    def entries(self) -> list[Entry]:
        """Everything on offer, by name."""
        return [self._entries[key] for key in sorted(self._entries)]

    def problems(self) -> list[Problem]:
        """Every sentence about what is not offered as it should be, for logs and pages."""
        own = [Problem(None, self.folder_problem)] if self.folder_problem else []
        return own + [
            Problem(entry.name, message)
            for entry in self.entries()
            for message in (entry.problem, *entry.warnings)
            if message
        ]

    async def described(self, name: str, backend: str | None = None) -> Workflow:
        """The workflow with the limits, choices and help of a backend's nodes.

        Without a *backend*, it is the first one that the workflow fits, or else the first. Where
        no catalogue is known, the workflow is as its file tells. Raises `WorkflowNotFound`,
        `WorkflowBroken`, and for a named backend `ComfyServeError` if its nodes make nonsense of
        what the file says.
        """
        entry = self[name]
        if entry.workflow is None:
            raise WorkflowBroken(name, entry.problem or "")
        catalogs = self._fitting.catalogs
        catalog = self._fitting.best(name) if backend is None else catalogs.get(backend)
        if catalog is None:
            return entry.workflow
        key = (name, id(catalog))
        known = self._described.get(key)
        if known is not None and known[0] is entry.workflow and known[1] is catalog:
            return known[2]
        try:
            described = await asyncio.to_thread(entry.workflow.described_by, catalog, strict=False)
        except ComfyServeError:
            if backend is not None:
                raise
            return entry.workflow
        self._described.pop(key, None)
        self._described[key] = (entry.workflow, catalog, described)
        if len(self._described) > _MOST_DESCRIBED:
            del self._described[next(iter(self._described))]
        return described

    async def thumbnail(self, name: str) -> Picture | None:
        """What the workflow looks like, if it or a picture beside it tells."""
        entry = self[name]
        if entry.thumbnail and self._folder is not None:
            return await asyncio.to_thread(read_picture, self._folder.path, entry.thumbnail)
        published = self._published.get(key_of(name)) if entry.thumbnail is not None else None
        return published_picture(published) if published else None

    def drift(self, name: str | None = None) -> tuple[Drift, ...]:
        """Where workflows no longer fit backends; with a *name*, where that one does not."""
        if name is not None:
            return self._drift.get(name, ())
        return tuple(one for entry in self.entries() for one in self._drift.get(entry.name, ()))

    def changes(self) -> AbstractContextManager[Changes]:
        """Hear in the block of every change from here on; the hearing ends with the catalogue.

        Who hears slowly hears only the latest of each name.
        """
        return self._listeners.listening()

    # What decides what is on offer

    async def learn(self, catalogs: Mapping[str, NodeCatalog]) -> None:
        """These are the backends now, the preferred one first, each with its last known nodes."""
        async with self._lock:
            await self._fitting.learn(catalogs)
            await self._fit(self._by_name)

    async def check(self, published: Published) -> Workflow:
        """What would be published. Raises `WorkflowNameRefused`, or why it is no workflow."""
        return _workflow(await self._read_to_publish(published))

    async def publish(self, published: Published) -> Entry:
        """Offer what was handed in, instead of what was published under its name before.

        Raises like `check`, and then nothing changed.
        """
        entry = await self._read_to_publish(published)
        async with self._lock:
            self._take(published, entry)
            await self._serve([key_of(published.name)])
        return entry

    async def withdraw(self, name: str) -> None:
        """Offer it no longer. Raises `WorkflowNotFound` where none is published under *name*."""
        async with self._lock:
            published = self._published.get(key_of(name))
            if published is None or published.name != name:
                raise WorkflowNotFound(name)
            del self._published[key_of(name)], self._of_published[key_of(name)]
            await self._serve([key_of(name)])

    async def set_published(self, published: Iterable[Published]) -> None:
        """All that is published now; what did not change is not read again."""
        async with self._lock:
            wanted = {key_of(one.name): one for one in published}
            gone = self._published.keys() - wanted.keys()
            new = {key: one for key, one in wanted.items() if self._published.get(key) != one}
            for key in gone:
                del self._published[key], self._of_published[key]
            for one in new.values():
                self._take(one, await asyncio.to_thread(_read_or_told, one))
            await self._serve([*gone, *new])

    async def _read_to_publish(self, published: Published) -> Entry:
        check_name(published.name)
        before = self._entries.get(key_of(published.name))
        if before is not None and before.source == "folder" and before.workflow is not None:
            reason = f"The server's folder has {before.file}, which comes first."
            raise WorkflowNameRefused(published.name, reason)
        return await asyncio.to_thread(read_published, published)

    def _take(self, published: Published, entry: Entry) -> None:
        self._published[key_of(published.name)] = published
        self._of_published[key_of(published.name)] = entry

    def _names_like(self, name: str) -> list[str]:
        by_key = self._entries.get(key_of(name_of(name[:200])))
        return [by_key.name] if by_key else nearest(name[:200], self._by_name, 2)

    # How it stays fresh

    async def _read_all(self) -> None:
        if self._folder is not None:
            while not (await self._look(self._folder, at_once=True)).is_whole:
                pass

    async def _watch(self, pause: float) -> None:
        """Look at the folder again and again; ends only by being canceled."""
        looks: deque[Look] = deque(maxlen=_RECENT)
        while self._folder is not None:
            rest = pause
            try:
                looks.append(await self._look(self._folder))
            except Exception:
                log.exception("The folder of workflows could not be looked at")
            else:
                rest = _pause_after(looks, pause)
            await asyncio.sleep(rest)

    async def _look(self, folder: Folder, *, at_once: bool = False) -> Look:
        look = await asyncio.to_thread(folder.look, at_once=at_once)
        if look.problem != self.folder_problem:
            self.folder_problem = look.problem
            log.warning("%s", look.problem or "The folder of workflows can be read again.")
        if look.changes:
            async with self._lock:
                for key, entry in look.changes.items():
                    if entry is None:
                        del self._of_folder[key]
                    else:
                        self._of_folder[key] = entry
                await self._serve(look.changes)
        return look

    async def _serve(self, keys: Iterable[str]) -> None:
        """Offer what there is now under these keys, and tell what changed by that."""
        changed: dict[str, None] = {}
        for key in keys:
            before, entry = self._entries.pop(key, None), self._served(key)
            if before is not None:
                del self._by_name[before.name]
            if entry is not None:
                self._entries[key] = self._by_name[entry.name] = entry
            if entry != before:
                _note(before, entry)
                changed |= dict.fromkeys(one.name for one in (before, entry) if one is not None)
        self._listeners.tell(
            Change(name, self._by_name.get(name), self._drift.get(name, ())) for name in changed
        )
        await self._fit(changed)

    def _served(self, key: str) -> Entry | None:
        of_folder, published = self._of_folder.get(key), self._of_published.get(key)
        if of_folder is None or published is None:
            return of_folder or published
        if of_folder.workflow is not None:
            warning = f"A workflow of this name was published too; {of_folder.file} comes first."
            return replace(of_folder, warnings=(*of_folder.warnings, warning))
        warning = f"The folder has {of_folder.file}, which is not offered: {of_folder.problem}"
        return replace(published, warnings=(*published.warnings, warning))

    async def _fit(self, names: Iterable[str]) -> None:
        """Hold everything against the backends, and tell for which *names* that came out anew."""
        names = list(names)
        await self._fitting.fit(self._entries.values())
        worse: list[Drift] = []
        for name in names:
            entry = self._by_name.get(name)
            drift = self._fitting.drift(name) if entry is not None else ()
            if drift == self._drift.get(name, ()):
                continue
            self._drift.pop(name, None)
            if drift:
                self._drift[name] = drift
                worse.append(drift[0])
            if entry is not None:
                self._listeners.tell([Change(name, entry, drift)])
        for one in worse[:_MOST_LOGGED]:
            log.warning("%s does not fit %s: %s", one.workflow, one.backend, one.message)
        if len(worse) > _MOST_LOGGED:
            log.warning("And %d more workflows do not fit a backend.", len(worse) - _MOST_LOGGED)


def _pause_after(looks: Sequence[Look], pause: float) -> float:
    """Looking takes only a small share of a processor, and half of a slow disk's time at most."""
    latest = looks[-1]
    if not latest.is_whole:
        return 0.0
    # A busy machine makes now and then one look slow; the quickest tells what a look takes.
    seconds, waited = min(look.seconds for look in looks), min(look.waited for look in looks)
    if latest.is_settled:
        return max(pause, _SHARE * seconds, waited)
    return max(min(SHORT_PAUSE, pause), _SHARE_OF_FEW * seconds, waited)


def _checked(folder: Path) -> Path:
    """The folder, which can be read."""
    try:
        with os.scandir(folder):
            return folder.absolute()
    except FileNotFoundError:
        raise WorkflowFolderMissing(str(folder), "does not exist") from None
    except NotADirectoryError:
        raise WorkflowFolderMissing(str(folder), "is no folder") from None
    except (OSError, ValueError) as error:
        raise WorkflowFolderMissing(str(folder), f"cannot be read: {error}") from None


def _read_or_told(published: Published) -> Entry:
    """What was published before; a newer version may no longer be able to read it."""
    try:
        return read_published(published)
    except ComfyServeError as error:
        changed_at, problem = published.changed_at, str(error)
        return Entry(published.name, "published", None, changed_at=changed_at, problem=problem)


def _workflow(entry: Entry) -> Workflow:
    if entry.workflow is None:
        raise WorkflowBroken(entry.name, entry.problem or "")
    return entry.workflow


def _note(before: Entry | None, entry: Entry | None) -> None:
    """Write a change into the log."""
    name = (entry or before or Entry("", "folder", None)).name
    if entry is None:
        log.info("A workflow is no longer on offer: %s", name)
    elif entry.problem and (before is None or before.problem != entry.problem):
        log.warning("A workflow cannot be offered as it is: %s: %s", name, entry.problem)
    elif before is None or before.version != entry.version:
        log.info("A workflow is on offer: %s", name)
    for warning in entry.warnings if entry else ():
        if before is None or warning not in before.warnings:
            log.warning("%s: %s", name, warning)
