"""`comfyserve serve` as a real process: how it starts, what it says, how it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from comfyserve.cli.serve import Options, settings_from
from comfyserve.refusals import SettingsInvalid
from comfyserve.settings import BackendSettings
from tests.engines import engine_environment, running_engine
from tests.servers import RunningServer, running_server

EXAMPLES = Path(__file__).parents[2] / "examples"
NOBODY = "http://127.0.0.1:9"
SECONDS = 30.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    """A server whose backend does not answer."""
    with running_server(tmp_path / "a dätä folder", backends=[NOBODY]) as running:
        yield running


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command, for where it ends by itself."""
    return subprocess.run(
        [sys.executable, "-m", "comfyserve", "serve", *arguments],
        cwd=folder,
        env={**engine_environment(), **environment},
        capture_output=True,
        encoding="utf-8",
        timeout=SECONDS,
        stdin=subprocess.DEVNULL,
    )


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=SECONDS) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read().decode()


def test_it_says_where_it_listens_and_stops_when_asked(server: RunningServer) -> None:
    """One line on stdout, the rest on stderr, and a clean end is 0."""
    assert get(f"{server.url}/healthz")[0] == 200
    status, reasons = get(f"{server.url}/readyz")
    assert (status, "Backend 1 of 1" in reasons, NOBODY in reasons) == (503, True, False)

    code = server.stop()

    assert (code, server.stdout) == (0, f"comfyserve listening on {server.url}\n")
    for told in (server.url, f"{server.url}/docs", str(server.folder), NOBODY, "Stopping"):
        assert told in server.stderr


def test_a_folder_of_workflows_is_the_first_argument(tmp_path: Path) -> None:
    """Its files are served by their names; one that is not there is one sentence, and no server."""
    folder = tmp_path / "wörk flows"
    folder.mkdir()
    (folder / "hearts.json").write_bytes((EXAMPLES / "text_to_image.json").read_bytes())

    missing = run(tmp_path, "none", "--backend", NOBODY, "--port", "0")
    with running_server(tmp_path / "data", backends=[NOBODY], workflows=folder) as server:
        status, listed = get(f"{server.url}/api/workflows")
        server.stop()

    assert missing.returncode != 0
    assert (missing.stdout, "none, but it does not exist" in missing.stderr) == ("", True)
    assert (status, [one["name"] for one in json.loads(listed)["workflows"]]) == (200, ["hearts"])
    assert str(folder) in server.stderr


def test_a_second_signal_does_not_wait(tmp_path: Path) -> None:
    """Who asks twice is obeyed at once, although a job still runs."""
    with (
        running_engine(test_nodes=True) as engine,
        running_server(tmp_path, backends=[engine.url], grace=60, log_level="debug") as server,
    ):
        node = {"class_type": "TestSleep", "inputs": {"seconds": 30.0, "interruptible": True}}
        body = json.dumps({"workflow": {"1": node}}).encode()
        request = urllib.request.Request(
            f"{server.url}/api/v2/jobs", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=SECONDS) as response:
            assert response.status == 201
        wait_for(lambda: "runs" in server.stderr)
        server.terminate()
        wait_for(lambda: "Stopping" in server.stderr)
        assert server.process.poll() is None
        server.terminate()

        assert server.wait() == 128 + signal.SIGTERM


def wait_for(true: object) -> None:
    """Wait until the function gives something true."""
    assert callable(true)
    end = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to one process")
def test_ctrl_c_is_a_clean_stop(server: RunningServer) -> None:
    """Ctrl-C ends it like any other request to stop."""
    server.process.send_signal(signal.SIGINT)

    assert server.wait() == 0


def test_a_taken_port_is_one_sentence(tmp_path: Path) -> None:
    """Exit code 1, and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = run(tmp_path, "--backend", NOBODY, "--port", str(port))

    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.splitlines() == [
        f"127.0.0.1 port {port} cannot be listened on: address already in use. Name another."
    ]


def test_a_locked_data_folder_is_one_sentence(server: RunningServer, tmp_path: Path) -> None:
    """A second server on the same data is refused with exit code 1."""
    ended = run(tmp_path, "--backend", NOBODY, "--port", "0", "--data", str(server.folder))

    assert (ended.returncode, ended.stdout) == (1, "")
    assert len(ended.stderr.splitlines()) == 1
    assert "is in use by process" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "environment", "told"),
    [
        (["--host", "0.0.0.0"], {}, "--insecure"),
        (["--port", "99999"], {}, "port"),
        (["--backend", "gpu"], {}, "backends"),
        (["--grace", "soon"], {}, "grace"),
        (["--config", "no.toml"], {}, "There is no file no.toml."),
        ([], {"COMFYSERVE_RETENTOIN": "1d"}, "Did you mean 'retention'?"),
        (["--nonsense"], {}, "--nonsense"),
    ],
)
def test_a_wrong_setting_is_a_usage_error(
    tmp_path: Path, arguments: list[str], environment: dict[str, str], told: str
) -> None:
    """Exit code 2 and what is wrong, before anything is opened."""
    ended = run(tmp_path, *arguments, **environment)

    assert (ended.returncode, ended.stdout) == (2, "")
    assert told in ended.stderr
    assert "Traceback" not in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    """A light install has no web server; the sentence names the extra."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "uvicorn.py").write_text(
        "raise ModuleNotFoundError('no uvicorn', name='uvicorn')", encoding="utf-8"
    )
    path = os.pathsep.join([str(hidden), engine_environment()["PYTHONPATH"]])

    ended = run(tmp_path, "--backend", NOBODY, PYTHONPATH=path)

    assert (ended.returncode, len(ended.stderr.splitlines())) == (1, 1)
    assert "pip install 'comfyserve[server]'" in ended.stderr


def test_without_a_backend_it_takes_one_and_says_which(tmp_path: Path) -> None:
    """The ComfyUI at the usual address, or else the built-in engine, which ends with it."""
    with running_server(tmp_path, backends=[]) as server:
        wait_for(lambda: get(f"{server.url}/readyz")[0] == 200)
        wait_for(lambda: "http://127.0.0.1:" in server.stderr)
        found = "http://127.0.0.1:8188, found there" in server.stderr
        engine = "the built-in engine, http://127.0.0.1:" in server.stderr
        assert found != engine
        url = server.stderr.rpartition("engine, ")[2].split()[0] if engine else None

        assert server.stop() == 0

    if url is not None:
        with pytest.raises(OSError):
            get(url)


def test_settings_come_from_file_environment_and_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flags stand above the environment, that above the file; a named file has to be there."""
    file = tmp_path / "mine.toml"
    file.write_text('queue_size = 5\nport = 1\nlease = "5s"', encoding="utf-8")
    monkeypatch.setenv("COMFYSERVE_PORT", "2")
    monkeypatch.setenv("COMFYSERVE_LEASE", "6s")

    settings = settings_from(Options({"lease": 7, "backends": ["http://a"]}, file))

    assert (settings.queue_size, settings.port, settings.lease) == (5, 2, 7)
    assert settings.backends == (BackendSettings("http://a"),)
    with pytest.raises(SettingsInvalid):
        settings_from(Options({}, tmp_path / "none.toml"))
