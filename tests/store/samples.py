"""Jobs, outputs and assets as the tests of the store use them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from blake3 import blake3

from comfyserve.assets import Asset
from comfyserve.events import OutputSaved, StatusChanged
from comfyserve.jobs import Claim, JobStatus, Lease, Offer, Output, Submission
from comfyserve.store import Store

START = 1_000_000.0
GRAPH = {"3": {"class_type": "KSampler", "inputs": {"seed": 7, "text": "ein Fuchs \U0001f98a"}}}


@dataclass
class Clock:
    """A clock that stands until it is told to go on."""

    time: float = START

    def __call__(self) -> float:
        return self.time

    def pass_seconds(self, seconds: float) -> None:
        self.time += seconds


def submission(**fields: Any) -> Submission:
    """A job as somebody may hand it in."""
    known: dict[str, Any] = {"id": str(uuid4()), "graph": GRAPH, "expires_at": START + 1e6}
    return Submission(**{**known, **fields})


def hash_of(name: str) -> str:
    return f"blake3:{blake3(name.encode()).hexdigest()}"


def output(name: str = "a.png", **fields: Any) -> Output:
    """An output with a hash made of its name."""
    known: dict[str, Any] = {"node_id": "9", "key": "images", "name": name, "type": "image"}
    known |= {"content_type": "image/png", "size_bytes": 3, "hash": hash_of(name)}
    return Output(**{**known, "location": f"blobs/{name}", **fields})


def asset(name: str = "cat.png", **fields: Any) -> Asset:
    """An asset with a hash made of its name."""
    known: dict[str, Any] = {
        "id": str(uuid4()),
        "owner": "",
        "hash": hash_of(name),
        "size_bytes": 5,
    }
    known |= {"content_type": "image/png", "created_at": START, "file_path": name}
    return Asset(**{**known, **fields})


def offer(store: Store, **fields: Any) -> Offer:
    """What a backend offers that can run everything that waits."""
    known: dict[str, Any] = {"backend": "http://gpu:8188", "pools": tuple(store.jobs.waiting_pools)}
    return Offer(**{**known, **fields})


async def claimed(store: Store, **fields: Any) -> Claim:
    """The next job, claimed."""
    known: dict[str, Any] = {"holder": "server", "offers": [offer(store)], "lease": 30.0}
    claim = await store.jobs.claim(**{**known, **fields})
    assert claim is not None
    return claim


async def running(store: Store, **fields: Any) -> Lease:
    """A new job that is running."""
    await store.jobs.submit(submission(**fields))
    lease = (await claimed(store)).lease
    await store.jobs.record(lease, [status(lease, JobStatus.RUNNING)])
    return lease


async def succeeded(store: Store, *outputs: Output, **fields: Any) -> str:
    """The id of a new job that succeeded and made these outputs."""
    lease = await running(store, **fields)
    events = [OutputSaved(lease.job_id, output) for output in outputs]
    await store.jobs.finish(lease, status(lease, JobStatus.SUCCEEDED), events=events)
    return lease.job_id


def status(lease: Lease, to: JobStatus) -> StatusChanged:
    return StatusChanged(lease.job_id, to)
