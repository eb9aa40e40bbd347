"""How long a server may stay away before what was wanted of it counts as lost."""

from __future__ import annotations

import asyncio
from typing import Final

from comfyserve.errors import BackendError, BackendLost, ComfyServeError

_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 2.0
_WORTH_TELLING: Final = 4


class Outage:
    """Paces the attempts to reach a server again, each pause twice the one before.

    A server that comes back within *at_most* seconds lost nothing; one that does not is a
    `BackendLost`.
    """

    def __init__(self, url: str, at_most: float) -> None:
        self.at_most = at_most
        self._url = url
        self._since: float | None = None
        self._pause = _FIRST_PAUSE
        self._tries = 0

    @property
    def is_news(self) -> bool:
        """It has just become more than a short break, and is worth telling."""
        return self._tries == _WORTH_TELLING

    def over(self) -> None:
        """The server is there again."""
        self._since, self._pause, self._tries = None, _FIRST_PAUSE, 0

    async def wait(self, error: ComfyServeError) -> None:
        """Pause before the next attempt; raises `BackendLost` once it has taken too long."""
        now = asyncio.get_running_loop().time()
        self._since = now if self._since is None else self._since
        self._tries += 1
        if now - self._since >= self.at_most:
            reason = error.reason if isinstance(error, BackendError) else str(error)
            raise BackendLost(self._url, reason) from error
        await asyncio.sleep(self._pause)
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)
