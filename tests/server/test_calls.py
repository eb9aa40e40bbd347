"""Calls of workflows over HTTP: their inputs, their answers, and what happens once only."""

from __future__ import annotations

import json
import random
import threading
import time
import uuid
from collections.abc import Iterator

import pytest

from comfyserve.denials import InvalidRequest
from comfyserve.server.workflows.call_inputs import bind_call
from comfyserve.workflows.workflow import Workflow
from tests.engines import running_engine
from tests.server.calling import SIDECARS, Calls, calling, code, problems
from tests.server_calls import wait_until


@pytest.fixture(scope="module")
def engine() -> Iterator[str]:
    with running_engine(test_nodes=True) as running:
        yield running.url


@pytest.fixture(scope="module")
def calls(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Calls]:
    """A server whose jobs run."""
    with calling(tmp_path_factory.mktemp("calls"), engine) as running:
        yield running


@pytest.fixture(scope="module")
def waiting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Calls]:
    """A server without a backend, where jobs wait."""
    with calling(tmp_path_factory.mktemp("waiting"), body_cap=50_000) as running:
        yield running


def test_a_call_makes_a_job(calls: Calls) -> None:
    """A name and inputs are enough; the answer is the job with what was really used."""
    answer = calls.call("nap", {"seconds": 0.01, "seed": "9007199254740991"})
    assert answer.status_code == 201, answer.text
    job = answer.json()
    assert answer.headers["Location"] == f"/api/v2/jobs/{job['id']}"
    assert job["workflow"] == "nap"
    assert job["inputs"] == {"seconds": 0.01, "seed": 2**53 - 1}
    assert job["seeds"] == {"8.seed": 2**53 - 1}
    assert job["outputs_reused"] is False
    calls.done(answer)


def test_large_seeds_are_texts(waiting: Calls) -> None:
    """A seed that no browser can hold as a number comes as a text."""
    job = waiting.call("nap", {"seed": str(2**64 - 1)}).json()
    assert job["seeds"] == {"8.seed": 2**64 - 1}


def test_an_empty_call_uses_the_defaults(calls: Calls) -> None:
    """A call that gives nothing runs the workflow as it is, with a seed of its own."""
    first, second = calls.call("nap", {}).json(), calls.call("nap").json()
    assert first["seeds"]["8.seed"] == first["inputs"]["seed"]
    assert first["seeds"] != second["seeds"]
    assert 0 <= first["seeds"]["8.seed"] < 2**53


def test_all_that_is_wrong_is_told_at_once(calls: Calls) -> None:
    """Each bad value has a sentence of its own, and a name that is none the one it may mean."""
    found = problems(calls.call("nap", {"seconds": "long", "sead": 3, "seed": 2**64}))
    assert set(found) == {"seconds", "sead", "seed"}
    assert "Did you mean 'seed'?" in found["sead"]
    assert "It has" in found["sead"]
    assert "the most is" in found["seed"]


def test_limits_are_those_of_the_backend(calls: Calls) -> None:
    """A value beyond what the nodes take is refused before anything is queued."""
    before = calls.waiting()
    assert "the least is 0" in problems(calls.call("nap", {"seconds": -1}))["seconds"]
    assert calls.waiting() == before


def test_unknown_fields_are_refused(waiting: Calls) -> None:
    """A field that nobody knows is an error, and an input beside 'inputs' is told where to go."""
    before = waiting.waiting()
    answer = waiting.call("nap", {}, prioritty=3)
    assert code(answer) == (422, "invalid_request")
    assert "Did you mean 'priority'?" in answer.json()["error"]["message"]
    answer = waiting.call("nap", None, seconds=3)
    assert '{"inputs": {"seconds": ..}}' in answer.json()["error"]["message"]
    assert code(waiting.call("nap", [])) == (422, "invalid_request")
    assert code(waiting.call("nap", {}, priority="high")) == (422, "invalid_request")
    assert code(waiting.call("nap", {}, metadata=[1])) == (422, "metadata_invalid")
    assert code(waiting.call("nap", {}, id="7")) == (422, "invalid_request")
    assert waiting.waiting() == before


def test_an_unknown_workflow(waiting: Calls) -> None:
    """A name that nothing has is 404, with the one it may mean."""
    answer = waiting.call("nab", {})
    assert code(answer) == (404, "workflow_not_found")
    assert "'nap'" in answer.json()["error"]["message"]
    assert code(waiting.client.post("/api/workflows/nab/validate", json={}))[0] == 404


def test_what_is_noted_comes_back(waiting: Calls) -> None:
    """Metadata, priority and an id of the caller's own are those of the job; a secret is not."""
    id = str(uuid.uuid4())
    secret = {"api_key_comfy_org": "comfyui-secret"}
    answer = waiting.call("nap", {}, metadata={"who": "me"}, priority=7, id=id, extra_data=secret)
    job = answer.json()
    assert (job["id"], job["metadata"], job["priority"]) == (id, {"who": "me"}, 7)
    assert "secret" not in answer.text
    assert code(waiting.call("nap", {}, id=id)) == (422, "idempotency_key_reuse")


def test_a_form_has_fields_for_inputs(waiting: Calls) -> None:
    """Texts of a form are read as the input they are for wants it."""
    answer = waiting.form("nap", data={"seconds": "2", "seed": " 5 "})
    assert answer.status_code == 201, answer.text
    assert answer.json()["inputs"] == {"seconds": 2, "seed": 5}
    assert problems(waiting.form("nap", data={"seconds": "x"}))


def test_a_form_has_the_rest_too(waiting: Calls) -> None:
    """What a call in JSON has besides its inputs may stand in a form, in any order; an input that
    has the same name is reached by 'inputs'."""
    fields = {
        "metadata": '{"who": "me"}',
        "priority": "3",
        "inputs": '{"metadata": false}',
        "seconds": "1",
    }
    for order in (fields, dict(reversed(fields.items()))):
        job = waiting.form("nap", data=order).json()
        assert (job["metadata"], job["priority"]) == ({"who": "me"}, 3)
        assert job["inputs"]["metadata"] is False
        assert job["inputs"]["seconds"] == 1
    assert waiting.form("nap", data={"metadata": "a note"}).json()["metadata"] == "a note"


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"priority": "soon"}, "priority"),
        ({"inputs": "[]"}, "'inputs'"),
        ({"inputs": "{"}, "'inputs'"),
        ({"inputs": '{"seconds": 1}', "seconds": "2"}, "twice"),
        ({"extra_data": '{"other": "x"}'}, "extra_data"),
        ({"id": "7"}, "'id'"),
    ],
)
def test_a_form_that_says_nothing(waiting: Calls, fields: dict[str, str], told: str) -> None:
    """What stands in a form has to make sense as well."""
    answer = waiting.form("nap", data=fields)
    assert code(answer) == (422, "invalid_request")
    assert told in answer.json()["error"]["message"]


def test_a_broken_form(waiting: Calls) -> None:
    """A form that breaks off, or has no boundary, or too much text, makes no job."""
    before = waiting.waiting()
    whole = b'--b\r\nContent-Disposition: form-data; name="seconds"\r\n\r\n1\r\n--b--\r\n'
    for body, kind in ((whole[:-8], "; boundary=b"), (whole, ""), (b"", "; boundary=b")):
        answer = waiting.client.post(
            "/api/workflows/nap/jobs",
            content=body,
            headers={"Content-Type": f"multipart/form-data{kind}"},
        )
        assert code(answer) == (422, "invalid_request")
    answer = waiting.form("nap", data={"seconds": "1" * 60_000})
    assert code(answer) == (413, "payload_too_large")
    twice = [("seconds", (None, "1")), ("seconds", (None, "1"))]
    assert code(waiting.form("nap", files=twice)) == (422, "invalid_request")
    assert waiting.waiting() == before


def test_addresses_are_for_graphs(tmp_path: object, waiting: Calls) -> None:
    """Where only this machine asks, any value of the graph can be set by its address."""
    job = waiting.call("scale", {"2.upscale_method": "area"}).json()
    assert job["inputs"]["2.upscale_method"] == "area"
    graph = waiting.client.get(f"/api/v2/jobs/{job['id']}/workflow").json()["workflow"]
    assert graph["2"]["inputs"]["upscale_method"] == "area"
    assert "there is no node" in problems(waiting.call("scale", {"9.x": 1}))["9.x"]


def test_a_closed_server_takes_no_addresses(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Where others come without a key, only names are taken, but for a workflow that is open."""
    folder = tmp_path_factory.mktemp("closed")
    with calling(folder, host="0.0.0.0", insecure=True) as calls:
        found = problems(calls.call("scale", {"2.upscale_method": "area"}))
        assert "has no input" in found["2.upscale_method"]
        assert calls.call("one_of_two", {"3.filename_prefix": "q"}).status_code == 201


def test_only_the_wanted_outputs_are_made(calls: Calls) -> None:
    """A sidecar that says which nodes' results people want has nothing else run."""
    job = calls.done(calls.call("one_of_two", {"width": 24}))
    assert [output["node_id"] for output in job["outputs"]] == ["3"]
    assert calls.picture(job).size == (24, 8)


def test_waiting_gives_the_finished_job(calls: Calls) -> None:
    """With Prefer: wait the answer is the job that is over."""
    answer = calls.call("one_of_two", {"width": 9}, headers={"Prefer": "wait=20"})
    assert answer.status_code == 200
    assert answer.headers["Preference-Applied"] == "wait=20"
    assert answer.json()["status"] == "succeeded"
    assert answer.json()["outputs"]


def test_waiting_ends(waiting: Calls) -> None:
    """Who waited long enough gets the job as it stands, and where to ask on."""
    began = time.monotonic()
    answer = waiting.call("nap", {}, headers={"Prefer": "respond-async, wait=1"})
    assert 0.9 < time.monotonic() - began < 10
    assert answer.status_code == 202
    assert answer.json()["status"] == "queued"
    assert answer.headers["Location"].endswith(answer.json()["id"])
    answer = waiting.call("nap", {}, headers={"Prefer": "respond-async"})
    assert (answer.status_code, answer.headers["Preference-Applied"]) == (202, "respond-async")
    answer = waiting.call("nap", {}, headers={"Prefer": "handling=lenient"})
    assert answer.status_code == 201


@pytest.mark.parametrize("wait", ["", "x", "-1", "1.5", "1e3", "9" * 20])
def test_odd_waits_are_refused(waiting: Calls, wait: str) -> None:
    """A time that is none makes no job."""
    before = waiting.waiting()
    answer = waiting.call("nap", {}, headers={"Prefer": f"wait={wait}"})
    assert code(answer) == (422, "invalid_request")
    assert waiting.waiting() == before


def test_who_stops_waiting_cancels_nothing(waiting: Calls) -> None:
    """A caller that leaves long before his time frees his place and leaves the job as it is."""
    id = str(uuid.uuid4())
    body = json.dumps({"inputs": {}, "id": id}).encode()
    with pytest.raises(TimeoutError):
        waiting.served.calls.ask(
            "POST",
            "/api/workflows/nap/jobs",
            body,
            {"Prefer": "wait=60", "Content-Type": "application/json"},
            seconds=0.3,
        )
    streams = waiting.served.app.state.streams
    wait_until(lambda: streams.open == 0)
    assert waiting.served.calls.job(id)["status"] == "queued"


def test_no_more_wait_than_may(tmp_path_factory: pytest.TempPathFactory) -> None:
    """As many calls wait as streams may be open; one more is refused before a job is made."""
    with calling(tmp_path_factory.mktemp("few"), max_streams=1) as calls:
        streams = calls.served.app.state.streams
        first = threading.Thread(target=lambda: calls.call("nap", {}, headers={"Prefer": "wait=3"}))
        first.start()
        wait_until(lambda: bool(streams.open))
        for headers in ({"Prefer": "wait=3"}, {"Accept": "text/event-stream"}):
            answer = calls.call("nap", {}, headers=headers)
            assert code(answer) == (429, "too_many_streams")
        first.join()
        assert calls.waiting() == 1


def test_a_call_can_be_followed(calls: Calls) -> None:
    """With Accept: text/event-stream the job comes first, then all that happens to its end."""
    answer = calls.call("one_of_two", {"width": 11}, headers={"Accept": "text/event-stream"})
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    frames = [frame.splitlines() for frame in answer.text.split("\n\n") if frame]
    assert frames[0][0] == "event: job"
    job = json.loads(frames[0][1].removeprefix("data: "))
    assert (job["status"], job["workflow"]) == ("queued", "one_of_two")
    assert answer.headers["Location"].endswith(job["id"])
    names = [frame[0].removeprefix("event: ") for frame in frames]
    assert names[-1] == "status"
    assert "output" in names
    numbers = [int(line[4:]) for frame in frames for line in frame if line.startswith("id: ")]
    assert numbers == list(range(1, len(numbers) + 1))
    assert '"succeeded"' in frames[-1][-1]


def test_the_same_call_happens_once(waiting: Calls) -> None:
    """Under one key the same inputs give the same job, however they are written; others are
    refused."""
    key = {"Idempotency-Key": str(uuid.uuid4())}
    first = waiting.call("nap", {"seconds": 2}, headers=key)
    assert (first.status_code, "Idempotent-Replay" in first.headers) == (201, False)
    again = [
        waiting.call("nap", {"seconds": 2.0, "seed": None}, headers=key),
        waiting.call("nap", {"seed": -1, "seconds": 2}, headers=key),
        waiting.form("nap", data={"seconds": " 2 "}, headers=key),
    ]
    for answer in again:
        assert answer.status_code == 200, answer.text
        assert answer.headers["Idempotent-Replay"] == "true"
        assert answer.json()["id"] == first.json()["id"]
        assert answer.json()["seeds"] == first.json()["seeds"]
    for inputs, others in (
        ({"seconds": 3}, {}),
        ({"seconds": 2, "seed": 4}, {}),
        ({"seconds": 2}, {"metadata": "x"}),
        ({"seconds": 2}, {"priority": 1}),
    ):
        answer = waiting.call("nap", inputs, headers=key, **others)
        assert code(answer) == (422, "idempotency_key_reuse")
    other = waiting.call("scale", {}, headers=key)
    assert other.status_code == 201
    assert other.json()["id"] != first.json()["id"]


def test_a_named_job_is_replayed_too(waiting: Calls) -> None:
    """A call that names its job and has a key finds the job when it is sent again."""
    id, key = str(uuid.uuid4()), {"Idempotency-Key": str(uuid.uuid4())}
    answers = [waiting.call("nap", {}, id=id, headers=key) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 200]
    assert {answer.json()["id"] for answer in answers} == {id}


def test_many_at_once_happen_once(waiting: Calls) -> None:
    """The same call many times at once makes one job."""
    key = {"Idempotency-Key": str(uuid.uuid4())}
    before = waiting.waiting()
    found: list[str] = []

    def call() -> None:
        found.append(waiting.call("nap", {}, headers=key).json()["id"])

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert waiting.waiting() == before + 1


def test_a_refused_call_leaves_its_key(waiting: Calls) -> None:
    """A key is used up by a job, not by a call that was refused."""
    key = {"Idempotency-Key": str(uuid.uuid4())}
    assert problems(waiting.call("nap", {"seconds": "x"}, headers=key))
    assert waiting.call("nap", {"seconds": 1}, headers=key).status_code == 201


def test_a_replay_can_be_waited_for(calls: Calls) -> None:
    """A call that was made before can be waited for and followed like a new one."""
    key = {"Idempotency-Key": str(uuid.uuid4())}
    first = calls.call("nap", {"seconds": 0.1}, headers=key).json()
    over = calls.call("nap", {"seconds": 0.1}, headers=key | {"Prefer": "wait=20"})
    assert (over.status_code, over.json()["id"]) == (200, first["id"])
    assert over.json()["status"] == "succeeded"
    stream = calls.call("nap", {"seconds": 0.1}, headers=key | {"Accept": "text/event-stream"})
    assert stream.headers["Idempotent-Replay"] == "true"
    assert '"succeeded"' in stream.text.split("\n\n")[-2]


def test_a_replay_needs_no_room(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The job that a key made is given again, though the queue takes no other."""
    with calling(tmp_path_factory.mktemp("full"), queue_size=1) as calls:
        key = {"Idempotency-Key": "k"}
        first = calls.call("nap", {}, headers=key)
        assert code(calls.call("nap", {})) == (429, "queue_full")
        assert calls.call("nap", {}, headers=key).json()["id"] == first.json()["id"]


def test_a_timeout_of_the_author(tmp_path_factory: pytest.TempPathFactory, engine: str) -> None:
    """A job runs no longer than its workflow's author says."""
    sidecars = {"nap": SIDECARS["nap"].replace("timeout = 90", "timeout = 1")}
    with calling(tmp_path_factory.mktemp("timeout"), engine, sidecars=sidecars) as calls:
        job = calls.served.calls.until_over(calls.call("nap", {"seconds": 30}).json()["id"])
        assert job["status"] == "failed"
        assert job["error"]["code"] == "job_timed_out"


def test_validating_makes_nothing(calls: Calls) -> None:
    """A call that would be taken is valid on its backend, and no job is made of it."""
    before = calls.waiting()
    answer = calls.client.post("/api/workflows/nap/validate", json={"inputs": {"seconds": 1}})
    assert answer.status_code == 200
    told = answer.json()
    assert told["valid"] is True
    assert told["problems"] == told["missing_assets"] == []
    (backend,) = told["backends"]
    assert (backend["ok"], backend["problems"]) == (True, [])
    assert calls.waiting() == before


def test_validating_tells_all(calls: Calls) -> None:
    """What is wrong is told by input, by asset, and by backend with its nodes."""
    missing = str(uuid.uuid4())
    inputs = {"image": missing, "2.upscale_method": "bilinaer"}
    body = {"inputs": inputs | {"wdth": 3}}
    told = calls.client.post("/api/workflows/scale/validate", json=body).json()
    assert told["valid"] is False
    assert {one["input"] for one in told["problems"]} == {"wdth", "2.upscale_method"}
    (backend,) = told["backends"]
    assert {one["input"] for one in backend["problems"]} == {"wdth", "2.upscale_method"}
    told = calls.client.post(
        "/api/workflows/scale/validate", json={"inputs": {"image": missing}}
    ).json()
    assert (told["valid"], told["missing_assets"]) == (False, [missing])
    assert code(calls.client.post("/api/workflows/scale/validate", json={"input": 1}))[0] == 422


def test_backends_that_differ(engine: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Values are held against the backend that the workflow fits, and each is told for itself."""
    with (
        running_engine() as plain,
        calling(tmp_path_factory.mktemp("differ"), plain.url, engine) as calls,
    ):
        assert "the least is 0" in problems(calls.call("nap", {"seconds": -1}))["seconds"]
        told = calls.client.post("/api/workflows/nap/validate", json={}).json()
        assert [backend["ok"] for backend in told["backends"]] == [False, True]
        (problem,) = told["backends"][0]["problems"]
        assert (problem["what"], problem["node"]) == ("unknown_node", "8")
        assert told["valid"] is True
        assert len({backend["backend"] for backend in told["backends"]} - {""}) == 2
        assert plain.url not in str(told)
        calls.done(calls.call("nap", {"seconds": 0.01}))


def test_validating_names_what_a_backend_lacks(
    tmp_path_factory: pytest.TempPathFactory, engine: str
) -> None:
    """A model that a backend does not have is told with its node and the nearest there is."""
    folder = tmp_path_factory.mktemp("lacking")
    with calling(folder, engine) as calls:
        graph = {
            "1": {
                "class_type": "CheckpointLoaderSimple",
                "inputs": {"ckpt_name": "no.safetensors"},
            },
            "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
        }
        file = folder / "workflows" / "lacking.json"
        file.write_text(json.dumps(graph), encoding="utf-8")
        wait_until(lambda: calls.client.post("/api/workflows/lacking/validate", json={}).is_success)
        told = calls.client.post("/api/workflows/lacking/validate", json={}).json()
        assert told["valid"] is False
        (backend,) = told["backends"]
        (problem, *_) = backend["problems"]
        assert (problem["node"], problem["input"]) == ("1", "ckpt_name")
        assert backend["ok"] is False


@pytest.mark.parametrize(
    "inputs",
    [{f"seed{number}": 1 for number in range(1001)}, {"n" * 1001: 1}],
    ids=["too many", "too long a name"],
)
@pytest.mark.parametrize("what", ["jobs", "validate"])
def test_inputs_without_end_are_refused_at_once(
    waiting: Calls, what: str, inputs: dict[str, int]
) -> None:
    """More inputs than any workflow has are one sentence, and not a search for each."""
    answer = waiting.client.post(f"/api/workflows/nap/{what}", json={"inputs": inputs})
    assert code(answer) == (422, "invalid_request"), answer.text[:200]
    assert len(answer.content) < 500


def test_values_without_end_are_refused_unread(calls: Calls) -> None:
    """A body of millions of values is refused before each takes many times its bytes."""
    body = b'{"inputs": {"seconds": [' + b"{}," * 700_000 + b"{}]}}"
    answer = calls.client.post(
        "/api/workflows/nap/jobs", content=body, headers={"Content-Type": "application/json"}
    )
    assert code(answer) == (422, "invalid_request"), answer.text[:200]
    assert "more than 1,000,000 values" in answer.text


def test_addresses_in_a_large_graph_are_few() -> None:
    """Each address goes through the whole graph, so a large one takes no hundreds of them."""
    node = {"class_type": "TestSleep", "inputs": {"seconds": 1.0}}
    graph = {str(number): node for number in range(2_500)}
    workflow = Workflow.from_bytes(json.dumps(graph).encode(), "large")
    inputs = {f"{number}.seconds": 2.0 for number in range(401)}
    with pytest.raises(InvalidRequest, match="401 inputs by their addresses"):
        bind_call(workflow, inputs, may_address=True, rng=random.Random(1))
