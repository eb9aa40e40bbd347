"""The routes of the catalogue: what is on offer, what a file would be, what is published."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from tests.engines import running_engine
from tests.server.asked import Asked, asked
from tests.server.calling import WORKFLOWS, Calls, calling
from tests.server_calls import Document, wait_until

EXAMPLES = Path(__file__).parents[2] / "examples"
TEXT_TO_IMAGE = (EXAMPLES / "text_to_image.json").read_bytes()
PICTURE = (EXAMPLES / "sketch.png").read_bytes()

pytestmark = pytest.mark.timeout(90)


@pytest.fixture(scope="module")
def engine() -> Iterator[str]:
    with running_engine(test_nodes=True) as running:
        yield running.url


@pytest.fixture
def calls(tmp_path: Path, engine: str) -> Iterator[Calls]:
    """A server with a few workflows, in front of the engine."""
    with calling(tmp_path, engine) as running:
        yield running


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Asked]:
    """A server that has no keys and no folder yet."""
    async with asked(tmp_path) as running:
        yield running


def folder(calls: Calls) -> Path:
    path = calls.served.settings.workflows
    assert path is not None
    return path


def listed(calls: Calls) -> dict[str, Document]:
    document = calls.client.get("/api/workflows").json()
    return {item["name"]: item for item in document["workflows"]}


def put(calls: Calls, name: str, content: bytes) -> httpx.Response:
    kind = {"Content-Type": "application/octet-stream"}
    return calls.client.put(f"/api/workflows/{name}", content=content, headers=kind)


def test_a_file_is_served_within_a_second_and_an_edit_is_picked_up(calls: Calls) -> None:
    """Dropped in it is there, edited it is another version, taken away it is gone."""
    file = folder(calls) / "fresh.json"
    assert "fresh" not in listed(calls)

    file.write_bytes(TEXT_TO_IMAGE)
    wait_until(lambda: "fresh" in listed(calls), seconds=5)
    before = listed(calls)["fresh"]["version"]
    file.write_text(json.dumps(WORKFLOWS["scale"]), encoding="utf-8")
    wait_until(lambda: listed(calls)["fresh"]["version"] != before, seconds=5)
    file.unlink()
    wait_until(lambda: "fresh" not in listed(calls), seconds=5)

    assert calls.client.get("/api/workflows/fresh").status_code == 404


def test_a_broken_edit_keeps_the_last_good_version_and_says_so(calls: Calls) -> None:
    """In the list, in the workflow itself, and among the problems; it can still be called."""
    version = listed(calls)["nap"]["version"]

    (folder(calls) / "nap.json").write_text('{"8": ', encoding="utf-8")
    wait_until(lambda: listed(calls)["nap"]["problem"] is not None, seconds=10)

    item, detail = listed(calls)["nap"], calls.client.get("/api/workflows/nap").json()
    assert (item["available"], item["version"]) == (True, version)
    assert detail["problem"] == item["problem"]
    problems = calls.client.get("/api/workflows").json()["problems"]
    assert {"name": "nap", "message": item["problem"]} in problems
    calls.done(calls.call("nap", {"seconds": 0.0}))


def test_a_workflow_tells_what_it_takes(calls: Calls) -> None:
    """Its inputs as a JSON Schema in order, which of them are basic, its outputs."""
    detail = calls.client.get("/api/workflows/scale").json()

    assert list(detail["inputs"]["properties"]) == ["image", "width"]
    assert detail["inputs"]["properties"]["width"]["minimum"] >= 0
    assert detail["basic"] + detail["advanced"] == ["image", "width"]
    assert [output["class_type"] for output in detail["outputs"]] == ["SaveImage"]
    assert detail["is_described"] is True


def test_what_did_not_change_is_not_sent_again(calls: Calls) -> None:
    """A list and a workflow have tags by which a page asks cheaply."""
    for path in ("/api/workflows", "/api/workflows/scale"):
        tag = calls.client.get(path).headers["ETag"]

        again = calls.client.get(path, headers={"If-None-Match": tag})

        assert (again.status_code, again.content) == (304, b"")

    tag = calls.client.get("/api/workflows").headers["ETag"]
    put(calls, "mine", TEXT_TO_IMAGE)
    assert calls.client.get("/api/workflows", headers={"If-None-Match": tag}).status_code == 200


def test_a_workflow_is_published_replaced_and_withdrawn(calls: Calls) -> None:
    """201, 200, 204; it can be called meanwhile, and its jobs outlive it."""
    made = put(calls, "mine", TEXT_TO_IMAGE)
    assert (made.status_code, made.headers["Location"]) == (201, "/api/workflows/mine")
    assert made.json()["source"] == "published"
    assert "prompt" in made.json()["inputs"]["properties"]

    replaced = put(calls, "mine", json.dumps(WORKFLOWS["nap"]).encode())
    assert replaced.status_code == 200
    assert replaced.json()["version"] != made.json()["version"]
    job = calls.call("mine", {}).json()
    assert calls.client.delete("/api/workflows/mine").status_code == 204

    assert calls.client.get("/api/workflows/mine").status_code == 404
    assert calls.client.delete("/api/workflows/mine").status_code == 404
    assert calls.served.calls.until_over(job["id"])["workflow"] == "mine"


def test_a_sidecar_comes_beside_its_file(calls: Calls) -> None:
    """As a field or as a file of the form; it decides which inputs there are."""
    graph, sidecar = json.dumps(WORKFLOWS["nap"]), '[inputs.seconds]\ntargets = ["8.seconds"]\n'

    for sent in (sidecar, ("nap.toml", sidecar)):
        answer = calls.client.put(
            "/api/workflows/rest",
            files={"file": ("nap.json", graph)} | ({"sidecar": sent} if sent != sidecar else {}),
            data={"sidecar": sidecar} if sent == sidecar else {},
        )
        assert answer.status_code in (200, 201), answer.text
        assert list(answer.json()["inputs"]["properties"]) == ["seconds"]


def test_published_workflows_outlive_the_server(tmp_path: Path, engine: str) -> None:
    """They are kept beside the jobs, and what never was one is not."""
    with calling(tmp_path, engine) as first:
        put(first, "mine", TEXT_TO_IMAGE)
        refused = put(first, "bad", PICTURE)
        assert refused.status_code == 422, refused.text

    with calling(tmp_path, engine) as second:
        assert listed(second)["mine"]["source"] == "published"
        assert "bad" not in listed(second)


@pytest.mark.parametrize(
    ("name", "content", "status", "code"),
    [
        ("nap", TEXT_TO_IMAGE, 409, "workflow_in_folder"),
        ("..", TEXT_TO_IMAGE, 404, "not_found"),
        ("a%20b%2Fc", TEXT_TO_IMAGE, 404, "not_found"),
        ("a*b", TEXT_TO_IMAGE, 409, "workflow_name_refused"),
        ("mine", b"", 422, "invalid_request"),
        ("mine", b"{}", 422, "workflow_unreadable"),
        ("mine", PICTURE, 422, "workflow_unreadable"),
    ],
)
def test_what_cannot_be_published_is_told(
    calls: Calls, name: str, content: bytes, status: int, code: str
) -> None:
    """A name of the folder's, one that nothing can have, what is no workflow: nothing changes."""
    before = listed(calls)

    answer = put(calls, name, content)

    assert answer.status_code in (status, 405), answer.text
    if answer.status_code == status:
        assert answer.json()["error"]["code"] == code
    assert listed(calls) == before


def test_a_file_is_inspected_and_not_kept(calls: Calls) -> None:
    """Its inputs and outputs, and which backends it fits; nothing of it stays."""
    before = listed(calls)

    found = calls.client.post(
        "/api/workflows/inspect", files={"file": ("portrait.json", TEXT_TO_IMAGE)}
    )

    document = found.json()
    assert (found.status_code, document["name"]) == (200, "portrait")
    assert "prompt" in document["inputs"]["properties"]
    assert [fit["fits"] for fit in document["fits"]] == [True]
    assert listed(calls) == before
    for content in (b"no workflow", PICTURE):
        refused = calls.client.post("/api/workflows/inspect", content=content)
        assert refused.status_code == 422
        assert refused.json()["error"]["message"]


def test_inspecting_tells_where_it_would_not_run(calls: Calls) -> None:
    """A model that the backend lacks, by node and input, with the nearest that it has."""
    graph = json.loads(TEXT_TO_IMAGE)
    loader = next(id for id, node in graph.items() if "ckpt_name" in node["inputs"])
    graph[loader]["inputs"]["ckpt_name"] = "nobody.safetensors"

    found = calls.client.post("/api/workflows/inspect", json=graph).json()

    assert [fit["fits"] for fit in found["fits"]] == [False]
    [drift] = found["drift"]
    assert (drift["node"], drift["input"], drift["what"]) == (loader, "ckpt_name", "missing_model")
    assert "nobody.safetensors" in drift["message"]


def test_drift_is_told_before_a_caller_finds_out(calls: Calls) -> None:
    """A workflow whose node a backend does not have says so in the list, without addresses."""
    graph = WORKFLOWS["nap"] | {"9": {"class_type": "PreviewAnything", "inputs": {}}}

    (folder(calls) / "adrift.json").write_text(json.dumps(graph), encoding="utf-8")
    wait_until(lambda: bool(listed(calls).get("adrift", {}).get("drifted")), seconds=10)

    detail = calls.client.get("/api/workflows/adrift").json()
    [backend] = calls.client.get("/api/backends").json()["backends"]
    assert listed(calls)["adrift"]["drifted"] == [backend["id"]]
    assert detail["drift"][0]["what"] == "unknown_node"
    assert backend["url"] not in json.dumps(detail)


def test_each_workflow_has_a_typed_path(calls: Calls) -> None:
    """The OpenAPI document names it, titled and described, with its inputs as JSON and as form."""
    document = calls.client.get("/openapi.json").json()

    operation = document["paths"]["/api/workflows/scale/jobs"]["post"]
    content = operation["requestBody"]["content"]
    body = content["application/json"]["schema"]["properties"]
    assert list(body["inputs"]["properties"]) == ["image", "width"]
    assert {"metadata", "priority"} <= body.keys()
    form = content["multipart/form-data"]["schema"]["properties"]
    assert form["image"]["format"] == "binary"
    assert form["width"]["type"] == "integer"
    ids = [one["operationId"] for path in document["paths"].values() for one in path.values()]
    assert len(ids) == len(set(ids))
    put(calls, "later", TEXT_TO_IMAGE)
    assert "/api/workflows/later/jobs" in calls.client.get("/openapi.json").json()["paths"]


def test_a_thumbnail_is_the_picture_beside_the_file(calls: Calls) -> None:
    """It is told in the list and served so that nothing in it can run."""
    (folder(calls) / "scale.png").write_bytes(PICTURE)
    wait_until(lambda: listed(calls)["scale"]["thumbnail_url"] is not None, seconds=10)

    answer = calls.client.get(listed(calls)["scale"]["thumbnail_url"])

    assert (answer.status_code, answer.content) == (200, PICTURE)
    assert answer.headers["Content-Type"] == "image/png"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in answer.headers["Content-Security-Policy"]
    assert calls.client.get("/api/workflows/nap/thumbnail").status_code == 404


async def test_a_key_sees_only_its_workflows(server: Asked) -> None:
    """Others are not there for it, in the list, by name, or in the document."""
    admin = await server.with_key("admin", is_admin=True)
    for name in ("mine", "other"):
        content = json.dumps(WORKFLOWS["nap"]).encode()
        answer = await admin.put(f"/api/workflows/{name}", content=content)
        assert answer.status_code == 201, answer.text
    app = await server.with_key("app", workflows=["mine"])

    names = [one["name"] for one in (await app.get("/api/workflows")).json()["workflows"]]
    paths = (await app.get("/openapi.json")).json()["paths"]

    assert names == ["mine"]
    assert "/api/workflows/mine/jobs" in paths
    assert "/api/workflows/other/jobs" not in paths
    for path in ("/api/workflows/other", "/api/workflows/other/thumbnail"):
        assert (await app.get(path)).status_code == 404
    for method in ("PUT", "DELETE"):
        answer = await app.request(method, "/api/workflows/mine", content=TEXT_TO_IMAGE)
        assert answer.status_code == 403
    assert (await app.post("/api/workflows/inspect", content=TEXT_TO_IMAGE)).status_code == 403
