"""A server that is asked to end."""

from __future__ import annotations

import http.client
import os
import threading
from pathlib import Path

import pytest

from tests.engines import RunningEngine
from tests.faults.comfyui import waits_in
from tests.faults.conftest import Servers
from tests.faults.graphs import Counted
from tests.faults.honesty import check_honest, check_listed
from tests.server_calls import ServerCalls, wait_until
from tests.servers import RunningServer

pytestmark = pytest.mark.skipif(os.name == "nt", reason="a Windows process cannot be asked to end")


def test_current_jobs_end_and_others_wait(start_server: Servers, engine: RunningEngine) -> None:
    """Asked to end, a server lets the job end that runs, begins no other, and ends with 0; the
    next start knows the end of the first and runs the others, each once."""
    server = start_server(grace=20)
    calls = ServerCalls(server.url)
    graphs = [Counted(seconds=1.5), Counted(), Counted(), Counted()]
    jobs = [calls.submit(each.graph)["id"] for each in graphs]
    calls.until_running(jobs[0])

    assert server.stop() == 0
    began = [each.runs(engine) for each in graphs]
    server.start()

    assert calls.job(jobs[0])["status"] == "succeeded"
    assert began[0] == 1
    assert began[2:] == [0, 0]  # the second one may have been in ComfyUI already
    ended = [calls.until_over(job_id) for job_id in jobs]
    assert [job["status"] for job in ended] == ["succeeded"] * 4
    assert [check_honest(calls, job_id)["attempts"] for job_id in jobs] == [1] * 4
    assert [each.runs(engine) for each in graphs] == [1] * 4


def test_what_does_not_end_in_time_is_left_to_the_next(
    start_server: Servers, engine: RunningEngine
) -> None:
    """A job that does not end in the grace goes on in ComfyUI, and the server ends with 0 all the
    same. Both streams of the job end whole, without saying that it is over. The next server takes
    it up: it is not run twice, and a stream resumed tells the rest, no number missing or twice."""
    server = start_server(grace=0.3)
    calls = ServerCalls(server.url)
    graphs = [Counted(seconds=3.5), Counted()]
    jobs = [calls.submit(each.graph)["id"] for each in graphs]
    wait_until(lambda: waits_in(engine, jobs[1]))

    with calls.following(jobs[0], after=0) as ours, calls.following(jobs[0], v2=True) as official:
        heard = [next(ours)]
        while heard[-1].data.get("status") != "running":
            heard.append(next(ours))
        assert next(official).event == "status"
        server.terminate()
        heard += list(ours)
        assert not any(frame.is_last for frame in [*heard, *official])
    assert server.wait() == 0
    server.start()
    assert calls.job(jobs[0])["status"] == "running"

    last = max(frame.id for frame in heard if frame.id is not None)
    rest = calls.events(jobs[0], after=last)
    numbers = [frame.id for frame in [*heard, *rest] if frame.id is not None]
    assert numbers == list(range(1, len(numbers) + 1))
    ended = [calls.until_over(job_id) for job_id in jobs]
    assert [job["status"] for job in ended] == ["succeeded"] * 2
    assert [check_honest(calls, job_id)["attempts"] for job_id in jobs] == [1, 1]
    assert [each.runs(engine) for each in graphs] == [1, 1]
    check_listed(calls, ended)


def test_a_server_that_ends_takes_nothing_new(start_server: Servers) -> None:
    """From the moment it is asked to end, a submission is refused, by the server or because it
    listens no more; none is accepted and then forgotten."""
    server = start_server(grace=20)
    calls = ServerCalls(server.url)
    slow = calls.submit(Counted(seconds=1.5).graph)["id"]
    calls.until_running(slow)
    accepted: list[str] = []

    def submit_until_refused() -> None:
        for _ in range(1000):
            try:
                answer = calls.ask("POST", "/api/v2/jobs", {"workflow": Counted().graph})
            except (OSError, http.client.HTTPException):
                return
            if answer.status != 201:
                assert answer.status == 503
                return
            accepted.append(answer.json()["id"])

    submitting = threading.Thread(target=submit_until_refused)
    submitting.start()
    wait_until(lambda: len(accepted) > 2)
    assert server.stop() == 0
    submitting.join(20)
    server.start()

    jobs = [calls.until_over(job_id) for job_id in [slow, *accepted]]
    assert {job["status"] for job in jobs} == {"succeeded"}
    check_listed(calls, jobs)


def test_a_second_interrupt_ends_at_once(start_server: Servers) -> None:
    """Asked twice, a server does not wait for its grace; the job is taken up by the next one."""
    server = start_server(grace=60)
    calls = ServerCalls(server.url)
    job_id = calls.submit(Counted(seconds=4).graph)["id"]
    calls.until_running(job_id)

    server.terminate()
    wait_until(lambda: not listens(server))
    server.terminate()
    server.wait(seconds=3)
    server.start()

    assert calls.until_over(job_id)["status"] == "succeeded"
    assert check_honest(calls, job_id)["attempts"] == 1


def test_a_second_server_does_not_start(
    server: RunningServer, calls: ServerCalls, tmp_path: Path
) -> None:
    """A second server on the same data folder does not start and says which process has it, nor
    does one on the same port; the first does not notice. Killed, it leaves no lock behind."""
    same_folder = RunningServer(server.folder, backends=[])
    same_port = RunningServer(tmp_path / "other", backends=[], port=server.port)

    said = refusal(same_folder)
    assert str(server.process.pid) in said
    assert "in use" in said
    assert str(server.port) in refusal(same_port)

    assert calls.until_over(calls.submit(Counted().graph)["id"])["status"] == "succeeded"
    server.kill()
    server.start()
    assert calls.ask("GET", "/healthz").status == 200


def refusal(server: RunningServer) -> str:
    """What a server says that must not start: a sentence, and a code that is no success."""
    try:
        server.launch()
        assert server.wait() != 0
        assert server.stdout == ""
        assert "Traceback" not in server.stderr
        return server.stderr
    finally:
        server.end()


def listens(server: RunningServer) -> bool:
    """Whether it still takes requests as usual."""
    try:
        return ServerCalls(server.url).ask("GET", "/readyz").status == 200
    except (OSError, http.client.HTTPException):
        return False
