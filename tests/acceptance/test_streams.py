"""What becomes of a job when nobody reads what the command says."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from comfyserve import AsyncClient
from comfyserve.cli.report import PathReport, Show
from comfyserve.cli.run import run_job
from comfyserve.client.job_handle import AsyncJobHandle
from comfyserve.events import Event
from tests.acceptance.conftest import LONGEST, Command
from tests.acceptance.test_run import wait_until_empty
from tests.client.graphs import Graph, emitting, ticking
from tests.engines import RunningEngine

NAMES = ["a.bin", "b.bin", "c.bin"]


def three_files() -> Graph:
    return {name: emitting(name=name)["1"] for name in NAMES} | ticking(3, 10)


def saved(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "output").iterdir())


@pytest.mark.parametrize("leaver", ["stdout", "stderr"])
@pytest.mark.parametrize("option", ["--temp", "--json", "--quiet"])
def test_a_reader_that_leaves_does_not_stop_the_job(
    comfyserve: Command, leaver: str, option: str
) -> None:
    """Everything is saved, with exit code 0, whether or not anybody reads the paths."""
    with comfyserve.start("run", comfyserve.workflow(three_files()), option) as process:
        stream = process.stdout if leaver == "stdout" else process.stderr
        assert stream is not None
        stream.close()

        code = process.wait(LONGEST)

        other = process.stderr if leaver == "stdout" else process.stdout
        assert other is not None
        said = other.read()
    assert code == 0
    assert "Traceback" not in said
    assert "Exception ignored" not in said
    assert saved(comfyserve.folder) == NAMES


@pytest.mark.skipif(os.name == "nt", reason="a stream cannot be closed from the start on Windows")
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_stream_closed_from_the_start(comfyserve: Command, closed: str) -> None:
    """A command works without stdout or stderr."""
    ended = in_shell(comfyserve, closed)

    assert ended.returncode == 0
    assert "Traceback" not in ended.stderr
    assert saved(comfyserve.folder) == NAMES


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_a_full_disk_under_stdout_is_told_at_the_end(comfyserve: Command) -> None:
    """Paths that could not be written down are said in a sentence; the files are saved."""
    ended = in_shell(comfyserve, ">/dev/full")

    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("Not all could be written to stdout: No space")
    assert "Traceback" not in ended.stderr
    assert saved(comfyserve.folder) == NAMES


def in_shell(comfyserve: Command, redirection: str) -> subprocess.CompletedProcess[str]:
    """The three files' run, its streams led elsewhere."""
    workflow = comfyserve.workflow(three_files())
    shell = ["sh", "-c", f'exec "$@" {redirection}', "sh"]
    return subprocess.run(
        [*shell, sys.executable, "-m", "comfyserve", "run", str(workflow)],
        capture_output=True,
        encoding="utf-8",
        timeout=LONGEST,
        cwd=comfyserve.folder,
        env=comfyserve.environment,
    )


async def test_whatever_ends_the_watching_cancels_the_job(
    engine: RunningEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mistake while a job is shown takes the job off its server, and says so."""

    async with AsyncClient(engine.url) as client:
        with pytest.raises(ZeroDivisionError):
            await run_job(client, client.submit(ticking(600, 50)), BrokenReport())

    wait_until_empty(engine)
    assert "canceling job" in capsys.readouterr().err


class BrokenReport(PathReport):
    """Fails at the first event."""

    @contextmanager
    def watching(self, handle: AsyncJobHandle) -> Iterator[Show]:
        def show(event: Event) -> None:
            raise ZeroDivisionError

        yield show
