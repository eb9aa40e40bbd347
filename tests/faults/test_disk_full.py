"""A full disk refuses what needs it, clearly, and harms nothing else."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from comfyserve.store import Store
from tests.engines import RunningEngine
from tests.faults.conftest import Servers
from tests.faults.graphs import Counted, heavy
from tests.faults.honesty import check_honest, check_listed
from tests.faults.small_disk import FileSizeLimit, SmallDisk, small_disk
from tests.server_calls import Answer, ServerCalls
from tests.servers import RunningServer

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux lets a user make a disk small"
)

DISK_MEGABYTES = 12


@pytest.fixture(params=["a small disk"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> SmallDisk:
    """A real small disk where the system allows one, else a limit on files; or that at once."""
    if request.param == "a limit on files":
        return FileSizeLimit(DISK_MEGABYTES)
    return small_disk(tmp_path / "server", DISK_MEGABYTES)


@pytest.fixture
def server(start_server: Servers, disk: SmallDisk) -> RunningServer:
    """A server on that disk, which does not wait long for a database."""
    return start_server(prefix=disk.prefix, busy_timeout=0.5)


def test_what_needs_the_disk_is_refused(
    server: RunningServer, calls: ServerCalls, disk: SmallDisk, engine: RunningEngine
) -> None:
    """On a full disk a job is refused for now, and an upload for want of room; what is there can
    be read, and nothing half-written remains; on a free disk both are taken."""
    before = calls.until_over(calls.submit(Counted().graph)["id"])
    refused = Counted()
    disk.fill(server)

    check_refused(calls.ask("POST", "/api/v2/jobs", {"workflow": refused.graph}))
    upload = calls.upload(bytes(2**20), "big.bin")
    assert (upload.status, upload.code) == (507, "store_unavailable")
    assert calls.job(before["id"]) == before
    assert calls.ask("GET", "/healthz").status == 200
    disk.free(server)

    assert [job["id"] for job in calls.jobs()] == [before["id"]]
    taken = calls.until_over(calls.submit(Counted().graph)["id"])
    assert taken["status"] == "succeeded"
    assert calls.upload(bytes(2**20), "big.bin").status == 201
    assert refused.runs(engine) == 0
    check_listed(calls, [before, taken])


@pytest.mark.parametrize("disk", ["a small disk", "a limit on files"], indirect=True)
def test_an_output_that_does_not_fit(start_server: Servers, disk: SmallDisk) -> None:
    """An output larger than the disk fails its job, which says why; its bytes are gone, so that
    the next job has room, and after a new start all is the same."""
    server = start_server(prefix=disk.prefix)
    disk.keep_small(server)
    calls = ServerCalls(server.url)

    job = calls.until_over(calls.submit(heavy(megabytes=3 * DISK_MEGABYTES))["id"])
    assert job["status"] == "failed"
    message = job["error"]["message"].lower()
    assert ("too large" if isinstance(disk, FileSizeLimit) else "space") in message
    check_honest(calls, job["id"])

    fits = calls.until_over(calls.submit(heavy(megabytes=DISK_MEGABYTES // 3))["id"])
    assert fits["status"] == "succeeded"
    check_listed(calls, [job, fits])


@pytest.mark.parametrize("disk", ["a small disk", "a limit on files"], indirect=True)
async def test_a_job_that_ends_while_the_disk_is_full(
    server: RunningServer, calls: ServerCalls, disk: SmallDisk, engine: RunningEngine
) -> None:
    """A job that ends while nothing can be written is over once something can: honestly, with
    its outputs or with the reason, and it is not run again. The database is whole."""
    graph = Counted(seconds=0.5)
    job_id = calls.submit(graph.graph)["id"]
    calls.until_running(job_id)

    disk.fill(server)
    check_refused(calls.ask("POST", "/api/v2/jobs", {"workflow": Counted().graph}))
    calls.until(job_id, lambda job: graph.runs(engine) == 1)
    disk.free(server)

    job = calls.until_over(job_id)
    assert job["status"] in ("succeeded", "failed")
    assert bool(job["outputs"]) == (job["status"] == "succeeded")
    check_honest(calls, job_id)
    assert calls.until_over(calls.submit(Counted().graph)["id"])["status"] == "succeeded"
    assert graph.runs(engine) == 1
    assert server.stop() == 0
    if isinstance(disk, FileSizeLimit):  # the other one is gone with its server
        async with Store.open(server.folder) as store:
            assert (await store.jobs.get(job_id)).status == job["status"]


def check_refused(answer: Answer) -> None:
    """It says in our form that the data could not be written, and when to try again."""
    assert answer.status == 503, answer
    assert answer.code == "store_unavailable"
    assert int(answer.headers["retry-after"]) > 0
    assert set(answer.json()["error"]) == {"code", "message", "details"}
