"""The client for blocking code, against the built-in engine and a comfyserve in front of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import comfyserve
from comfyserve import Client, Event, JobCanceled, JobStatus, NodeFailed, OutputSaved, StatusChanged
from comfyserve.client.loop_thread import LoopThread
from tests.client.conftest import Place
from tests.client.graphs import emitting, failing, ticking
from tests.engines import engine_environment


@pytest.fixture
def blocking(place: Place) -> Iterator[Client]:
    """A blocking client of either server."""
    with Client(place.url) as client:
        yield client


def test_runs_a_graph(blocking: Client, tmp_path: Path) -> None:
    """The README's example: run, then copy the first output."""
    job = blocking.run(emitting())

    assert job.outputs[0].to_file(tmp_path / "copy.bin").read_bytes() == b"fox " * 100


def test_events_can_be_looped_over(blocking: Client) -> None:
    """Events come as typed values in a plain loop, to the last one."""
    handle = blocking.submit(emitting())

    events = list(handle.events())

    assert any(isinstance(event, OutputSaved) for event in events)
    assert isinstance(events[-1], StatusChanged)
    assert handle.status == JobStatus.SUCCEEDED
    assert handle.progress.value == 1.0
    assert handle.outputs == handle.result().outputs
    assert (handle.outputs_reused, handle.seeds) == (False, {})
    assert handle.timings.running > 0
    assert list(handle.events(after=2)) == [event for event in events if number(event) > 2]


def number(event: Event) -> int:
    match event:
        case StatusChanged(seq=int(seq)) | OutputSaved(seq=int(seq)):
            return seq
        case _:
            return 0


def test_a_failure_is_raised(blocking: Client) -> None:
    """A failed job raises the typed error in the caller's thread."""
    with pytest.raises(NodeFailed, match="no more paint"):
        blocking.run(failing())


def test_a_job_can_be_canceled(blocking: Client) -> None:
    """A handle cancels its job."""
    handle = blocking.submit(ticking(600, 50))

    handle.cancel()

    with pytest.raises(JobCanceled):
        handle.result(10)


def test_several_threads_share_a_client(blocking: Client) -> None:
    """One client serves many threads at once."""
    contents: dict[int, bytes] = {}

    def run(number: int) -> None:
        graph = emitting(f"{number}", 5, name=f"{number}.bin")
        contents[number] = blocking.run(graph).outputs[0].to_bytes()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert contents == {number: f"{number}".encode() * 5 for number in range(6)}


def test_a_closed_client_says_so(place: Place) -> None:
    """A closed client cannot be used, may be closed again, and leaves no thread."""
    client = Client(place.url)
    client.close()
    client.close()

    with pytest.raises(RuntimeError, match="closed"):
        client.run(emitting())
    assert not any(thread.name == "comfyserve client" for thread in threading.enumerate())


def test_what_fails_to_open_is_raised_at_once() -> None:
    """A resource that cannot be opened raises in the thread that asked for it."""

    class Broken:
        async def __aenter__(self) -> None:
            raise ValueError("broken")

        async def __aexit__(self, *error: object) -> None:
            return None

    with pytest.raises(ValueError, match="broken"):
        LoopThread(Broken(), "broken")


WAITING = """
import sys
from comfyserve import Client
from tests.client.conftest import Place
from tests.client.graphs import ticking
with Client(sys.argv[1]) as client:
    handle = client.submit(ticking(600, 50))
    for event in handle.events():
        if handle.progress.step:
            break
    print(handle.id, flush=True)
    try:
        handle.result()
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C cannot be sent to one process on Windows")
def test_ctrl_c_cancels_exactly_the_job_that_is_waited_for(place: Place) -> None:
    """Ctrl-C while a blocking client waits cancels that job on the server, and no other."""
    root = Path(comfyserve.__file__).parents[2]
    with (
        Client(place.url) as other,
        subprocess.Popen(
            [sys.executable, "-c", WAITING, place.url],
            stdout=subprocess.PIPE,
            text=True,
            cwd=root,
            env=engine_environment(),
        ) as process,
    ):
        assert process.stdout is not None
        process.stdout.readline()
        behind = other.submit(emitting())

        process.send_signal(signal.SIGINT)

        assert process.stdout.read().strip() == "interrupted"
        assert process.wait(10) == 0
        started = time.monotonic()
        assert behind.result(10).outputs
        assert time.monotonic() - started < 5


def test_the_package_imports_nothing_it_does_not_need() -> None:
    """`import comfyserve` is quick, and its names are there once they are asked for."""
    code = (
        "import sys, comfyserve; assert 'aiohttp' not in sys.modules; "
        "[getattr(comfyserve, name) for name in comfyserve.__all__]; "
        "assert 'aiohttp' in sys.modules; assert 'Client' in dir(comfyserve)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=engine_environment(), timeout=30)
    with pytest.raises(AttributeError, match="no attribute 'Cleint'"):
        comfyserve.Cleint  # noqa: B018
