"""The catalogue over HTTP: what is on offer, what a file would be, what is put on offer."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis

from comfyserve.access import Caller
from comfyserve.denials import ServerStarting
from comfyserve.server.workflows.files import MOST_BYTES
from comfyserve.server.workflows.offered import offered, read_catalog
from comfyserve.settings import BackendSettings
from tests.engines import RunningEngine, running_engine
from tests.server.asked import Asked, asked

TESTS = Path(__file__).parents[1]
EXAMPLES = TESTS.parent / "examples"
TEXT_TO_IMAGE = (EXAMPLES / "text_to_image.json").read_bytes()
IMAGE_TO_IMAGE = (EXAMPLES / "image_to_image.json").read_bytes()
MEDIA = TESTS / "workflows" / "media"
PICTURE = (MEDIA / "text.png").read_bytes()
"""A picture that carries a workflow."""
SKETCH = (EXAMPLES / "inputs" / "sketch.png").read_bytes()
"""One that carries none."""

SIDECAR = """
title = "Hearts"
description = "Paints hearts."
[inputs.prompt]
targets = ["6.text"]
"""

Document = dict[str, Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of workflows, with a name that wants care."""
    made = tmp_path / "wörk flows"
    made.mkdir()
    return made


@pytest.fixture
async def server(tmp_path: Path, folder: Path) -> AsyncIterator[Asked]:
    """A server with that folder, and a backend that does not answer."""
    async with asked(tmp_path / "data", workflows=folder) as running:
        yield running


@pytest.fixture(scope="module")
def engine() -> Iterator[RunningEngine]:
    with running_engine(test_nodes=True) as running:
        yield running


async def until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 15
    while not is_so():
        assert time.monotonic() < end, "it never became so"
        await asyncio.sleep(0.01)


async def document(client: httpx.AsyncClient, path: str) -> Document:
    """The JSON document at *path*, which has to be there."""
    answer = await client.get(path)
    assert answer.status_code == 200, answer.text
    found: Document = answer.json()
    return found


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


# What is on offer


async def test_a_folder_is_the_catalogue(server: Asked, folder: Path) -> None:
    """A file dropped in is listed by its name, an edit is picked up, and it goes with its file."""
    client = await server.by()
    assert await document(client, "/api/workflows") == {"workflows": [], "problems": []}

    (folder / "My Hearts.json").write_bytes(TEXT_TO_IMAGE)
    await until(lambda: "My-Hearts" in server.host.catalog)
    [item] = (await document(client, "/api/workflows"))["workflows"]
    (folder / "My Hearts.toml").write_text('title = "Hearts"', encoding="utf-8")
    await until(lambda: server.host.catalog["My-Hearts"].version != item["version"])
    detail = await document(client, "/api/workflows/My-Hearts")
    (folder / "My Hearts.json").unlink()
    await until(lambda: "My-Hearts" not in server.host.catalog)

    assert (item["name"], item["source"], item["available"]) == ("My-Hearts", "folder", True)
    assert (detail["title"], detail["problem"]) == ("Hearts", None)
    assert "prompt" in detail["inputs"]["properties"]
    assert {*detail["basic"], *detail["advanced"]} == detail["inputs"]["properties"].keys()
    assert detail["outputs"][0]["class_type"] == "SaveImage"
    answer = await client.get("/api/workflows/my-hearts")
    assert code(answer) == (404, "workflow_not_found")


async def test_a_broken_edit_keeps_the_last_good_version(server: Asked, folder: Path) -> None:
    """It is told in the list, in the detail and among the problems, and the one before served."""
    client = await server.by()
    (folder / "hearts.json").write_bytes(TEXT_TO_IMAGE)
    await until(lambda: "hearts" in server.host.catalog)
    before = await document(client, "/api/workflows/hearts")

    (folder / "hearts.json").write_bytes(b'{"1": ')
    await until(lambda: server.host.catalog["hearts"].problem is not None)
    listed = await document(client, "/api/workflows")
    after = await document(client, "/api/workflows/hearts")

    assert listed["workflows"][0]["problem"] == after["problem"] is not None
    assert listed["problems"] == [{"name": "hearts", "message": after["problem"]}]
    assert "hearts.json" in after["problem"]
    assert (after["version"], after["inputs"]) == (before["version"], before["inputs"])


async def test_a_file_that_never_was_a_workflow_is_shown_with_its_problem(
    server: Asked, folder: Path
) -> None:
    """A page can show what is wrong with it; it just cannot be called."""
    client = await server.by()
    (folder / "sketch.png").write_bytes(SKETCH)
    await until(lambda: "sketch" in server.host.catalog)

    detail = await document(client, "/api/workflows/sketch")
    call = await client.post("/api/workflows/sketch/jobs", json={})

    assert (detail["available"], detail["inputs"]["properties"]) == (False, {})
    assert "without a ComfyUI workflow" in detail["problem"]
    assert code(call) == (409, "workflow_broken")


async def test_a_poll_costs_nothing_while_nothing_changes(server: Asked) -> None:
    """With the tag of what it has a page is told that nothing changed, until something does."""
    client = await server.by()
    await client.put("/api/workflows/hearts", content=TEXT_TO_IMAGE)
    for path in ("/api/workflows", "/api/workflows/hearts"):
        tag = (await client.get(path)).headers["etag"]
        same = await client.get(path, headers={"If-None-Match": tag})
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)

        form: dict[str, Any] = {"file": TEXT_TO_IMAGE, "sidecar": f"# {path}\n{SIDECAR}".encode()}
        await client.put("/api/workflows/hearts", files=form)

        assert (await client.get(path, headers={"If-None-Match": tag})).status_code == 200


async def test_a_picture_is_served_as_nothing_but_a_picture(server: Asked, folder: Path) -> None:
    """Its address changes with it, so it can be kept; a browser runs nothing of it."""
    client = await server.by()
    (folder / "fox.png").write_bytes(PICTURE)
    (folder / "hearts.json").write_bytes(TEXT_TO_IMAGE)
    await until(lambda: len(server.host.catalog) == 2)
    detail = await document(client, "/api/workflows/fox")

    picture = await client.get(detail["thumbnail_url"])
    head = await client.head("/api/workflows/fox/thumbnail")
    again = await client.get(
        "/api/workflows/fox/thumbnail", headers={"If-None-Match": picture.headers["etag"]}
    )
    none = await client.get("/api/workflows/hearts/thumbnail")

    assert (picture.status_code, picture.content) == (200, PICTURE)
    assert picture.headers["content-type"] == "image/png"
    assert picture.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in picture.headers["content-security-policy"]
    assert "immutable" in picture.headers["cache-control"]
    assert (head.content, head.headers["content-length"]) == (b"", str(len(PICTURE)))
    assert "immutable" not in head.headers["cache-control"]
    assert again.status_code == 304
    assert code(none) == (404, "not_found")
    assert (await document(client, "/api/workflows/hearts"))["thumbnail_url"] is None


async def test_what_is_not_read_yet_is_waited_for_and_then_promised(
    tmp_path: Path, folder: Path
) -> None:
    """A server answers before a large folder is read; who asks too early is told to come again."""
    for number in range(300):
        (folder / f"w{number}.json").write_bytes(TEXT_TO_IMAGE)
    async with asked(tmp_path / "data", workflows=folder) as server:
        assert not server.host.catalog.is_read
        with pytest.raises(ServerStarting):
            await read_catalog(server.host, patience=0)
        with pytest.raises(ServerStarting):
            await offered(server.host, Caller(), "w299", patience=0)

        listed = await document(await server.by(), "/api/workflows")

    assert len(listed["workflows"]) == 300


# What a backend's nodes say


async def test_limits_and_choices_are_those_of_the_backends(
    tmp_path: Path, folder: Path, engine: RunningEngine
) -> None:
    """They are there once a backend told its nodes, and still after a restart while it is down."""
    (folder / "hearts.json").write_bytes(TEXT_TO_IMAGE)
    backends = (BackendSettings(engine.url),)
    async with asked(tmp_path / "data", workflows=folder, backends=backends) as server:
        await until(lambda: bool(server.host.catalog.nodes))
        await server.host.catalog.wait_until_read()
        first = await document(await server.by(), "/api/workflows/hearts")
    with running_engine() as other:
        backends = (BackendSettings(other.url),)
        async with asked(tmp_path / "other", workflows=folder, backends=backends) as server:
            await until(lambda: bool(server.host.catalog.nodes))
    async with asked(tmp_path / "other", workflows=folder, backends=backends) as server:
        after = await document(await server.by(), "/api/workflows/hearts")
        assert not any(member.is_up for member in server.host.fleet.members)

    steps = first["inputs"]["properties"]["steps"]
    assert first["is_described"] and "maximum" in steps and steps["x-kind"] == "integer"
    assert after["is_described"] and after["inputs"] == first["inputs"]


async def test_drift_is_told_before_a_caller_finds_out(
    tmp_path: Path, folder: Path, engine: RunningEngine, caplog: pytest.LogCaptureFixture
) -> None:
    """The list and the detail say which backend lacks what, by its id; the log says it once."""
    graph = json.loads(TEXT_TO_IMAGE)
    graph["99"] = {"class_type": "NotThere", "inputs": {}}
    graph["98"] = {"class_type": "SaveImage", "inputs": {"images": ["99", 0]}}
    (folder / "hearts.json").write_text(json.dumps(graph), encoding="utf-8")
    backends = (BackendSettings(engine.url),)
    async with asked(tmp_path / "data", workflows=folder, backends=backends) as server:
        await until(lambda: bool(server.host.catalog.drift("hearts")))
        answer = await (await server.by()).get("/api/workflows")
        detail = await document(await server.by(), "/api/workflows/hearts")
        [member] = server.host.fleet.members

    assert answer.json()["workflows"][0]["drifted"] == [member.id]
    [drift] = detail["drift"]
    assert (drift["backend"], drift["node"], drift["what"]) == (member.id, "99", "unknown_node")
    assert engine.url not in answer.text + json.dumps(detail)
    told = [one for one in caplog.records if "does not fit" in one.getMessage()]
    assert len(told) == 1


# What a file would be


@pytest.mark.parametrize(
    ("content", "first"), [(TEXT_TO_IMAGE, "prompt"), (PICTURE, "width")], ids=["graph", "picture"]
)
async def test_a_file_can_be_inspected(server: Asked, content: bytes, first: str) -> None:
    """Its inputs and outputs are told, and nothing of it is kept."""
    client = await server.by()

    answer = await client.post("/api/workflows/inspect?name=My Hearts", content=content)

    found = answer.json()
    assert answer.status_code == 200
    assert (found["name"], found["convention"]) == ("My-Hearts", "inference")
    assert first in found["inputs"]["properties"] and found["outputs"]
    assert found["drift"] == found["fits"] == []
    assert len(server.host.catalog) == 0


async def test_a_form_brings_a_file_its_name_and_its_sidecar(
    tmp_path: Path, engine: RunningEngine
) -> None:
    """As a browser sends them; and each backend is told to fit or not."""
    backends = (BackendSettings(engine.url),)
    async with asked(tmp_path / "data", backends=backends) as server:
        await until(lambda: bool(server.host.catalog.nodes))
        client = await server.by()
        form: dict[str, Any] = {
            "file": ("Red Hearts.json", TEXT_TO_IMAGE),
            "sidecar": (None, SIDECAR),
        }
        found = (await client.post("/api/workflows/inspect", files=form)).json()
        [member] = server.host.fleet.members

    assert (found["name"], found["title"], found["convention"]) == (
        *("Red-Hearts", "Hearts"),
        "sidecar",
    )
    assert list(found["inputs"]["properties"]) == ["prompt"]
    assert found["fits"] == [{"backend": member.id, "fits": True}]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"content": b""}, (422, "invalid_request")),
        ({"content": b"\x00" * 100}, (422, "workflow_unreadable")),
        ({"content": b"[" * 100_000}, (422, "workflow_unreadable")),
        ({"content": SKETCH}, (422, "workflow_unreadable")),
        ({"content": b" " * 2000}, (413, "payload_too_large")),
        ({"files": {"sidecar": (None, SIDECAR)}}, (422, "invalid_request")),
        ({"files": {"flie": ("a.json", b"{}")}}, (422, "invalid_request")),
        ({"files": {"file": ("a.json", b"")}}, (422, "invalid_request")),
        ({"files": {"file": ("a.json", b" " * 3000)}}, (413, "payload_too_large")),
        (
            {"files": {"file": ("a.json", b"{}"), "sidecar": ("a.toml", b"\xff")}},
            (422, "invalid_request"),
        ),
        (
            {"files": {"file": ("a.json", TEXT_TO_IMAGE), "sidecar": ("a.toml", b"titel = 1")}},
            (422, "workflow_unreadable"),
        ),
        (
            {"content": b"no form", "headers": {"Content-Type": "multipart/form-data"}},
            (422, "invalid_request"),
        ),
    ],
    ids=[
        *("nothing", "zeros", "deep", "a-picture-without", "large"),
        *("no-file", "misspelt", "empty-file", "large-file", "sidecar-not-text", "sidecar-wrong"),
        "no-boundary",
    ],
)
async def test_what_is_no_workflow_is_refused_with_a_reason(
    tmp_path: Path, body: dict[str, Any], expected: tuple[int, str]
) -> None:
    """No body makes a server error, and none is kept."""
    is_large = expected[0] == 413
    caps = {"body_cap": 1024, "upload_cap": 1024} if is_large else {}
    async with asked(tmp_path / "data", **caps) as server:
        client = await server.by()
        inspected = await client.post("/api/workflows/inspect", **body)
        put = await client.put("/api/workflows/hearts", **body)

        assert code(inspected) == code(put) == expected
        assert len(server.host.catalog) == 0
        await server.host.publishing.reload()
        assert len(server.host.catalog) == 0


def test_a_cap_of_its_own_is_within_the_usual_ones() -> None:
    """What is kept in memory for as long as it is on offer is no film."""
    assert MOST_BYTES == 32 * 2**20


# What is put on offer


async def test_a_published_workflow_lasts(tmp_path: Path) -> None:
    """It is on offer at once and replaced by the next, outlives a restart, and can be deleted."""
    async with asked(tmp_path) as server:
        client = await server.by()
        new = await client.put("/api/workflows/hearts", content=IMAGE_TO_IMAGE)
        form: dict[str, Any] = {
            "file": ("x.json", TEXT_TO_IMAGE),
            "sidecar": ("x.toml", SIDECAR.encode()),
        }
        other = await client.put("/api/workflows/hearts", files=form)
    async with asked(tmp_path) as server:
        client = await server.by()
        after = await document(client, "/api/workflows/hearts")
        gone = await client.delete("/api/workflows/hearts")
        again = await client.delete("/api/workflows/hearts")
    async with asked(tmp_path) as server:
        client = await server.by()
        listed = await document(client, "/api/workflows")

    assert (new.status_code, other.status_code) == (201, 200)
    assert new.headers["location"] == "/api/workflows/hearts"
    assert "image" in new.json()["inputs"]["properties"]
    assert (other.json()["title"], other.json()["source"]) == ("Hearts", "published")
    assert after == other.json()
    assert (gone.status_code, code(again)) == (204, (404, "workflow_not_found"))
    assert listed["workflows"] == []


@pytest.mark.parametrize("name", ["a b", "..", "-x", "x" * 121, "con", "Gr%C3%BC%C3%9Fe"])
async def test_a_name_has_to_be_one_that_a_file_gives(server: Asked, name: str) -> None:
    """Names go into addresses, shells and files, so not every text is one."""
    client = await server.by()

    answer = await client.put(f"/api/workflows/{name.replace('..', '%2e%2e')}", content=b"{}")

    assert answer.status_code in (404, 405, 409)
    assert len(server.host.catalog) == 0
    if answer.status_code == 409:
        assert code(answer) == (409, "workflow_name_refused")


async def test_names_that_differ_only_in_case_are_one(server: Asked) -> None:
    """Not every disk tells them apart, nor does every reader."""
    client = await server.by()
    await client.put("/api/workflows/hearts", content=TEXT_TO_IMAGE)

    answer = await client.put("/api/workflows/Hearts", content=TEXT_TO_IMAGE)

    assert code(answer) == (409, "workflow_name_refused")
    assert "'hearts'" in answer.json()["error"]["message"]


async def test_the_folders_names_are_the_folders(server: Asked, folder: Path) -> None:
    """Nobody replaces or takes away over HTTP what lies in the folder."""
    client = await server.by()
    (folder / "hearts.json").write_bytes(TEXT_TO_IMAGE)
    await until(lambda: "hearts" in server.host.catalog)

    put = await client.put("/api/workflows/hearts", content=IMAGE_TO_IMAGE)
    deleted = await client.delete("/api/workflows/hearts")

    assert code(put) == code(deleted) == (409, "workflow_in_folder")
    assert "hearts.json" in put.json()["error"]["message"]


async def test_what_another_process_published_is_offered_once_it_is_read_again(
    tmp_path: Path,
) -> None:
    """`Publishing.reload` takes what the store has, whoever put it there."""
    async with asked(tmp_path) as server:
        client = await server.by()
        await client.put("/api/workflows/hearts", content=TEXT_TO_IMAGE)
        await server.host.catalog.set_published([])
        assert code(await client.get("/api/workflows/hearts")) == (404, "workflow_not_found")

        await server.host.publishing.reload()

        assert (await client.get("/api/workflows/hearts")).status_code == 200


async def test_a_full_disk_takes_no_workflows(tmp_path: Path) -> None:
    """The cap on all that is kept counts for them, too."""
    async with asked(tmp_path, disk_cap=10) as server:
        client = await server.by()
        asset: dict[str, Any] = {
            "file": ("a.txt", b"ten bytes."),
            "content_type": (None, "text/plain"),
        }
        await client.post("/api/v2/assets", files={**asset, "file_path": (None, "a.txt")})

        answer = await client.put("/api/workflows/hearts", content=TEXT_TO_IMAGE)

        assert code(answer) == (507, "disk_cap_reached")
        assert len(server.host.catalog) == 0


# Who may


async def test_a_key_sees_the_workflows_that_it_may_run(server: Asked, folder: Path) -> None:
    """The others are not there for it: no list, detail, picture, hint or path tells of them."""
    admin = await server.with_key("admin", is_admin=True)
    for name in ("hearts", "hearts2", "secret"):
        await admin.put(f"/api/workflows/{name}", content=PICTURE)
    (folder / "secret2.json").write_bytes(b"{")
    await until(lambda: "secret2" in server.host.catalog)
    narrow = await server.with_key("narrow", workflows=["hearts"])

    listed = await document(narrow, "/api/workflows")
    openapi = await document(narrow, "/openapi.json")
    unseen = [
        await narrow.get("/api/workflows/secret"),
        await narrow.get("/api/workflows/secret/thumbnail"),
        await narrow.get("/api/workflows/hearts3"),
    ]

    assert [one["name"] for one in listed["workflows"]] == ["hearts"]
    assert listed["problems"] == []
    typed = [path for path in openapi["paths"] if path.startswith("/api/workflows/")]
    assert [path for path in typed if "{" not in path and "inspect" not in path] == [
        "/api/workflows/hearts/jobs"
    ]
    assert {code(answer) for answer in unseen} == {(404, "workflow_not_found")}
    assert unseen[2].json()["error"]["details"] == {"nearest": ["hearts"]}
    assert (await narrow.get("/api/workflows/hearts/thumbnail")).status_code == 200
    assert len((await document(admin, "/api/workflows"))["workflows"]) == 4


async def test_a_page_shows_pictures_by_signed_links(server: Asked) -> None:
    """Where there are keys, a thumbnail's address opens it without one, and nothing else."""
    admin, nobody = await server.with_key("admin", is_admin=True), await server.by()
    for name in ("狐", "secret"):
        assert (await admin.put(f"/api/workflows/{name}", content=PICTURE)).status_code == 201
    listed = await document(admin, "/api/workflows")
    address = next(one["thumbnail_url"] for one in listed["workflows"] if one["name"] == "狐")
    tag = (await admin.get("/api/workflows")).headers["etag"]

    shown = await nobody.get(address)

    assert (shown.status_code, shown.content) == (200, PICTURE)
    assert (await nobody.get(address.partition("?")[0])).status_code == 401
    moved = address.replace("%E7%8B%90", "secret")
    assert moved != address
    assert code(await nobody.get(moved)) == (403, "forbidden")
    assert (await admin.get("/api/workflows", headers={"If-None-Match": tag})).status_code == 304


async def test_publishing_takes_a_key_that_may(server: Asked) -> None:
    """And one that may run some workflows only publishes under their names only."""
    plain = await server.with_key("plain")
    graphs = await server.with_key("graphs", may_graphs=True)
    narrow = await server.with_key("narrow", may_publish=True, workflows=["hearts"])
    path = "/api/workflows/hearts"
    body: dict[str, Any] = {"content": TEXT_TO_IMAGE}

    assert code(await plain.put(path, **body)) == (403, "forbidden")
    assert code(await plain.delete(path)) == (403, "forbidden")
    assert code(await plain.post("/api/workflows/inspect", **body)) == (403, "forbidden")
    assert code(await graphs.put(path, **body)) == (403, "forbidden")
    assert (await graphs.post("/api/workflows/inspect", **body)).status_code == 200
    assert (await narrow.put(path, **body)).status_code == 201
    assert code(await narrow.put("/api/workflows/other", **body)) == (403, "forbidden")
    assert (await narrow.delete(path)).status_code == 204


# What the document says


async def test_each_workflow_has_a_path_of_its_own(
    tmp_path: Path, folder: Path, engine: RunningEngine
) -> None:
    """Typed, titled and described, as JSON and as a form; and the document is a valid one."""
    (folder / "hearts.json").write_bytes(TEXT_TO_IMAGE)
    (folder / "hearts.toml").write_text('title = "Hearts"\ndescription = "Paints."', "utf-8")
    (folder / "repaint.json").write_bytes(IMAGE_TO_IMAGE)
    (folder / "日本.json").write_bytes(TEXT_TO_IMAGE)
    (folder / "中国.json").write_bytes(TEXT_TO_IMAGE)
    backends = (BackendSettings(engine.url),)
    async with asked(tmp_path / "data", workflows=folder, backends=backends) as server:
        await until(lambda: bool(server.host.catalog.nodes))
        told = await document(await server.by(), "/openapi.json")

    hearts = told["paths"]["/api/workflows/hearts/jobs"]["post"]
    bodies = hearts["requestBody"]["content"]
    inputs = bodies["application/json"]["schema"]["properties"]["inputs"]
    assert (hearts["summary"], hearts["description"]) == ("Hearts", "Paints.")
    assert inputs["properties"]["steps"]["maximum"] > 0
    assert inputs["additionalProperties"] is False
    assert {"metadata", "priority"} <= bodies["application/json"]["schema"]["properties"].keys()
    repaint = told["paths"]["/api/workflows/repaint/jobs"]["post"]["requestBody"]["content"]
    form = repaint["multipart/form-data"]["schema"]["properties"]
    assert (form["image"]["format"], form["steps"]["type"]) == ("binary", "integer")
    created = hearts["responses"]["201"]["content"]["application/json"]["schema"]
    assert created == {"$ref": "#/components/schemas/Job"}
    paths = told["paths"].values()
    ids = [one["operationId"] for path in paths for one in path.values()]
    assert len(ids) == len(set(ids))
    schemathesis.openapi.from_dict(told).validate()


async def test_the_document_follows_the_catalogue(server: Asked) -> None:
    """A path comes with its workflow, changes with it, and goes with it."""
    client = await server.by()
    path = "/api/workflows/hearts/jobs"
    before = (await document(client, "/openapi.json"))["paths"]
    form: dict[str, Any] = {"file": ("x.json", TEXT_TO_IMAGE), "sidecar": (None, SIDECAR)}
    await client.put("/api/workflows/hearts", files=form)
    first = (await document(client, "/openapi.json"))["paths"]
    form["sidecar"] = (None, SIDECAR.replace("Hearts", "Red hearts"))
    await client.put("/api/workflows/hearts", files=form)
    second = (await document(client, "/openapi.json"))["paths"]
    await client.delete("/api/workflows/hearts")
    after = (await document(client, "/openapi.json"))["paths"]

    assert path not in before
    assert first[path]["post"]["summary"] == "Hearts"
    assert second[path]["post"]["summary"] == "Red hearts"
    assert path not in after
