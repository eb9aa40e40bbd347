"""Has the disk really keep what was written, as far as a system lets us."""

from __future__ import annotations

import os
from pathlib import Path


def sync_folders(folder: Path, root: Path) -> None:
    """Return once the names in *folder*, and those of the folders down to it from *root*, would."""
    if os.name == "nt":  # Windows cannot open a folder, and keeps names by its own journal
        return
    for place in (folder, *folder.parents):
        opened = os.open(place, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
        if place == root:
            return
