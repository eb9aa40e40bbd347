"""A folder of workflow files that is looked at again and again.

Looking costs one `stat` for each file. A change counts once two looks in a row saw the same, so a
file that is still being written, or replaced, is left alone; one that cannot be read is given a
little longer before anybody is told. All of this blocks: it belongs into a thread.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from comfyserve.catalog.entry import Entry
from comfyserve.catalog.names import key_of, name_of
from comfyserve.catalog.reading import SIDECAR, WATCHED, Group, Seen, read_group
from comfyserve.errors import ComfyServeError, WorkflowUnreadable

log = logging.getLogger(__name__)

MOST_FILES: Final = 20_000
"""The most workflow files, sidecars and pictures of a folder that are looked at."""

PATIENCE: Final = 1.0
"""Seconds for which a file that cannot be read may still be on its way."""

_OLD: Final = 10.0
"""Seconds after which nobody is writing a file any more."""

_RETRY: Final = 2.0
"""Seconds between two tries to open a file that could not be opened."""

_AT_A_TIME: Final = 0.2
"""Seconds of reading in one look, so that what was read is offered while the rest is read."""


@dataclass(frozen=True, slots=True)
class Look:
    """What a look at the folder found.

    *changes* has the new entry of each name that changed, None where it is gone. *problem* says
    why the folder could not be looked at, or not at all of it. *is_whole*: nothing was left unread
    for want of time. *is_settled*: nothing looks as if it were just being written. *seconds* is
    what it took of the processor to look, *waited* by the clock, both without what was read.
    """

    changes: dict[str, Entry | None]
    problem: str | None = None
    is_whole: bool = True
    is_settled: bool = True
    seconds: float = 0.0
    waited: float = 0.0


Files = tuple[Seen, ...]

_State = tuple[int, int, int, int, float, str]
"""What can tell that a file changed: times, size, number; when it was written; its refusal."""


@dataclass(slots=True)
class _Watched:
    """The files of one name: as *seen* last, and as they were when the *entry* was *told*."""

    seen: Files
    since: float
    told: Files = ()
    tried: Files = ()
    retry_at: float = float("inf")
    entry: Entry | None = None


class Folder:
    """One folder; `look` at it from one thread at a time."""

    def __init__(
        self,
        path: Path,
        *,
        patience: float = PATIENCE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path
        self._patience = patience
        self._clock = clock
        self._found: dict[str, _State] = {}
        self._files: dict[str, dict[str, Seen]] = {}
        self._watched: dict[str, _Watched] = {}
        # The names that another look has to deal with, whether their files change or not.
        self._open: set[str] = set()

    def look(self, *, at_once: bool = False) -> Look:
        """See what changed, and read it; *at_once* also what was never seen before."""
        now, begin = self._clock(), time.thread_time()
        try:
            found, problem = self._find()
        except OSError as error:
            return Look({}, f"The folder {self.path.name} cannot be read: {_reason(error)}")
        moved = self._notice(found, now, at_once=at_once)
        seconds, waited = time.thread_time() - begin, self._clock() - now
        enough = self._clock() + max(_AT_A_TIME, 2 * waited)
        look = _Looking(self.path, now, self._patience)
        for key in sorted(self._open):
            watched = self._watched[key]
            if key in moved:
                look.is_settled = False
            elif self._clock() > enough:
                look.is_whole = False
            elif not watched.seen:
                look.lose(key, watched)
                del self._watched[key]
                self._open.discard(key)
            elif look.deal_with(key, watched):
                self._open.discard(key)
        return Look(look.changes, problem, look.is_whole, look.is_settled, seconds, waited)

    def _find(self) -> tuple[dict[str, _State], str | None]:
        """The state of each file, and what is wrong with the folder."""
        root = os.path.realpath(self.path)
        with os.scandir(root) as found:
            entries = [entry for entry in found if _matters(entry.name)]
        problem = None
        if len(entries) > MOST_FILES:
            entries = sorted(entries, key=lambda entry: entry.name)[:MOST_FILES]
            problem = (
                f"The folder {self.path.name} has more than {MOST_FILES:,} files for workflows; "
                f"the others are not offered."
            )
        states = ((entry.name, _state(entry, root)) for entry in entries)
        return {name: state for name, state in states if state}, problem

    def _notice(self, found: dict[str, _State], now: float, *, at_once: bool) -> set[str]:
        """Remember what is there now, and return the names whose files are still moving."""
        differing = {name for name, _ in found.items() ^ self._found.items()}
        self._found = found
        keys: set[str] = set()
        for name in differing:
            key = key_of(name_of(os.path.splitext(name)[0]))
            keys.add(key)
            files = self._files.setdefault(key, {})
            if state := found.get(name):
                files[name] = Seen(name, state[:4], state[4], state[5])
            else:
                files.pop(name, None)
        return {key for key in keys if self._moves(key, now, at_once=at_once)}

    def _moves(self, key: str, now: float, *, at_once: bool) -> bool:
        by_name, watched = self._files[key], self._watched.get(key)
        if not by_name:
            del self._files[key]
        files = tuple(by_name[name] for name in sorted(by_name))
        if not _any_workflow(files):
            files = ()
        if watched is None and not files:
            return False
        self._open.add(key)
        if watched is None:
            self._watched[key] = _Watched(files, now)
            return not at_once
        if watched.seen == files:
            return False
        watched.seen, watched.since = files, now
        return True


@dataclass(slots=True)
class _Looking:
    """One look: what it reads, and what came of it."""

    folder: Path
    now: float
    patience: float
    changes: dict[str, Entry | None] = field(default_factory=dict)
    is_whole: bool = True
    is_settled: bool = True

    def deal_with(self, key: str, watched: _Watched) -> bool:
        """Read what does not move any more; whether nothing is left to do."""
        files, is_patient = watched.seen, self.now - watched.since < self.patience
        if files == watched.told and self.now < watched.retry_at:
            return watched.retry_at == float("inf")
        if watched.tried == files != watched.told and is_patient:
            self.is_settled = False
            return False
        group = Group.of(files)
        watched.tried, watched.retry_at = files, float("inf")
        try:
            entry = read_group(self.folder, group)
        except OSError as error:
            problem = str(WorkflowUnreadable(group.file.said, f"cannot be read: {_reason(error)}"))
            watched.retry_at = self.now + _RETRY
        except ComfyServeError as error:
            problem = str(error)
        except Exception:
            # A file that breaks the reader must not take the others with it.
            log.exception("A workflow file could not be read: %s", group.file.said)
            problem = f"{group.file.said} could not be read; the server's log says why."
        else:
            self._tell(key, watched, _of_same_content(entry, watched.entry))
            return True
        if is_patient and time.time() - max(seen.written_at for seen in files) < _OLD:
            self.is_settled = False
            return False
        self._tell(key, watched, _broken(group, files, problem, watched.entry))
        return watched.retry_at == float("inf")

    def lose(self, key: str, watched: _Watched) -> None:
        if watched.entry is not None:
            self.changes[key] = None

    def _tell(self, key: str, watched: _Watched, entry: Entry) -> None:
        watched.told = watched.seen
        if entry != watched.entry:
            self.changes[key] = entry
            watched.entry = entry


def _of_same_content(entry: Entry, before: Entry | None) -> Entry:
    """The entry, not changed at all where somebody only touched its files."""
    if before is None or before.version != entry.version or before.name != entry.name:
        return entry
    return replace(entry, changed_at=before.changed_at, workflow=before.workflow)


def _broken(group: Group, files: Files, problem: str, before: Entry | None) -> Entry:
    """The last good version with what is wrong with the latest; gone with the file it was in."""
    sentence = problem if problem.endswith((".", "?", "!")) else f"{problem}."
    if (
        before is None
        or before.workflow is None
        or before.file not in {seen.said for seen in files}
    ):
        return Entry(
            group.name,
            "folder",
            None,
            changed_at=group.written_at,
            problem=sentence,
            warnings=group.warnings(),
            file=group.file.said,
        )
    kept = f"{sentence} The version before is still offered."
    return replace(before, problem=kept, warnings=group.warnings())


def _any_workflow(files: Files) -> bool:
    return any(not seen.name.lower().endswith(SIDECAR) for seen in files)


def _matters(name: str) -> bool:
    # Hidden files are what editors and copying programs have not finished.
    return name[name.rfind(".") :].lower() in WATCHED and not name.startswith((".", "~$"))


def _state(entry: os.DirEntry[str], root: str) -> _State | None:
    """What the file is like; None for a folder, a pipe or a device, which could hold us up."""
    refusal = ""
    try:
        if entry.is_symlink() and (refusal := _refused_link(entry, root)):
            stat = entry.stat(follow_symlinks=False)
        elif entry.is_file():
            stat = entry.stat()
        else:
            return None
    except FileNotFoundError:
        return None
    except OSError as error:
        return 0, 0, 0, 0, 0.0, f"cannot be read: {_reason(error)}"
    times = stat.st_mtime_ns, stat.st_ctime_ns
    return *times, stat.st_size, stat.st_ino, stat.st_mtime, refusal


def _refused_link(entry: os.DirEntry[str], root: str) -> str:
    target = os.path.realpath(entry.path)
    try:
        is_inside = os.path.commonpath((root, target)) == root
    except ValueError:  # another drive
        is_inside = False
    if not is_inside:
        return "is a link that leads out of the folder, which is not followed"
    return "" if os.path.exists(target) else "is a link that leads nowhere"


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__
