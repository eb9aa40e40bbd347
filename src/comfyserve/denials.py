"""Every error about requests: what a server does not take, and why.

They stand below `errors.ComfyServeError` like all others.

* ComfyServeError
  + InvalidRequest          it does not say what it has to
  + MetadataInvalid         what a caller notes on a job is too much, or no plain text
  + EditorFormatRefused     a workflow as the editor saves it, where a graph is needed
  + PayloadTooLarge         more bytes than may come at once
  + TooManyStreams          as many streams are open as may be
  + Forbidden               it is not taken from where it comes
    - ForbiddenOrigin       a page of another site asks
  + ServerStopping          the server is about to stop and takes nothing new
  + AddressUnsafe           the address to listen on is one that others reach, and nothing guards it
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfyserve.errors import ComfyServeError


class InvalidRequest(ComfyServeError):
    """A request that does not say what it has to, or says something nobody knows."""

    code = "invalid_request"

    def __init__(self, problem: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(problem)
        self.problem = problem
        self._details = details

    @property
    def details(self) -> Mapping[str, Any] | None:
        return self._details

    def __str__(self) -> str:
        return self.problem


class MetadataInvalid(ComfyServeError):
    """What a caller notes on a job is too much, or holds what no plain text does."""

    code = "metadata_invalid"

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return self.problem


class EditorFormatRefused(ComfyServeError):
    """A workflow as ComfyUI's editor saves it was handed in where a graph is needed."""

    code = "workflow_format_ui"

    def __str__(self) -> str:
        return (
            "This is a workflow as ComfyUI's editor saves it, with 'nodes' and 'links'. Export it "
            "with 'Export (API)', or make a graph of it with 'comfyserve convert'."
        )


class PayloadTooLarge(ComfyServeError):
    """More bytes than may come at once; *what* says of what kind, *most* how many may."""

    code = "payload_too_large"

    def __init__(self, what: str, most: int) -> None:
        super().__init__(what, most)
        self.what = what
        self.most = most

    @property
    def details(self) -> Mapping[str, Any] | None:
        return {"most_bytes": self.most}

    def __str__(self) -> str:
        return f"{self.what} may have {self.most:,} bytes at most."


class TooManyStreams(ComfyServeError):
    """As many streams are open as may be; asking for the job works all the same."""

    code = "too_many_streams"

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self.most = most

    def __str__(self) -> str:
        return f"{self.most} streams are open already. Close one, or ask for the job itself."


class Forbidden(ComfyServeError):
    """A request that this server does not take from where it comes."""

    code = "forbidden"

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return self.problem


class ForbiddenOrigin(Forbidden):
    """A page of another site, which is not on the list of those that may use this server."""

    code = "forbidden_origin"


class ServerStopping(ComfyServeError):
    """The server is about to stop and takes nothing new."""

    code = "stopping"

    def __str__(self) -> str:
        return "The server is about to stop. Try again in a moment."


class AddressUnsafe(ComfyServeError):
    """An address that others could reach, while nothing would ask them for a key."""

    code = "address_unsafe"

    def __init__(self, host: str) -> None:
        super().__init__(host)
        self.host = host

    def __str__(self) -> str:
        return (
            f"Listening on {self.host} would let everybody who reaches it run anything. Listen on "
            "127.0.0.1, or allow it with --insecure where something else guards the address."
        )
