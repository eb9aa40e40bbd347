"""The catalogue: every workflow on offer by name, as fresh as its files.

A file of the folder that holds a workflow, now or before a broken edit, has its name; a published
workflow of the same name waits behind it, and is offered once the file is gone. A file that never
held a workflow takes no name from a published one.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from comfyserve.catalog.changes import Change, Changes, Listeners
from comfyserve.catalog.drift import Drift
from comfyserve.catalog.entry import Entry, Picture, Published
from comfyserve.catalog.fitting import Fitting
from comfyserve.catalog.folder import PATIENCE, Folder, Look
from comfyserve.catalog.log_lines import log_change, log_drift
from comfyserve.catalog.names import check_name, key_of, name_of
from comfyserve.catalog.pauses import PAUSE, Pauses
from comfyserve.catalog.reading import published_picture, read_picture, read_published
from comfyserve.errors import ComfyServeError, nearest
from comfyserve.refusals import (
    WorkflowBroken,
    WorkflowFolderMissing,
    WorkflowInFolder,
    WorkflowNameRefused,
    WorkflowNotFound,
)
from comfyserve.workflows.node_catalog import NodeCatalog
from comfyserve.workflows.workflow import Workflow

log = logging.getLogger(__name__)

_MOST_DESCRIBED: Final = 256
"""Workflows that are kept as a backend's nodes describe them."""


Keep = Callable[[Published], Awaitable[None]]
"""Writes down what was handed in, so that it lasts."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What keeps a file from being offered as it is now; without a *name* it is the folder's."""

    name: str | None
    message: str


class Catalog:
    """The workflows on offer; see `Catalog.open`.

    *revision* is another number whenever anything that callers see of it may be other than before.
    """

    def __init__(self, folder: Folder | None) -> None:
        self.folder_problem: str | None = None
        self.revision = 0
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
        self._read = asyncio.Event()

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
        in_background: bool = False,
    ) -> AsyncIterator[Catalog]:
        """Read the *folder*, flat and without what lies deeper, and watch it during the block.

        With *in_background* the block begins before anything was read; see `wait_until_read`.

        *published* are workflows that were handed in, *catalogs* the last known node catalogue of
        each backend. Seconds lie between two looks (*pause*) and until a broken file is told
        (*patience*). Raises `WorkflowFolderMissing`; a folder that goes away later keeps what it
        had on offer.
        """
        path = None if folder is None else await asyncio.to_thread(check_folder, Path(folder))
        catalog = cls(None if path is None else Folder(path, patience=patience))
        work = catalog._read_and_watch(tuple(published), catalogs or {}, pause)
        watch = asyncio.create_task(work, name="watch over the workflows")
        try:
            if not in_background:
                await catalog.wait_until_read()
            yield catalog
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
            catalog._read.set()
            catalog._listeners.close()

    @property
    def is_read(self) -> bool:
        """All that was there at the beginning has been read: what has no entry is not there."""
        return self._read.is_set()

    async def wait_until_read(self) -> None:
        """Return once `is_read`; a large folder takes its time."""
        await self._read.wait()

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
        catalog = self.nodes_for(name) if backend is None else self.nodes.get(backend)
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

    @property
    def nodes(self) -> Mapping[str, NodeCatalog]:
        """The last known nodes of each backend, the preferred one first."""
        return self._fitting.catalogs

    def nodes_for(self, name: str) -> NodeCatalog | None:
        """Those of the first backend that the workflow fits, or else of the first."""
        return self._fitting.best(name)

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
            if await self._fitting.learn(catalogs):
                self.revision += 1
            await self._fit(self._by_name)

    async def publish(self, published: Published, keep: Keep | None = None) -> Entry:
        """Offer what was handed in, instead of what was published under its name before.

        Once it is known to be a workflow, and before it is offered, *keep* may write it down.
        Raises `WorkflowNameRefused`, why it is no workflow, and what *keep* raises; then nothing
        changed.
        """
        self.refuse_name(published.name)
        entry = await asyncio.to_thread(read_published, published)
        async with self._lock:
            # A file of that name may have come meanwhile.
            self.refuse_name(published.name)
            if keep is not None:
                await keep(published)
            self._take(published, entry)
            await self._serve([key_of(published.name)])
        return entry

    async def withdraw(self, name: str, keep: Callable[[], Awaitable[None]] | None = None) -> None:
        """Offer it no longer; *keep* may write that down before.

        Raises `WorkflowNotFound` where nothing has that name, and `WorkflowInFolder` where
        only a file of the folder has it.
        """
        async with self._lock:
            published = self._published.get(key_of(name))
            if published is None or published.name != name:
                raise WorkflowInFolder(name, self[name].file)
            if keep is not None:
                await keep()
            del self._published[key_of(name)], self._of_published[key_of(name)]
            await self._serve([key_of(name)])

    def published(self, name: str) -> Published | None:
        """What was published under exactly this name, though a file may come before it."""
        found = self._published.get(key_of(name))
        return found if found is not None and found.name == name else None

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

    def refuse_name(self, name: str) -> None:
        """Raise `WorkflowNameRefused` unless something can be published under this name."""
        check_name(name)
        before, published = self._of_folder.get(key_of(name)), self._published.get(key_of(name))
        if before is not None and before.workflow is not None:
            raise WorkflowInFolder(name, before.file)
        if published is not None and published.name != name:
            reason = f"There is {published.name!r} already, which differs only in case."
            raise WorkflowNameRefused(name, reason)

    def _take(self, published: Published, entry: Entry) -> None:
        self._published[key_of(published.name)] = published
        self._of_published[key_of(published.name)] = entry

    def _names_like(self, name: str) -> list[str]:
        by_key = self._entries.get(key_of(name_of(name[:200])))
        return [by_key.name] if by_key else nearest(name[:200], self._by_name, 2)

    # How it stays fresh

    async def _read_and_watch(
        self, published: Iterable[Published], catalogs: Mapping[str, NodeCatalog], pause: float
    ) -> None:
        """Read all there is, then look at the folder again and again; ends by being canceled."""
        try:
            await self.learn(catalogs)
            await self.set_published(published)
            while self._folder and not (await self._look(self._folder, at_once=True)).is_whole:
                pass
        except Exception:
            log.exception("The workflows could not be read")
        self._read.set()
        pauses = Pauses(pause)
        while self._folder is not None:
            rest = pause
            try:
                rest = pauses.after(await self._look(self._folder))
            except Exception:
                log.exception("The folder of workflows could not be looked at")
            await asyncio.sleep(rest)

    async def _look(self, folder: Folder, *, at_once: bool = False) -> Look:
        look = await asyncio.to_thread(folder.look, at_once=at_once)
        if look.problem != self.folder_problem:
            self.folder_problem = look.problem
            self.revision += 1
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
                log_change(before, entry)
                changed |= dict.fromkeys(one.name for one in (before, entry) if one is not None)
        self.revision += bool(changed)
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
        mended: list[str] = []
        for name in names:
            entry = self._by_name.get(name)
            drift = self._fitting.drift(name) if entry is not None else ()
            if drift == self._drift.get(name, ()):
                continue
            self.revision += 1
            self._drift.pop(name, None)
            if drift:
                self._drift[name] = drift
                worse.append(drift[0])
            elif entry is not None:
                mended.append(name)
            if entry is not None:
                self._listeners.tell([Change(name, entry, drift)])
        log_drift(worse, mended)


def check_folder(folder: Path) -> Path:
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
