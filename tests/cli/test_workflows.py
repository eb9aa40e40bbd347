"""`comfyserve workflows`, `publish`, `withdraw`, and `run` with the name of a hosted workflow."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from comfyserve.cli.schema_inputs import typed_inputs
from comfyserve.cli.workflow_table import state_of, workflow_detail_lines, workflow_lines
from tests.acceptance.conftest import Command
from tests.client.graphs import ticking
from tests.engines import RunningEngine, running_engine
from tests.servers import RunningServer, running_server

EXAMPLES = Path(__file__).parents[2] / "examples"
SKETCH = EXAMPLES / "inputs" / "sketch.png"

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "prompt": {"type": "string", "title": "Prompt", "x-kind": "text", "default": "a fox"},
        "seed": {"type": ["integer", "string", "null"], "x-kind": "seed"},
        "steps": {"type": "integer", "minimum": 1, "maximum": 50, "x-kind": "integer"},
        "cfg": {"type": "number", "x-kind": "number"},
        "bright": {"type": "boolean", "title": "More\x1b light", "x-kind": "flag"},
        "times": {"enum": [2, 4, "auto"], "x-kind": "choice", "x-advanced": True},
        "image": {"type": ["string", "object"], "x-kind": "image"},
    },
}
PORTRAIT: dict[str, Any] = {
    "name": "portrait",
    "title": "A portrait",
    "description": "",
    "source": "published",
    "available": True,
    "problem": None,
    "drifted": [],
    "open": False,
    "convention": "sidecar",
    "is_described": True,
    "inputs": SCHEMA,
    "outputs": [{"node_id": "9", "class_type": "SaveImage", "title": "Save"}],
    "warnings": ["It has a loop."],
    "drift": [{"backend": "1a2b", "message": "The model is not there."}],
}


def test_words_become_the_values_that_the_schema_wants() -> None:
    """Numbers, flags, numeric choices and files are typed; a text stays one, whatever it holds."""
    typed = {
        "prompt": "22",
        "seed": "-1",
        "steps": "22",
        "cfg": "6.5",
        "bright": "yes",
        "times": "4",
        "image": "@in.png",
        "3.cfg": "7",
        "6.text": "a fox",
    }

    assert typed_inputs(SCHEMA, typed) == {
        "prompt": "22",
        "seed": -1,
        "steps": 22,
        "cfg": 6.5,
        "bright": True,
        "times": 4,
        "image": Path("in.png"),
        "3.cfg": 7,
        "6.text": "a fox",
    }


def test_words_that_fit_nothing_are_left_to_the_server() -> None:
    """What is no number goes as text, a number beyond the limits as that number."""
    typed = {"steps": "many", "cfg": "nan", "times": "5", "bright": "si", "promt": "7"}

    assert typed_inputs(SCHEMA, typed) == typed
    assert typed_inputs(SCHEMA, {"steps": "99"}) == {"steps": 99}
    job = '{"job_id": "7f3d2c1b-9a8e-4d6f-b012-3c4d5e6f7a8b"}'
    assert typed_inputs(SCHEMA, {"image": job}) == {"image": json.loads(job)}


def test_workflows_as_a_table() -> None:
    """A line for each tells where it comes from and what is wrong with it, if anything is."""
    broken = {**PORTRAIT, "source": "folder", "available": False, "problem": "no JSON"}
    older = {**PORTRAIT, "problem": "no JSON", "drifted": ["1a2b", "3c4d"]}

    lines = list(workflow_lines([PORTRAIT, broken, older]))

    assert [line.split()[0] for line in lines] == ["NAME", *["portrait"] * 3]
    assert lines[1].endswith("A portrait  published  ok")
    assert lines[2].endswith("A portrait  folder     broken: no JSON")
    assert state_of(older) == "as it was before: no JSON; does not fit backend 1a2b, 3c4d"


def test_a_workflow_in_detail() -> None:
    """All that it takes is shown, nothing of it could steer a terminal, and no line is too long."""
    lines = list(workflow_detail_lines(PORTRAIT, 60))

    text = "\n".join(lines)
    assert "\x1b" not in text
    assert max(map(len, lines)) <= 60
    for said in (
        "portrait, published: 7 inputs, 1 output",
        "A portrait",
        "The inputs are those of the sidecar",
        "ADVANCED\ntimes   choice   -        3 choices",
        "    choices: 2, 4, auto",
        'prompt  text     "a fox"  -',
        "steps   integer  -        1 .. 50",
        '9 (SaveImage, "Save")',
        "- backend 1a2b: The model is not there.",
        "- It has a loop.",
    ):
        assert said in text
    assert "FILLS" not in text


@pytest.fixture(scope="module")
def engine() -> Iterator[RunningEngine]:
    """An engine with test nodes."""
    with running_engine(test_nodes=True) as running:
        yield running


@pytest.fixture(scope="module")
def server(
    engine: RunningEngine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    """A comfyserve that hosts the examples, a workflow that takes long, and a broken one."""
    folder = tmp_path_factory.mktemp("server") / "workflows"
    folder.mkdir()
    shutil.copy(EXAMPLES / "text_to_image.json", folder / "portrait.json")
    shutil.copy(EXAMPLES / "image_to_image.json", folder / "redraw.json")
    (folder / "slow.json").write_text(json.dumps(ticking(600, 50)), encoding="utf-8")
    (folder / "torn.json").write_text('{"1":', encoding="utf-8")
    data = folder.with_name("data")
    with running_server(data, backends=[engine.url], workflows=folder) as running:
        yield running


@pytest.fixture
def comfyserve(server: RunningServer, tmp_path: Path) -> Command:
    """The command, with the comfyserve as its server."""
    return Command(tmp_path, server.url)


def test_a_hosted_workflow_runs_by_its_name(comfyserve: Command) -> None:
    """With typed inputs, a file and all options, it saves and says what a file's run does."""
    shutil.copy(SKETCH, comfyserve.folder / "in.png")
    words = ("prompt=red apple", "steps=2", "image=@in.png", "--seed", "5", "-o", "out")

    ended = comfyserve("run", "redraw", *words)
    told = comfyserve("run", "redraw", *words, "--json")

    assert ended.code == 0, ended.err
    assert [path.parts[0] for path in ended.paths] == ["out"]
    assert (comfyserve.folder / ended.paths[0]).stat().st_size > 0
    assert ended.err.splitlines()[-1].endswith("seed 5")
    assert told.code == 0, told.err
    assert told.events[-1]["status"] == "succeeded"
    assert list(told.events[-1]["seeds"].values()) == [5]


def test_a_file_comes_before_a_name(comfyserve: Command) -> None:
    """A file here that is called like a hosted workflow is what runs."""
    comfyserve.workflow({"1": {"class_type": "NoSuchNode", "inputs": {}}}, "portrait")

    ended = comfyserve("run", "portrait")

    assert ended.code != 0
    assert "NoSuchNode" in ended.err


def test_neither_a_file_nor_a_name(comfyserve: Command, engine: RunningEngine) -> None:
    """The sentence names what is called nearly so, there and here; a ComfyUI hosts nothing."""
    comfyserve.workflow({}, "portrai.json")

    ended = comfyserve("run", "portrai")
    at_comfyui = comfyserve("run", "portrai", "--server", engine.url)
    path = comfyserve("run", "./portrait")

    assert (ended.code, at_comfyui.code, path.code) == (2, 2, 2)
    assert ended.err == (
        "portrai does not exist, and the server hosts no workflow of that name. "
        "Did you mean 'portrait' there or the file 'portrai.json'?\n"
    )
    assert at_comfyui.err == "portrai does not exist. Did you mean 'portrai.json'?\n"
    assert path.err.startswith("portrait does not exist.")


def test_wrong_inputs_of_a_hosted_workflow(comfyserve: Command) -> None:
    """The server's sentences, all at once, with the exit code of wrong use."""
    ended = comfyserve("run", "portrait", "steps=many", "promt=x")

    assert ended.code == 2
    assert "steps takes a whole number, not 'many'." in ended.err
    assert "Did you mean 'prompt'?" in ended.err


def test_a_dry_run_asks_the_server(comfyserve: Command) -> None:
    """It prints what the server says of the call, and queues nothing and sends no file."""
    shutil.copy(SKETCH, comfyserve.folder / "in.png")
    before = comfyserve("jobs", "--json").out

    good = comfyserve("run", "redraw", "image=@in.png", "--dry-run")
    bad = comfyserve("run", "redraw", "image=@in.png", "steps=0", "--dry-run")

    assert (good.code, json.loads(good.out)["valid"]) == (0, True), good.out
    assert (bad.code, json.loads(bad.out)["valid"]) == (1, False)
    assert json.loads(bad.out)["problems"][0]["input"] == "steps"
    assert comfyserve("jobs", "--json").out == before


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C cannot be sent to one process on Windows")
def test_ctrl_c_cancels_a_call(comfyserve: Command) -> None:
    """Ctrl-C ends the command with 130, and the job of the hosted workflow with it."""
    with comfyserve.start("run", "slow") as process:
        assert process.stderr is not None
        while "TestProgress, step" not in (line := process.stderr.readline()):
            assert line, "the command ended early"

        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)

    assert process.returncode == 130
    job_id = err.partition("canceling job ")[2].split()[0]
    assert "status    cancel" in comfyserve("jobs", job_id).out


def test_what_a_server_hosts(comfyserve: Command, engine: RunningEngine) -> None:
    """A table of all, the inputs of one, documents with --json; a ComfyUI hosts nothing."""
    listed = comfyserve("workflows")
    shown = comfyserve("workflows", "redraw")
    as_json = comfyserve("workflows", "redraw", "--json")
    missing = comfyserve("workflows", "redrw")
    at_comfyui = comfyserve("workflows", "--server", engine.url)

    rows = {line.split()[0]: line.split()[2:] for line in listed.out.splitlines()[1:]}
    assert (listed.code, shown.code, as_json.code) == (0, 0, 0), listed.err + shown.err
    assert rows["portrait"] == ["folder", "ok"]
    assert rows["torn"][:2] == ["folder", "broken:"]
    assert "\nimage " in shown.out
    assert "prompt" in json.loads(as_json.out)["inputs"]["properties"]
    assert (missing.code, missing.err) == (
        1,
        "No workflow is named 'redrw'. Did you mean 'redraw'?\n",
    )
    assert at_comfyui.code == 3
    assert "hosts no workflows by name" in at_comfyui.err


def test_a_workflow_is_published_run_and_withdrawn(
    comfyserve: Command, server: RunningServer
) -> None:
    """Its address is on stdout; its sidecar goes along; withdrawn, it is gone."""
    file = comfyserve.workflow(json.loads((EXAMPLES / "text_to_image.json").read_text("utf-8")))
    file.with_suffix(".toml").write_text(
        'title = "Mine"\n[inputs.subject]\ntargets = ["6.text"]\n', encoding="utf-8"
    )

    published = comfyserve("publish", file)
    named = comfyserve("publish", file, "--name", "mine")
    detail = json.loads(comfyserve("workflows", "mine", "--json").out)
    withdrawn = comfyserve("withdraw", "mine", "work-flow-u", "nope", "portrait")

    assert published.code == 0, published.err
    assert published.out == f"{server.url}/api/workflows/work-flow-u\n"
    assert "It takes subject (text)." in published.err
    assert "Its sidecar work flow ü.toml went along." in published.err
    assert named.out == f"{server.url}/api/workflows/mine\n"
    assert (detail["title"], list(detail["inputs"]["properties"])) == ("Mine", ["subject"])
    assert withdrawn.out == "mine withdrawn\nwork-flow-u withdrawn\n"
    assert withdrawn.code == 1
    assert "No workflow is named 'nope'." in withdrawn.err
    assert "portrait.json in the server's folder" in withdrawn.err
    assert "mine" not in comfyserve("workflows").out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("publish", "nothing.json"), 2, "there is no such file"),
        (("publish", "notes.txt"), 2, "workflow_unreadable"),
        (("publish", "good.json", "--name", "a b"), 2, "'a-b'"),
        (("publish", "good.json", "--name", "portrait"), 1, "in the server's folder"),
        (("publish", "good.json", "--server", "http://127.0.0.1:9"), 3, "No comfyserve answers"),
        (("withdraw",), 2, "NAME..."),
        (("run", "torn"), 1, "workflow_broken"),
    ],
)
def test_what_is_refused(comfyserve: Command, words: tuple[str, ...], code: int, said: str) -> None:
    """What cannot be published, withdrawn or run is said in a sentence with an exit code."""
    comfyserve.workflow(ticking(1, 1), "good.json")
    (comfyserve.folder / "notes.txt").write_text("no workflow", encoding="utf-8")

    ended = comfyserve(*words)

    assert (ended.code, said in ended.err) == (code, True), ended.err


def test_keys_decide_who_publishes(engine: RunningEngine, tmp_path: Path) -> None:
    """Without a key nobody gets in, and one that may only run may not publish."""
    command = Command(tmp_path, engine.url)
    file = command.workflow(ticking(1, 1), "quick.json")
    runs, publishes = (
        command("keys", "create", name, "--data", "data", *may).out.strip()
        for name, may in (("runs", ("--workflow", "quick")), ("publishes", ("--publish",)))
    )
    with running_server(tmp_path / "data", backends=[engine.url]) as server:
        command = Command(tmp_path, server.url)

        keyless = command("publish", file)
        refused = command("publish", file, "--token", runs)
        published = command("publish", file, "--token", publishes)
        ran = command("run", "quick", COMFYSERVE_TOKEN=runs)
        kept = command("withdraw", "quick", "--token", runs)

    assert (keyless.code, refused.code, published.code) == (3, 1, 0), server.stderr
    assert "key_lacks_permission" in refused.err or "may not publish" in refused.err
    assert (ran.code, kept.code) == (0, 1), ran.err
