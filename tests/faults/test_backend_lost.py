"""A ComfyUI that dies, comes back, stays away or hangs."""

from __future__ import annotations

import time
from contextlib import ExitStack

from tests.engines import RunningEngine
from tests.faults.comfyui import is_idle
from tests.faults.conftest import Engines, Servers
from tests.faults.graphs import Counted, tally
from tests.faults.honesty import check_honest
from tests.faults.wire import wire
from tests.server_calls import ServerCalls, wait_until

NOTICED = 30.0
"""Seconds in which a server must have noticed that a backend does not answer any more."""

PROMPT = 2.0
"""Seconds that a server may take to answer, however its backend is, on a busy machine."""


def test_a_job_runs_again_when_its_comfyui_comes_back(
    start_engine: Engines, start_server: Servers
) -> None:
    """ComfyUI is killed in the midst of a job and starts again: the job runs once more and says
    that it took two attempts; what waited in ComfyUI runs too."""
    comfyui = start_engine()
    calls = ServerCalls(start_server(comfyui.url).url)
    first, second = Counted(seconds=1.0), Counted()
    jobs = [calls.submit(each.graph)["id"] for each in (first, second)]
    calls.until_running(jobs[0])

    comfyui.kill()
    start_engine(port=port_of(comfyui))

    assert [calls.until_over(job_id)["status"] for job_id in jobs] == ["succeeded"] * 2
    assert check_honest(calls, jobs[0])["attempts"] == 2
    check_honest(calls, jobs[1])
    assert [first.runs(comfyui), second.runs(comfyui)] == [2, 1]


def test_a_job_fails_when_it_was_tried_often_enough(
    start_engine: Engines, start_server: Servers
) -> None:
    """ComfyUI is killed three times under the same job: it is not tried a fourth time, and its
    error says how often it was tried. The job behind it runs."""
    comfyui = start_engine()
    calls = ServerCalls(start_server(comfyui.url, attempts=3).url)
    deadly, behind = Counted(seconds=30.0), Counted()
    jobs = [calls.submit(each.graph)["id"] for each in (deadly, behind)]

    for attempt in (1, 2, 3):
        until_run(deadly, comfyui, attempt)
        calls.until(jobs[0], lambda job: job["status"] == "running")
        comfyui.kill()
        comfyui = start_engine(port=port_of(comfyui))

    assert [calls.until_over(job_id)["status"] for job_id in jobs] == ["failed", "succeeded"]
    job = check_honest(calls, jobs[0])
    assert job["attempts"] == 3
    assert "3" in job["error"]["message"]
    assert deadly.runs(comfyui) == 3
    assert check_honest(calls, jobs[1])["outputs"]
    assert behind.runs(comfyui) == 1


def test_a_paid_graph_is_never_repeated(start_engine: Engines, start_server: Servers) -> None:
    """ComfyUI is killed while a graph with a paid node runs: it fails and says why it is not
    tried again. One that waited and had cost nothing yet may still run, but once."""
    comfyui = start_engine()
    calls = ServerCalls(start_server(comfyui.url).url)
    paid = Counted(seconds=5.0, paid=True)
    job_id = calls.submit(paid.graph)["id"]
    calls.until_running(job_id)
    until_run(paid, comfyui, 1)

    comfyui.kill()
    again = start_engine(port=port_of(comfyui))

    assert calls.until_over(job_id)["status"] == "failed"
    job = check_honest(calls, job_id)
    assert "TestPaid" in job["error"]["message"]
    assert "not run again" in job["error"]["message"]
    assert job["attempts"] == 1
    free = Counted()
    assert calls.until_over(calls.submit(free.graph)["id"])["status"] == "succeeded"
    assert paid.runs(again) == 1


def test_jobs_wait_while_comfyui_is_down(start_engine: Engines, start_server: Servers) -> None:
    """While ComfyUI is down jobs are accepted and wait, `/readyz` is 503 and says which backend
    does not answer, `/healthz` is fine; when it comes back they run, in their order."""
    comfyui = start_engine()
    server = start_server(comfyui.url)
    calls = ServerCalls(server.url)
    wait_until(lambda: calls.ask("GET", "/readyz").status == 200)
    comfyui.kill()
    wait_until(lambda: calls.ask("GET", "/readyz").status == 503, seconds=NOTICED)

    graphs = [Counted() for _ in range(3)]
    jobs = [calls.submit(each.graph)["id"] for each in graphs]
    assert "Backend 1 of 1" in calls.ask("GET", "/readyz").body.decode()
    assert comfyui.url not in calls.ask("GET", "/readyz").body.decode()
    assert calls.ask("GET", "/healthz").status == 200
    waiting = [calls.job(job_id) for job_id in jobs]
    assert [job["status"] for job in waiting] == ["queued"] * 3
    assert [job["queue_position"] for job in waiting] == [1, 2, 3]

    start_engine(port=port_of(comfyui))

    ended = [calls.until_over(job_id, NOTICED) for job_id in jobs]
    assert [job["status"] for job in ended] == ["succeeded"] * 3
    assert [check_honest(calls, job_id)["attempts"] for job_id in jobs] == [1] * 3
    assert [*tally(comfyui).items()] == [(each.name, 1) for each in graphs]
    wait_until(lambda: calls.ask("GET", "/readyz").status == 200)


def test_a_server_starts_before_its_comfyui(start_engine: Engines, start_server: Servers) -> None:
    """A server whose ComfyUI is not there yet starts, takes jobs, and runs them once it is."""
    port = port_of(gone := start_engine())
    assert gone.stop() == 0
    calls = ServerCalls(start_server(gone.url).url)
    graph = Counted()
    job_id = calls.submit(graph.graph)["id"]
    assert calls.ask("GET", "/readyz").status == 503
    assert calls.job(job_id)["status"] == "queued"

    start_engine(port=port)

    assert calls.until_over(job_id, NOTICED)["status"] == "succeeded"
    assert graph.runs(gone) == 1


def test_a_comfyui_that_hangs_hangs_nobody(
    start_server: Servers, engine: RunningEngine, closing: ExitStack
) -> None:
    """Behind a proxy that takes everything and answers nothing, the server answers at once, says
    that it is not ready, and takes jobs; when the proxy comes to, the job that was under way is
    followed to its end, those that waited run, and each ran once."""
    between = closing.enter_context(wire(engine.url))
    calls = ServerCalls(start_server(between.url).url)
    graphs = [Counted(seconds=1.0), Counted(), Counted()]
    jobs = [calls.submit(graphs[0].graph)["id"]]
    calls.until_running(jobs[0])

    between.stick()
    began = time.monotonic()
    jobs += [calls.submit(each.graph)["id"] for each in graphs[1:]]
    assert calls.job(jobs[0])["status"] == "running"
    assert time.monotonic() - began < PROMPT
    wait_until(lambda: calls.ask("GET", "/readyz").status == 503, seconds=NOTICED)
    between.free()

    assert [calls.until_over(job_id)["status"] for job_id in jobs] == ["succeeded"] * 3
    assert [check_honest(calls, job_id)["attempts"] for job_id in jobs] == [1] * 3
    assert [each.runs(engine) for each in graphs] == [1] * 3
    wait_until(lambda: is_idle(engine))


def until_run(graph: Counted, engine: RunningEngine, times: int) -> None:
    """Return once that graph began to run there that often."""
    wait_until(lambda: graph.runs(engine) == times, lambda: f"it ran {graph.runs(engine)} times")


def port_of(engine: RunningEngine) -> int:
    """The port it listens on, or did."""
    return int(engine.url.rpartition(":")[2])
