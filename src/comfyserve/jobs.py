"""A job: one execution of a workflow, how far it is, what it made, how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from comfyserve.assets import InputFile, InputPath, MediaKind
from comfyserve.errors import JobFailed
from comfyserve.workflows.graph import Graph
from comfyserve.workflows.needs import NOTHING, Needs


class JobStatus(StrEnum):
    """Where a job stands, in the words of the Comfy API v2."""

    QUEUED = "queued"
    RUNNING = "running"
    CANCELING = "canceling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    EXPIRED = "expired"

    @property
    def is_terminal(self) -> bool:
        """Nothing happens to the job any more."""
        return not _MOVES[self]

    def may_become(self, other: JobStatus) -> bool:
        """Whether a job may move from this status to *other*."""
        return other in _MOVES[self]


_MOVES: Mapping[JobStatus, frozenset[JobStatus]] = {
    JobStatus.QUEUED: frozenset(
        {JobStatus.RUNNING, JobStatus.CANCELED, JobStatus.FAILED, JobStatus.EXPIRED}
    ),
    JobStatus.RUNNING: frozenset(
        {JobStatus.QUEUED, JobStatus.CANCELING, JobStatus.SUCCEEDED, JobStatus.FAILED}
    ),
    JobStatus.CANCELING: frozenset({JobStatus.CANCELED, JobStatus.SUCCEEDED, JobStatus.FAILED}),
    JobStatus.SUCCEEDED: frozenset(),
    JobStatus.FAILED: frozenset(),
    JobStatus.CANCELED: frozenset(),
    JobStatus.EXPIRED: frozenset(),
}


@dataclass(frozen=True, slots=True)
class Job:
    """One execution of a workflow, with the graph it runs bound to it.

    *id* is a canonical lowercase UUID and the prompt_id of its first attempt. *seeds* are the
    seeds really used, by address (``{"3.seed": 7}``).
    """

    id: str
    graph: Graph
    files: tuple[InputFile, ...] = ()
    seeds: Mapping[str, int] = field(default_factory=dict)
    extra_data: Mapping[str, Any] = field(default_factory=dict)

    def with_graph(self, graph: Graph) -> Job:
        """The same job with another graph, as after its files got their names."""
        return replace(self, graph=graph, files=())


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is: always the whole picture, never a difference.

    *value* is the part of all work that is done, 0 to 1, and never goes back within an attempt.
    *step* of *steps* is the current node's own count, *message* what it says of itself. *elapsed*
    and *remaining* are seconds; *remaining* is a range ``(least, most)``, known once something
    can be said.
    """

    value: float = 0.0
    nodes_done: int = 0
    nodes_total: int = 0
    current_node: str | None = None
    current_node_class: str | None = None
    current_node_title: str | None = None
    step: int | None = None
    steps: int | None = None
    message: str | None = None
    elapsed: float = 0.0
    remaining: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Preview:
    """A live picture of what a node is working on; *node_id* is None where nobody said."""

    node_id: str | None
    content_type: str
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Output:
    """Something a job produced: a file, or a string that a node showed.

    *key* is the word the node used for it (``images``, ``audio``, ``text``..). *location* says
    where its bytes were put: a path, or a blob's key. *temp* marks what ComfyUI calls temporary.
    """

    node_id: str
    key: str
    name: str
    type: MediaKind
    content_type: str
    size_bytes: int
    hash: str
    location: str
    subfolder: str = ""
    temp: bool = False
    index: int = 0
    id: str | None = None


@dataclass(frozen=True, slots=True)
class JobError:
    """Why a job failed, in a form that travels; *code* names one of the errors of `errors`."""

    code: str
    message: str
    node_id: str | None = None
    class_type: str | None = None
    exception_type: str | None = None
    traceback: tuple[str, ...] = ()

    @classmethod
    def of(cls, failure: JobFailed) -> JobError:
        """The travelling form of a raised failure."""
        return cls(
            failure.code,
            failure.message,
            failure.node_id,
            failure.class_type,
            failure.exception_type,
            failure.traceback,
        )


@dataclass(frozen=True, slots=True)
class Timings:
    """How long a job took, in seconds: waiting, running, and in each node that ran."""

    queued: float = 0.0
    running: float = 0.0
    nodes: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Usual:
    """How many seconds something usually takes: *mean* on average, *spread* more or less."""

    mean: float
    spread: float = 0.0

    def rest(self, spent: float) -> tuple[float, float]:
        """The least and the most that is left of it after *spent* seconds.

        Past its time nobody knows, but it is never less than nothing.

        >>> Usual(10.0, 2.0).rest(4.0), Usual(10.0, 2.0).rest(60.0)
        ((4.0, 8.0), (0.0, 2.0))
        """
        left = self.mean - spent
        return max(0.0, left - self.spread), max(0.0, left) + self.spread


@dataclass(frozen=True, slots=True)
class UsualTimes:
    """What runs of one kind usually take: a *whole* run, and each of its *nodes* that takes long
    enough to matter. Empty where none was seen yet."""

    whole: Usual | None = None
    nodes: Mapping[str, Usual] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class JobFile:
    """A file that a kept job needs: the places *targets* in its graph get its name on the backend.

    Unlike an `InputFile` it names bytes that are kept, by their *hash*. *asset_id* is the asset
    that the caller referred to. For a mask, *mask_of* is the target of the image it is laid over.
    """

    targets: tuple[InputPath, ...]
    hash: str
    name: str
    asset_id: str | None = None
    mask_of: InputPath | None = None


Metadata = str | Mapping[str, str]
"""What callers note on a job: an opaque string, or labels by name."""


@dataclass(frozen=True, slots=True)
class Submission:
    """A job as it is handed in to wait for its turn.

    Of two waiting jobs the one with the higher *priority* goes first, then the owner that had the
    smaller share, then the older. *pool* names what a backend must be able to do, *model* what it
    had better have loaded, *estimate* the seconds it may take (what an owner's share is counted
    in). Past *queue_deadline* it is not begun any more; *expires_at* is when it may be forgotten.
    *has_extra_data* tells that it came with secrets for the backend, which are never kept. It may
    run for *timeout* seconds, as its workflow says. Times are seconds since the epoch.
    """

    id: str
    graph: Graph
    expires_at: float
    owner: str = ""
    workflow: str | None = None
    files: tuple[JobFile, ...] = ()
    seeds: Mapping[str, int] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    metadata: Metadata | None = None
    priority: int = 0
    pool: str = ""
    model: str = ""
    estimate: float = 1.0
    queue_deadline: float | None = None
    has_extra_data: bool = False
    timeout: float | None = None
    needs: Needs = NOTHING


@dataclass(frozen=True, slots=True)
class JobRecord:
    """All that is known of a kept job but its graph; times are seconds since the epoch.

    *attempts* counts how often it was brought to a backend, *prompt_id* and *backend* are of the
    last of them. *last_event* is the number of its latest event, *progress* how far it was at its
    end. *outputs* come in the order in which they were saved.
    """

    id: str
    owner: str
    workflow: str | None
    seeds: Mapping[str, int]
    inputs: Mapping[str, Any]
    metadata: Metadata | None
    priority: int
    pool: str
    status: JobStatus
    attempts: int
    backend: str | None
    prompt_id: str | None
    progress: Progress | None
    error: JobError | None
    outputs_reused: bool
    timings: Timings
    queue_deadline: float | None
    created_at: float
    started_at: float | None
    completed_at: float | None
    expires_at: float
    last_event: int
    outputs: tuple[Output, ...] = ()
    has_extra_data: bool = False
    timeout: float | None = None
    model: str = ""
    estimate: float = 1.0


@dataclass(frozen=True, slots=True)
class Standing:
    """How a kept job stands right now: what is kept of it, and what is only known live.

    *queue_position* counts from 1 among the jobs that are not running yet, and is None for all
    others. *progress* is the latest; None before the first. *expected_wait* are the least and most
    seconds until it begins, None where nothing can be said.
    """

    record: JobRecord
    progress: Progress | None = None
    queue_position: int | None = None
    expected_wait: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write to a job that somebody holds until a time, unless it is renewed.

    *number* counts how often the job changed hands, so that who lost it cannot write any more.
    """

    job_id: str
    holder: str
    number: int
    until: float


@dataclass(frozen=True, slots=True)
class Offer:
    """A backend that has a place for one more job.

    *pools* are those it can run jobs of, *warm* the models that it has loaded. *wait* is how many
    seconds pass before it could begin. One that is *only_warm* takes no job whose model is another:
    it waits for that until it has no other job, as loading takes longer than bringing it there.
    """

    backend: str
    pools: tuple[str, ...]
    warm: tuple[str, ...] = ()
    wait: float = 0.0
    only_warm: bool = False

    def takes(self, model: str) -> bool:
        """Whether it takes a job with that *model* now."""
        return not self.only_warm or not model or model in self.warm


@dataclass(frozen=True, slots=True)
class Claim:
    """A job that was given to somebody to run, with all that running it takes.

    *more_wait* tells whether it left others behind in the queue; who does not know says so.
    """

    lease: Lease
    record: JobRecord
    graph: Graph
    files: tuple[JobFile, ...]
    more_wait: bool = True


@dataclass(frozen=True, slots=True)
class Attempt:
    """One time that a job was brought to a backend, under which prompt_id."""

    number: int
    prompt_id: str
    backend: str
    at: float
