"""A folder of workflow files that is looked at again and again.

Looking costs one `stat` for each file. A change counts once two looks in a row saw the same, so a
file that is still being written, or replaced, is left alone; one that cannot be read is given a
little longer before anybody is told. All of this blocks: it belongs into a thread.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
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
    what it took to look, without what was read.
    """

    changes: dict[str, Entry | None]
    problem: str | None = None
    is_whole: bool = True
    is_settled: bool = True
    seconds: float = 0.0


Files = tuple[Seen, ...]


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
        self._watched: dict[str, _Watched] = {}

    def look(self, *, at_once: bool = False) -> Look:
        """See what changed, and read it; *at_once* also what was never seen before."""
        now = self._clock()
        try:
            groups, problem = self._groups()
        except OSError as error:
            return Look({}, f"The folder {self.path.name} cannot be read: {_reason(error)}")
        seconds = self._clock() - now
        look = _Looking(self.path, now, self._patience)
        for key in sorted(groups.keys() | self._watched.keys()):
            files, watched = groups.get(key, ()), self._watched.get(key)
            if watched is None:
                watched = self._watched[key] = _Watched(files, now)
                is_steady = at_once
            else:
                is_steady = watched.seen == files
            if not is_steady:
                watched.seen, watched.since = files, now
            if files == watched.told and files and now < watched.retry_at:
                continue
            if not is_steady:
                look.is_settled = False
            elif self._clock() - now - seconds > _AT_A_TIME:
                look.is_whole = False
            elif files:
                look.read(key, watched)
            else:
                look.lose(key, self._watched.pop(key))
        return Look(look.changes, problem, look.is_whole, look.is_settled, seconds)

    def _groups(self) -> tuple[dict[str, Files], str | None]:
        """The files of each name, and what is wrong with the folder."""
        root = os.path.realpath(self.path)
        with os.scandir(root) as found:
            entries = [entry for entry in found if _matters(entry.name)]
        problem = None
        if len(entries) > MOST_FILES:
            entries = sorted(entries, key=lambda entry: entry.name)[:MOST_FILES]
            problem = (
                f"The folder {self.path.name} has more than {MOST_FILES:,} files for workflows; "
                f"those after {entries[-1].name} are not offered."
            )
        groups: dict[str, list[Seen]] = {}
        for seen in _seen(entries, root):
            groups.setdefault(key_of(name_of(seen.stem)), []).append(seen)
        # The order in which a disk lists files may change by itself.
        ordered = {
            key: tuple(sorted(files, key=lambda seen: seen.name)) for key, files in groups.items()
        }
        return {key: files for key, files in ordered.items() if _any_workflow(files)}, problem


@dataclass(slots=True)
class _Looking:
    """One look: what it reads, and what came of it."""

    folder: Path
    now: float
    patience: float
    changes: dict[str, Entry | None] = field(default_factory=dict)
    is_whole: bool = True
    is_settled: bool = True

    def read(self, key: str, watched: _Watched) -> None:
        files, is_patient = watched.seen, self.now - watched.since < self.patience
        if watched.tried == files and is_patient and files != watched.told:
            self.is_settled = False
            return
        group = Group.of(files)
        assert group is not None  # no other files are watched
        watched.tried, watched.retry_at = files, float("inf")
        try:
            entry = read_group(self.folder, group)
        except OSError as error:
            problem = str(WorkflowUnreadable(group.file.name, f"cannot be read: {_reason(error)}"))
            watched.retry_at = self.now + _RETRY
        except ComfyServeError as error:
            problem = str(error)
        except Exception:
            # A file that breaks the reader must not take the others with it.
            log.exception("A workflow file could not be read: %s", group.file.name)
            problem = f"{group.file.name} could not be read; the server's log says why."
        else:
            self._tell(key, watched, _of_same_content(entry, watched.entry))
            return
        if is_patient and time.time() - max(seen.written_at for seen in files) < _OLD:
            self.is_settled = False
        else:
            self._tell(key, watched, _broken(group, files, problem, watched.entry))

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
    if before is None or before.workflow is None or before.file not in {s.name for s in files}:
        return Entry(
            group.name,
            "folder",
            None,
            changed_at=group.written_at,
            problem=sentence,
            warnings=group.warnings(),
            file=group.file.name,
        )
    kept = f"{sentence} The version before is still offered."
    return replace(before, problem=kept, warnings=group.warnings())


def _any_workflow(files: Files) -> bool:
    return any(not seen.name.lower().endswith(SIDECAR) for seen in files)


def _matters(name: str) -> bool:
    # Hidden files are what editors and copying programs have not finished.
    return not name.startswith((".", "~$")) and os.path.splitext(name)[1].lower() in WATCHED


def _seen(entries: list[os.DirEntry[str]], root: str) -> Iterator[Seen]:
    for entry in entries:
        try:
            if seen := _one_seen(entry, root):
                yield seen
        except FileNotFoundError:
            continue
        except OSError as error:
            yield Seen(entry.name, (), 0.0, f"cannot be read: {_reason(error)}")


def _one_seen(entry: os.DirEntry[str], root: str) -> Seen | None:
    """The file; None for a folder, a pipe or a device, which could only be waited for."""
    if entry.is_symlink() and (refusal := _refused_link(entry, root)):
        stat = entry.stat(follow_symlinks=False)
    elif entry.is_file():
        stat, refusal = entry.stat(), ""
    else:
        return None
    stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino, stat.st_ctime_ns)
    return Seen(entry.name, stamp, stat.st_mtime, refusal)


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
