"""`comfyserve jobs`, `cancel`, `run` and `doctor` with a comfyserve as the server."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from comfyserve import Client
from comfyserve.cli.job_table import detail_lines, job_lines
from comfyserve.errors import JobInterrupted
from tests.acceptance.conftest import Command
from tests.client.graphs import emitting, failing, ticking
from tests.engines import RunningEngine, running_engine
from tests.servers import RunningServer, running_server

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
JOB = "7f3d2c1b-9a8e-4d6f-b012-3c4d5e6f7a8b"
RUNNING: dict[str, Any] = {
    "id": JOB,
    "status": "running",
    "created_at": "2026-03-01T11:57:00.000Z",
    "started_at": "2026-03-01T11:58:30.000Z",
    "completed_at": None,
    "expires_at": "2026-03-08T11:57:00.000Z",
    "queue_position": None,
    "progress": {
        "value": 0.42,
        "nodes_done": 3,
        "nodes_total": 7,
        "current_node": "3",
        "current_node_class": "KSampler",
    },
    "outputs": [],
    "error": None,
    "metadata": {"customer": "7"},
    "seeds": {"3.seed": 5},
    "attempts": 2,
}
FAILED = {
    **RUNNING,
    "status": "failed",
    "completed_at": "2026-03-01T11:59:35.000Z",
    "progress": None,
    "metadata": None,
    "error": {"code": "node_execution_error", "message": "no more paint", "node_id": "2"},
    "outputs": [
        {
            "name": "fox\x1b[31m.png",
            "node_id": "9",
            "content_type": "image/png",
            "size_bytes": 1848320,
            "url": "http://127.0.0.1:8189/api/v2/assets/a/content",
        }
    ],
}
WAITING = {
    **RUNNING,
    "status": "queued",
    "started_at": None,
    "queue_position": 3,
    "metadata": "a note",
}


def test_jobs_as_a_table() -> None:
    """A line for each job tells how it stands, since when, how long it took and what was noted."""
    lines = list(job_lines([RUNNING, FAILED, WAITING], NOW))

    assert [line.split()[0] for line in lines] == ["JOB", JOB, JOB, JOB]
    cells = [[cell for cell in line.split("  ") if cell] for line in lines[1:]]
    assert [[cell.strip() for cell in row[1:]] for row in cells] == [
        ["running 42 %", "3 min", "1:30", "0", "customer=7"],
        ["failed", "3 min", "1:05", "1"],
        ["queued, place 3", "3 min", "-", "0", "a note"],
    ]


def test_a_job_in_detail() -> None:
    """All about a job, a line each, with nothing in it that could steer a terminal."""
    text = "\n".join(detail_lines(FAILED, NOW))

    assert "\x1b" not in text
    for said in (
        f"job       {JOB}",
        "status    failed",
        "took      1:05",
        "error     node 2: no more paint (node_execution_error)",
        "seeds     3.seed=5",
        "attempts  2",
        "(node 9, image/png, 1,848,320 bytes)",
        "http://127.0.0.1:8189/api/v2/assets/a/content",
    ):
        assert said in text
    assert "progress  42 %, 3 of 7 nodes, KSampler" in "\n".join(detail_lines(RUNNING, NOW))


@pytest.fixture(scope="module")
def engine() -> Iterator[RunningEngine]:
    """An engine with test nodes."""
    with running_engine(test_nodes=True) as running:
        yield running


@pytest.fixture(scope="module")
def server(
    engine: RunningEngine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    """A comfyserve in front of that engine."""
    folder = tmp_path_factory.mktemp("server") / "data"
    with running_server(folder, backends=[engine.url]) as running:
        yield running


@pytest.fixture
def comfyserve(server: RunningServer, tmp_path: Path) -> Command:
    """The command, with the comfyserve as its server."""
    return Command(tmp_path, server.url)


def test_run_through_a_server(comfyserve: Command, server: RunningServer) -> None:
    """`run --server` saves what a job made on a comfyserve, and says as much as on a ComfyUI."""
    file = comfyserve.workflow({**ticking(200, 1), **emitting()})

    ended = comfyserve("run", file, "--server", server.url, COMFYSERVE_SERVER="http://127.0.0.1:9")

    assert ended.code == 0, ended.err
    assert [path.name for path in ended.paths] == ["fox.bin"]
    assert (comfyserve.folder / ended.paths[0]).read_bytes() == b"fox " * 100
    assert "TestProgress, step" in ended.err
    assert "done in" in ended.err


def test_a_failure_on_a_server(comfyserve: Command) -> None:
    """A node that fails on a comfyserve is told like one that fails on a ComfyUI."""
    ended = comfyserve("run", comfyserve.workflow(failing("no more paint")))

    assert ended.code == 1
    assert ended.err.splitlines()[-1] == "Node 2 (TestFail) failed: RuntimeError: no more paint."
    assert [path.name for path in ended.paths] == ["fox.bin"]


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C cannot be sent to one process on Windows")
def test_ctrl_c_cancels_the_job_on_the_server(comfyserve: Command) -> None:
    """Ctrl-C ends the command with 130, and the job on the comfyserve with it."""
    with comfyserve.start("run", comfyserve.workflow(ticking(600, 50))) as process:
        assert process.stderr is not None
        while "TestProgress, step" not in (line := process.stderr.readline()):
            assert line, "the command ended early"

        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)

    assert process.returncode == 130
    job_id = err.partition("canceling job ")[2].split()[0]
    assert "status    cancel" in comfyserve("jobs", job_id).out


def test_jobs_and_cancel(comfyserve: Command, server: RunningServer) -> None:
    """Jobs are listed with the newest first, shown by their id, and canceled by it."""
    with Client(server.url) as client:
        handle = client.submit(ticking(600, 50))
        deadline = time.monotonic() + 20
        while not handle.progress.step:
            assert time.monotonic() < deadline
            time.sleep(0.02)

        listed = comfyserve("jobs")
        shown = comfyserve("jobs", handle.id)
        as_json = comfyserve("jobs", "--json", "--limit", 1, "--status", "running")
        canceled = comfyserve("cancel", handle.id, "nope")

        assert handle.wait(10) == "canceled"
    assert (listed.code, shown.code, as_json.code) == (0, 0, 0), listed.err + shown.err
    assert listed.out.splitlines()[1].startswith(f"{handle.id}  running ")
    assert f"job       {handle.id}\nstatus    running" in shown.out
    assert [job["id"] for job in json.loads(as_json.out)["jobs"]] == [handle.id]
    assert canceled.code == 1
    assert canceled.out == f"{handle.id} canceling\n"
    assert "There is no job 'nope'" in canceled.err


def test_more_jobs_than_are_shown(comfyserve: Command, server: RunningServer) -> None:
    """A list that leaves jobs out says so, and how to see them."""
    with Client(server.url) as client:
        ids = [client.run(emitting()).id for _ in range(3)]

    ended = comfyserve("jobs", "--limit", 2, "--status", "succeeded")

    assert [line.split()[0] for line in ended.out.splitlines()] == ["JOB", ids[2], ids[1]]
    assert ended.err == "These are the newest 2; --limit shows more.\n"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("jobs", "nope"), 1, "There is no job 'nope'"),
        (("jobs", "--status", "runing"), 1, "Did you mean 'running'"),
        (("jobs", "--server", "http://127.0.0.1:9"), 3, "No comfyserve answers at"),
        (("cancel", "x", "--server", "http://127.0.0.1:9"), 3, "No comfyserve answers at"),
        (("cancel",), 2, "ID..."),
        (("jobs", "--label", "customer"), 2, "NAME=VALUE"),
    ],
)
def test_what_cannot_be_listed(
    comfyserve: Command, words: tuple[str, ...], code: int, said: str
) -> None:
    """What is not there, and who does not answer, is said in a sentence with an exit code."""
    ended = comfyserve(*words)

    assert (ended.code, said in ended.err) == (code, True), ended.err


def test_a_comfyui_keeps_no_jobs(comfyserve: Command, engine: RunningEngine) -> None:
    """A ComfyUI cannot list its jobs for anyone, and the sentence says what can."""
    ended = comfyserve("jobs", "--server", engine.url)

    assert ended.code == 3
    assert "is a ComfyUI, which keeps no list of jobs. Name a comfyserve" in ended.err


def test_a_job_of_a_comfyui_can_be_canceled(comfyserve: Command, engine: RunningEngine) -> None:
    """`cancel` reaches a job on a bare ComfyUI as well."""
    with Client(engine.url) as client:
        handle = client.submit(ticking(600, 50))
        deadline = time.monotonic() + 20
        while not handle.progress.step:
            assert time.monotonic() < deadline
            time.sleep(0.02)

        ended = comfyserve("cancel", handle.id, "--server", engine.url)

        with pytest.raises(JobInterrupted):  # for whoever waits there, it was someone else
            handle.result(10)
    assert (ended.code, ended.out) == (0, f"{handle.id} canceling\n")


def test_doctor_knows_a_comfyserve(comfyserve: Command, server: RunningServer) -> None:
    """`doctor` says that it is one, whether it could run jobs, and checks workflows with it."""
    file = comfyserve.workflow({"1": {"class_type": "NoSuchNode", "inputs": {}}})

    well = comfyserve("doctor", server.url)
    bad = comfyserve("doctor", server.url, file)

    assert well.code == 0, well.out + well.err
    assert f"{server.url} is a comfyserve" in well.out
    assert "It can run jobs right now: 1 of 1 ComfyUIs answer." in well.out
    assert "All is well." in well.out
    assert bad.code == 1
    assert "NoSuchNode" in bad.out


def test_inspect_asks_a_comfyserve(comfyserve: Command, server: RunningServer) -> None:
    """`inspect` takes limits and choices from the nodes behind a comfyserve."""
    ended = comfyserve("inspect", comfyserve.workflow(ticking()))

    assert ended.code == 0, ended.err
    assert f"Nodes as {server.url} has them." in ended.err
