"""A job's outputs as a caller of the library holds them: files on this machine."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from comfyserve import jobs
from comfyserve.client.output_folder import copy_to_file, copy_to_folder
from comfyserve.client.spool import Keeper


@dataclass(frozen=True, slots=True)
class OutputFile(jobs.Output):
    """An output whose bytes are a file on this machine.

    *keeper* keeps the file there: a spooled file goes when nobody refers to its outputs any more,
    or when the client is closed.
    """

    keeper: Keeper | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of(cls, output: jobs.Output, keeper: Keeper | None) -> OutputFile:
        """The file behind *output*, whose location is a path."""
        return cls(
            node_id=output.node_id,
            key=output.key,
            name=output.name,
            type=output.type,
            content_type=output.content_type,
            size_bytes=output.size_bytes,
            hash=output.hash,
            location=output.location,
            subfolder=output.subfolder,
            temp=output.temp,
            index=output.index,
            keeper=keeper,
        )

    @property
    def path(self) -> Path:
        """Where the bytes are now.

        Raises `FileNotFoundError` when the client that kept them for itself is closed.
        """
        if self.keeper is not None and self.keeper.is_gone:
            raise FileNotFoundError(
                f"{self.name} is gone: its client kept it in a temporary folder of its own until "
                "it was closed. Pass output_dir to keep outputs, or read them before."
            )
        return Path(self.location)

    def to_bytes(self) -> bytes:
        """The whole content."""
        return self.path.read_bytes()

    def to_text(self) -> str:
        """The whole content of a text output."""
        return self.path.read_text(encoding="utf-8")

    def to_file(self, target: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Copy the output to *target* and return the path of the copy.

        *target* is a folder if it is one, ends in a slash, or has no ending (``out``); there the
        copy takes the next free name. Otherwise it is the copy's own path, which must be free
        unless *overwrite* is set. Raises `OutputUnwritable`.
        """
        if _is_folder(target):
            return copy_to_folder(self.path, Path(target), self.name)
        return copy_to_file(self.path, Path(target), overwrite=overwrite)


def _is_folder(target: str | os.PathLike[str]) -> bool:
    ends_in_slash = os.fspath(target).endswith(("/", os.sep))
    path = Path(target)
    return ends_in_slash or path.is_dir() or (not path.suffix and not path.exists())
