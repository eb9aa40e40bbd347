"""A temporary folder for outputs that nobody asked to save anywhere."""

from __future__ import annotations

import secrets
import shutil
import tempfile
import weakref
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path, PurePath

from comfyserve.assets import safe_name
from comfyserve.client.output_folder import OutputFolder, OutputWriter


class Spool:
    """Takes outputs under names of its own, and drops each once nobody holds its keeper.

    All files lie in one folder, made when it is needed: a folder for each job would cost a small
    job more than all the rest.
    """

    def __init__(self) -> None:
        self._folder: OutputFolder | None = None
        self.is_closed = False

    def prepare(self) -> None:
        """Nothing is to be done before the first output comes."""

    def open(
        self, name: str, subfolder: str, temp: bool
    ) -> AbstractAsyncContextManager[OutputWriter]:
        """Take one output; only the ending of its name is kept."""
        if self._folder is None:
            self._folder = OutputFolder(tempfile.mkdtemp(prefix="comfyserve-"), is_ours_alone=True)
            # Also for those who never close their client.
            weakref.finalize(self, shutil.rmtree, self._folder.root, ignore_errors=True)
        ending = PurePath(safe_name(name)).suffix
        return self._folder.open(f"{secrets.token_hex(8)}{ending}", "", temp=False)

    def keeper(self, location: str) -> Keeper:
        """Whoever refers to the keeper keeps the file, until the spool is closed."""
        keeper = Keeper(self)
        weakref.finalize(keeper, _remove, location)
        return keeper

    def close(self) -> None:
        """Remove everything."""
        self.is_closed = True
        if self._folder is not None:
            shutil.rmtree(self._folder.root, ignore_errors=True)


class Keeper:
    """Keeps one file of a spool there."""

    __slots__ = ("__weakref__", "_spool")

    def __init__(self, spool: Spool) -> None:
        self._spool = spool

    @property
    def is_gone(self) -> bool:
        """The spool was closed, and its files are removed."""
        return self._spool.is_closed


def _remove(location: str) -> None:
    with suppress(OSError):
        Path(location).unlink(missing_ok=True)
