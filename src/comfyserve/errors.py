"""Every error comfyserve raises.

Each class says one thing that went wrong; its ``code`` is what travels over the wire, and the
sentence is built from its fields. Catch `ComfyServeError` to catch them all. Those about what
lasts (settings, the database, kept jobs and assets) are in `refusals`.

* ComfyServeError
  + WorkflowUnreadable      the file is missing, empty, or not a workflow
  + GraphInvalid            a graph that no ComfyUI could run
  + InvalidInputs           inputs that do not fit the workflow's parameters
  + InvalidAddress          an address or header that no server can have
  + BackendError
    - BackendUnreachable    nobody answers at the address
    - BackendRefused        it answers, and will not let us in
    - BackendAnswerInvalid  it answers something that ComfyUI never says
    - BackendLost           it stopped answering while a job was there
    - GraphRejected         it will not run this graph, and says why
    - RequestRefused        it will not do what was asked, for a reason of its own
    - NoComfyserve          it is a ComfyUI, where a comfyserve is needed
    - FileUnavailable       it no longer has a file it named
  + JobFailed
    - NodeFailed            a node raised an error
      · OutOfMemory         the backend ran out of memory
    - JobBlocked            a node stopped the run on purpose
    - JobInterrupted        someone else interrupted it
    - JobRemoved            someone else removed it from the backend's queue
    - JobLost               the backend was lost, and the job with it
    - OutputUnavailable     it ran, but a file it made cannot be had
  + JobCanceled             it was canceled, as asked
  + JobTimedOut             it did not end in the time given
  + ClientClosed            the client was closed while somebody waited for its job
  + OutputUnwritable        the disk or folder would not take an output
  + EngineUnavailable       the built-in engine could not be started
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar


def did_you_mean(name: str, known: Iterable[str], at_most: int = 1) -> str:
    """A sentence with the nearest of the *known* names, or nothing when none is near.

    >>> did_you_mean("stepz", ["seed", "steps"])
    " Did you mean 'steps'?"
    """
    close = nearest(name, known, at_most)
    if not close:
        return ""
    return f" Did you mean {' or '.join(repr(other) for other in close)}?"


def nearest(name: str, known: Iterable[str], at_most: int = 3) -> list[str]:
    """The *known* names that look most like *name*, best first, letter case aside."""
    by_lower = {other.lower(): other for other in known}
    close = difflib.get_close_matches(name.lower(), by_lower, n=at_most, cutoff=0.5)
    return [by_lower[other] for other in close]


class ComfyServeError(Exception):
    """Something went wrong."""

    code: ClassVar[str] = "internal_error"

    @property
    def details(self) -> Mapping[str, Any] | None:
        """What a program may want to know besides the sentence; plain JSON."""
        return None

    def to_json(self) -> dict[str, Any]:
        """The one error body: ``{"error": {"code", "message", "details"}}``."""
        return {"error": {"code": self.code, "message": str(self), "details": self.details}}


class WorkflowUnreadable(ComfyServeError):
    """The file holds no workflow."""

    code = "workflow_unreadable"

    def __init__(self, source: str, found: str, advice: str = "") -> None:
        super().__init__(source, found, advice)
        self.source = source
        self.found = found
        self.advice = advice

    def __str__(self) -> str:
        return _sentences(f"{self.source} {self.found}", self.advice)


class GraphInvalid(ComfyServeError):
    """A graph that no ComfyUI could run."""

    code = "invalid_workflow"

    def __init__(self, problem: str, node_id: str | None = None) -> None:
        super().__init__(problem, node_id)
        self.problem = problem
        self.node_id = node_id

    @property
    def details(self) -> Mapping[str, Any] | None:
        return None if self.node_id is None else {"node_id": self.node_id}

    def __str__(self) -> str:
        return _sentences(self.problem)


@dataclass(frozen=True, slots=True)
class InputProblem:
    """Why one input cannot be used: its name, and a whole sentence."""

    name: str
    message: str


class InvalidInputs(ComfyServeError):
    """Inputs that do not fit the workflow's parameters; every problem is listed."""

    code = "invalid_inputs"

    def __init__(self, problems: Iterable[InputProblem]) -> None:
        self.problems = tuple(problems)
        super().__init__(self.problems)

    @property
    def details(self) -> Mapping[str, Any] | None:
        return {"inputs": {problem.name: problem.message for problem in self.problems}}

    def __str__(self) -> str:
        return "\n".join(problem.message for problem in self.problems)


class InvalidAddress(ComfyServeError):
    """An address or header that no server can have; nobody was asked."""

    code = "invalid_address"

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(url, reason)
        self.url = url
        self.reason = reason

    def __str__(self) -> str:
        return _sentences(f"{self.url!r} cannot be used as a server's address: {self.reason}")


class BackendError(ComfyServeError):
    """A ComfyUI server did not do what was asked of it."""

    code = "upstream_error"

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(url, reason)
        self.url = url
        self.reason = reason

    def __str__(self) -> str:
        return _sentences(f"{self.url}: {self.reason}")


class BackendUnreachable(BackendError):
    """Nobody answers at the address; *refused* when a machine is there, but no server.

    *what* is the word for what should be there.
    """

    code = "backend_unreachable"

    def __init__(
        self, url: str, reason: str, *, refused: bool = False, what: str = "ComfyUI"
    ) -> None:
        super().__init__(url, reason)
        self.refused = refused
        self.what = what

    def __str__(self) -> str:
        return _sentences(
            f"No {self.what} answers at {self.url} ({self.reason})",
            "Start it, or name another server with --server or COMFYSERVE_SERVER",
        )


class BackendRefused(BackendError):
    """The server answers, and will not let us in."""

    code = "backend_refused"

    def __str__(self) -> str:
        return _sentences(f"{self.url} will not let us in: {self.reason}")


class BackendAnswerInvalid(BackendError):
    """The server answers something that ComfyUI never says."""

    code = "backend_answer_invalid"

    def __str__(self) -> str:
        return _sentences(
            f"{self.url} gave an answer that makes no sense: {self.reason}",
            "Is it a ComfyUI server, and is the address complete?",
        )


class BackendLost(BackendError):
    """The server stopped answering while a job was there."""

    code = "backend_lost"

    def __str__(self) -> str:
        return _sentences(f"{self.url} was lost while the job was there: {self.reason}")


class FileUnavailable(BackendError):
    """The server no longer has a file it named."""

    code = "output_unavailable"

    def __init__(self, url: str, name: str) -> None:
        super().__init__(url, f"it no longer has the file {name!r}")
        self.name = name
        # A copy is made from these, so they are what the class itself is made from.
        self.args = (url, name)


class GraphRejected(BackendError):
    """The server will not run this graph, and says why, node by node."""

    code = "invalid_workflow"

    def __init__(
        self, url: str, reason: str, node_errors: Mapping[str, Mapping[str, Any]] | None = None
    ) -> None:
        super().__init__(url, reason)
        self.node_errors = dict(node_errors or {})

    @property
    def details(self) -> Mapping[str, Any] | None:
        return {"node_errors": self.node_errors} if self.node_errors else None

    def __str__(self) -> str:
        return _sentences(f"{self.url} will not run this graph: {self.reason}")


class RequestRefused(BackendError):
    """A comfyserve will not do what was asked, for a reason that has no class of its own here.

    *refusal* is the server's own code, *told* the details that came with it.
    """

    code = "request_refused"

    def __init__(
        self, url: str, reason: str, refusal: str, told: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(url, reason)
        self.refusal = refusal
        self.told = told
        self.args = (url, reason, refusal, told)

    @property
    def details(self) -> Mapping[str, Any] | None:
        return {"code": self.refusal, "details": self.told}

    def __str__(self) -> str:
        return _sentences(f"{self.url} will not do that ({self.refusal}): {self.reason}")


class NoComfyserve(BackendError):
    """The server is a ComfyUI, and what is wanted takes a comfyserve; *reason* says what."""

    code = "not_comfyserve"

    def __str__(self) -> str:
        return _sentences(
            f"{self.url} is a ComfyUI, which {self.reason}",
            "Name a comfyserve with --server or COMFYSERVE_SERVER",
        )


class JobFailed(ComfyServeError):
    """The job ended without success.

    *outputs* are the ones saved before it failed; they are kept.
    """

    code = "job_failed"

    def __init__(
        self,
        message: str,
        *,
        node_id: str | None = None,
        class_type: str | None = None,
        exception_type: str | None = None,
        traceback: tuple[str, ...] = (),
        job_id: str | None = None,
        outputs: tuple[Any, ...] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.node_id = node_id
        self.class_type = class_type
        self.exception_type = exception_type
        self.traceback = traceback
        self.job_id = job_id
        self.outputs = outputs

    @property
    def details(self) -> Mapping[str, Any] | None:
        return {
            "job_id": self.job_id,
            "node_id": self.node_id,
            "class_type": self.class_type,
            "exception_type": self.exception_type,
        }

    def __str__(self) -> str:
        message = self.message.strip()
        if self.node_id is None:
            return _sentences(message or "The job failed")
        kind = f" ({self.class_type})" if self.class_type else ""
        told = filter(None, (f"Node {self.node_id}{kind} failed", self.exception_type, message))
        return _sentences(": ".join(told))


class NodeFailed(JobFailed):
    """A node raised an error."""

    code = "node_execution_error"


class OutOfMemory(NodeFailed):
    """The backend ran out of memory in a node."""

    code = "out_of_memory"

    def __str__(self) -> str:
        said = super().__str__()
        if "TIPS" in said:  # ComfyUI's own advice
            return said
        return _sentences(said, "Try a smaller size or batch, or free the server's memory")


class JobBlocked(JobFailed):
    """A node stopped the run on purpose, so an output was not made."""

    code = "job_blocked"


class JobInterrupted(JobFailed):
    """Someone else interrupted the job on its backend."""

    code = "job_interrupted"


class JobRemoved(JobFailed):
    """Someone else removed the job from its backend's queue."""

    code = "job_removed"


class JobLost(JobFailed):
    """The backend was lost, and the job with it."""

    code = "backend_lost"


class OutputUnavailable(JobFailed):
    """The job ran, but a file it made cannot be had from its backend."""

    code = "output_unavailable"


class JobCanceled(ComfyServeError):
    """The job was canceled, as asked."""

    code = "job_canceled"

    def __init__(self, job_id: str, outputs: tuple[Any, ...] = ()) -> None:
        super().__init__(job_id)
        self.job_id = job_id
        self.outputs = outputs

    def __str__(self) -> str:
        return f"Job {self.job_id} was canceled."


class JobTimedOut(ComfyServeError):
    """The job did not end in the time given; it goes on unless it is canceled."""

    code = "job_timed_out"

    def __init__(self, job_id: str, seconds: float) -> None:
        super().__init__(job_id, seconds)
        self.job_id = job_id
        self.seconds = seconds

    def __str__(self) -> str:
        return f"Job {self.job_id} did not end within {self.seconds:g} s."


class ClientClosed(ComfyServeError):
    """The client was closed while somebody waited for its job, which may go on."""

    code = "client_closed"

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id)
        self.job_id = job_id

    def __str__(self) -> str:
        return f"The client was closed while job {self.job_id} was still going on."


class OutputUnwritable(ComfyServeError):
    """The disk or folder would not take an output."""

    code = "output_unwritable"

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return _sentences(f"{self.path} cannot be written: {self.reason}")


class EngineUnavailable(ComfyServeError):
    """The built-in engine could not be started."""

    code = "engine_unavailable"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return _sentences(f"The built-in engine could not be started: {self.reason}")


def _sentences(*parts: str) -> str:
    told = (part.rstrip() for part in parts)
    ended = (part if part[-1] in ".?!" else f"{part}." for part in told if part)
    return " ".join(ended)
