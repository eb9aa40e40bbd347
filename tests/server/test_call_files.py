"""Files in calls of workflows: every way to name one, and those that are refused."""

from __future__ import annotations

import base64
import http.server
import io
import json
import socket
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.engines import running_engine
from tests.server.calling import WORKFLOWS, Calls, calling, code, png, problems
from tests.server_calls import wait_until

RED, GREEN = (200, 30, 30), (30, 200, 30)
SOUND = b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(28)


@pytest.fixture(scope="module")
def engine() -> Iterator[str]:
    with running_engine(test_nodes=True) as running:
        yield running.url


@pytest.fixture(scope="module")
def calls(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Calls]:
    """A server whose jobs run, and which fetches from this machine's loopback address."""
    folder = tmp_path_factory.mktemp("files")
    with calling(folder, engine, url_hosts=("127.0.0.1",), upload_cap=200_000) as running:
        yield running


class _Web(http.server.ThreadingHTTPServer):
    """Has *files* by their paths; *asked* are the paths that it was asked for."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Files)
        self.files = files
        self.asked: list[str] = []


class _Files(http.server.BaseHTTPRequestHandler):
    """Answers with what its server has under a path."""

    def do_GET(self) -> None:
        assert isinstance(self.server, _Web)
        content = self.server.files.get(self.path)
        self.server.asked.append(self.path)
        self.send_response(404 if content is None else 200)
        self.send_header("Content-Type", "application/octet-stream")
        self.end_headers()
        self.wfile.write(content or b"")

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def web(**files: bytes) -> Iterator[tuple[str, list[str]]]:
    """A web server with these files: its address, and the paths it was asked for."""
    with _Web({f"/{name}": content for name, content in files.items()}) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", server.asked
        finally:
            server.shutdown()
            thread.join()


def color_of(calls: Calls, job: dict[str, Any]) -> tuple[int, ...]:
    """The color of the picture that a job made of one that has a single color."""
    found = calls.picture(job).convert("RGB").getpixel((4, 4))
    assert isinstance(found, tuple)
    return found


def test_a_file_in_a_form(calls: Calls) -> None:
    """A file of a form is the picture that the workflow loads; the reply names it as an asset."""
    for order in (["image", "width"], ["width", "image"]):
        parts = {
            "image": ("my photo ü.png", png(RED), "image/png"),
            "width": (None, "24"),
        }
        answer = calls.form("scale", files={name: parts[name] for name in order})
        job = calls.done(answer)
        assert color_of(calls, job) == RED
        assert calls.picture(job).size == (24, 16)
        assert calls.has_asset(job["inputs"]["image"])
        assert job["inputs"]["width"] == 24


def test_an_asset(calls: Calls) -> None:
    """An asset's id is taken alone, in an object, and as the reference of the official API."""
    asset = calls.asset(png(GREEN))
    reference = {"__type": "core/ASSET", "info": {"id": asset["id"]}}
    for value in (asset["id"], {"asset_id": asset["id"]}, reference):
        job = calls.done(calls.call("scale", {"image": value}))
        assert color_of(calls, job) == GREEN
        assert job["inputs"]["image"] == asset["id"]
    assert color_of(calls, calls.done(calls.form("scale", data={"image": asset["id"]}))) == GREEN


def test_inputs_of_a_job_run_again(calls: Calls) -> None:
    """What the reply says was used gives the same again."""
    first = calls.done(calls.form("scale", files={"image": ("a.png", png(RED))}))
    again = calls.done(calls.call("scale", first["inputs"]))
    assert again["inputs"] == first["inputs"]
    assert color_of(calls, again) == RED


def test_an_output_of_a_job(calls: Calls) -> None:
    """The result of one job is the picture of the next, by its job alone or with its node."""
    first = calls.done(calls.form("scale", files={"image": ("a.png", png(GREEN))}))
    for more in ({}, {"node_id": "3"}, {"node_id": 3, "index": 0}):
        job = calls.done(calls.call("scale", {"image": {"job_id": first["id"], **more}}))
        assert color_of(calls, job) == GREEN
        assert job["inputs"]["image"] == first["outputs"][0]["id"]


def test_an_output_that_is_not_there(calls: Calls) -> None:
    """A job, node or place without such an output is told in a sentence."""
    first = calls.done(calls.form("scale", files={"image": ("a.png", png(GREEN))}))
    for more, told in (({"node_id": "1"}, "none of node '1'"), ({"index": 5}, "1 such output")):
        found = problems(calls.call("scale", {"image": {"job_id": first["id"], **more}}))
        assert told in found["image"]
    found = problems(calls.call("scale", {"image": {"job_id": str(uuid.uuid4())}}))
    assert "There is no job" in found["image"]


def test_a_data_uri(calls: Calls) -> None:
    """Bytes in the call itself are kept as an asset, and never told again."""
    text = base64.b64encode(png(RED)).decode()
    for uri in (f"data:image/png;base64,{text}", f"DATA:;base64,{text.rstrip('=')}"):
        answer = calls.call("scale", {"image": uri})
        job = calls.done(answer)
        assert color_of(calls, job) == RED
        assert calls.has_asset(job["inputs"]["image"])
        assert text not in answer.text


def test_a_web_address(calls: Calls) -> None:
    """What there is at an address is fetched before the call is answered."""
    with web(picture=png(GREEN)) as (url, asked):
        answer = calls.call("scale", {"image": f"{url}/picture"})
        assert asked == ["/picture"]
    assert color_of(calls, calls.done(answer)) == GREEN
    assert "127.0.0.1" not in str(answer.json()["inputs"])


def test_addresses_inside_are_refused(
    engine: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Without the setting nothing of this machine is fetched, and nothing is kept or queued."""
    with (
        web(picture=png()) as (url, asked),
        calling(tmp_path_factory.mktemp("inside")) as calls,
    ):
        found = problems(calls.call("scale", {"image": f"{url}/picture"}))
        assert "not public" in found["image"]
        assert asked == []
        assert calls.waiting() == 0
        body = {"inputs": {"image": f"{url}/picture"}}
        assert calls.client.post("/api/workflows/scale/validate", json=body).json()["valid"]
        assert asked == []


def test_addresses_can_be_switched_off(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A server that takes no inputs by address says so, also when asked about a call."""
    with calling(tmp_path_factory.mktemp("off"), url_inputs=False) as calls:
        inputs = {"image": "https://example.org/a.png"}
        assert "takes no inputs by address" in problems(calls.call("scale", inputs))["image"]
        told = calls.client.post("/api/workflows/scale/validate", json={"inputs": inputs}).json()
        assert told["valid"] is False
        assert "takes no inputs by address" in told["problems"][0]["message"]


def test_what_is_no_picture_is_refused(calls: Calls) -> None:
    """The content tells what came, whatever it is called; what was kept of it is forgotten."""
    before = len(calls.served.calls.jobs())
    with web(**{"a.png": b"<html>no picture</html>"}) as (url, _):
        sound = base64.b64encode(SOUND).decode()
        asset = calls.asset(SOUND, "a.png", "image/png")
        for value in (f"{url}/a.png", f"data:image/png;base64,{sound}", asset["id"]):
            found = problems(calls.call("scale", {"image": value}))
            assert "image takes a picture, but what came is" in found["image"]
    answer = calls.form("scale", files={"image": ("a.png", SOUND, "image/png")})
    assert "audio/wav" in problems(answer)["image"]
    assert len(calls.served.calls.jobs()) == before


@pytest.mark.parametrize(
    "value",
    [
        *("photo.png", "/etc/passwd", "C:\\photo.png", "../x.png", "file:///etc/passwd"),
        *("data:image/png", "data:image/png;base64,%%%", "data:image/png;base64,", 7, [], True),
        *({}, {"job_id": "x"}, {"asset_id": "x"}, {"path": "x"}, "", "ftp://example.org/a.png"),
    ],
)
def test_other_values_are_refused(calls: Calls, value: object) -> None:
    """No path of the server, no name of a file there, and nothing else stands for a file."""
    assert set(problems(calls.call("scale", {"image": value}))) == {"image"}


def test_the_default_is_taken(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The workflow's own file may be named, for it is what runs where nothing is said."""
    with calling(tmp_path_factory.mktemp("default")) as calls:
        answer = calls.call("scale", {"image": "example.png"})
        assert answer.status_code == 201
        assert answer.json()["inputs"] == {"image": "example.png"}
        assert set(problems(calls.call("scale", {"image": "other.png"}))) == {"image"}


def test_an_asset_of_nobody(calls: Calls) -> None:
    """An asset that is not there is named."""
    id = str(uuid.uuid4())
    assert id in problems(calls.call("scale", {"image": id}))["image"]


def test_a_file_for_no_file(calls: Calls) -> None:
    """A file where none is taken is refused before its bytes are looked at."""
    kept, too_large = _assets(calls), png((1, 2, 3)) + bytes(200_000)
    for name in ("width", "sound"):
        answer = calls.form("scale", files={name: ("a.png", too_large, "image/png")})
        assert set(problems(answer)) == {name}
    assert _assets(calls) == kept


def test_an_empty_file_field(calls: Calls) -> None:
    """A form in which nobody chose a file leaves the workflow's own."""
    answer = calls.form(
        "scale", files={"image": ("", b"", "application/octet-stream"), "width": (None, "9")}
    )
    assert "image" not in answer.json().get("inputs", {})


def test_a_file_without_bytes_is_refused(calls: Calls) -> None:
    """An empty file would only fail later, in words that name no input."""
    answer = calls.form("scale", files={"image": ("photo.png", b"", "image/png")})
    assert problems(answer) == {"image": "image is a file without any bytes."}


def test_the_name_of_a_file_where_a_file_is_meant(calls: Calls) -> None:
    """Who forgets the @ of curl is told how a file comes."""
    answer = calls.form("scale", data={"image": "holidays/photo.png"})
    assert "-F NAME=@FILE" in problems(answer)["image"]


def test_a_file_that_has_to_be_given(engine: str, tmp_path: Path) -> None:
    """A call without a picture is refused, and told so when it is asked first, where no backend
    has the workflow's own; one with a picture is taken."""
    graph = WORKFLOWS["scale"] | {"1": {"class_type": "LoadImage", "inputs": {"image": "no.png"}}}
    with calling(tmp_path, engine) as calls:
        (tmp_path / "workflows" / "scale.json").write_text(json.dumps(graph), encoding="utf-8")
        wait_until(lambda: "required" in calls.client.get("/api/workflows/scale").json()["inputs"])
        assert "has to be given" in problems(calls.call("scale", {}))["image"]
        assert calls.waiting() == 0
        told = calls.client.post("/api/workflows/scale/validate", json={}).json()
        assert (told["valid"], [one["input"] for one in told["problems"]]) == (False, ["image"])
        assert calls.client.post("/api/workflows/scale/validate", json={"files": ["image"]}).json()[
            "valid"
        ]
        calls.done(calls.form("scale", files={"image": ("a.png", png(RED), "image/png")}))


def test_a_refused_call_keeps_nothing(calls: Calls) -> None:
    """Files of a call that is refused for another reason are forgotten."""
    kept = _assets(calls)
    files = {"image": ("a.png", png((9, 9, 9)), "image/png"), "width": (None, "wide")}
    assert set(problems(calls.form("scale", files=files))) == {"width"}
    late = {"image": ("a.png", png((9, 9, 8)), "image/png"), "priority": (None, "x")}
    assert code(calls.form("scale", files=late)) == (422, "invalid_request")
    text = base64.b64encode(png((9, 9, 7))).decode()
    data = {"image": f"data:image/png;base64,{text}"}
    used = calls.call("nap", {}).json()["id"]
    assert code(calls.call("scale", data, id=used)) == (422, "idempotency_key_reuse")
    assert _assets(calls) == kept


def test_files_have_a_limit(calls: Calls) -> None:
    """A file of a form, of a data: URI or of an address may be as large as an upload."""
    large = png() + bytes(200_000)
    kept = _assets(calls)
    assert code(calls.form("scale", files={"image": ("a.png", large)}))[0] == 413
    uri = f"data:image/png;base64,{base64.b64encode(large).decode()}"
    assert "too large" in problems(calls.call("scale", {"image": uri}))["image"]
    with web(large=large) as (url, _):
        told = problems(calls.call("scale", {"image": f"{url}/large"}))["image"]
    assert "more than 200,000 bytes" in told
    assert _assets(calls) == kept


def test_a_slow_address_is_cut(engine: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What does not come in time is given up with a sentence."""
    with calling(
        tmp_path_factory.mktemp("slow"), url_hosts=("127.0.0.1",), url_timeout=1.0
    ) as calls:
        with _silent() as url:
            began = time.monotonic()
            told = problems(calls.call("scale", {"image": url}))["image"]
        assert "within 1 s" in told
        assert time.monotonic() - began < 10


@contextmanager
def _silent() -> Iterator[str]:
    """The address of a server that takes connections and says nothing."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/a.png"


def test_the_same_file_is_the_same_call(calls: Calls) -> None:
    """Under one key a file is known again by its bytes, however it comes; an address by itself."""
    key = {"Idempotency-Key": str(uuid.uuid4())}
    text = base64.b64encode(png(RED)).decode()
    first = calls.form("scale", files={"image": ("a.png", png(RED))}, headers=key)
    kept = _assets(calls)
    again = [
        calls.form("scale", files={"image": ("b.png", png(RED))}, headers=key),
        calls.call("scale", {"image": f"data:image/png;base64,{text}"}, headers=key),
    ]
    for answer in again:
        assert answer.headers.get("Idempotent-Replay") == "true", answer.text
        assert answer.json()["id"] == first.json()["id"]
    assert _assets(calls) == kept
    other = calls.form("scale", files={"image": ("a.png", png(GREEN))}, headers=key)
    assert code(other) == (422, "idempotency_key_reuse")
    key = {"Idempotency-Key": str(uuid.uuid4())}
    with web(picture=png(GREEN)) as (url, asked):
        inputs = {"image": f"{url}/picture"}
        once = calls.call("scale", inputs, headers=key)
        twice = calls.call("scale", inputs, headers=key)
        assert once.json()["id"] == twice.json()["id"]
        assert asked == ["/picture"]


def test_a_mask_is_laid_over_its_image(calls: Calls) -> None:
    """A mask of its own, and one that is drawn over the image, both come with the call."""
    files = {"mask": ("m.png", _mask()), "image": ("a.png", png(RED))}
    job = calls.done(calls.form("masked", files=files))
    assert calls.has_asset(job["inputs"]["image"])
    assert calls.has_asset(job["inputs"]["mask"])
    plain = calls.done(calls.form("masked", files={"image": ("a.png", png(RED))}))
    assert _shown(calls, job) != _shown(calls, plain)


def test_validating_looks_at_files(calls: Calls) -> None:
    """Files are looked at as far as that keeps and fetches nothing; those to come are named."""
    asset, sound = calls.asset(png()), calls.asset(SOUND, "a.wav", "audio/wav")

    def told(**body: object) -> dict[str, Any]:
        answer = calls.client.post("/api/workflows/scale/validate", json=body)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    assert told(inputs={"image": asset["id"]})["valid"] is True
    assert told(files=["image"])["valid"] is True
    assert "audio/wav" in told(inputs={"image": sound["id"]})["problems"][0]["message"]
    assert "no file" in told(files=["width"])["problems"][0]["message"]
    uri = f"data:image/png;base64,{base64.b64encode(SOUND).decode()}"
    assert told(inputs={"image": uri})["valid"] is False


def _mask() -> bytes:
    file = io.BytesIO()
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(file, "PNG")
    return file.getvalue()


def _shown(calls: Calls, job: dict[str, Any]) -> bytes:
    output = next(one for one in job["outputs"] if one["type"] == "text")
    return calls.client.get(output["url"]).content


def _assets(calls: Calls) -> int:
    """How many assets there are that no job made."""
    file = next(calls.served.settings.data.glob("*.db"))
    with closing(sqlite3.connect(file)) as database:
        (count,) = database.execute("SELECT count(*) FROM assets WHERE job_id IS NULL").fetchone()
    return int(count)


def test_a_long_address_of_escapes_is_refused_unread(calls: Calls) -> None:
    """A data: URI of a million escapes, each of which takes many times its size, is not read."""
    answer = calls.call("scale", {"image": "data:image/png," + "%41" * 1_000_000})
    assert problems(answer) == {"image": "image is a long data: URI that is not base64. Use that."}


def test_a_long_field_of_a_form_is_no_object(calls: Calls) -> None:
    """A field that says which file is meant is short; a long one is not read as JSON."""
    text = '{"job_id": ' + " " * 20_000 + '"x"}'
    answer = calls.form("scale", data={"image": text}, files={"width": (None, "24")})
    assert "image takes a file" in problems(answer)["image"]
