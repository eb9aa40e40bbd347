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
    - KeyLacksPermission    the caller's key does not allow it
    - LinkExpired           the time of a signed link is over
  + Unauthorized            it has no key, or none that is good
  + RateLimited             the caller's key was used as often as it may be
  + TooManyJobs             as many jobs of the caller are not over as may be
  + KeyNameTaken            a living key has this name
  + KeyNotFound             there is no such key, or it was revoked
  + BackendNotFound         no backend has this id or address
  + BackendAlreadyThere     a backend with this address is there
  + BackendNotAdded         nobody answers at the address of a backend that was to be added
  + ServerStarting          the server has not read yet what was asked for
  + ServerStopping          the server is about to stop and takes nothing new
  + AddressUnsafe           the address to listen on is one that others reach, and nothing guards it
  + AddressUnusable         the address to listen on is taken, or not this machine's
  + ExtraMissing            what was asked for needs an extra that is not installed
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from comfyserve.errors import ComfyServeError, did_you_mean


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


class KeyLacksPermission(Forbidden):
    """The caller's key does not allow it.

    *action* completes "may not", *advice* says what kind of key would do.
    """

    def __init__(self, key_name: str, action: str, advice: str) -> None:
        super().__init__(f"The key {key_name!r} may not {action}. {advice}.")
        self.args = key_name, action, advice
        self.key_name = key_name
        self.action = action
        self.advice = advice


class LinkExpired(Forbidden):
    """The time of a signed link is over; what named it names a new one."""

    code = "link_expired"

    def __init__(self) -> None:
        super().__init__("The time of this link is over. Ask anew for what named it.")
        self.args = ()


class Unauthorized(ComfyServeError):
    """A request without a key where every request needs one, or with none that is good.

    The key itself is never told.
    """

    code = "unauthorized"

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return self.problem


class RateLimited(ComfyServeError):
    """The caller's key was used as often as it may be; *retry_after* seconds later it may again."""

    code = "rate_limited"

    def __init__(self, rate: str, retry_after: int) -> None:
        super().__init__(rate, retry_after)
        self.rate = rate
        self.retry_after = retry_after

    @property
    def details(self) -> Mapping[str, Any] | None:
        return {"rate": self.rate, "retry_after": self.retry_after}

    def __str__(self) -> str:
        return f"This key's rate of {self.rate} is used up. Come again in {self.retry_after} s."


class TooManyJobs(ComfyServeError):
    """As many jobs of the caller are not over as may be at once."""

    code = "too_many_jobs"

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self.most = most

    @property
    def details(self) -> Mapping[str, Any] | None:
        return {"most": self.most}

    def __str__(self) -> str:
        jobs = "job" if self.most == 1 else "jobs"
        return f"This key may have {self.most} unfinished {jobs} at once. Wait for one to end."


class KeyNameTaken(ComfyServeError):
    """A living key has this name."""

    code = "key_name_taken"

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"There is a key {self.name!r} already. Revoke it first, or choose another name."


class KeyNotFound(ComfyServeError):
    """There is no living key with this name or id; *near* are the names that look like it."""

    code = "key_not_found"

    def __init__(self, wanted: str, *, was_revoked: bool = False, near: Sequence[str] = ()) -> None:
        super().__init__(wanted)
        self.wanted = wanted
        self.was_revoked = was_revoked
        self.near = tuple(near)

    def __str__(self) -> str:
        if self.was_revoked:
            return f"The key {self.wanted[:80]!r} was revoked before."
        return f"There is no key {self.wanted[:80]!r}.{did_you_mean(self.wanted, self.near)}"


class BackendNotFound(ComfyServeError):
    """No backend has this id or address."""

    code = "backend_not_found"

    def __init__(self, wanted: str) -> None:
        super().__init__(wanted)
        self.wanted = wanted

    def __str__(self) -> str:
        return f"There is no backend {self.wanted[:200]!r}. 'comfyserve backends' lists all."


class BackendAlreadyThere(ComfyServeError):
    """A backend with this address is there."""

    code = "backend_exists"

    def __str__(self) -> str:
        return "This backend is there already. To open its door otherwise, remove it first."


class BackendNotAdded(ComfyServeError):
    """Nobody answers at the address of a backend that was to be added; *reason* says how."""

    code = "backend_not_added"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"No ComfyUI answers there ({self.reason.rstrip('.')}), so it was not added. Without "
            "check=true it is added all the same and used once it answers."
        )


class ServerStarting(ComfyServeError):
    """The server began a moment ago and has not read its workflows yet."""

    code = "server_starting"

    def __str__(self) -> str:
        return "The server is still reading its workflows. Try again in a moment."


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
            f"Listening on {self.host} would let everybody who reaches it run anything. Make a key "
            "with 'comfyserve keys create NAME', so that it asks for one, or listen on 127.0.0.1, "
            "or allow it with --insecure where something else guards the address."
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
