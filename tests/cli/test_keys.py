"""`comfyserve keys`, and what the other commands say to who has no key, or too little of one."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.conftest import Command
from tests.client.graphs import emitting
from tests.engines import RunningEngine, running_engine
from tests.server_calls import ServerCalls, wait_until
from tests.servers import running_server

SECRET = re.compile(r"cs_[a-z2-7]{40}\n")


@pytest.fixture(scope="module")
def engine() -> Iterator[RunningEngine]:
    """An engine with test nodes."""
    with running_engine(test_nodes=True) as running:
        yield running


@pytest.fixture
def comfyserve(tmp_path: Path) -> Command:
    """The command, in a folder of its own; nobody answers where it asks."""
    folder = tmp_path / "my folder ü"
    folder.mkdir()
    return Command(folder, "http://127.0.0.1:9")


def test_a_key_is_shown_once(comfyserve: Command) -> None:
    """The secret stands alone on stdout, and nowhere again; the folder is made for it."""
    made = comfyserve("keys", "create", "app", "--rate", "60/m", "--workflow", "portrait")
    listed, as_json = comfyserve("keys", "list"), comfyserve("keys", "list", "--json")

    assert made.code == 0, made.err
    assert SECRET.fullmatch(made.out)
    assert "may run portrait (at most 60/m requests)" in made.err
    assert "shown this once" in made.err
    heads, row = listed.out.splitlines()
    assert heads.split() == ["NAME", "MAY", "RATE", "JOBS", "PRIORITY", "MADE", "USED"]
    assert row.split()[:5] == ["app", "portrait", "60/m", "-", "0"]
    (key,) = json.loads(as_json.out)["keys"]
    assert key["name"] == "app"
    assert key["workflows"] == ["portrait"]
    assert key["rate"] == "60/m"
    assert key["last_used_at"] is None
    assert made.out.strip() not in listed.out + as_json.out + made.err
    assert (comfyserve.folder / ".comfyserve").is_dir()


def test_all_that_a_key_may(comfyserve: Command) -> None:
    """Each option is kept, and told again."""
    comfyserve(
        *("keys", "create", "all", "--graphs", "--publish", "--admin"),
        *("--workflow", "a", "--workflow", "b", "--concurrent", 4, "--priority-max", 9),
    )

    (key,) = json.loads(comfyserve("keys", "list", "--json").out)["keys"]

    told = {name: key[name] for name in ("graphs", "publish", "admin", "workflows")}
    assert told == {"graphs": True, "publish": True, "admin": True, "workflows": ["a", "b"]}
    assert (key["concurrent"], key["priority_max"], key["rate"]) == (4, 9, None)


def test_a_key_is_revoked_by_its_name(comfyserve: Command) -> None:
    """Those that are there are ended, those that are not are named, with the nearest."""
    data = comfyserve.folder / "dätä"
    for name in ("app", "page"):
        comfyserve("keys", "create", name, "--data", data)

    ended = comfyserve("keys", "revoke", "app", "pagee", "--data", data)
    again = comfyserve("keys", "revoke", "app", "--data", data)

    assert (ended.code, ended.out) == (1, "app revoked\n")
    assert "Did you mean 'page'?" in ended.err
    assert (again.code, again.out) == (1, "")
    assert "was revoked before" in again.err
    listed = comfyserve("keys", "list", "--data", data).out.splitlines()
    assert ["revoked" in line for line in listed] == [False, True, False]


def test_reset_forgets_all_once_it_is_meant(comfyserve: Command) -> None:
    """Without `--yes` nothing is forgotten."""
    comfyserve("keys", "create", "app")

    unsure, sure = comfyserve("keys", "reset"), comfyserve("keys", "reset", "--yes")

    assert (unsure.code, sure.code) == (2, 0)
    assert "--yes" in unsure.err
    assert "Forgot 1 key" in sure.err
    assert "nobody is asked" in comfyserve("keys", "list").err


def test_looking_makes_nothing(comfyserve: Command) -> None:
    """Where no server was ever, there are no keys, and no folder afterwards."""
    listed = comfyserve("keys", "list")
    as_json = comfyserve("keys", "list", "--json")
    revoked = comfyserve("keys", "revoke", "app")
    reset = comfyserve("keys", "reset", "--yes")

    assert (listed.code, as_json.code, revoked.code, reset.code) == (0, 0, 1, 0)
    assert (listed.out, json.loads(as_json.out)) == ("", {"keys": []})
    assert "There is no key 'app'" in revoked.err
    assert list(comfyserve.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["create"], 2, "NAME"),
        (["create", "app"], 1, "There is a key 'app' already"),
        (["create", ""], 2, "cannot name a key"),
        (["create", "cs_abc"], 2, "cannot begin with cs_"),
        (["create", "b", "--rate", "often"], 2, "'often' is no rate"),
        (["create", "b", "--rate", "0/m"], 2, "is no rate"),
        (["create", "b", "--concurrent", "0"], 2, "--concurrent"),
        (["create", "b", "--priority-max", "-1"], 2, "--priority-max"),
        (["create", "b", "--workflow", ""], 2, "cannot be the name of a workflow"),
        (["create", "b", "--config", "none.toml"], 2, "There is no file none.toml"),
        (["revoke"], 2, "NAME"),
        (["forget"], 2, "forget"),
        (["list", "--data", "file.txt"], 1, "file.txt"),
        (["create", "b", "--data", "file.txt"], 1, "file.txt"),
    ],
)
def test_wrong_usage(comfyserve: Command, arguments: list[str], code: int, said: str) -> None:
    """What cannot be is told in a sentence, and no key is made."""
    comfyserve("keys", "create", "app")
    (comfyserve.folder / "file.txt").write_text("no folder", encoding="utf-8")

    ended = comfyserve("keys", *arguments)

    assert (ended.code, ended.out) == (code, "")
    assert said in ended.err
    assert "Traceback" not in ended.err
    assert len(json.loads(comfyserve("keys", "list", "--json").out)["keys"]) == 1


def test_keys_and_a_server_that_runs(comfyserve: Command, engine: RunningEngine) -> None:
    """Keys made, ended and forgotten beside a running server hold within a second; commands say
    what they lack."""
    data = comfyserve.folder / "data"
    file = comfyserve.workflow(emitting())
    with running_server(data, backends=[engine.url]) as server:
        comfyserve.environment["COMFYSERVE_SERVER"] = server.url
        calls = ServerCalls(server.url)
        assert comfyserve("jobs").code == 0

        graphs = comfyserve("keys", "create", "graphs", "--graphs", "--data", data).out.strip()
        plain = comfyserve("keys", "create", "plain", "--data", data).out.strip()
        wait_until(lambda: calls.ask("GET", "/api/v2/jobs").status == 401, seconds=3)

        without = comfyserve("run", file)
        ran = comfyserve("run", file, "--token", graphs)
        lacking = comfyserve("run", file, COMFYSERVE_TOKEN=plain)
        listed = comfyserve("jobs", COMFYSERVE_TOKEN=graphs)
        others = comfyserve("jobs", COMFYSERVE_TOKEN=plain)
        job = listed.out.splitlines()[1].split()[0]
        foreign = comfyserve("cancel", job, COMFYSERVE_TOKEN=plain)

        comfyserve("keys", "revoke", "graphs", "--data", data)
        began = time.monotonic()
        ended = comfyserve("jobs", COMFYSERVE_TOKEN=graphs)

    assert without.code == 3
    assert "asks for a key" in without.err
    assert "COMFYSERVE_TOKEN" in without.err
    assert ran.code == 0, ran.err
    assert [path.name for path in ran.paths] == ["fox.bin"]
    assert lacking.code == 1
    assert "made with --graphs" in lacking.err
    assert (listed.code, others.code, others.out) == (0, 0, "")
    assert foreign.code == 1
    assert "There is no job" in foreign.err
    assert ended.code == 3, time.monotonic() - began
    assert "was revoked" in ended.err
    for secret in (graphs, plain):
        assert secret not in server.stderr
        assert all(secret not in one.err for one in (without, lacking, foreign, ended))


def test_a_rate_is_told(comfyserve: Command, engine: RunningEngine) -> None:
    """Who comes too often is told how often he may, and when again."""
    data = comfyserve.folder / "data"
    secret = comfyserve("keys", "create", "slow", "--rate", "1/h", "--data", data).out.strip()
    with running_server(data, backends=[engine.url]) as server:
        calls = ServerCalls(server.url)
        calls.ask("GET", "/api/v2/jobs", headers={"X-API-Key": secret})

        ended = comfyserve("jobs", "--server", server.url, "--token", secret)

    assert ended.code != 0
    assert "rate of 1/h is used up" in ended.err
    assert "Traceback" not in ended.err
