"""The example clients of the WebSocket API, as a reader would start them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.client.graphs import emitting, failing, ticking
from tests.engines import RunningEngine, engine_environment, running_engine
from tests.server_calls import ServerCalls, wait_until
from tests.servers import RunningServer, running_server

EXAMPLES = Path(__file__).parents[2] / "examples" / "websocket"
SECONDS = 60.0


@pytest.fixture(scope="module")
def engine() -> Iterator[RunningEngine]:
    """A ComfyUI with nodes made for tests."""
    with running_engine(test_nodes=True) as running:
        yield running


@pytest.fixture
def server(engine: RunningEngine, tmp_path: Path) -> Iterator[RunningServer]:
    """A server that offers some workflows."""
    folder = tmp_path / "workflows"
    folder.mkdir()
    offered = {
        "emitting": {**emitting(), **ticking(steps=5, delay_ms=50, previews=True)},
        "failing": failing("no more paint"),
        "long": {**emitting(), **ticking(steps=60, delay_ms=50)},
    }
    for name, graph in offered.items():
        (folder / f"{name}.json").write_text(json.dumps(graph), encoding="utf-8")
    data = tmp_path / "data"
    with running_server(data, backends=[engine.url], workflows=folder, grace=0.1) as running:
        yield running
        print(running.stderr)


def _python() -> Sequence[str]:
    return [sys.executable, "-W", "error", str(EXAMPLES / "client.py")]


def _node() -> Sequence[str]:
    """Node with a WebSocket: its own, behind an option where it is older, or of a package."""
    node = shutil.which("node") or shutil.which("nodejs")
    if node is None:
        pytest.skip("Node is not installed")
    package = ["--require", str(Path(__file__).with_name("older_node.cjs"))]
    for options in ([], ["--experimental-websocket"], package):
        asked = [node, *options, "-p", "typeof WebSocket"]
        found = subprocess.run(asked, capture_output=True, text=True, timeout=SECONDS)
        if found.stdout.strip() == "function":
            return [node, *options, str(EXAMPLES / "client.mjs")]
    pytest.skip("This Node has no WebSocket")


@pytest.fixture(params=["python", "node"])
def client(request: pytest.FixtureRequest) -> Sequence[str]:
    """How the example is started."""
    return _python() if request.param == "python" else _node()


def test_the_example_runs_a_workflow(
    client: Sequence[str], server: RunningServer, tmp_path: Path
) -> None:
    """It tells progress and previews, and saves what the job made."""
    ended = _run(client, server.url, "emitting", folder=tmp_path)

    assert ended.returncode == 0, ended.stderr
    assert "preview of" in ended.stdout
    assert (tmp_path / "fox.bin").read_text(encoding="utf-8").startswith("fox fox")


def test_the_example_shows_a_key(
    client: Sequence[str], server: RunningServer, tmp_path: Path
) -> None:
    """Where the server asks for a key it is taken from the environment; without it nothing runs,
    and the server's own words say why."""
    made = subprocess.run(
        [sys.executable, "-m", "comfyserve", "keys", "create", "ann", f"--data={server.folder}"],
        env=engine_environment(),
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert made.returncode == 0, made.stderr
    [secret] = [word for word in made.stdout.split() if word.startswith("cs_")]

    ended = _run(client, server.url, "emitting", folder=tmp_path, COMFYSERVE_TOKEN=secret)
    refused = _run(client, server.url, "emitting", folder=tmp_path, COMFYSERVE_TOKEN="cs_no")

    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "fox.bin").exists()
    assert refused.returncode != 0
    assert "key" in refused.stderr


def test_the_example_says_what_is_wrong(
    client: Sequence[str], server: RunningServer, tmp_path: Path
) -> None:
    """A name that nobody knows, and a job that fails, end it with the server's words."""
    unknown = _run(client, server.url, "emiting", folder=tmp_path)
    failed = _run(client, server.url, "failing", folder=tmp_path)

    assert unknown.returncode != 0
    assert "emitting" in unknown.stderr
    assert failed.returncode != 0
    assert "failed" in failed.stderr


def test_the_example_outlives_the_server(
    client: Sequence[str], server: RunningServer, tmp_path: Path
) -> None:
    """A server that is killed and comes back is asked again, and the job ends once."""
    calls = ServerCalls(server.url)
    with subprocess.Popen(
        [*client, server.url, "long"],
        cwd=tmp_path,
        env=_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            wait_until(lambda: any(job["progress"] for job in calls.jobs()))
            server.kill()
            server.start()
            said, wrong = process.communicate(timeout=SECONDS)
        finally:
            process.kill()

    assert process.returncode == 0, wrong
    assert (tmp_path / "fox.bin").exists(), said
    assert len(calls.jobs()) == 1


def _run(
    client: Sequence[str], *arguments: str, folder: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*client, *arguments],
        cwd=folder,
        env=_environment(**environment),
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )


def _environment(**others: str) -> dict[str, str]:
    return {**os.environ, "PYTHONIOENCODING": "utf-8", "NODE_NO_WARNINGS": "1", **others}
