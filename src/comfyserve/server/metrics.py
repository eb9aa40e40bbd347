"""What the server counts, for Prometheus: jobs, backends, streams and requests.

No label holds an id, a name that somebody chose, or anything a person wrote.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Final

from fastapi import APIRouter, Request, Response
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from starlette.types import Scope

from comfyserve import __version__
from comfyserve.errors import ComfyServeError
from comfyserve.events import NumberedEvent, OutputSaved, StatusChanged
from comfyserve.fleet import Fleet
from comfyserve.host import Host
from comfyserve.jobs import JobStatus
from comfyserve.server.requests import caller_of
from comfyserve.server.sockets import Sockets
from comfyserve.server.streams import Streams

SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)

_PREFIX: Final = "comfyserve"
_NO_ROUTE: Final = "none"

# When a count was made is no more than when this process began.
_leave_out_created: Callable[[], None] = disable_created_metrics

router = APIRouter(include_in_schema=False)


class Metrics:
    """The counts of one server; `watch` is told every event that lasts, as `open_host` does."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        _leave_out_created()
        self.registry = CollectorRegistry(auto_describe=False)
        self._clock = clock
        self._jobs = Counter(
            f"{_PREFIX}_jobs", "Jobs that ended, by status.", ["status"], registry=self.registry
        )
        for status in JobStatus:
            if status.is_terminal:
                self._jobs.labels(str(status))
        self._queue_seconds = _histogram(
            "job_queue_seconds", "How long jobs waited, from their submission on.", self.registry
        )
        self._run_seconds = _histogram(
            "job_run_seconds", "How long ended jobs had run.", self.registry
        )
        self._outputs = Counter(f"{_PREFIX}_outputs", "Outputs kept.", registry=self.registry)
        self._output_bytes = Counter(
            f"{_PREFIX}_output_bytes", "Bytes of outputs kept.", registry=self.registry
        )
        self._requests = Counter(
            f"{_PREFIX}_http_requests",
            "Requests answered, by method, route and status.",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self._waiting = Gauge(
            f"{_PREFIX}_jobs_waiting", "Jobs that wait for their turn.", registry=self.registry
        )
        self._running: set[str] = set()
        self._waiting_since: dict[str, float] = {}
        info = Gauge(f"{_PREFIX}_info", "Its version.", ["version"], registry=self.registry)
        info.labels(__version__).set(1)

    def watch(self, event: NumberedEvent) -> None:
        """Count what happened to a job."""
        match event:
            case StatusChanged(status=status) if status.is_terminal:
                self._running.discard(event.job_id)
                self._waited(event.job_id)
                self._jobs.labels(str(status)).inc()
                if event.timings.running:
                    self._run_seconds.observe(event.timings.running)
            case StatusChanged(status=JobStatus.QUEUED):
                if event.job_id in self._running:  # another attempt, whose wait is not the job's
                    self._running.discard(event.job_id)
                else:
                    self._waiting_since[event.job_id] = self._clock()
            case StatusChanged(status=status):
                self._running.add(event.job_id)
                if status is JobStatus.RUNNING:
                    self._waited(event.job_id)
            case OutputSaved(output=output):
                self._outputs.inc()
                self._output_bytes.inc(output.size_bytes)
            case _:
                return

    def answered(self, scope: Scope, status: int) -> None:
        """Count a request under the route that answered it, never under its path."""
        self._requests.labels(_method(scope), route_of(scope), str(status)).inc()

    def _waited(self, job_id: str) -> None:
        if (since := self._waiting_since.pop(job_id, None)) is not None:
            self._queue_seconds.observe(self._clock() - since)

    async def text(self, host: Host, streams: Streams, sockets: Sockets) -> bytes:
        """All counts as Prometheus reads them."""
        try:
            self._waiting.set(await host.job_queue.waiting())
        except ComfyServeError:
            self._waiting.set(float("nan"))
        now = _Now(len(self._running), host.fleet, streams, sockets)
        self.registry.register(now)
        try:
            return generate_latest(self.registry)
        finally:
            self.registry.unregister(now)


class _Now(Collector):
    """What is counted only when somebody asks."""

    def __init__(self, running: int, fleet: Fleet, streams: Streams, sockets: Sockets) -> None:
        self._running = running
        self._fleet = fleet
        self._streams = streams
        self._sockets = sockets

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        up = sum(member.is_up for member in self._fleet.members)
        yield _gauge("jobs_running", "Jobs that run.", self._running)
        yield _gauge("backends", "Backends that are set up.", len(self._fleet.members))
        yield _gauge("backends_up", "Backends that answer.", up)
        yield _gauge("streams_open", "Event streams that are open.", self._streams.open)
        yield _gauge("sockets_open", "WebSockets that are open.", self._sockets.open)


def route_of(scope: Scope) -> str:
    """The template of the route that was found, such as ``/api/v2/jobs/{id}``; else ``none``."""
    path: str = getattr(scope.get("route"), "path", _NO_ROUTE)
    return path


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """All counts, for Prometheus."""
    caller_of(request).require_admin()
    state = request.app.state
    text = await state.metrics.text(state.host, state.streams, state.sockets)
    return Response(text, headers={"Cache-Control": "no-store"}, media_type=CONTENT_TYPE_LATEST)


def _method(scope: Scope) -> str:
    """The method; one that nobody knows is not told, as anybody may make one up."""
    method: str = scope["method"]
    known = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
    return method if method in known else "other"


def _histogram(name: str, help: str, registry: CollectorRegistry) -> Histogram:
    return Histogram(f"{_PREFIX}_{name}", help, buckets=SECONDS, registry=registry)


def _gauge(name: str, help: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{_PREFIX}_{name}", help, value=value)
