"""What is secret shows up nowhere: not on disk, in logs, counts, answers, streams or errors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from comfyserve.access import Access
from comfyserve.store import Store
from tests.client.graphs import emitting, failing
from tests.engines import RunningEngine, running_engine
from tests.server_calls import OVER, Answer, ServerCalls, wait_until
from tests.servers import RunningServer, running_server

PARTNER = "comfyui-partner-0123456789abcdef"
"""A partner's key, as nobody else has it."""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEngine]:
    """An engine with test nodes."""
    with running_engine(tmp_path_factory.mktemp("engine"), test_nodes=True) as running:
        yield running


async def test_no_secret_shows_up_anywhere(engine: RunningEngine, tmp_path: Path) -> None:
    """After jobs that came with a partner's key and were asked for with keys of ours, with good
    ones, bad ones and ones that were revoked, none of them stands in anything that lasts or is
    told; the log tells all that it can."""
    data = tmp_path / "data"
    keys = await _keys(data)
    with running_server(data, backends=[engine.url], log_level="debug") as server:
        told = _said_about_jobs(server, keys)
        told += [ServerCalls(engine.url).ask("GET", path) for path in ("/history", "/queue")]
        everything = {
            "answers": b"".join(_all_of(answer) for answer in told),
            "log": (server.stdout + server.stderr).encode(),
            **_files(data),
            **_files(engine.folder),
        }
        server.stop()
        everything |= {"log at the end": (server.stdout + server.stderr).encode(), **_files(data)}

    assert b"/api/v2/jobs" in everything["log"]  # it really tells every request
    assert any(b'"succeeded"' in _all_of(answer) for answer in told)
    secrets = [PARTNER, *keys.values()]
    found = [
        (place, secret)
        for place, content in everything.items()
        for secret in secrets
        if secret.encode() in content
    ]
    assert found == []


async def _keys(data: Path) -> dict[str, str]:
    """Secrets of three keys, of which the last was revoked."""
    async with Store.open(data) as store:
        access = await Access.open(store)
        keys = {
            name: (await access.create(name, may_graphs=True, is_admin=True)).secret
            for name in ("one", "two", "revoked")
        }
        await access.revoke("revoked")
    return keys


def _said_about_jobs(server: RunningServer, keys: dict[str, str]) -> list[Answer]:
    """All that is answered about jobs with a partner's key, of which one succeeds and one fails,
    and to requests that are refused."""
    calls = ServerCalls(server.url)

    def ask(method: str, path: str, body: Any = None, key: str = keys["one"]) -> Answer:
        headers = {"Authorization": f"Bearer {key}", "Idempotency-Key": "once"}
        told.append(calls.ask(method, path, body, headers))
        return told[-1]

    told: list[Answer] = []
    extra = {"api_key_comfy_org": PARTNER}
    for graph in (emitting(), failing(), {"1": {"class_type": "NoSuchNode", "inputs": {}}}):
        headers = {"X-API-Key": keys["one"]}
        body = {"workflow": graph, "extra_data": extra, "metadata": {"customer": "7"}}
        told.append(calls.ask("POST", "/api/v2/jobs", body, headers))
    ids = [answer.json()["id"] for answer in told if answer.status == 201]
    assert len(ids) == 2

    def are_over() -> bool:
        return all(ask("GET", f"/api/v2/jobs/{id}").json()["status"] in OVER for id in ids)

    wait_until(are_over)
    for id in ids:
        for path in ("", "/workflow", "/events"):
            ask("GET", f"/api/v2/jobs/{id}{path}")
        ask("GET", f"/api/jobs/{id}/events")
        for output in ask("GET", f"/api/v2/jobs/{id}").json()["outputs"]:
            told.append(calls.ask("GET", output["url"].removeprefix(server.url)))
    for path in ("/api/v2/jobs", "/metrics", "/api/object_info", "/openapi.json"):
        ask("GET", path)
    for key in (keys["revoked"], keys["one"][:-1], keys["two"] + "x"):
        assert ask("GET", "/api/v2/jobs", key=key).status == 401
    # What is wrong is told, and not what came with it.
    ask("POST", "/api/v2/jobs", {"workflow": {}, "extra_data": {**extra, "other": PARTNER}})
    ask("POST", "/api/v2/jobs", json.dumps({"extra_data": PARTNER}).encode())
    ask("POST", "/api/v2/jobs", f'{{"extra_data": {{"api_key_comfy_org": "{PARTNER}" }}'.encode())
    calls.ask("GET", f"/api/v2/jobs/{keys['one']}?key={keys['one']}")
    return told


def _all_of(answer: Answer) -> bytes:
    return json.dumps(dict(answer.headers)).encode() + answer.body


def _files(folder: Path) -> dict[str, bytes]:
    """Every file below the folder, and all names, too."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    names = "\n".join(path.as_posix() for path in folder.rglob("*")).encode()
    return {f"names in {folder}": names, **{str(path): path.read_bytes() for path in paths}}
