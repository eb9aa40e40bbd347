"""`comfyserve backends` with a running comfyserve."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from comfyserve.cli.backends import backend_lines
from tests.acceptance.conftest import Command
from tests.engines import RunningEngine, running_engine
from tests.servers import running_server

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
NOWHERE = "http://127.0.0.1:9"
UP: dict[str, Any] = {
    "id": "0a1b2c3d",
    "url": "http://gpu1:8188",
    "state": "up",
    "answers": True,
    "reason": None,
    "since": "2026-03-01T09:00:00.000Z",
    "running": 1,
    "waiting": 2,
    "nodes": 812,
}
DOWN = {
    **UP,
    "id": "4e5f6a7b",
    "url": "http://gpu2:8188",
    "state": "down",
    "reason": "It does not answer\x1b[31m (refused).",
    "running": None,
    "waiting": None,
    "nodes": None,
}


def test_backends_as_a_table() -> None:
    """A line for each, and why one is down, with nothing that could steer a terminal."""
    lines = list(backend_lines([UP, DOWN], NOW))

    assert [line.split() for line in lines] == [
        ["BACKEND", "STATE", "SINCE", "RUNNING", "WAITING", "NODES", "ADDRESS"],
        ["0a1b2c3d", "up", "3", "h", "1", "2", "812", "http://gpu1:8188"],
        ["4e5f6a7b", "down", "3", "h", "-", "-", "-", "http://gpu2:8188"],
        ["It", "does", "not", "answer", "[31m", "(refused)."],
    ]
    assert "\x1b" not in "".join(lines)


@pytest.fixture(scope="module")
def engine() -> Iterator[RunningEngine]:
    with running_engine() as running:
        yield running


@pytest.fixture
def comfyserve(tmp_path: Path) -> Iterator[Command]:
    """The command, with a comfyserve as its server that has no backend that answers."""
    with running_server(tmp_path / "data", backends=[NOWHERE]) as running:
        yield Command(tmp_path, running.url)


def test_backends_are_added_drained_resumed_and_removed(
    comfyserve: Command, engine: RunningEngine
) -> None:
    """Named by id, by number or by address; each change is told on stdout."""
    added = comfyserve("backends", "add", engine.url)
    assert (added.code, added.err) == (0, "")
    backend, state, url = added.out.split()
    assert (state, url) == ("up", engine.url)

    listed = comfyserve("backends")
    assert [line.split()[:2] for line in listed.out.splitlines() if line[:1] != " "][2] == [
        backend,
        "up",
    ]

    drained = comfyserve("backends", "drain", 2)
    assert drained.out == f"{backend} draining {engine.url}\n"
    resumed = comfyserve("backends", "resume", f"{engine.url.removeprefix('http://')}/")
    assert resumed.out == f"{backend} up {engine.url}\n"
    removed = comfyserve("backends", "remove", backend, 1)
    assert removed.out.splitlines()[0] == f"{backend} removed {engine.url}"
    assert "stands in the settings" in removed.err

    empty = comfyserve("backends", "list")
    assert (empty.code, empty.out) == (0, "")
    assert empty.err == "No backends. 'comfyserve backends add URL' adds one.\n"


def test_what_goes_wrong_has_an_exit_code(comfyserve: Command, engine: RunningEngine) -> None:
    """1 refused, 2 usage, 3 nobody there; and a sentence on stderr that says what."""
    silent = comfyserve("backends", "add", "http://127.0.0.1:19")
    assert (silent.code, silent.out.split()[1]) == (0, "down")
    assert "It is used once it answers. It does not answer" in silent.err
    checked = comfyserve("backends", "add", "--check", "http://127.0.0.1:29")
    assert checked.code == 1 and "No ComfyUI answers there" in checked.err
    unknown = comfyserve("backends", "drain", "gpu7")
    assert unknown.code == 1 and "There is no backend 'gpu7'" in unknown.err
    twice = comfyserve("backends", "add", NOWHERE)
    assert twice.code == 1 and "there already" in twice.err
    assert comfyserve("backends", "drain").code == 2
    assert comfyserve("backends", "--server", NOWHERE, "list").code == 2
    assert comfyserve("backends", "list", "--server", NOWHERE).code == 3
    bare = comfyserve("backends", "list", "--server", engine.url)
    assert bare.code == 3 and "is a ComfyUI" in bare.err


def test_backends_as_json(comfyserve: Command, engine: RunningEngine) -> None:
    """The documents as the server has them; secrets of a backend go to the server alone."""
    added = comfyserve(
        "backends",
        "add",
        engine.url,
        "--json",
        "--backend-header",
        "X-Key: hush-hush",
        COMFYSERVE_BACKEND_TOKEN="hush-hush-2",
    )
    listed = comfyserve("backends", "list", "--json")

    assert json.loads(added.out)["kept"] is False
    assert [one["url"] for one in json.loads(listed.out)["backends"]] == [NOWHERE, engine.url]
    assert "hush" not in added.out + added.err + listed.out + listed.err
