"""What /metrics counts, and what it never tells."""

from __future__ import annotations

import re
import urllib.request
from pathlib import Path

from comfyserve.events import OutputSaved, StatusChanged
from comfyserve.jobs import JobStatus, Timings
from comfyserve.server.metrics import Metrics
from tests.server.serving import serving
from tests.store.samples import output


def counts(url: str) -> dict[str, float]:
    """The counts that a server tells, by name and labels."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=20) as response:
        assert response.headers["Content-Type"].startswith("text/plain")
        lines = response.read().decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def test_requests_are_counted_by_route(tmp_path: Path) -> None:
    """A path with an id in it counts under its template, an unknown one under none."""
    with serving(tmp_path) as served:
        for path in ("/healthz", "/api/v2/jobs/some-id", "/api/v2/jobs/other-id", "/secret"):
            served.calls.ask("GET", path)
        told = counts(served.calls.url)

    def requests(route: str, status: int) -> float:
        labels = f'{{method="GET",route="{route}",status="{status}"}}'
        return told[f"comfyserve_http_requests_total{labels}"]

    assert requests("/healthz", 200) == 1
    assert requests("/api/v2/jobs/{id}", 404) == 2
    assert requests("none", 404) == 1
    assert not re.search("some-id|secret", str(told))
    assert (told["comfyserve_backends"], told["comfyserve_backends_up"]) == (1, 0)
    assert told["comfyserve_streams_open"] == told["comfyserve_jobs_waiting"] == 0


def test_the_whole_wait_of_a_job_counts_once() -> None:
    """From its submission until it runs, or ends without; another attempt adds nothing."""
    times = iter([10.0, 10.5, 13.0, 17.5])
    metrics = Metrics(clock=lambda: next(times))

    metrics.watch(StatusChanged("a", JobStatus.QUEUED))
    metrics.watch(StatusChanged("b", JobStatus.QUEUED))
    metrics.watch(StatusChanged("a", JobStatus.RUNNING))
    metrics.watch(StatusChanged("a", JobStatus.QUEUED))
    metrics.watch(StatusChanged("a", JobStatus.RUNNING))
    metrics.watch(StatusChanged("a", JobStatus.SUCCEEDED, timings=Timings(queued=1.0)))
    metrics.watch(StatusChanged("b", JobStatus.CANCELED))

    value = metrics.registry.get_sample_value
    assert value("comfyserve_job_queue_seconds_count") == 2
    assert value("comfyserve_job_queue_seconds_sum") == 3.0 + 7.0
    assert value("comfyserve_job_queue_seconds_created") is None


def test_jobs_are_counted_by_their_end() -> None:
    """Ends, times and bytes add up over the events of jobs."""
    metrics = Metrics()
    for job_id, end in (("a", JobStatus.SUCCEEDED), ("b", JobStatus.FAILED)):
        metrics.watch(StatusChanged(job_id, JobStatus.QUEUED))
        metrics.watch(StatusChanged(job_id, JobStatus.RUNNING))
        metrics.watch(OutputSaved(job_id, output(size_bytes=5)))
        metrics.watch(StatusChanged(job_id, end, timings=Timings(queued=1.0, running=2.0)))
    value = metrics.registry.get_sample_value

    assert value("comfyserve_jobs_total", {"status": "succeeded"}) == 1
    assert value("comfyserve_jobs_total", {"status": "failed"}) == 1
    assert value("comfyserve_jobs_total", {"status": "canceled"}) == 0
    assert value("comfyserve_output_bytes_total") == 10
    assert value("comfyserve_job_run_seconds_sum") == 4.0
    assert value("comfyserve_job_queue_seconds_count") == 2
