"""A server that is killed, at any moment, loses no job and runs none twice."""

from __future__ import annotations

import random
import time

import pytest

from tests.engines import RunningEngine
from tests.faults.comfyui import is_remembered, waits_in
from tests.faults.conftest import Engines, Servers
from tests.faults.graphs import Counted
from tests.faults.honesty import check_honest, check_listed
from tests.server_calls import ServerCalls, wait_until
from tests.servers import RunningServer

LIVES = 4
JOBS_A_LIFE = 5


def test_a_running_job_is_picked_up_where_it_runs(
    server: RunningServer, calls: ServerCalls, engine: RunningEngine
) -> None:
    """Killed while one job runs, one waits in ComfyUI and others wait with us: the next start
    finds the first two there by their prompt_id, runs the others, and each ran once."""
    graphs = [Counted(seconds=2.5), Counted(seconds=0.2), Counted(), Counted()]
    jobs = [calls.submit(each.graph)["id"] for each in graphs]
    calls.until_running(jobs[0])
    wait_until(lambda: waits_in(engine, jobs[1]))

    server.kill()
    server.start()

    assert calls.job(jobs[0])["status"] in ("queued", "running")
    ended = [calls.until_over(job_id) for job_id in jobs]
    assert [job["status"] for job in ended] == ["succeeded"] * 4
    assert [check_honest(calls, job_id)["attempts"] for job_id in jobs] == [1] * 4
    assert [each.runs(engine) for each in graphs] == [1] * 4
    check_listed(calls, ended)


def test_a_job_that_ended_meanwhile_is_read_from_the_history(
    server: RunningServer, calls: ServerCalls, engine: RunningEngine
) -> None:
    """Killed while jobs run that end before the next start: how they ended, and what they made,
    is read from ComfyUI's history, and they are not run again."""
    fine, broken = Counted(seconds=0.4), Counted()
    failing = {"message": "no more paint", "value": ["tally", 0]}
    bad = {**broken.graph, "bad": {"class_type": "TestFail", "inputs": failing}}
    jobs = [calls.submit(graph)["id"] for graph in (fine.graph, bad)]
    calls.until_running(jobs[0])
    wait_until(lambda: waits_in(engine, jobs[1]))

    server.kill()
    wait_until(lambda: all(is_remembered(engine, job_id) for job_id in jobs))
    server.start()

    assert [calls.until_over(job_id)["status"] for job_id in jobs] == ["succeeded", "failed"]
    [output] = check_honest(calls, jobs[0])["outputs"]
    content = calls.ask("GET", output["url"].removeprefix(server.url)).body
    assert content == fine.name.encode()
    assert check_honest(calls, jobs[1])["error"]["node_id"] == "bad"
    assert [fine.runs(engine), broken.runs(engine)] == [1, 1]


def test_a_paid_graph_is_picked_up_and_paid_once(
    server: RunningServer, calls: ServerCalls, engine: RunningEngine
) -> None:
    """Killed while a graph with a paid node runs, the server finds it again and pays no more."""
    paid = Counted(seconds=1.0, paid=True)
    job_id = calls.submit(paid.graph)["id"]
    calls.until_running(job_id)

    server.kill()
    server.start()

    assert calls.until_over(job_id)["status"] == "succeeded"
    assert check_honest(calls, job_id)["attempts"] == 1
    assert paid.runs(engine) == 1


def test_a_wish_to_cancel_outlives_the_server(
    server: RunningServer, calls: ServerCalls, engine: RunningEngine
) -> None:
    """A job that was to be canceled when the server was killed is canceled by the next one."""
    slow = Counted(seconds=3.0, interruptible=False)
    job_id = calls.submit(slow.graph)["id"]
    calls.until_running(job_id)
    assert calls.cancel(job_id)["status"] == "canceling"

    server.kill()
    server.start()

    assert calls.until_over(job_id)["status"] == "canceled"
    check_honest(calls, job_id)
    assert slow.runs(engine) == 1


def test_everything_dies_and_comes_back(start_engine: Engines, start_server: Servers) -> None:
    """After a power cut, which forgets all that ComfyUI knew, the running job runs again and
    counts two attempts; the one that waited with us counts one."""
    comfyui = start_engine()
    server = start_server(comfyui.url)
    calls = ServerCalls(server.url)
    graphs = [Counted(seconds=0.8), Counted(), Counted()]
    jobs = [calls.submit(each.graph)["id"] for each in graphs]
    calls.until_running(jobs[0])

    server.kill()
    comfyui.kill()
    start_engine(port=int(comfyui.url.rpartition(":")[2]))
    server.start()

    assert [calls.until_over(job_id)["status"] for job_id in jobs] == ["succeeded"] * 3
    assert check_honest(calls, jobs[0])["attempts"] == 2
    assert check_honest(calls, jobs[2])["attempts"] == 1
    assert [each.runs(comfyui) for each in graphs] == [2, 1, 1]


@pytest.mark.parametrize("seed", [4])
def test_killed_again_and_again(
    server: RunningServer, calls: ServerCalls, engine: RunningEngine, seed: int
) -> None:
    """Killed four times at moments that chance chooses, with twenty jobs on their way: each ends
    once, ran once, and tells its events without a gap."""
    chance = random.Random(seed)
    graphs: dict[str, Counted] = {}
    for _ in range(LIVES):
        for _ in range(JOBS_A_LIFE):
            graph = Counted(seconds=chance.uniform(0.0, 0.3))
            graphs[calls.submit(graph.graph)["id"]] = graph
        time.sleep(chance.uniform(0.0, 0.5))  # the moment itself is what is tried
        server.kill()
        server.start()

    ended = [calls.until_over(job_id) for job_id in graphs]

    assert [job["status"] for job in ended] == ["succeeded"] * len(graphs)
    for job_id, graph in graphs.items():
        assert check_honest(calls, job_id)["outputs"]
        assert graph.runs(engine) == 1
    check_listed(calls, ended)
