"""Whatever is done to jobs, in whatever order, the store agrees with a simple model of them."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from comfyserve.events import Noted, NumberedEvent, StatusChanged
from comfyserve.jobs import JobStatus, Lease, Offer
from comfyserve.refusals import IllegalMove, LeaseLost
from comfyserve.store import Store
from tests.store.samples import Clock, status, submission

Result = TypeVar("Result")


@dataclass
class Known:
    """What the model knows of a job."""

    status: JobStatus = JobStatus.QUEUED
    lease: Lease | None = None
    attempts: int = 0
    told: list[JobStatus | None] = field(default_factory=lambda: [JobStatus.QUEUED])


class Lifecycle(RuleBasedStateMachine):
    """Jobs are handed in, claimed, run, lost, canceled and ended by people who may be late."""

    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[str, Known] = {}
        self.clock = Clock()
        self.runner = asyncio.Runner()
        self.opened = AsyncExitStack()
        self.folder = tempfile.TemporaryDirectory()
        self.open()

    def open(self) -> None:
        path = Path(self.folder.name)
        opening = self.opened.enter_async_context(Store.open(path, clock=self.clock))
        self.store = self.run(opening)

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return self.runner.run(work)

    def teardown(self) -> None:
        self.run(self.opened.aclose())
        self.runner.close()
        self.folder.cleanup()

    @rule(priority=st.integers(-2, 2), owner=st.sampled_from("ab"))
    def submit(self, priority: int, owner: str) -> None:
        job = submission(priority=priority, owner=owner)
        self.run(self.store.jobs.submit(job))
        self.known[job.id] = Known()

    @rule(target=leases)
    def claim(self) -> Lease | None:
        claim = self.run(self.store.jobs.claim("s", [Offer("b", ("",))], lease=30))
        waits = [id for id, job in self.known.items() if job.status == "queued" and not job.lease]
        assert (claim is None) == (not waits)
        if claim is None:
            return None
        job = self.known[claim.lease.job_id]
        assert claim.lease.job_id in waits
        job.lease, job.attempts = claim.lease, job.attempts + 1
        return claim.lease

    @rule(lease=leases)
    def run_it(self, lease: Lease | None) -> None:
        if lease is None:
            return
        told: list[NumberedEvent] = [
            status(lease, JobStatus.RUNNING),
            Noted(lease.job_id, "info", "it runs"),
        ]
        job = self.known[lease.job_id]
        legal = job.status in (JobStatus.QUEUED, JobStatus.RUNNING)
        if self.may(self.store.jobs.record(lease, told), lease, legal):
            job.status = JobStatus.RUNNING
            job.told += [JobStatus.RUNNING, None]

    @rule(lease=leases, end=st.sampled_from([one for one in JobStatus if one.is_terminal]))
    def finish(self, lease: Lease | None, end: JobStatus) -> None:
        if lease is None:
            return
        job = self.known[lease.job_id]
        ended = self.store.jobs.finish(lease, status(lease, end))
        if self.may(ended, lease, job.status.may_become(end)):
            job.status, job.lease = end, None
            job.told.append(end)

    @rule(lease=leases, counts=st.booleans())
    def requeue(self, lease: Lease | None, counts: bool) -> None:
        if lease is None:
            return
        job = self.known[lease.job_id]
        if not self.may(self.store.jobs.requeue(lease, counts=counts), lease, True):
            return
        job.lease = None
        if job.status is JobStatus.CANCELING:
            job.status = JobStatus.CANCELED
            job.told.append(JobStatus.CANCELED)
            return
        if job.status is JobStatus.RUNNING:
            job.told.append(JobStatus.QUEUED)
        job.status = JobStatus.QUEUED
        job.attempts -= 0 if counts else 1

    @rule(target=leases, lease=consumes(leases))
    def adopt(self, lease: Lease | None) -> Lease | None:
        if lease is None:
            return None
        job = self.known[lease.job_id]
        if job.lease != lease:
            assert not self.may(self.store.jobs.adopt(lease, "t", seconds=30), lease, True)
            return None
        job.lease = self.run(self.store.jobs.adopt(lease, "t", seconds=30))
        return job.lease

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        if not self.known:
            return
        job_id = data.draw(st.sampled_from(sorted(self.known)))
        job = self.known[job_id]
        done = self.run(self.store.jobs.cancel(job_id))
        assert done.lease == job.lease
        if job.status is JobStatus.QUEUED:
            job.status, job.lease = JobStatus.CANCELED, None
            job.told.append(job.status)
        elif job.status is JobStatus.RUNNING:
            job.status = JobStatus.CANCELING
            job.told.append(job.status)
        assert done.status is job.status

    @rule()
    def restart(self) -> None:
        self.run(self.opened.aclose())
        self.open()

    @invariant()
    def agrees(self) -> None:
        for job_id, job in self.known.items():
            kept = self.run(self.store.jobs.get(job_id))
            assert (kept.status, kept.attempts) == (job.status, job.attempts)
            events = self.run(self.store.jobs.events(job_id))
            assert [event.seq for event in events] == list(range(1, len(job.told) + 1))
            assert [
                event.status if isinstance(event, StatusChanged) else None for event in events
            ] == job.told
        held = {claim.lease.job_id: claim.lease for claim in self.run(self.store.jobs.held())}
        assert held == {id: job.lease for id, job in self.known.items() if job.lease}

    def may(self, work: Coroutine[Any, Any, object], lease: Lease, legal: bool) -> bool:
        """Whether it was done, which must be so exactly where the lease holds and it is legal."""
        holds = self.known[lease.job_id].lease == lease
        try:
            self.run(work)
        except LeaseLost:
            assert not holds
            return False
        except IllegalMove:
            assert holds
            assert not legal
            return False
        assert holds
        assert legal
        return True


TestLifecycle = Lifecycle.TestCase
TestLifecycle.settings = settings(max_examples=8, stateful_step_count=20, deadline=None)
TestLifecycle = pytest.mark.timeout(120)(TestLifecycle)
