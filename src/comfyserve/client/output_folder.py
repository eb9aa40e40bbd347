"""A folder that outputs are saved into, whole or not at all."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import BinaryIO

from comfyserve.assets import safe_folder, safe_name
from comfyserve.errors import OutputUnwritable

BATCH_SIZE = 1 << 20
"""Bytes that are gathered before the disk is asked to take them, off the event loop."""


class OutputFolder:
    """Where a job's outputs are saved on this machine.

    Bytes arrive in a hidden ``.part`` file, which gets its name when it is complete. A file that
    is there already stays as it is: the new one becomes ``name (1).png``. Whatever a server calls
    its files, they stay inside the folder. In a folder that *is_ours_alone*, and there already,
    the caller's names are new.
    """

    def __init__(self, root: str | os.PathLike[str], *, is_ours_alone: bool = False) -> None:
        self.root = Path(root)
        self._is_ours_alone = is_ours_alone

    def prepare(self) -> None:
        """Make the folder, and try whether it takes files.

        Raises `OutputUnwritable` where it does not, which is better known before a job runs.
        """
        if self.root.exists() and not self.root.is_dir():
            raise OutputUnwritable(str(self.root), "it is a file, not a folder")
        with _disk_errors(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            _PartFile(self.root).discard()

    def open(
        self, name: str, subfolder: str, temp: bool
    ) -> AbstractAsyncContextManager[OutputWriter]:
        """Take one output; the file is there when the block ends without an error.

        Raises `OutputUnwritable` where the disk or the folder will not have it.
        """
        folders = ["temp"] if temp else []
        return self._open(safe_name(name), self.root.joinpath(*folders, safe_folder(subfolder)))

    @asynccontextmanager
    async def _open(self, name: str, folder: Path) -> AsyncIterator[OutputWriter]:
        with _disk_errors(folder / name):
            self._make(folder)
            part = _PartFile(folder)
        writer = OutputWriter(part, folder / name)
        try:
            yield writer
            await writer.flush()
            with _disk_errors(folder / name):
                writer.location = str(self._finished(part, name))
        finally:
            part.discard()

    def _finished(self, part: _PartFile, name: str) -> Path:
        """The part under its name, which nobody else can have taken in a folder of our own."""
        return (
            part.replace(self.root / name) if self._is_ours_alone else part.become_free_name(name)
        )

    def _make(self, folder: Path) -> None:
        if self._is_ours_alone:
            return
        if folder != self.root and not folder.resolve().is_relative_to(self.root.resolve()):
            raise OutputUnwritable(str(folder), f"a link in it leads out of {self.root}")
        folder.mkdir(parents=True, exist_ok=True)


class OutputWriter:
    """Takes the bytes of one output; *location* is its path once it is complete."""

    location: str

    def __init__(self, part: _PartFile, path: Path) -> None:
        self._part = part
        self._path = path
        self._waiting: list[bytes] = []
        self._waiting_size = 0

    async def write(self, chunk: bytes) -> None:
        """Take the next bytes."""
        self._waiting.append(chunk)
        self._waiting_size += len(chunk)
        if self._waiting_size >= BATCH_SIZE:
            await self.flush()

    async def flush(self) -> None:
        """Give what was gathered to the disk; only a large batch is worth a thread."""
        batch, size = self._waiting, self._waiting_size
        self._waiting, self._waiting_size = [], 0
        with _disk_errors(self._path):
            if size >= BATCH_SIZE:
                await asyncio.to_thread(self._part.write, batch)
            else:
                self._part.write(batch)


def copy_to_folder(source: Path, folder: Path, name: str) -> Path:
    """Copy *source* into *folder* under *name*, or the next free name; returns its path."""
    with _disk_errors(folder / name):
        folder.mkdir(parents=True, exist_ok=True)
        part = _PartFile(folder)
        try:
            part.fill_from(source)
            return part.become_free_name(safe_name(name))
        finally:
            part.discard()


def copy_to_file(source: Path, target: Path, *, overwrite: bool) -> Path:
    """Copy *source* to exactly *target*, which may only be replaced with *overwrite*."""
    with _disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        part = _PartFile(target.parent)
        try:
            part.fill_from(source)
            if overwrite:
                part.replace(target)
            elif not part.become(target):
                raise OutputUnwritable(str(target), "it is there already; pass overwrite=True")
            return target
        finally:
            part.discard()


class _PartFile:
    """A file that is still being written, under a hidden name of its own.

    A thread that a canceled task left behind may still be writing when the file is discarded;
    the lock keeps the two apart.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / f".{secrets.token_hex(8)}.part"
        self._file: BinaryIO = self._path.open("xb", buffering=0)
        self._lock = threading.Lock()
        self._is_named = False

    def write(self, chunks: list[bytes]) -> None:
        with self._lock:
            for chunk in chunks:
                view = memoryview(chunk)
                while view and not self._file.closed:
                    view = view[self._file.write(view) :]

    def fill_from(self, source: Path) -> None:
        with source.open("rb") as file:
            shutil.copyfileobj(file, self._file, BATCH_SIZE)

    def become_free_name(self, name: str) -> Path:
        """Take *name*, or the next free one."""
        self._close()
        folder = self._path.parent
        for candidate in _candidates(folder, name):
            if self.become(candidate):
                return candidate
        raise FileExistsError(f"every name like {name!r} is taken")

    def become(self, target: Path) -> bool:
        """Take the name *target*, at once and only if nothing has it; says whether it did."""
        self._close()
        try:
            _rename_exclusively(self._path, target)
        except FileExistsError:
            return False
        self._is_named = True
        return True

    def replace(self, target: Path) -> Path:
        """Take the name *target*, whatever has it."""
        self._close()
        self._path.replace(target)
        self._is_named = True
        return target

    def discard(self) -> None:
        """Leave nothing behind, unless the file already got its name."""
        if not self._is_named:
            self._close()
            self._path.unlink(missing_ok=True)

    def _close(self) -> None:
        with self._lock:
            self._file.close()


def _rename_exclusively(source: Path, target: Path) -> None:
    if os.name == "nt":
        source.rename(target)  # refuses to replace a file, on Windows only
        return
    try:
        target.hardlink_to(source)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        _hold_then_replace(source, target)
    else:
        source.unlink()


def _hold_then_replace(source: Path, target: Path) -> None:
    target.open("xb").close()
    try:
        source.replace(target)
    except OSError:
        target.unlink(missing_ok=True)
        raise


def _candidates(folder: Path, name: str) -> Iterator[Path]:
    """*name*, then ``name (1)``, ``name (2)``.. from near the first free number on."""
    yield folder / name
    first = _first_free(folder, name)
    for number in range(first, first + 1000):
        yield _numbered(folder, name, number)


def _first_free(folder: Path, name: str) -> int:
    # Doubles, then halves: a folder with thousands of the same name costs a few looks.
    highest = 1
    while _numbered(folder, name, highest).exists():
        highest *= 2
    lowest = highest // 2
    while highest - lowest > 1:
        middle = (lowest + highest) // 2
        if _numbered(folder, name, middle).exists():
            lowest = middle
        else:
            highest = middle
    return highest


def _numbered(folder: Path, name: str, number: int) -> Path:
    path = folder / name
    return path.with_name(f"{path.stem} ({number}){path.suffix}")


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputUnwritable(str(path), error.strerror or str(error)) from error
