"""Links that open one thing for some time, for those who cannot send a key: pictures on a page.

A token is ``<expiry>.<generation>.<signature>``: it holds for one path until one second, and no
longer than the secret of its generation is in use.
"""

from __future__ import annotations

import hmac
import secrets
from base64 import urlsafe_b64encode
from math import ceil
from typing import Final

from comfyserve.denials import Forbidden, LinkExpired
from comfyserve.store import Store

_SECRET: Final = "link_secret"
_SIGNATURE_BYTES: Final = 18
_MOST_DIGITS: Final = 15


class Links:
    """Signs and verifies with a secret that is kept in the store, the same in every process."""

    def __init__(self, store: Store) -> None:
        self._facts = store.facts
        self._counters = store.counters
        self._generation = -1
        self._secret = b""

    async def refresh(self) -> None:
        """Learn the secret, or that another process has changed it. To be called first."""
        generation = await self._counters.get(_SECRET)
        if generation != self._generation:
            await self._take(generation)

    def sign(self, path: str, expires_at: float) -> str:
        """A token that opens *path* until *expires_at*, in seconds since the epoch.

        The same for the same path and second: round the time, and a browser asks only once.
        """
        return self._token(path, ceil(expires_at))

    def verify(self, path: str, token: str, now: float) -> None:
        """Raise `LinkExpired` where the token's time is over, and `Forbidden` where it is no
        token for *path*."""
        expiry, _, _ = token.partition(".")
        if not _is_number(expiry) or not _is_same(self._token(path, int(expiry)), token):
            raise Forbidden("This link was changed, or is no longer good. Ask anew for it.")
        if int(expiry) <= now:
            raise LinkExpired()

    async def rotate(self) -> None:
        """Take a new secret: no link that was given out before opens anything any more."""
        await self._take(await self._counters.increase(_SECRET))

    async def _take(self, generation: int) -> None:
        fresh = secrets.token_hex(32)
        kept = await self._facts.settle(f"{_SECRET}.{generation}", fresh)
        self._generation, self._secret = generation, bytes.fromhex(kept)

    def _token(self, path: str, expiry: int) -> str:
        if not self._secret:
            raise RuntimeError("the secret was not learned; call refresh() first")
        message = f"{expiry}.{self._generation}.{path}".encode(errors="surrogatepass")
        signature = hmac.digest(self._secret, message, "sha256")[:_SIGNATURE_BYTES]
        return f"{expiry}.{self._generation}.{urlsafe_b64encode(signature).decode('ascii')}"


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS


def _is_same(expected: str, token: str) -> bool:
    return hmac.compare_digest(expected.encode(), token.encode(errors="surrogatepass"))
