"""Canceling a job that is about to end anyway."""

from __future__ import annotations

import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.engines import RunningEngine
from tests.faults.comfyui import is_idle
from tests.faults.graphs import Counted
from tests.faults.honesty import check_honest, check_listed
from tests.server_calls import OVER, Document, ServerCalls, wait_until

ROUNDS = 60
CALLERS = 3
LATEST = 0.06
"""Seconds after its submission in which a job is canceled; it takes a few milliseconds."""


@pytest.mark.parametrize("seed", [11])
def test_a_cancel_races_the_end(calls: ServerCalls, engine: RunningEngine, seed: int) -> None:
    """Canceled at moments around their end, many jobs each end in one honest status, the same in
    every answer; one that says canceled may have run, one that says succeeded has its output,
    and what the cancel answered never contradicts the end."""
    chance = random.Random(seed)
    graphs = [Counted(interruptible=False) for _ in range(ROUNDS)]
    delays = [chance.uniform(0.0, LATEST) for _ in range(ROUNDS)]

    def submit_and_cancel(graph: Counted, delay: float) -> tuple[str, Document]:
        job_id = calls.submit(graph.graph)["id"]
        time.sleep(delay)  # the moment is what is tried
        return job_id, calls.cancel(job_id)

    with ThreadPoolExecutor(CALLERS) as pool:
        raced = list(pool.map(submit_and_cancel, graphs, delays))

    ended = [calls.until_over(job_id) for job_id, _ in raced]
    assert Counter(job["status"] for job in ended).keys() <= {"canceled", "succeeded"}
    for graph, (job_id, answered) in zip(graphs, raced, strict=True):
        job = check_honest(calls, job_id)
        assert answered["status"] in {"canceling", *OVER}
        assert answered["status"] in {"canceling", job["status"]}
        assert graph.runs(engine) <= 1
        if job["status"] == "succeeded":
            assert job["outputs"]
            assert graph.runs(engine) == 1
        assert calls.cancel(job_id)["status"] == job["status"]
    check_listed(calls, ended)
    wait_until(lambda: is_idle(engine))


def test_a_canceled_job_frees_comfyui(calls: ServerCalls, engine: RunningEngine) -> None:
    """A job canceled while it waits in ComfyUI never runs there, one canceled while it runs is
    interrupted, and the next one is not hit."""
    graphs = [Counted(seconds=30), Counted(seconds=30), Counted(seconds=0.1)]
    jobs = [calls.submit(each.graph)["id"] for each in graphs]
    calls.until_running(jobs[0])

    calls.cancel(jobs[1])
    calls.cancel(jobs[0])

    statuses = [calls.until_over(job_id)["status"] for job_id in jobs]
    assert statuses == ["canceled", "canceled", "succeeded"]
    for job_id in jobs:
        check_honest(calls, job_id)
    assert [each.runs(engine) for each in graphs] == [1, 0, 1]
    assert is_idle(engine)
