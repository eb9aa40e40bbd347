"""Jobs that take or wait too long."""

from __future__ import annotations

from tests.engines import RunningEngine
from tests.faults.comfyui import is_idle
from tests.faults.conftest import Servers
from tests.faults.graphs import Counted
from tests.faults.honesty import check_honest, check_listed
from tests.server_calls import ServerCalls, wait_until

SOON = 10.0
"""Seconds that a busy machine may need for what is due in one."""


def test_a_job_may_run_only_so_long(start_server: Servers, engine: RunningEngine) -> None:
    """A job that runs longer than `timeout` fails with that reason and ComfyUI is told to stop it,
    also where its node hears no interrupt; others are not hit, and their time in the queue does
    not count."""
    calls = ServerCalls(start_server(timeout=1).url)
    graphs = [
        Counted(seconds=0.7),
        Counted(seconds=30),
        Counted(seconds=0.7),
        Counted(seconds=2, interruptible=False),
        Counted(),
    ]
    jobs = [calls.submit(each.graph)["id"] for each in graphs]

    ended = [calls.until_over(job_id, SOON) for job_id in jobs]

    statuses = [job["status"] for job in ended]
    assert statuses == ["succeeded", "failed", "succeeded", "failed", "succeeded"]
    for job_id in (jobs[1], jobs[3]):
        assert check_honest(calls, job_id)["error"]["code"] == "job_timed_out"
    assert [each.runs(engine) for each in graphs] == [1] * 5
    wait_until(lambda: is_idle(engine))
    check_listed(calls, ended)


def test_a_job_may_wait_only_so_long(start_server: Servers, engine: RunningEngine) -> None:
    """A job that waits longer than `queue_timeout` expires when it is due and never runs, also
    when the server was down at that moment; the one that ran meanwhile is left alone."""
    server = start_server(queue_timeout=2)
    calls = ServerCalls(server.url)
    graphs = [Counted(seconds=9), Counted(), Counted(), Counted()]
    jobs = [calls.submit(each.graph)["id"] for each in graphs[:3]]
    calls.until_running(jobs[0])

    live = calls.until_over(jobs[2], SOON)
    jobs.append(calls.submit(graphs[3].graph)["id"])
    server.kill()
    server.start()
    late = calls.until_over(jobs[3], SOON)

    assert [job["status"] for job in (live, late)] == ["expired", "expired"]
    assert [job["queue_position"] for job in (live, late)] == [None, None]
    check_honest(calls, jobs[2])
    check_honest(calls, jobs[3])
    assert calls.until_over(jobs[0])["status"] == "succeeded"
    assert calls.until_over(jobs[1])["status"] == "expired"
    assert [graph.runs(engine) for graph in graphs] == [1, 0, 0, 0]
