"""The routes by which backends are listed, added, drained and removed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from comfyserve.access import Access
from comfyserve.store import Store
from tests.engines import running_engine
from tests.hosts import emitting, sleeping
from tests.machines import Machine
from tests.server.serving import NOWHERE, Served, serving
from tests.server_calls import Document, wait_until

pytestmark = pytest.mark.timeout(90)


@pytest.fixture(scope="module")
def engine() -> Iterator[str]:
    with running_engine(test_nodes=True) as running:
        yield running.url


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A server whose only backend does not answer."""
    with serving(tmp_path) as running:
        yield running


def listed(served: Served) -> list[Document]:
    backends = served.calls.get("/api/backends")["backends"]
    assert isinstance(backends, list)
    return backends


def add(served: Served, url: str, **others: object) -> Document:
    answer = served.calls.ask("POST", "/api/backends", {"url": url, **others})
    assert answer.status == 201, answer
    return answer.json()


def test_a_backend_that_is_added_runs_the_jobs_that_wait(served: Served, engine: str) -> None:
    """It is asked at once, used at once, and told with all that is known of it."""
    job = served.calls.submit(emitting())
    [down] = listed(served)
    assert (down["url"], down["state"], down["answers"]) == (NOWHERE, "down", False)
    assert down["reason"] and down["running"] is None and down["nodes"] is None

    added = add(served, engine)

    assert (added["state"], added["origin"], added["kept"]) == ("up", "added", True)
    assert added["nodes"] > 10 and added["message"] is None
    assert (added["running"], added["waiting"]) == (0, 0)
    assert served.calls.until_over(job["id"])["status"] == "succeeded"
    assert served.calls.get(f"/api/backends/{added['id']}")["url"] == engine
    assert [one["id"] for one in listed(served)] == [down["id"], added["id"]]


def test_a_draining_backend_gets_nothing_new(served: Served, engine: str) -> None:
    """Until it is resumed; meanwhile the server says that it is not ready, and why."""
    added = add(served, engine)

    drained = served.calls.ask("POST", f"/api/backends/{added['id']}/drain").json()

    assert (drained["state"], drained["answers"]) == ("draining", True)
    job = served.calls.submit(emitting())
    unready = served.calls.ask("GET", "/readyz")
    assert unready.status == 503
    assert "Backend 2 of 2: It is draining." in unready.json()["reasons"]
    assert served.calls.job(job["id"])["status"] == "queued"

    resumed = served.calls.ask("POST", f"/api/backends/{added['id']}/resume").json()
    assert resumed["state"] == "up"
    assert served.calls.until_over(job["id"])["status"] == "succeeded"


def test_a_removed_backend_is_gone(served: Served, engine: str) -> None:
    """Whether it comes back is said; its id means nothing any more."""
    added = add(served, engine)
    [of_settings, _] = listed(served)

    gone = served.calls.ask("DELETE", f"/api/backends/{added['id']}").json()
    other = served.calls.ask("DELETE", f"/api/backends/{of_settings['id']}").json()

    assert (gone["url"], gone["comes_back"], gone["message"]) == (engine, False, None)
    assert other["comes_back"] and "settings" in other["message"]
    assert listed(served) == []
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/drain"), ("POST", "/resume")):
        answer = served.calls.ask(method, f"/api/backends/{added['id']}{path}")
        assert (answer.status, answer.code) == (404, "backend_not_found")
    served.calls.submit(emitting())


def test_what_opens_a_door_is_never_told(served: Served, engine: str) -> None:
    """Neither by the answer nor by the list nor by a refusal; that it will not last is said."""
    added = add(served, engine, headers={"X-Key": "hush-hush"}, token="hush-hush-2")

    assert added["kept"] is False and "never stored" in added["message"]
    with_user = engine.replace("//", "//me:hush-hush-3@")
    again = served.calls.ask("POST", "/api/backends", {"url": with_user})
    assert (again.status, again.code) == (409, "backend_exists")
    wrong = served.calls.ask(
        "POST", "/api/backends", {"url": "http://gpu", "headers": {"X-Key": "hush-hush\n"}}
    )
    assert (wrong.status, wrong.code) == (422, "invalid_address")
    told = str(added) + str(listed(served)) + str(again) + str(wrong)
    assert "hush" not in told


def test_the_jobs_of_a_removed_backend_run_elsewhere(tmp_path: Path, engine: str) -> None:
    """What ran there is brought to another one, and comes to its end there."""
    with running_engine(test_nodes=True) as other, serving(tmp_path, other.url) as served:
        job = served.calls.submit(sleeping(1.5))
        served.calls.until_running(job["id"])
        [first] = listed(served)
        add(served, engine)

        assert served.calls.ask("DELETE", f"/api/backends/{first['id']}").status == 200

        over = served.calls.until_over(job["id"], 30)
        assert (over["status"], over["attempts"]) == ("succeeded", 2), over
        assert [one["url"] for one in listed(served)] == [engine]


def test_each_job_goes_where_it_can_run(tmp_path: Path, engine: str) -> None:
    """Whatever the order of the backends, and however many jobs there are."""
    with running_engine() as plain, serving(tmp_path, plain.url, engine) as served:
        wait_until(lambda: all(one["nodes"] for one in listed(served)))
        jobs = [served.calls.submit(emitting(seed)) for seed in range(6)]

        ends = [served.calls.until_over(job["id"])["status"] for job in jobs]

    assert ends == ["succeeded"] * 6


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "invalid_request"),
        ({"url": 3}, "invalid_request"),
        ({"url": "http://gpu", "tokn": "x"}, "invalid_request"),
        ({"url": "http://gpu", "token": 3}, "invalid_request"),
        ({"url": "http://gpu", "headers": ["a"]}, "invalid_request"),
        ({"url": "http://gpu", "headers": {"a": 1}}, "invalid_request"),
        ({"url": "http://gpu", "verify_tls": "no"}, "invalid_request"),
        ({"url": "ftp://gpu"}, "invalid_address"),
        ({"url": "http://"}, "invalid_address"),
    ],
)
def test_what_is_no_backend_is_not_added(served: Served, body: Document, code: str) -> None:
    """The answer says what is wrong with it."""
    answer = served.calls.ask("POST", "/api/backends", body)

    assert (answer.status, answer.code) == (422, code)
    assert len(listed(served)) == 1


def test_one_that_must_answer_and_does_not_is_not_added(served: Served) -> None:
    """With check=true; without, it joins as down."""
    url = "http://127.0.0.1:19"

    answer = served.calls.ask("POST", "/api/backends?check=true", {"url": url})
    assert (answer.status, answer.code) == (422, "backend_not_added")
    assert "refused" in answer.json()["error"]["message"]
    for query in ("check=maybe", "chek=true"):
        wrong = served.calls.ask("POST", f"/api/backends?{query}", {"url": url})
        assert (wrong.status, wrong.code) == (422, "invalid_request")
    assert len(listed(served)) == 1

    assert add(served, url)["state"] == "down"


def test_only_admin_keys_manage_backends(served: Served) -> None:
    """Nobody else learns an address, or changes anything."""

    async def keys() -> tuple[str, str]:
        async with Store.open_beside(served.settings.data) as store:
            access = await Access.open(store)
            plain = await access.create("plain", may_graphs=True, may_publish=True)
            admin = await access.create("admin", is_admin=True)
        return plain.secret, admin.secret

    plain, admin = asyncio.run(keys())

    def is_asked() -> bool:
        return served.calls.ask("GET", "/api/backends").status == 401

    wait_until(is_asked)
    answer = served.calls.ask("GET", "/api/backends", headers={"X-API-Key": admin})
    [backend] = answer.json()["backends"]

    for method, path in (
        ("GET", "/api/backends"),
        ("POST", "/api/backends"),
        ("GET", f"/api/backends/{backend['id']}"),
        ("DELETE", f"/api/backends/{backend['id']}"),
        ("POST", f"/api/backends/{backend['id']}/drain"),
        ("POST", f"/api/backends/{backend['id']}/resume"),
    ):
        answer = served.calls.ask(method, path, headers={"X-API-Key": plain})
        assert (answer.status, answer.code) == (403, "forbidden"), path
        assert NOWHERE not in str(answer.body)
        assert served.calls.ask(method, path).status == 401


def test_a_graph_that_no_backend_can_run_is_refused(tmp_path: Path) -> None:
    """At once, though the only one is down by now; what could run there waits for it."""
    machine = Machine(tmp_path / "engine")
    unknown = {"1": {"class_type": "TestEmti", "inputs": {}}}
    try:
        asyncio.run(machine.start())
        with serving(tmp_path / "data", machine.url) as served:
            wait_until(lambda: listed(served)[0]["nodes"] is not None)
        machine.kill()

        with serving(tmp_path / "data", machine.url) as served:
            refused = served.calls.ask("POST", "/api/v2/jobs", {"workflow": unknown})
            assert (refused.status, refused.code) == (422, "invalid_workflow")
            assert "TestEmti" in refused.json()["error"]["message"]
            assert "TestEmit" in refused.json()["error"]["message"]

            job = served.calls.submit(emitting())
            assert job["status"] == "queued"
            assert "TestEmit" in served.calls.get("/api/object_info")
            asyncio.run(machine.start())
            assert served.calls.until_over(job["id"], 30)["status"] == "succeeded"
    finally:
        machine.close()


def test_while_nothing_is_known_nothing_is_refused(served: Served) -> None:
    """Jobs wait for a backend that can run them, and are not sent to one that cannot."""
    job = served.calls.submit({"1": {"class_type": "Nope", "inputs": {}}})

    assert served.calls.job(job["id"])["status"] == "queued"
