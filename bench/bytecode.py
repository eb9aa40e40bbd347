"""Python as people have it: what it compiled once it does not compile again.

Where one works on the source this is often switched off, and every start pays for it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


@contextmanager
def kept_bytecode() -> Iterator[Mapping[str, str]]:
    """What to tell a new Python in its environment, for as long as the context lasts.

    The first one that is told so compiles everything, which takes its time.
    """
    with tempfile.TemporaryDirectory(prefix="comfyserve bench ") as folder:
        yield {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": folder}
