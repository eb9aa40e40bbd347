"""The other commands: help, version, engine and demo."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

import comfyserve as package
from tests.acceptance.conftest import Command


def test_help_is_quick_and_names_the_commands(comfyserve: Command) -> None:
    """`--help` names every command and imports neither the HTTP client nor rich."""
    ended = comfyserve("--help")

    assert ended.code == 0
    for command in ("run", "engine", "demo"):
        assert f"  {command} " in ended.out
    heavy = (
        "import sys; from comfyserve.cli import app; print({'aiohttp', 'rich'} & {*sys.modules})"
    )
    assert python(comfyserve, heavy) == "set()"


def python(comfyserve: Command, code: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
        env=comfyserve.environment,
    )
    return ran.stdout.strip()


def test_says_its_version(comfyserve: Command) -> None:
    """`--version` says which one it is."""
    assert comfyserve("--version").out == f"comfyserve {package.__version__}\n"


def test_an_unknown_command_is_a_mistake(comfyserve: Command) -> None:
    """A command that is not there gives exit code 2."""
    ended = comfyserve("rum")

    assert ended.code == 2
    assert "rum" in ended.err


def test_the_engine_says_where_it_listens(comfyserve: Command) -> None:
    """`comfyserve engine` prints its address once it answers, and ends when it is told to."""
    with comfyserve.start("engine", "--port", 0, "--test-nodes") as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        with urllib.request.urlopen(f"{url}/object_info/TestEmit", timeout=10) as answer:
            assert b"TestEmit" in answer.read()
        process.terminate()
        process.communicate(timeout=20)


def test_an_engine_whose_port_is_taken(comfyserve: Command) -> None:
    """A port that is taken is one sentence, not a traceback."""
    port = comfyserve.environment["COMFYSERVE_SERVER"].rpartition(":")[2]

    ended = comfyserve("engine", "--port", port)

    assert ended.code == 1
    assert port in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("command", [("-m", "comfyserve", "engine"), ("-m", "comfyserve.engine")])
def test_an_engine_on_a_port_that_is_none(comfyserve: Command, command: tuple[str, ...]) -> None:
    """A port beyond all ports is a mistake of the person, told with the range."""
    ended = subprocess.run(
        [sys.executable, *command, "--port", "99999"],
        capture_output=True,
        text=True,
        timeout=30,
        env=comfyserve.environment,
    )

    assert ended.returncode == 2
    assert "99999 is not in the range" in ended.stderr
    assert "65535" in ended.stderr


def test_an_engine_on_an_address_that_is_none(comfyserve: Command) -> None:
    """An address that is not this machine's is no other program's fault."""
    ended = comfyserve("engine", "--host", "300.1.1.1", "--port", "0")

    assert ended.code == 1
    assert "cannot listen on 300.1.1.1 port 0" in ended.err
    assert "an address of this machine" in ended.err
    assert "other program" not in ended.err


def test_a_demo_that_is_killed_leaves_no_engine_behind(comfyserve: Command) -> None:
    """The engine ends with the demo, even one that could not clean up."""
    with comfyserve.start("demo") as process:
        assert process.stderr is not None
        said = ""
        while "http://" not in said:
            said = process.stderr.readline()

        process.kill()
        process.wait(10)

    deadline = time.monotonic() + 10
    while answers(address_in(said)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_demo_makes_two_pictures(comfyserve: Command) -> None:
    """The demo saves two pictures, says where, and leaves no engine behind."""
    ended = comfyserve("demo", "-o", "my pictures")

    assert ended.code == 0, ended.err
    assert len(ended.paths) == 2
    for path in ended.paths:
        assert (comfyserve.folder / path).read_bytes().startswith(b"\x89PNG")
    assert str(comfyserve.folder / "my pictures") in ended.err
    with pytest.raises(OSError):
        urllib.request.urlopen(address_in(ended.err), timeout=5)


@pytest.mark.skipif(os.name == "nt", reason="a signal cannot be sent to one process on Windows")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_demo_leaves_no_engine_behind(
    comfyserve: Command, number: signal.Signals, code: int
) -> None:
    """However the demo is stopped, its engine is stopped too."""
    with comfyserve.start("demo") as process:
        assert process.stderr is not None
        said = ""
        while "http://" not in said:
            said = process.stderr.readline()

        process.send_signal(number)

        _, err = process.communicate(timeout=20)
    assert process.returncode == code
    assert "Traceback" not in err
    deadline = time.monotonic() + 10
    while answers(address_in(said)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def address_in(words: str) -> str:
    return next(word.rstrip(".:") for word in words.split() if word.startswith("http://"))


def answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=1).close()
    except OSError:
        return False
    return True


def test_a_demo_without_the_engines_parts_says_what_to_install(
    comfyserve: Command, tmp_path: Path
) -> None:
    """Without the extra the demo ends with a sentence that names it."""
    missing = "import sys; sys.modules.update(dict.fromkeys(('numpy', 'onnxruntime', 'PIL')))"
    (tmp_path / "sitecustomize.py").write_text(missing, encoding="utf-8")
    paths = os.pathsep.join([str(tmp_path), comfyserve.environment["PYTHONPATH"]])

    ended = comfyserve("demo", PYTHONPATH=paths)

    assert ended.code == 1
    assert "could not be started: it needs numpy" in ended.err
    assert "comfyserve[engine]" in ended.err
    assert "Traceback" not in ended.err
