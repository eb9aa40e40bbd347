"""`comfyserve run`, as a person or a script meets it."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from comfyserve.cli.examples import example
from tests.acceptance.conftest import Command
from tests.client.graphs import emitting, failing, inverting, ticking
from tests.engines import RunningEngine

TEXT_TO_IMAGE = example("text_to_image.json")
IMAGE_TO_IMAGE = example("image_to_image.json")
SMALL = ("width=64", "height=64", "steps=3")


def queue_of(engine: RunningEngine) -> list[str]:
    with urllib.request.urlopen(f"{engine.url}/queue", timeout=5) as answer:
        queue = json.load(answer)
    return [entry[1] for entry in queue["queue_running"] + queue["queue_pending"]]


def wait_until_empty(engine: RunningEngine) -> None:
    deadline = time.monotonic() + 10
    while queue_of(engine):
        assert time.monotonic() < deadline, "the job is still on the server"
        time.sleep(0.02)


def test_a_text_becomes_a_picture(comfyserve: Command) -> None:
    """Text to image saves a picture in ./output, and prints only its path on stdout."""
    ended = comfyserve("run", TEXT_TO_IMAGE, "prompt=red heart", *SMALL, "--seed", 5)

    assert ended.code == 0, ended.err
    (path,) = ended.paths
    assert comfyserve.folder / path == comfyserve.folder / "output" / path.name
    assert (comfyserve.folder / path).read_bytes().startswith(b"\x89PNG")
    assert "done in" in ended.err
    assert "seed 5" in ended.err


def test_a_picture_becomes_another(comfyserve: Command) -> None:
    """Image to image takes a picture with @, and the short form --image does the same."""
    first = comfyserve("run", TEXT_TO_IMAGE, *SMALL, "-o", "first", "-q")
    (picture,) = first.paths

    second = comfyserve("run", IMAGE_TO_IMAGE, f"image=@{picture}", "steps=3", "seed=1", "-q")
    third = comfyserve("run", IMAGE_TO_IMAGE, "--image", picture, "steps=3", "seed=1", "-q")

    assert (second.code, third.code) == (0, 0), second.err + third.err
    assert second.err == third.err == ""
    contents = {(comfyserve.folder / path).read_bytes() for path in second.paths + third.paths}
    assert len(contents) == 1
    assert len({*second.paths, *third.paths}) == 2


def test_plain_lines_where_there_is_no_terminal(comfyserve: Command) -> None:
    """Without a terminal progress comes as plain lines on stderr, and not as a flood."""
    ended = comfyserve("run", comfyserve.workflow({**ticking(200, 1), **emitting()}))

    assert ended.code == 0, ended.err
    lines = ended.err.splitlines()
    assert any("TestProgress, step" in line for line in lines)
    assert len(lines) < 20
    assert "\x1b" not in ended.err


def test_events_as_lines_of_json(comfyserve: Command) -> None:
    """With --json each line is an event, and the last one is the result."""
    ended = comfyserve("run", TEXT_TO_IMAGE, *SMALL, "seed=6", "--json", "-o", "out")

    assert ended.code == 0, ended.err
    assert ended.err == ""
    names = [event["event"] for event in ended.events]
    assert {"status", "progress", "preview", "output", "result"} == set(names)
    result = ended.events[-1]
    assert result["event"] == "result"
    assert result["status"] == "succeeded"
    assert result["seeds"] == {"3.seed": 6}
    assert [Path(each["path"]).parent.name for each in result["outputs"]] == ["out"]
    assert result["timings"]["running"] > 0


def test_a_dry_run_only_prints_the_graph(comfyserve: Command, engine: RunningEngine) -> None:
    """With --dry-run the bound graph is printed, and nothing is queued or saved."""
    ended = comfyserve("run", TEXT_TO_IMAGE, "prompt=@home", "3.cfg=7", "--seed", 8, "--dry-run")

    assert ended.code == 0, ended.err
    graph = json.loads(ended.out)
    assert graph["6"]["inputs"]["text"] == "@home"
    assert (graph["3"]["inputs"]["cfg"], graph["3"]["inputs"]["seed"]) == (7, 8)
    assert not (comfyserve.folder / "output").exists()
    assert queue_of(engine) == []


def test_a_dry_run_says_what_would_be_uploaded(comfyserve: Command) -> None:
    """The graph of a dry run holds a file's own name, and stderr says that it is not the last."""
    picture = IMAGE_TO_IMAGE.with_name("inputs") / "sketch.png"

    ended = comfyserve("run", IMAGE_TO_IMAGE, "--image", picture, "--dry-run")

    assert ended.code == 0, ended.err
    assert "sketch.png would be uploaded first, under a name of its own" in ended.err
    assert json.loads(ended.out)


def test_a_failing_node_is_a_failure(comfyserve: Command) -> None:
    """A node that fails gives exit code 1, one clear sentence, and keeps what was saved."""
    ended = comfyserve("run", comfyserve.workflow(failing("no more paint")))

    assert ended.code == 1
    assert ended.err.splitlines()[-1] == ("Node 2 (TestFail) failed: RuntimeError: no more paint.")
    assert "Traceback" not in ended.err
    assert [path.name for path in ended.paths] == ["fox.bin"]


def test_a_failure_as_json(comfyserve: Command) -> None:
    """With --json a failure ends in a result that says why."""
    ended = comfyserve("run", comfyserve.workflow(failing()), "--json")

    assert ended.code == 1
    result = ended.events[-1]
    assert (result["event"], result["status"]) == ("result", "failed")
    assert result["error"]["code"] == "node_execution_error"
    assert result["error"]["details"]["node_id"] == "2"
    assert len(result["outputs"]) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((TEXT_TO_IMAGE, "promt=a fox"), "Did you mean 'prompt'?"),
        ((TEXT_TO_IMAGE, "sampler=eulr"), "Did you mean 'euler'?"),
        ((TEXT_TO_IMAGE, "model=comfyserve.safetensors"), "comfyserve-emoji-v1.safetensors"),
        ((TEXT_TO_IMAGE, "a fox"), 'Did you mean prompt="a fox"?'),
        ((TEXT_TO_IMAGE.with_name("text_to_imag.json"),), "Did you mean 'text_to_image.json'"),
        ((IMAGE_TO_IMAGE, f"image=@{TEXT_TO_IMAGE}"), "is none: it is application/json"),
        ((IMAGE_TO_IMAGE, "image=@nope.png"), "image cannot be nope.png: there is no such file"),
    ],
)
def test_a_mistake_is_said_in_a_sentence(
    comfyserve: Command, arguments: tuple[object, ...], said: str
) -> None:
    """A mistake of the person gives exit code 2 and says what was probably meant."""
    ended = comfyserve("run", *arguments)

    assert ended.code == 2
    assert said in ended.err
    assert ended.out == ""
    assert "Traceback" not in ended.err


def test_a_server_that_is_not_there(comfyserve: Command) -> None:
    """An unreachable server gives exit code 3 and names the address."""
    ended = comfyserve("run", TEXT_TO_IMAGE, "--server", "http://127.0.0.1:9")

    assert ended.code == 3
    assert "http://127.0.0.1:9" in ended.err
    assert len(ended.err.splitlines()) == 1


@pytest.mark.parametrize("place", ["taken", "taken/below"])
def test_a_folder_that_cannot_be_used(
    comfyserve: Command, engine: RunningEngine, place: str
) -> None:
    """A file where the folder should be gives exit code 2 before anything is queued."""
    (comfyserve.folder / "taken").touch()

    ended = comfyserve("run", comfyserve.workflow(ticking(600, 50)), "-o", place)

    assert ended.code == 2
    assert f"-o: {Path(place)} cannot be used: " in ended.err
    assert "Traceback" not in ended.err
    assert queue_of(engine) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-s", "ftp://127.0.0.1"), "it has to begin with http:// or https://"),
        (("-s", "http://127.0.0.1:99999"), "99999"),
        (("--header", "X-Room: a\tb\x01"), "the header 'X-Room' holds a character"),
    ],
)
def test_an_address_that_no_server_can_have(
    comfyserve: Command, arguments: tuple[str, ...], said: str
) -> None:
    """A mistake in the address or a header gives exit code 2, also as JSON, and no request."""
    ended = comfyserve("run", TEXT_TO_IMAGE, *arguments, "--json")

    assert ended.code == 2
    assert "cannot be used as a server's address" in ended.err
    assert said in ended.err
    assert "--server" not in ended.err
    assert ended.events[-1]["error"]["code"] == "invalid_address"


def test_headers_and_token_are_sent_along(comfyserve: Command) -> None:
    """A proxy gets the caller's header and token; one that refuses them gives exit code 3."""
    with refusing_proxy() as (url, seen):
        ended = comfyserve(
            "run", TEXT_TO_IMAGE, "-s", url, "--header", "X-Room: 1", "--token", "secret"
        )

    assert (seen[0]["X-Room"], seen[0]["Authorization"]) == ("1", "Bearer secret")
    assert ended.code == 3
    assert "401" in ended.err
    assert "secret" not in ended.err


@contextmanager
def refusing_proxy() -> Iterator[tuple[str, list[Message]]]:
    """A server that lets nobody in, and the headers it was sent."""
    seen: list[Message] = []

    class Refusal(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers)
            self.send_error(401)

        def log_message(self, format: str, *values: object) -> None:
            return

    with HTTPServer(("127.0.0.1", 0), Refusal) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/comfy", seen
        finally:
            server.shutdown()
            thread.join(10)


def test_an_existing_file_stays(comfyserve: Command) -> None:
    """A second run does not overwrite what the first one saved."""
    first = comfyserve("run", comfyserve.workflow(emitting("1 ")), "-q")
    second = comfyserve("run", comfyserve.workflow(emitting("2 ")), "-q")

    assert [path.name for path in first.paths + second.paths] == ["fox.bin", "fox (1).bin"]


def test_temporary_outputs_when_asked_for(comfyserve: Command) -> None:
    """Temporary outputs are saved under temp/ with --temp, and not without."""
    both = {**emitting(), "2": emitting(type="temp", name="half.bin")["1"]}
    workflow = comfyserve.workflow(both)

    without = comfyserve("run", workflow, "-q", "-o", "a")
    with_them = comfyserve("run", workflow, "-q", "-o", "b", "--temp")

    assert [path.name for path in without.paths] == ["fox.bin"]
    assert {path.as_posix() for path in with_them.paths} == {"b/fox.bin", "b/temp/half.bin"}


def test_a_picture_the_server_has(comfyserve: Command, engine: RunningEngine) -> None:
    """A name without @ may be a file of the server."""
    from PIL import Image

    Image.new("RGB", (8, 8), (255, 0, 0)).save(engine.folder / "input" / "there.png")

    ended = comfyserve("run", comfyserve.workflow(inverting()), "image=there.png", "-q")

    assert ended.code == 0, ended.err
    assert len(ended.paths) == 1


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C cannot be sent to one process on Windows")
def test_ctrl_c_cancels_exactly_this_job(comfyserve: Command, engine: RunningEngine) -> None:
    """Ctrl-C cancels the job on the server, says so, and ends with 130."""
    with comfyserve.start("run", comfyserve.workflow(ticking(100, 50))) as process:
        assert process.stderr is not None
        while "step" not in process.stderr.readline():
            pass

        process.send_signal(signal.SIGINT)

        out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "canceling job" in err
    assert "Traceback" not in err
    assert out == ""
    wait_until_empty(engine)


@pytest.mark.skipif(os.name == "nt", reason="a process cannot be paused on Windows")
def test_a_second_ctrl_c_leaves_at_once(comfyserve: Command, engine: RunningEngine) -> None:
    """When the server does not answer, a second Ctrl-C does not wait for it."""
    with comfyserve.start("run", comfyserve.workflow(ticking(100, 50))) as process:
        assert process.stderr is not None
        while "step" not in process.stderr.readline():
            pass
        engine.process.send_signal(signal.SIGSTOP)
        try:
            process.send_signal(signal.SIGINT)
            assert "canceling" in process.stderr.readline()
            process.send_signal(signal.SIGINT)

            assert process.wait(4.5) == 130
            assert process.stderr.read() == ""
        finally:
            engine.process.send_signal(signal.SIGCONT)
            process.communicate(timeout=20)
    wait_until_empty(engine)


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGTERM on Windows")
def test_a_command_that_is_stopped_cancels_its_job(
    comfyserve: Command, engine: RunningEngine
) -> None:
    """A polite kill ends the job as well, and the result says that it was canceled."""
    with comfyserve.start("run", comfyserve.workflow(ticking(600, 50)), "--json") as process:
        assert process.stdout is not None
        while '"step": 1' not in process.stdout.readline():
            pass

        process.send_signal(signal.SIGTERM)

        out, _ = process.communicate(timeout=20)
    assert process.returncode == 143
    result = json.loads(out.splitlines()[-1])
    assert result["status"] == "canceled"
    assert result["timings"]["running"] > 0
    wait_until_empty(engine)


@pytest.mark.skipif(os.name == "nt", reason="there are no pseudo-terminals on Windows")
def test_a_live_bar_on_a_terminal(comfyserve: Command, engine: RunningEngine) -> None:
    """On a terminal a live bar is drawn on stderr, while stdout holds only the paths."""
    import pty
    import subprocess
    import sys

    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "comfyserve", "run"]
    workflow = comfyserve.workflow({**ticking(40, 20), **emitting()})
    with subprocess.Popen(
        [*command, str(workflow)],
        stdout=subprocess.PIPE,
        stderr=theirs,
        cwd=comfyserve.folder,
        env={**comfyserve.environment, "TERM": "xterm", "COLUMNS": "100"},
    ) as process:
        os.close(theirs)
        drawn = read_all(ours)
        assert process.stdout is not None
        out = process.stdout.read().decode()

    assert process.returncode == 0
    assert "TestProgress, step" in drawn
    assert "━" in drawn
    assert "done in" in drawn
    assert out == f"{Path('output') / 'fox.bin'}\n"


def read_all(terminal: int) -> str:
    drawn = b""
    try:
        while chunk := os.read(terminal, 4096):
            drawn += chunk
    except OSError:  # how Linux says that nobody holds the other end
        pass
    finally:
        os.close(terminal)
    return drawn.decode()


def test_a_path_that_the_console_cannot_show(comfyserve: Command) -> None:
    """A console with a small character set shows something, and nothing breaks."""
    ended = comfyserve(
        "run", comfyserve.workflow(emitting(name="füchse 狐.bin")), PYTHONIOENCODING="ascii"
    )

    assert ended.code == 0, ended.err
    assert ended.out.isascii()
