"""Names for saved files: a prefix, a number that is still free, and never outside the folder."""

from __future__ import annotations

import ntpath
import os
import posixpath
import re
import time
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from comfyserve.engine.folders import Folders, FolderType

DEFAULT_NAME = "ComfyUI"
REFUSED = re.compile(r'[<>:"|?*\x00-\x1f]')
"""What Windows does not allow in a name; replaced everywhere, so names are the same everywhere."""


@dataclass(frozen=True, slots=True)
class NumberedFiles:
    """Where a node saves: *folder*, and a *stem* that every file of it begins with."""

    folder: Path
    subfolder: str
    stem: str
    kind: FolderType

    @classmethod
    def at(
        cls,
        folders: Folders,
        kind: FolderType,
        prefix: str,
        *,
        width: int,
        height: int,
        now: time.struct_time | None = None,
    ) -> NumberedFiles:
        """Make ready to save under *prefix*, which may name subfolders and hold ``%..%`` fields.

        *now* is the local time. Raises ValueError when *prefix* leads out of the folder.
        """
        filled = _fill(prefix, width, height, now or time.localtime()).replace("\\", "/")
        path = posixpath.normpath(filled)
        if path.startswith(("/", "../")) or path == ".." or ntpath.splitdrive(path)[0]:
            raise ValueError(
                f"filename_prefix {prefix!r} leads out of the {kind} folder; "
                "use a name, or subfolder/name"
            )
        *parents, stem = REFUSED.sub("_", path).split("/")
        folder = folders.path(kind).joinpath(*parents)
        folder.mkdir(parents=True, exist_ok=True)
        return cls(folder, "/".join(parents), DEFAULT_NAME if stem == "." else stem, kind)

    def write(self, content: bytes, suffix: str, *, batch_number: int = 0) -> dict[str, str]:
        """Save *content* under the next free number; the file as ComfyUI's ui names it."""
        stem = self.stem.replace("%batch_num%", str(batch_number))
        for number in count(self._last_number(stem) + 1):
            name = f"{stem}_{number:05}_{suffix}"
            if _written(self.folder / name, content):
                return {"filename": name, "subfolder": self.subfolder, "type": self.kind}
        raise AssertionError("counting never ends")

    def _last_number(self, stem: str) -> int:
        start = os.path.normcase(f"{stem}_")
        names = (os.path.normcase(name) for name in os.listdir(self.folder))
        numbers = (re.match(r"\d+", name[len(start) :]) for name in names if name.startswith(start))
        return max((int(number[0]) for number in numbers if number), default=0)


def _written(path: Path, content: bytes) -> bool:
    """Write a new file, whole or not at all; False when someone else took its name just now."""
    try:
        file = path.open("xb")
    except FileExistsError:
        return False
    try:
        with file:
            file.write(content)
    except OSError:  # a full disk leaves no half picture behind
        path.unlink(missing_ok=True)
        raise
    return True


def _fill(prefix: str, width: int, height: int, now: time.struct_time) -> str:
    fields = {
        "width": str(width),
        "height": str(height),
        "year": str(now.tm_year),
        "month": f"{now.tm_mon:02}",
        "day": f"{now.tm_mday:02}",
        "hour": f"{now.tm_hour:02}",
        "minute": f"{now.tm_min:02}",
        "second": f"{now.tm_sec:02}",
    }
    dated = re.sub(r"%date:([^%]*)%", lambda found: _date(found[1], now), prefix)
    return re.sub(r"%(\w+)%", lambda found: fields.get(found[1], found[0]), dated)


def _date(pattern: str, now: time.struct_time) -> str:
    """The time in the editor's own pattern: ``yyyy-MM-dd hh:mm:ss``, or shorter (``yy``, ``M``)."""
    parts = {
        "yyyy": str(now.tm_year),
        "yy": f"{now.tm_year % 100:02}",
        "MM": f"{now.tm_mon:02}",
        "M": str(now.tm_mon),
        "dd": f"{now.tm_mday:02}",
        "d": str(now.tm_mday),
        "hh": f"{now.tm_hour:02}",
        "h": str(now.tm_hour),
        "mm": f"{now.tm_min:02}",
        "m": str(now.tm_min),
        "ss": f"{now.tm_sec:02}",
        "s": str(now.tm_sec),
    }
    return re.sub("yyyy|yy|MM|M|dd|d|hh|h|mm|m|ss|s", lambda found: parts[found[0]], pattern)
