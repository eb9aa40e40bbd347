"""The addresses that answers name, so that no client has to build one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote, urlsplit

V2 = "/api/v2"
"""Where the official API stands."""


@dataclass(frozen=True, slots=True)
class Links:
    """The addresses of one server as its caller knows it.

    *base* is the absolute address of the server's root, without a slash at its end. Addresses of
    jobs are relative to the host, those of contents absolute, as the contract wants it.
    """

    base: str
    prefix: str

    @classmethod
    def of(cls, base: str) -> Links:
        """The addresses below *base*.

        >>> Links.of("https://pictures.example/studio").job("7")
        '/studio/api/v2/jobs/7'
        """
        return _links(base)

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

    def content(self, asset_id: str) -> str:
        """The asset's bytes, as an absolute address."""
        return f"{self.base}{V2}/assets/{quote(asset_id, safe='')}/content"


@lru_cache(maxsize=64)
def _links(base: str) -> Links:
    base = base.rstrip("/")
    return Links(base, urlsplit(base).path)
