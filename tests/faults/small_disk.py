"""A disk that gets full under a server, and free again, without a right that a user lacks."""

from __future__ import annotations

import shutil
import subprocess
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Final

from tests.servers import RunningServer

_OWN_DISK: Final = 'mkdir -p "$1" && mount -t tmpfs -o size="$2" disk "$1" && shift 2 && exec "$@"'
_MEGABYTE: Final = 2**20


class SmallDisk(ABC):
    """What a server keeps its data on. *prefix* runs the server's command on it."""

    prefix: tuple[str, ...] = ()

    @abstractmethod
    def keep_small(self, server: RunningServer) -> None:
        """From now on no file larger than the disk fits."""

    @abstractmethod
    def fill(self, server: RunningServer) -> None:
        """Leave not one byte free."""

    @abstractmethod
    def free(self, server: RunningServer) -> None:
        """Leave as much free as in the beginning."""


class OwnDisk(SmallDisk):
    """A file system of *megabytes* that only the server sees, mounted in a user namespace."""

    def __init__(self, folder: Path, megabytes: int) -> None:
        self.prefix = own_disk(folder, megabytes)
        self._filler = folder / "filler"

    def keep_small(self, server: RunningServer) -> None:
        """It is from the beginning."""

    def fill(self, server: RunningServer) -> None:
        with self._seen(server).open("wb", buffering=0) as filler:
            piece = bytes(_MEGABYTE)
            while piece:
                try:
                    filler.write(piece)
                except OSError:
                    piece = piece[: len(piece) // 2]

    def free(self, server: RunningServer) -> None:
        self._seen(server).unlink()

    def _seen(self, server: RunningServer) -> Path:
        """The filler's path from out here, where that file system is not mounted."""
        return Path(f"/proc/{server.process.pid}/root{self._filler}")


class FileSizeLimit(SmallDisk):
    """Where nobody may mount: no file of the server may grow, which it is told just as late."""

    def __init__(self, megabytes: int) -> None:
        self._megabytes = megabytes

    def keep_small(self, server: RunningServer) -> None:
        self._limit(server, self._megabytes * _MEGABYTE)

    def fill(self, server: RunningServer) -> None:
        self._limit(server, 0)

    def free(self, server: RunningServer) -> None:
        self._limit(server, -1)

    def _limit(self, server: RunningServer, size: int) -> None:
        import resource  # which Windows does not have

        limits = (size, resource.RLIM_INFINITY)
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, limits)


def small_disk(folder: Path, megabytes: int) -> SmallDisk:
    """A disk for a server whose data is in *folder*."""
    if shutil.which("unshare") is None:
        return FileSizeLimit(megabytes)
    tried = subprocess.run([*own_disk(folder, 1), "true"], capture_output=True, timeout=10)
    return OwnDisk(folder, megabytes) if tried.returncode == 0 else FileSizeLimit(megabytes)


def own_disk(folder: Path, megabytes: int) -> tuple[str, ...]:
    """The beginning of a command that runs on a file system of that size at *folder*."""
    shell = ("sh", "-c", _OWN_DISK, "sh", str(folder), f"{megabytes}m")
    return ("unshare", "--user", "--map-root-user", "--mount", *shell)
