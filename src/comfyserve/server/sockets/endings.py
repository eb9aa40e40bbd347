"""Why a connection ends, as the code and the words of its close frame say it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a connection ends. *reason* has 123 bytes at most, as no close frame takes more."""

    code: int
    reason: str


LEFT: Final = Ending(1000, "")
"""The client went; there is nobody to be told."""

STOPPING: Final = Ending(1012, "The server is about to stop. Connect again and resume.")
BROKEN: Final = Ending(1011, "Something went wrong in the server. Its log says what.")
UNAVAILABLE: Final = Ending(1013, "The server cannot use its data just now. Try again.")
GARBLED: Final = Ending(4400, "Too many messages one after the other made no sense.")
UNAUTHENTICATED: Final = Ending(4401, "No 'auth' with a good key came in time.")
KEY_REFUSED: Final = Ending(4401, "The key is not good.")
KEY_ENDED: Final = Ending(4403, "The key was revoked, or one is needed now.")
TOO_SLOW: Final = Ending(4408, "What was sent is not read. Connect again and resume.")
TOO_MANY: Final = Ending(4429, "More sockets or requests than there may be. Come again later.")

NOBODY_HEARS: Final = frozenset({LEFT, TOO_SLOW})
"""After these nothing more can be said."""
