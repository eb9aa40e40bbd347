"""How long to wait between two looks at a folder."""

from __future__ import annotations

from collections import deque
from typing import Final

from comfyserve.catalog.folder import Look

PAUSE: Final = 0.3
"""Seconds between two looks at the folder."""

SHORT_PAUSE: Final = 0.1
"""Seconds until the next look where a file seems to be just being written."""

_SHARE: Final = 30
_SHARE_OF_FEW: Final = 2
"""How many times longer than a look took the pause after it is, at least; the second where a file
seems to be just being written."""

_RECENT: Final = 8
"""The looks by which it is told how long one takes."""


class Pauses:
    """The pauses after looks: looking takes only a small share of a processor, and half of a slow
    disk's time at most."""

    def __init__(self, pause: float) -> None:
        self._pause = pause
        self._looks: deque[Look] = deque(maxlen=_RECENT)

    def after(self, look: Look) -> float:
        """Seconds to wait after this look."""
        self._looks.append(look)
        if not look.is_whole:
            return 0.0
        # A busy machine makes now and then one look slow; the quickest tells what a look takes.
        seconds = min(look.seconds for look in self._looks)
        waited = min(look.waited for look in self._looks)
        if look.is_settled:
            return max(self._pause, _SHARE * seconds, waited)
        return max(min(SHORT_PAUSE, self._pause), _SHARE_OF_FEW * seconds, waited)
