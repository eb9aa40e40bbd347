"""The addresses that answers name, so that no client has to build one."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, inf
from typing import Final
from urllib.parse import quote, urlsplit

from comfyserve import access

V2: Final = "/api/v2"
"""Where the official API stands."""

WORKFLOWS: Final = "/api/workflows"
"""Where the workflows on offer stand."""

SIGNATURE: Final = "sig"
"""The parameter of an address that opens it without a key."""

_STEPS: Final = 4


class Signer:
    """Signs addresses for callers with keys, so that they can be shown where no key is sent.

    One that is signed now holds for *lifetime* seconds, and up to a quarter more: for so long the
    same address is given, so that a browser asks only once. *clock* gives seconds since the epoch.
    """

    def __init__(
        self, links: access.Links, lifetime: float, clock: Callable[[], float] = time.time
    ) -> None:
        self._links = links
        self._lifetime = lifetime
        self._step = max(1.0, lifetime / _STEPS)
        self._clock = clock

    def signed(self, path: str, latest: float) -> tuple[str, float]:
        """The path with what opens it, and until when it does, which is not after *latest*."""
        token, expires_at = self.token(path, latest)
        return f"{path}?{SIGNATURE}={token}", expires_at

    def token(self, path: str, latest: float = inf) -> tuple[str, float]:
        """What opens the path, as it comes to the server, and until when."""
        ends_at = ceil((self._clock() + self._lifetime) / self._step) * self._step
        expires_at = min(ends_at, latest)
        return self._links.sign(path, expires_at), expires_at


@dataclass(frozen=True, slots=True)
class Links:
    """The addresses of one server as its caller knows it.

    *base* is the absolute address of the server's root, without a slash at its end. Addresses of
    jobs are relative to the host, those of contents absolute, as the contract wants it, and signed
    where there is a *signer*.
    """

    base: str
    prefix: str
    signer: Signer | None = None

    @classmethod
    def of(cls, base: str, signer: Signer | None = None) -> Links:
        """The addresses below *base*.

        >>> Links.of("https://pictures.example/studio").job("7")
        '/studio/api/v2/jobs/7'
        """
        return _links(base, signer)

    def job(self, job_id: str) -> str:
        """The job itself."""
        return f"{self.prefix}{V2}/jobs/{quote(job_id, safe='')}"

    def events(self, job_id: str) -> str:
        """What happens to the job."""
        return f"{self.job(job_id)}/events"

    def cancel(self, job_id: str) -> str:
        """Where to ask for the job's end."""
        return f"{self.job(job_id)}/cancel"

    def asset(self, asset_id: str) -> str:
        """What is known of the asset."""
        return f"{self.prefix}{V2}/assets/{quote(asset_id, safe='')}"

    def workflow(self, name: str) -> str:
        """A workflow on offer."""
        return f"{self.prefix}{WORKFLOWS}/{quote(name, safe='')}"

    def thumbnail(self, name: str, version: str) -> str:
        """What a workflow looks like; another *version* has another address."""
        address = f"{self.workflow(name)}/thumbnail?v={quote(version, safe='')}"
        if self.signer is None:
            return address
        token, _ = self.signer.token(f"{WORKFLOWS}/{name}/thumbnail")
        return f"{address}&{SIGNATURE}={token}"

    def content(self, asset_id: str, latest: float) -> tuple[str, float]:
        """The asset's bytes, as an absolute address, and until when it leads there.

        *latest* is until when the asset itself is kept, in seconds since the epoch.
        """
        # The prefix is taken off by the proxy that has it, so it is no part of what is signed.
        path, expires_at = f"{V2}/assets/{quote(asset_id, safe='')}/content", latest
        if self.signer is not None:
            path, expires_at = self.signer.signed(path, latest)
        return self.base + path, expires_at


@lru_cache(maxsize=64)
def _links(base: str, signer: Signer | None) -> Links:
    base = base.rstrip("/")
    return Links(base, urlsplit(base).path, signer)
