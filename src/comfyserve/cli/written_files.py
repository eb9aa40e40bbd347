"""Files that a command writes where a person said; what is there already is kept unless told."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from comfyserve.errors import OutputUnwritable


def write_new(
    path: Path, text: str, *, replace: bool = False, if_there: str = "it is there already"
) -> None:
    """Write *text* to *path*.

    Raises `OutputUnwritable` when something is there and *replace* is not set, with *if_there*
    as the reason; and when the disk will not take it.
    """
    try:
        if replace:
            _replace(path, text.encode())
        else:
            _create(path, text.encode())
    except FileExistsError:
        raise OutputUnwritable(str(path), if_there) from None
    except OSError as error:
        raise OutputUnwritable(str(path), error.strerror or str(error)) from error


def _create(path: Path, content: bytes) -> None:
    """Write it whole or not at all."""
    with path.open("xb") as file:
        try:
            file.write(content)
            file.flush()
        except BaseException:
            file.close()
            path.unlink(missing_ok=True)
            raise


def _replace(path: Path, content: bytes) -> None:
    """Write beside it first, so that what is there survives a full disk."""
    if path.is_dir():
        raise IsADirectoryError(None, "it is a folder")
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        beside.write_bytes(content)
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
