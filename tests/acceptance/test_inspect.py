"""`comfyserve inspect` and `comfyserve convert`, as a person starts them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from comfyserve.cli.examples import example
from tests.acceptance.conftest import Command

NOWHERE = "http://127.0.0.1:9"
EDITOR: dict[str, Any] = {
    "nodes": [
        {
            "id": 1,
            "type": "EmptyImage",
            "widgets_values": [64, 32, 1, 0],
            "outputs": [{"name": "IMAGE", "type": "IMAGE", "links": [1]}],
        },
        {
            "id": 2,
            "type": "SaveImage",
            "widgets_values": ["fox"],
            "inputs": [{"name": "images", "type": "IMAGE", "link": 1}],
        },
    ],
    "links": [[1, 1, 0, 2, 0, "IMAGE"]],
}
UNKNOWN = {
    "id": 3,
    "type": "MagicPaint",
    "title": "Paint it",
    "properties": {"cnr_id": "magic-pack", "ver": "1.0.0"},
    "widgets_values": [],
}


def test_inspect_shows_a_table(comfyserve: Command) -> None:
    """The table goes to stdout, narrow enough for a pipe; whose nodes were used to stderr."""
    ended = comfyserve("inspect", example("text_to_image.json"))

    assert ended.code == 0
    assert "\x1b" not in ended.out
    assert max(map(len, ended.out.splitlines())) <= 80
    assert "3.steps" in ended.out
    assert "1 .. 10000" in ended.out
    assert "why: steps of node 3 (KSampler)" in ended.out
    assert comfyserve.environment["COMFYSERVE_SERVER"] in ended.err


def test_inspect_works_without_a_server(comfyserve: Command) -> None:
    """The usual server need not be there; a server that was named must, with exit code 3."""
    file = example("text_to_image.json")

    usual = comfyserve("inspect", file, COMFYSERVE_SERVER=NOWHERE)
    named = comfyserve("inspect", file, "--server", NOWHERE)

    assert usual.code == 0
    assert "Without a server's nodes" in usual.out
    assert NOWHERE in usual.err
    assert named.code == 3
    assert named.out == ""


def test_inspect_as_json_is_one_document(comfyserve: Command) -> None:
    """Programs get one JSON document with the schema of the inputs."""
    ended = comfyserve("inspect", example("image_to_image.json"), "--json")

    told = json.loads(ended.out)
    assert ended.code == 0
    assert told["schema"]["properties"]["image"]["contentMediaType"] == "image/*"
    assert told["inputs"][0].keys() >= {"name", "type", "default", "fills", "why", "advanced"}


def test_inspect_reads_what_the_editor_saved(comfyserve: Command) -> None:
    """A file of the editor is read too; what cannot be is a warning that names the pack."""
    file = comfyserve.workflow({**EDITOR, "nodes": [*EDITOR["nodes"], UNKNOWN]})

    told = json.loads(comfyserve("inspect", file, "--json").out)

    assert told["format"] == "editor"
    assert [given["name"] for given in told["inputs"]][:2] == ["width", "height"]
    (warning,) = told["warnings"]
    assert "MagicPaint" in warning
    assert "magic-pack" in warning


def test_inspect_refuses_what_is_no_workflow(comfyserve: Command) -> None:
    """A file without a workflow is a usage error with one sentence."""
    path = comfyserve.folder / "notes.txt"
    path.write_text("buy milk", encoding="utf-8")

    ended = comfyserve("inspect", path)

    assert ended.code == 2
    assert ended.out == ""
    assert "notes.txt" in ended.err
    assert "Traceback" not in ended.err


def test_inspect_writes_a_sidecar_once(comfyserve: Command) -> None:
    """`--write-sidecar` writes the inputs beside the file, and never over what is there."""
    file = comfyserve.workflow(json.loads(Path(example("text_to_image.json")).read_bytes()))

    first = comfyserve("inspect", file, "--write-sidecar")
    written = file.with_suffix(".toml").read_text(encoding="utf-8")
    second = comfyserve("inspect", file, "--write-sidecar")

    assert first.code == 0
    assert "sidecar beside the file" not in first.out
    assert "sidecar beside the file" in second.out
    assert "[inputs.prompt]" in written
    assert "work flow ü.toml" in first.err
    assert second.code == 1
    assert "there already" in second.err
    assert file.with_suffix(".toml").read_text(encoding="utf-8") == written


def test_convert_makes_a_graph_that_runs(comfyserve: Command) -> None:
    """What the editor saved becomes API format, and that runs."""
    file = comfyserve.workflow(EDITOR)

    ended = comfyserve("convert", file, "-o", "api.json")
    graph = json.loads((comfyserve.folder / "api.json").read_text(encoding="utf-8"))
    ran = comfyserve("run", "api.json", "width=16")

    assert ended.code == 0
    assert ended.out == ""
    assert graph["1"]["inputs"] == {"width": 64, "height": 32, "batch_size": 1, "color": 0}
    assert graph["2"]["inputs"] == {"filename_prefix": "fox", "images": ["1", 0]}
    assert ran.code == 0
    assert ran.paths[0].suffix == ".png"


def test_convert_keeps_what_is_there(comfyserve: Command) -> None:
    """A file in the way is kept without `--force`, with exit code 1."""
    kept = comfyserve.folder / "api.json"
    kept.write_text("precious", encoding="utf-8")
    file = example("text_to_image.json")

    refused = comfyserve("convert", file, "-o", kept)
    content = kept.read_text(encoding="utf-8")
    forced = comfyserve("convert", file, "-o", kept, "--force")

    assert (refused.code, content) == (1, "precious")
    assert "--force" in refused.err
    assert forced.code == 0
    assert json.loads(kept.read_text(encoding="utf-8")).keys() >= {"3", "6"}


def test_convert_to_stdout_needs_no_server_for_a_graph(comfyserve: Command) -> None:
    """An API export comes out on stdout without a server, and nothing but it."""
    file = example("text_to_image.json")

    ended = comfyserve("convert", file, "-o", "-", COMFYSERVE_SERVER=NOWHERE)

    assert ended.code == 0
    assert json.loads(ended.out) == json.loads(Path(file).read_text(encoding="utf-8"))
    assert ended.err == ""


def test_convert_of_the_editors_format_needs_nodes(comfyserve: Command) -> None:
    """Without a server's nodes the values have no names: that is said, with exit code 3."""
    ended = comfyserve("convert", comfyserve.workflow(EDITOR), COMFYSERVE_SERVER=NOWHERE)

    assert ended.code == 3
    assert ended.out == ""
    assert "without their names" in ended.err
    assert "--server" in ended.err


def test_convert_warns_of_what_it_cannot_read(comfyserve: Command) -> None:
    """A node that the server lacks is a warning on stderr; the graph is still written."""
    file = comfyserve.workflow({**EDITOR, "nodes": [*EDITOR["nodes"], UNKNOWN]})

    ended = comfyserve("convert", file)

    assert ended.code == 0
    assert json.loads(ended.out)["3"]["class_type"] == "MagicPaint"
    assert "warning: " in ended.err
    assert "magic-pack" in ended.err
