"""The built-in engine as a process: how it starts, says so, and ends."""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from comfyserve.engine.errors import MissingParts
from comfyserve.engine.registry import builtin_registry
from tests.engine_client import engine_client, node
from tests.engines import engine_environment, running_engine

PATIENCE = 30.0


def run_engine(*arguments: str, code: str = "") -> subprocess.CompletedProcess[str]:
    """Start an engine that is expected to end by itself."""
    start = ["-c", code] if code else ["-m", "comfyserve.engine"]
    return subprocess.run(
        [sys.executable, *start, *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=engine_environment(),
    )


def test_one_line_says_where_it_listens() -> None:
    """The ready line has an address that answers at once, and the engine ends with 0."""
    with running_engine() as engine:
        with urllib.request.urlopen(f"{engine.url}/system_stats", timeout=5) as answer:
            told = answer.read().decode()
        code = engine.stop()

    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", engine.url)
    assert "comfyserve built-in engine" in told
    assert code == (0 if sys.platform != "win32" else 1)


def test_test_nodes_are_offered_only_when_asked_for() -> None:
    """Without `--test-nodes` no node is offered that was made for tests."""
    assert not [name for name in builtin_registry(test_nodes=False) if name.startswith("Test")]
    assert "TestFail" in builtin_registry(test_nodes=True)


def test_a_port_in_use_is_said_plainly() -> None:
    """The sentence names the port and what to do; the exit code is 1."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = run_engine(f"--port={port}")

    assert ended.returncode == 1
    assert f"port {port}" in ended.stderr
    assert "choose another port" in ended.stderr
    assert ended.stdout == ""


async def test_it_ends_while_a_node_runs_on(tmp_path: Path) -> None:
    """A node that cannot be interrupted, and open sockets, do not keep the process alive."""
    with running_engine(tmp_path, test_nodes=True) as engine:
        async with engine_client(engine.url) as client:
            graph = {"1": node("TestSleep", seconds=600, interruptible=False)}
            prompt_id = await client.submit(graph)
            await client.hear(lambda: bool(client.messages("executing", prompt_id)))

            code = await asyncio.to_thread(engine.stop)

    assert code == (0 if sys.platform != "win32" else 1)


async def test_it_runs_without_a_warning(tmp_path: Path) -> None:
    """With every warning an error, the engine starts, runs a graph and ends."""
    with running_engine(tmp_path, test_nodes=True, python_flags=["-W", "error"]) as engine:
        async with engine_client(engine.url) as client:
            heard = await client.run({"1": node("TestText", text="hello")})
        code = engine.stop()

    assert len(heard) > 5
    assert code == (0 if sys.platform != "win32" else 1)


def test_a_folder_that_is_none_is_said_plainly(tmp_path: Path) -> None:
    """Where the folder cannot be made, the sentence names it; the exit code is 1."""
    (tmp_path / "file").write_text("in the way", encoding="utf-8")

    ended = run_engine("--port=0", f"--folder={tmp_path / 'file' / 'engine'}")

    assert ended.returncode == 1
    assert f"cannot keep its files in {tmp_path}" in ended.stderr


def test_missing_packages_are_named() -> None:
    """Without numpy the sentence says what to install; the exit code is 2."""
    without_numpy = (
        "import importlib.util, runpy, sys\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *a: None if name == 'numpy' else find(name, *a)\n"
        "runpy.run_module('comfyserve.engine', run_name='__main__')\n"
    )
    ended = run_engine("--port=0", code=without_numpy)

    assert ended.returncode == 2
    assert "numpy" in ended.stderr
    assert 'pip install "comfyserve[engine]"' in ended.stderr


def test_a_missing_part_is_the_error_that_callers_catch() -> None:
    """`MissingParts` lists every package that is missing."""
    error = MissingParts(["numpy", "pillow"])

    assert error.names == ("numpy", "pillow")
    assert str(error).startswith("The built-in engine needs numpy, pillow.")


def test_folders_may_have_any_name(tmp_path: Path) -> None:
    """Spaces and letters of any script in the folder's name are no trouble."""
    folder = tmp_path / "mes images été 猫"
    with running_engine(folder):
        pass

    assert sorted(path.name for path in folder.iterdir()) == ["input", "output", "temp"]


@pytest.mark.skipif(sys.platform == "win32", reason="a Windows process cannot be asked to end")
def test_a_temporary_folder_is_gone_afterwards(tmp_path: Path) -> None:
    """Without `--folder` nothing is left on disk."""
    environment = engine_environment() | {"TMPDIR": str(tmp_path)}
    command = [sys.executable, "-m", "comfyserve.engine", "--port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("comfyserve engine listening")
        during = list(tmp_path.iterdir())
        process.terminate()
        assert process.wait(PATIENCE) == 0

    assert len(during) == 1
    assert list(tmp_path.iterdir()) == []
