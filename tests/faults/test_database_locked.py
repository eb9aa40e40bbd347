"""A database that another program has for itself."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from tests.engines import RunningEngine
from tests.faults.comfyui import is_remembered
from tests.faults.conftest import Servers
from tests.faults.graphs import Counted
from tests.faults.honesty import check_honest, check_listed
from tests.server_calls import ServerCalls, wait_until
from tests.servers import RunningServer

BUSY = 0.5
"""Seconds that a write of the server waits for the database."""


@pytest.fixture
def server(start_server: Servers) -> RunningServer:
    """A server that does not wait long for its database."""
    return start_server(busy_timeout=BUSY)


def test_a_request_in_a_lock_is_refused(
    server: RunningServer, calls: ServerCalls, engine: RunningEngine
) -> None:
    """While another program has the database a job and an upload are refused with 503 and when to
    try again, reading goes on, and nothing is half-written; afterwards all is taken."""
    before = calls.until_over(calls.submit(Counted().graph)["id"])
    refused = Counted()

    with locked(server):
        began = time.monotonic()
        answers = [
            calls.ask("POST", "/api/v2/jobs", {"workflow": refused.graph}),
            calls.upload(b"a small file"),
        ]
        assert time.monotonic() - began < 2 * BUSY + 4
        assert calls.job(before["id"]) == before
    for answer in answers:
        assert answer.status == 503, answer
        assert answer.code == "store_unavailable"
        assert int(answer.headers["retry-after"]) > 0

    assert [job["id"] for job in calls.jobs()] == [before["id"]]
    after = calls.until_over(calls.submit(Counted().graph)["id"])
    assert after["status"] == "succeeded"
    assert calls.upload(b"a small file").status == 201
    assert refused.runs(engine) == 0
    check_listed(calls, [before, after])


def test_a_key_that_was_refused_is_still_good(server: RunningServer, calls: ServerCalls) -> None:
    """A submission that a lock refused does not use up its idempotency key."""
    body, key = {"workflow": Counted().graph}, {"Idempotency-Key": "once"}
    with locked(server):
        assert calls.ask("POST", "/api/v2/jobs", body, key).status == 503

    assert calls.ask("POST", "/api/v2/jobs", body, key).status == 201
    assert calls.ask("POST", "/api/v2/jobs", body, key).code == "idempotency_key_reuse"
    assert len(calls.jobs()) == 1


@pytest.mark.parametrize("seconds", [BUSY / 2, 4 * BUSY])
def test_a_running_job_survives_a_lock(
    server: RunningServer, calls: ServerCalls, engine: RunningEngine, seconds: float
) -> None:
    """A job that ends while another program has the database, for less or for more
    than a write waits, succeeds all the same with its outputs, and ran once; so does the next."""
    graphs = [Counted(seconds=0.8), Counted()]
    jobs = [calls.submit(each.graph)["id"] for each in graphs]
    calls.until_running(jobs[0])

    with locked(server):
        wait_until(lambda: is_remembered(engine, jobs[0]))
        time.sleep(seconds)  # how long the lock lasts is what is tried

    assert [calls.until_over(job_id)["status"] for job_id in jobs] == ["succeeded"] * 2
    assert all(check_honest(calls, job_id)["outputs"] for job_id in jobs)
    assert [each.runs(engine) for each in graphs] == [1, 1]


@contextmanager
def locked(server: RunningServer) -> Iterator[None]:
    """Have the server's database for oneself."""
    path = server.folder / "comfyserve.db"
    with closing(sqlite3.connect(path, isolation_level=None, timeout=10)) as other:
        other.execute("BEGIN EXCLUSIVE")
        try:
            yield
        finally:
            other.execute("ROLLBACK")
