"""Every error about requests: what a server does not take, and why.

They stand below `errors.ComfyServeError` like all others.

* ComfyServeError
  + InvalidRequest          it does not say what it has to
    - MetadataFilterInvalid it asks about metadata what cannot be asked
  + MetadataInvalid         what a caller notes on a job is too much, or no plain text
  + EditorFormatRefused     a workflow as the editor saves it, where a graph is needed
  + GraphRefused            a graph that none of the backends would run
  + PayloadTooLarge         more bytes than may come at once
  + TooManyStreams          as many streams are open as may be
  + Forbidden               it is not taken from where it comes
    - ForbiddenOrigin       a page of another site asks
  + ServerStopping          the server is about to stop and takes nothing new
  + AddressUnsafe           the address to listen on is one that others reach, and nothing guards it
  + AddressUnusable         the address to listen on is taken, or not this machine's
  + ExtraMissing            what was asked for needs an extra that is not installed
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

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


class MetadataFilterInvalid(InvalidRequest):
    """A question about what callers noted on their jobs, which cannot be asked."""

    code = "invalid_metadata_filter"


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


class GraphRefused(ComfyServeError):
    """A graph that none of the backends would run.

    *node_errors* says why, by node id: ``{"field", "reason", "message"}`` for each problem.
    """

    code = "invalid_workflow"

    def __init__(self, node_errors: Mapping[str, Sequence[Mapping[str, str]]]) -> None:
        super().__init__(node_errors)
        self.node_errors = node_errors

    @property
    def details(self) -> Mapping[str, Any] | None:
        return {"node_errors": self.node_errors}

    def __str__(self) -> str:
        told = [each["message"] for problems in self.node_errors.values() for each in problems]
        more = f" And {len(told) - _MOST_TOLD} more." if len(told) > _MOST_TOLD else ""
        return " ".join(told[:_MOST_TOLD]) + more


_MOST_TOLD: Final = 3
"""How many of a graph's problems stand in the sentence; the details have all."""


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


class AddressUnusable(ComfyServeError):
    """The address to listen on is taken, or not this machine's."""

    code = "address_unusable"

    def __init__(self, host: str, port: int, reason: str) -> None:
        super().__init__(host, port, reason)
        self.host = host
        self.port = port
        self.reason = reason

    def __str__(self) -> str:
        reason = self.reason.rstrip(". \n").lower()
        return f"{self.host} port {self.port} cannot be listened on: {reason}. Name another."


class ExtraMissing(ComfyServeError):
    """What was asked for needs an extra that is not installed; *module* is what was not found."""

    code = "extra_missing"

    def __init__(self, extra: str, module: str) -> None:
        super().__init__(extra, module)
        self.extra = extra
        self.module = module

    def __str__(self) -> str:
        return (
            f"This needs {self.module}, which is not installed. Install it with "
            f"pip install 'comfyserve[{self.extra}]'."
        )
