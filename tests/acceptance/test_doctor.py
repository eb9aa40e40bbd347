"""`comfyserve doctor` against the built-in engine, and against nobody."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from comfyserve.cli.examples import example
from tests.acceptance.conftest import Command
from tests.engines import RunningEngine

NOWHERE = "http://127.0.0.1:9"


def graph() -> dict[str, Any]:
    """The first example, to be changed."""
    told: dict[str, Any] = json.loads(Path(example("text_to_image.json")).read_bytes())
    return told


def test_all_is_well_with_the_engine(comfyserve: Command) -> None:
    """The engine and a workflow made for it have no problems: exit code 0."""
    ended = comfyserve(
        "doctor", comfyserve.environment["COMFYSERVE_SERVER"], example("text_to_image.json")
    )

    assert ended.code == 0
    assert "problem " not in ended.out
    assert max(map(len, ended.out.splitlines())) <= 80
    for words in ("ComfyUI 0.3.64", "/api/jobs", "WebSocket opens", "kinds of nodes that it needs"):
        assert words in ended.out


def test_what_workflows_miss_is_told(comfyserve: Command) -> None:
    """Missing nodes, models, files and wrong values are told with advice: exit code 1."""
    broken = graph()
    broken["4"]["inputs"]["ckpt_name"] = "comfyserve-emoji-v2.safetensors"
    broken["3"]["inputs"]["steps"] = 0
    broken["50"] = {
        "class_type": "MagicPaint",
        "inputs": {},
        "_meta": {"cnr_id": "magic-pack", "ver": "1.0.0"},
    }
    missing_picture = json.loads(Path(example("image_to_image.json")).read_bytes())

    ended = comfyserve(
        "doctor",
        comfyserve.workflow(broken),
        comfyserve.workflow(missing_picture, "second.json"),
        comfyserve.folder / "none.json",
        "--json",
    )

    told = json.loads(ended.out)
    assert ended.code == 1
    assert told["server"]["answers"] is True
    first, second, third = (workflow["findings"] for workflow in told["workflows"])
    by_topic = {finding["topic"]: finding for finding in first}
    assert by_topic["models"]["mark"] == "problem"
    assert "comfyserve-emoji-v1.safetensors" in by_topic["models"]["advice"]
    assert "the least is 1" in by_topic["values"]["message"]
    assert "magic-pack" in by_topic["nodes"]["advice"]
    assert {(f["topic"], f["mark"]) for f in second} >= {("workflow", "ok"), ("files", "warn")}
    assert third[0]["mark"] == "problem"
    assert "does not exist" in third[0]["message"]
    assert told["problems"] == 4


def test_nobody_answers(comfyserve: Command) -> None:
    """A server that is not there is exit code 3, with how to start one; files wait."""
    ended = comfyserve("doctor", NOWHERE, example("text_to_image.json"))

    assert ended.code == 3
    assert "refused" in ended.out
    assert "comfyserve engine" in ended.out
    assert "not checked" in ended.out


def test_an_address_that_is_none(comfyserve: Command) -> None:
    """An address with a wrong beginning is a mistake of the person, told in a sentence."""
    ended = comfyserve("doctor", "ftp://127.0.0.1")

    assert ended.code == 2
    assert "it has to begin with http://" in ended.err
    assert "Traceback" not in ended.err


def test_the_files_a_workflow_loads_are_looked_for(
    comfyserve: Command, engine: RunningEngine
) -> None:
    """A picture in a folder of the server's, which no list of choices shows, is found there."""
    folder = engine.folder / "input" / "my pictures"
    folder.mkdir(parents=True, exist_ok=True)
    sketch = example("image_to_image.json").with_name("inputs") / "sketch.png"
    (folder / "sketch ü.png").write_bytes(sketch.read_bytes())
    loading = json.loads(Path(example("image_to_image.json")).read_bytes())
    loading["10"]["inputs"]["image"] = "my pictures/sketch ü.png"

    ended = comfyserve("doctor", comfyserve.workflow(loading))

    assert ended.code == 0
    assert "not on the server" not in ended.out
