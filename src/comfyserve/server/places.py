"""How many streams or sockets each owner has open, and that there are not too many of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from comfyserve.denials import TooManyStreams


class Places:
    """Places for what callers have open; *most* is how many an owner may take."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken: Counter[str | None] = Counter()

    @property
    def taken(self) -> int:
        """How many all owners have taken right now."""
        return self._taken.total()

    @contextmanager
    def place(self, owner: str | None) -> Iterator[None]:
        """A place of the *owner*, who is None until it is known. Raises `TooManyStreams`."""
        if self._taken[owner] >= self._most:
            raise TooManyStreams(self._most)
        self._taken[owner] += 1
        try:
            yield
        finally:
            self._taken[owner] -= 1
            if not self._taken[owner]:
                del self._taken[owner]
