"""Jobs over HTTP, on the built-in engine: handed in, asked about, listed, canceled, forgotten."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.engines import running_engine
from tests.server.serving import Served, serving

Graph = dict[str, Any]


@pytest.fixture(scope="module")
def engine() -> Iterator[str]:
    with running_engine(test_nodes=True) as running:
        yield running.url


@pytest.fixture(scope="module")
def served(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server whose jobs run."""
    with serving(tmp_path_factory.mktemp("jobs"), engine) as running:
        yield running


@pytest.fixture(scope="module")
def waiting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server without a backend, where jobs wait, at most twenty of them."""
    with serving(tmp_path_factory.mktemp("waiting"), queue_size=20, body_cap=100_000) as running:
        yield running


def picture(color: int) -> Graph:
    """A graph that saves one picture."""
    inputs = {"width": 16, "height": 16, "batch_size": 1, "color": color}
    return {
        "1": {"class_type": "EmptyImage", "inputs": inputs},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "p"}},
    }


def sleep(seconds: float) -> Graph:
    """A graph that waits until it is interrupted."""
    inputs = {"seconds": seconds, "interruptible": True, "seed": 1}
    return {"8": {"class_type": "TestSleep", "inputs": inputs}}


def refused(served: Served, body: Any, **headers: str) -> tuple[int, str]:
    """Status and code of the answer to a submission."""
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    told.setdefault("Content-Type", "application/json")
    answer = served.calls.ask("POST", "/api/v2/jobs", content, told)
    return answer.status, answer.code


def test_a_job_runs_and_its_output_is_real(served: Served) -> None:
    """A submitted graph ends with a picture whose size, type, hash and bytes are right."""
    answer = served.calls.ask("POST", "/api/v2/jobs", {"workflow": picture(255), "priority": 3})
    assert answer.status == 201, answer
    assert answer.headers["location"] == answer.json()["urls"]["self"]
    assert "x-comfy-request-id" in answer.headers
    job = served.calls.until_over(answer.json()["id"])
    assert (job["status"], job["priority"], job["error"]) == ("succeeded", 3, None)
    assert job["progress"]["value"] == 1.0
    assert all(isinstance(took, int) for took in job["metrics"].values())
    (output,) = job["outputs"]
    path = output["url"].removeprefix(served.calls.url)
    found = served.calls.ask("GET", path)
    assert found.headers["content-type"] == output["content_type"] == "image/png"
    assert len(found.body) == output["size_bytes"]
    asset = served.calls.get(f"/api/v2/assets/{output['id']}")
    assert (asset["hash"], asset["job_id"]) == (output["hash"], job["id"])


def test_an_output_feeds_the_next_job(served: Served) -> None:
    """A reference to an earlier output stands for its file, and the name it got is told."""
    first = served.calls.until_over(served.calls.submit(picture(77))["id"])
    reference = {"__type": "core/ASSET", "info": {"id": first["outputs"][0]["id"]}}
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": reference}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "n"}},
    }
    second = served.calls.until_over(served.calls.submit(graph)["id"])
    assert second["status"] == "succeeded", second
    told = served.calls.get(f"/api/v2/jobs/{second['id']}/workflow")
    assert told["format"] == "api"
    assert isinstance(told["workflow"]["1"]["inputs"]["image"], str)


def test_a_running_job_is_canceled_and_then_stays_so(served: Served) -> None:
    """Cancel answers canceling or canceled, ends the job, and again changes nothing."""
    job = served.calls.until_running(served.calls.submit(sleep(30))["id"])
    assert served.calls.cancel(job["id"])["status"] in ("canceling", "canceled")
    assert served.calls.until_over(job["id"])["status"] == "canceled"
    assert served.calls.cancel(job["id"])["status"] == "canceled"


def test_a_failed_node_is_told(served: Served) -> None:
    """The error of a job names the node, and its traceback is one text."""
    graph = {"9": {"class_type": "TestFail", "inputs": {"message": "on purpose"}}}
    error = served.calls.until_over(served.calls.submit(graph)["id"])["error"]
    assert (error["code"], error["node_id"]) == ("node_execution_error", "9")
    assert "on purpose" in error["message"]
    assert error["traceback"] is None or isinstance(error["traceback"], str)


def test_an_unknown_node_is_refused_at_once(served: Served) -> None:
    """A graph with a node that no backend has is 422 with the node's errors, and makes no job."""
    graph = {**picture(1), "3": {"class_type": "SaveImagee", "inputs": {"images": ["1", 0]}}}
    answer = served.calls.ask("POST", "/api/v2/jobs", {"workflow": graph})
    assert (answer.status, answer.code) == (422, "invalid_workflow")
    (problem,) = answer.json()["error"]["details"]["node_errors"]["3"]
    assert problem.keys() == {"field", "reason", "message"}
    assert "SaveImage" in answer.json()["error"]["message"]


def test_the_v2_stream_tells_outputs_before_the_end(served: Served) -> None:
    """The stream begins with how the job stands and ends with its terminal status."""
    job = served.calls.submit(picture(3))
    frames = served.calls.events(job["id"], v2=True)
    assert frames[0].event == "status"
    assert (frames[-1].event, frames[-1].data["status"]) == ("status", "succeeded")
    assert [frame.event for frame in frames].count("output") == 1
    assert {frame.id for frame in frames} == {None}


def test_a_job_that_is_over_is_forgotten_with_its_outputs(served: Served) -> None:
    """DELETE takes an ended job and its assets; a running one has to be canceled first."""
    job = served.calls.until_over(served.calls.submit(picture(4))["id"])
    running = served.calls.until_running(served.calls.submit(sleep(30))["id"])
    early = served.calls.ask("DELETE", f"/api/jobs/{running['id']}")
    assert (early.status, early.code) == (409, "job_unfinished")
    assert served.calls.ask("DELETE", f"/api/jobs/{job['id']}").status == 204
    for path in (f"jobs/{job['id']}", f"jobs/{job['id']}/events"):
        assert served.calls.ask("GET", f"/api/v2/{path}").code == "not_found"
    asset = served.calls.ask("GET", f"/api/v2/assets/{job['outputs'][0]['id']}/content")
    assert (asset.status, asset.code) == (404, "not_found")
    served.calls.cancel(running["id"])
    served.calls.until_over(running["id"])


def test_the_nodes_are_told(served: Served) -> None:
    """/api/object_info is the backends' catalogue."""
    assert "SaveImage" in served.calls.get("/api/object_info")


def test_secrets_reach_the_backend_and_nobody_else(served: Served) -> None:
    """extra_data is in no answer and in no file of the data folder."""
    secret = "sk-never-to-be-seen-9471"
    extra = {"api_key_comfy_org": secret}
    job = served.calls.submit(picture(5), extra_data=extra)
    over = served.calls.until_over(job["id"])
    assert over["status"] == "succeeded", over
    graph = served.calls.get(f"/api/v2/jobs/{job['id']}/workflow")
    assert secret not in json.dumps([over, graph])
    kept = [path.read_bytes() for path in served.settings.data.rglob("*") if path.is_file()]
    assert not any(secret.encode() in content for content in kept)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 422, "invalid_request"),
        ([], 422, "invalid_request"),
        (b"", 422, "invalid_request"),
        (b'{"workflow": {"1": {"class_type": "A", "inputs": {"x": NaN}}}}', 422, "invalid_request"),
        (b'{"workflow": ' + b"[" * 9000 + b"]" * 9000 + b"}", 422, "invalid_request"),
        (b'{"workflow": {"1": "\\ud800"}}', 422, "invalid_request"),
        ({"workflow": picture(1), "workflw": 1}, 422, "invalid_request"),
        ({"workflow": {"nodes": [], "links": []}}, 422, "workflow_format_ui"),
        ({"workflow": picture(1), "webhook_url": "http://a"}, 422, "invalid_workflow"),
        ({"workflow": picture(1), "inputs": {"seed": 1}}, 422, "invalid_workflow"),
        ({"workflow": picture(1), "metadata": {"a b": "c"}}, 422, "metadata_invalid"),
        ({"workflow": picture(1), "extra_data": {"other": "x"}}, 422, "invalid_request"),
        ({"workflow": picture(1), "priority": 1e9}, 422, "invalid_request"),
        ({"workflow": picture(1), "note": "x" * 100_000}, 413, "payload_too_large"),
    ],
)
def test_a_submission_that_cannot_be_is_refused(
    waiting: Served, body: Any, status: int, code: str
) -> None:
    """Each refusal has the contract's status and code."""
    assert refused(waiting, body) == (status, code)


def test_a_body_has_to_be_json(waiting: Served) -> None:
    """A form, as curl sends without being told otherwise, is refused with advice."""
    told = "application/x-www-form-urlencoded"
    assert refused(waiting, b"{}", Content_Type=told) == (422, "invalid_request")


def test_assets_that_are_not_there_are_named(waiting: Served) -> None:
    """A graph that refers to unknown assets is 422 missing_asset with all of their ids."""
    graph = picture(1)
    for name in ("a", "b"):
        graph["1"]["inputs"][name] = {"__type": "core/ASSET", "info": {"id": f"no-{name}"}}
    answer = waiting.calls.ask("POST", "/api/v2/jobs", {"workflow": graph})
    assert (answer.status, answer.code) == (422, "missing_asset")
    assert sorted(answer.json()["error"]["details"]["missing_ids"]) == ["no-a", "no-b"]


def test_a_key_is_good_for_one_job(waiting: Served) -> None:
    """The second request with a key is refused whatever it holds, and makes no job."""
    key = {"Idempotency-Key": "only-once"}
    body = {"workflow": picture(1), "metadata": {"test": "key"}}
    assert refused(waiting, {"workflow": {}}, Idempotency_Key="only-once")[0] == 422
    first = waiting.calls.ask("POST", "/api/v2/jobs", body, key)
    again = waiting.calls.ask("POST", "/api/v2/jobs", {**body, "priority": 1}, key)
    assert (first.status, again.status, again.code) == (201, 422, "idempotency_key_reuse")
    found = waiting.calls.jobs(**{"metadata[test]": "key"})
    assert [job["id"] for job in found] == [first.json()["id"]]
    waiting.calls.cancel(first.json()["id"])


def test_of_many_at_once_a_key_lets_one_through(waiting: Served) -> None:
    """Concurrent requests with one key make one job."""
    key, body = {"Idempotency-Key": "race"}, {"workflow": picture(1)}
    statuses: list[int] = []
    threads = [
        threading.Thread(
            target=lambda: statuses.append(
                waiting.calls.ask("POST", "/api/v2/jobs", body, key).status
            )
        )
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(statuses) == [201] + [422] * 7
    for job in waiting.calls.jobs(status="queued"):
        waiting.calls.cancel(job["id"])


def test_a_caller_may_name_his_job(waiting: Served) -> None:
    """A job gets the id that its caller chose, and no second one gets it."""
    body = {"workflow": picture(1), "id": "0b2f7c1e-9a8e-4d6f-b012-3c4d5e6f7a8b"}
    first = waiting.calls.ask("POST", "/api/v2/jobs", body)
    assert (first.status, first.json()["id"]) == (201, body["id"])
    assert refused(waiting, body) == (422, "idempotency_key_reuse")
    waiting.calls.cancel(first.json()["id"])


@pytest.mark.parametrize("key", ["", "k" * 256])
def test_a_key_has_its_length(waiting: Served, key: str) -> None:
    """An empty key and one of more than 255 characters are refused."""
    body = {"workflow": picture(1)}
    assert refused(waiting, body, Idempotency_Key=key) == (422, "invalid_request")


def test_a_full_queue_says_when_to_come_again(waiting: Served) -> None:
    """Beyond the queue's size 429 queue_full with Retry-After; the key is good again after."""
    for _ in range(20):
        waiting.calls.submit(picture(1))
    key, body = {"Idempotency-Key": "patient"}, {"workflow": picture(1)}
    full = waiting.calls.ask("POST", "/api/v2/jobs", body, key)
    assert (full.status, full.code) == (429, "queue_full")
    assert int(full.headers["retry-after"]) >= 1
    for job in waiting.calls.jobs(status="queued"):
        assert waiting.calls.cancel(job["id"])["status"] == "canceled"
    again = waiting.calls.ask("POST", "/api/v2/jobs", body, key)
    assert again.status == 201
    waiting.calls.cancel(again.json()["id"])


def test_jobs_are_listed_in_pages_newest_first(waiting: Served) -> None:
    """Pages of a list join without a gap or a repeat, and filters hold on all of them."""
    made = [
        waiting.calls.submit(picture(1), metadata={"test": "list", "n": str(number)})["id"]
        for number in range(7)
    ]
    query = "metadata%5Btest%5D=list&limit=3"
    listed: list[str] = []
    cursor = ""
    for _ in range(3):
        page = waiting.calls.get(f"/api/v2/jobs?{query}&cursor={cursor}")
        listed += [job["id"] for job in page["jobs"]]
        assert page["truncated"] is (page["next_cursor"] is not None)
        cursor = page["next_cursor"] or ""
    assert listed == made[::-1]
    assert cursor == ""
    one = waiting.calls.jobs(**{"metadata[test]": "list", "metadata[n]": "4"})
    assert [job["id"] for job in one] == [made[4]]
    assert one[0]["queue_position"] == 5
    for id in made:
        waiting.calls.cancel(id)
    assert waiting.calls.jobs(status="queued,running") == []


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("stat=queued", "invalid_request"),
        ("limit=0", "invalid_request"),
        ("cursor=made-up", "invalid_cursor"),
        ("metadata%5Ba%20b%5D=c", "invalid_metadata_filter"),
    ],
)
def test_a_list_that_nobody_can_give_is_refused(waiting: Served, query: str, code: str) -> None:
    """Unknown parameters, cursors that are none and bad filters are told, not passed over."""
    answer = waiting.calls.ask("GET", f"/api/v2/jobs?{query}")
    assert (answer.status, answer.code) == (422, code)


@pytest.mark.parametrize(
    "path",
    [
        "/api/v2/jobs/no-such-job",
        "/api/v2/jobs/no-such-job/workflow",
        "/api/v2/jobs/no-such-job/events",
        "/api/jobs/no-such-job/events",
        "/api/v2/jobs/%00",
        "/api/v2/jobs/%ed%a0%80",
        "/api/v2/assets/no-such-asset",
        "/nothing/at/all",
        "/api/v2/jobs/",
    ],
)
def test_what_is_not_there_is_not_found(waiting: Served, path: str) -> None:
    """Unknown ids and unknown addresses are 404 with our one body and a request id."""
    answer = waiting.calls.ask("GET", path)
    assert (answer.status, answer.code) == (404, "not_found")
    assert answer.headers["x-comfy-request-id"]


def test_a_method_that_a_route_has_not_is_told(waiting: Served) -> None:
    """405 has our error body, too, and says what may be asked."""
    answer = waiting.calls.ask("PUT", "/api/v2/assets/x")
    assert (answer.status, answer.code) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "DELETE, GET"
    assert "PUT, but with DELETE, GET." in answer.json()["error"]["message"]


def test_a_client_that_leaves_amid_its_body_harms_nobody(waiting: Served) -> None:
    """A submission that breaks off makes no job, and the next one is taken."""
    address = waiting.calls.url.removeprefix("http://").split(":")
    with socket.create_connection((address[0], int(address[1]))) as line:
        line.sendall(
            f"POST /api/v2/jobs HTTP/1.1\r\nHost: {':'.join(address)}\r\n"
            "Content-Type: application/json\r\nContent-Length: 500\r\n\r\n{".encode()
        )
    job = waiting.calls.submit(picture(1))
    assert [found["id"] for found in waiting.calls.jobs(status="queued")] == [job["id"]]
    waiting.calls.cancel(job["id"])
