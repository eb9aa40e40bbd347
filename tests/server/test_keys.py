"""The door: who is let in, as whom, and how often."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute
from starlette.types import Message, Receive, Scope, Send

import comfyserve.server as server_rooms
from comfyserve.access import Access, Caller
from comfyserve.access.key_secrets import new_secret
from comfyserve.server.keys import KeyDoor
from comfyserve.settings import Settings
from comfyserve.store import Store
from tests.server.asked import Asked, asked, refusal, submitted, uploaded

OPEN = {"/healthz", "/readyz", "/docs", "/docs/{part}"}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Asked]:
    """A server that has no keys yet."""
    async with asked(tmp_path) as running:
        yield running


async def test_every_route_wants_a_key_once_there_is_one(server: Asked) -> None:
    """All routes but those that watch the server and the docs' page turn away who has none."""
    await server.secret("app")
    nobody = await server.by()

    found = {}
    for method, path in set(_routes()):
        asked_for = path.replace("{part}", "docs.js").replace("{", "").replace("}", "")
        found[method, path] = await nobody.request(method, asked_for)

    assert len(found) > len(OPEN)
    assert {path for (_, path), answer in found.items() if answer.status_code != 401} == OPEN
    refused = [answer for (_, path), answer in found.items() if path not in OPEN]
    assert {answer.headers["WWW-Authenticate"] for answer in refused} == {"Bearer"}
    assert {answer.json()["error"]["code"] for answer in refused if answer.content} == {
        "unauthorized"
    }


def _routes() -> Iterator[tuple[str, str]]:
    """The methods and paths of all routes that the modules of the server declare."""
    for info in pkgutil.walk_packages(server_rooms.__path__, "comfyserve.server."):
        router = getattr(importlib.import_module(info.name), "router", None)
        for route in getattr(router, "routes", ()):
            if isinstance(route, APIRoute):
                yield from ((method, route.path) for method in route.methods or ())


async def test_without_keys_nobody_is_asked_for_one(server: Asked) -> None:
    """Before the first key was made everything is open, to who sends some token, too."""
    nobody, somebody = await server.by(), await server.by(authorization="Bearer of-a-proxy")

    assert (await nobody.get("/api/v2/jobs")).status_code == 200
    assert (await somebody.get("/api/v2/jobs")).status_code == 200
    assert (await nobody.get("/metrics")).status_code == 200


async def test_the_watchers_and_the_docs_page_are_open(server: Asked) -> None:
    """Who watches the server needs no key, nor does the page that asks for one; what the server
    does is told to who has a key alone."""
    await server.secret("app")
    nobody = await server.by()

    assert (await nobody.get("/healthz")).status_code == 200
    assert (await nobody.get("/readyz")).status_code == 503  # it has no backend, and says so
    assert "docs/docs.js" in (await nobody.get("/docs")).text
    assert (await nobody.get("/docs/docs.js")).status_code == 200
    assert refusal(await nobody.get("/openapi.json")) == (401, "unauthorized")


@pytest.mark.parametrize(
    ("headers", "is_good"),
    [
        ({"authorization": "Bearer {key}"}, True),
        ({"authorization": "bearer   {key} "}, True),
        ({"x_api_key": "{key}"}, True),
        ({"x_api_key": "{key}", "authorization": "Basic cHJveHk6c2VjcmV0"}, True),
        ({"x_api_key": "{key}", "authorization": "Bearer of-a-proxy"}, True),
        ({"authorization": "{key}"}, False),
        ({"authorization": "Basic {key}"}, False),
        ({"authorization": "Bearer"}, False),
        ({"authorization": "Bearer {key}0"}, False),
        ({"x_api_key": "other", "authorization": "Bearer {key}"}, False),
        ({"cookie": "key={key}"}, False),
    ],
)
async def test_a_key_comes_in_a_header(
    server: Asked, headers: dict[str, str], is_good: bool
) -> None:
    """`Authorization: Bearer` and `X-API-Key` bring a key, and the latter counts above."""
    secret = await server.secret("app")
    client = await server.by(**{name: told.format(key=secret) for name, told in headers.items()})

    answer = await client.get("/api/v2/jobs")

    assert answer.status_code == (200 if is_good else 401)
    assert secret not in answer.text


async def test_a_key_is_no_part_of_an_address(server: Asked) -> None:
    """A key in the query is no key, whatever it is called there."""
    secret = await server.secret("app")
    nobody = await server.by()

    for name in ("key", "token", "api_key", "sig", "access_token"):
        answer = await nobody.get("/api/v2/jobs", params={name: secret})
        assert refusal(answer) == (401, "unauthorized")


async def test_a_refusal_says_what_is_wrong_with_the_key(server: Asked) -> None:
    """None, one that was cut, one that nobody knows, one that was revoked: each has a sentence."""
    secret = await server.secret("app")
    await server.secret("other")
    keys = ["", secret[:-1], new_secret(), secret]
    await server.host.access.revoke("app")

    words = [
        (await (await server.by(x_api_key=key)).get("/api/v2/jobs")).json()["error"]["message"]
        for key in keys
    ]

    assert "Bearer cs_" in words[0]
    assert "mistyped or cut" in words[1]
    assert "not known here" in words[2]
    assert "was revoked" in words[3]
    assert not any(key in text for text in words for key in keys[1:])


async def test_a_key_that_another_process_makes_is_good_at_once(tmp_path: Path) -> None:
    """Beside a server that runs, keys are made in its folder; it does not start anew for them."""
    async with asked(tmp_path) as server, Store.open_beside(tmp_path) as store:
        beside = await Access.open(store)
        client = await server.by(x_api_key=(await beside.create("app", may_graphs=True)).secret)

        job = await submitted(client)

        assert (await server.host.job_queue.get(job["id"])).record.owner != ""


OURS = [
    ("GET", "/api/v2/jobs/{job}"),
    ("GET", "/api/v2/jobs/{job}/workflow"),
    ("GET", "/api/v2/jobs/{job}/events"),
    ("POST", "/api/v2/jobs/{job}/cancel"),
    ("GET", "/api/jobs/{job}/events"),
    ("DELETE", "/api/jobs/{job}"),
    ("GET", "/api/v2/assets/{asset}"),
    ("GET", "/api/v2/assets/{asset}/content"),
    ("HEAD", "/api/v2/assets/{asset}/content"),
    ("DELETE", "/api/v2/assets/{asset}"),
    ("HEAD", "/api/v2/assets/by-hash/{hash}"),
]


@pytest.mark.parametrize(("method", "path"), OURS, ids=lambda told: told)
async def test_what_belongs_to_another_key_is_not_there(
    server: Asked, method: str, path: str
) -> None:
    """Jobs, events and assets of one key are 404 for all others, an admin's too, and to ask for
    them changes nothing."""
    owner = await server.with_key("owner", may_graphs=True)
    others = [
        await server.with_key("b", may_graphs=True),
        await server.with_key("c", is_admin=True),
    ]
    job, asset = await submitted(owner), await uploaded(owner)
    asked_for = path.format(job=job["id"], asset=asset["id"], hash=asset["hash"])

    answers = [await other.request(method, asked_for) for other in others]

    assert [answer.status_code for answer in answers] == [404, 404]
    assert (await owner.get(f"/api/v2/jobs/{job['id']}")).json()["status"] == "queued"
    assert (await owner.get(f"/api/v2/assets/{asset['id']}/content")).content == b"fox"


async def test_lists_and_references_know_only_ones_own(server: Asked) -> None:
    """A key lists its own jobs, and can neither refer to another's asset nor mint one by hash."""
    owner = await server.with_key("owner", may_graphs=True)
    other = await server.with_key("other", may_graphs=True)
    job, asset = await submitted(owner), await uploaded(owner)
    reference = {"__type": "core/ASSET", "info": {"id": asset["id"], "hash": asset["hash"]}}
    graph = {"1": {"class_type": "LoadImage", "inputs": {"image": reference}}}

    listed = [(await client.get("/api/v2/jobs")).json()["jobs"] for client in (owner, other)]
    named = await other.post("/api/v2/jobs", json={"workflow": graph})
    minted = await other.post("/api/v2/assets/from-hash", json={"hash": asset["hash"]})

    assert [[each["id"] for each in jobs] for jobs in listed] == [[job["id"]], []]
    assert refusal(named) == (422, "missing_asset")
    assert refusal(minted) == (404, "blob_not_found")


async def test_idempotency_keys_are_ones_own(server: Asked) -> None:
    """The same idempotency key is good once for each key, not once for all."""
    clients = [await server.with_key(name, may_graphs=True) for name in ("a", "b")]
    body = {"workflow": {"1": {"class_type": "PrimitiveInt", "inputs": {"value": 3}}}}

    answers = [
        await client.post("/api/v2/jobs", json=body, headers={"Idempotency-Key": "once"})
        for client in (*clients, *clients)
    ]

    assert [answer.status_code for answer in answers] == [201, 201, 422, 422]


async def test_a_rate_is_kept(server: Asked) -> None:
    """A key that came as often as it may is told when to come again; others are not."""
    client, other = await server.with_key("a", rate="2/h"), await server.with_key("b")

    answers = [await client.get("/api/v2/jobs") for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert refusal(answers[2]) == (429, "rate_limited")
    seconds = answers[2].json()["error"]["details"]["retry_after"]
    assert 0 < seconds <= 3600
    assert answers[2].headers["Retry-After"] == str(seconds)
    assert (await other.get("/api/v2/jobs")).status_code == 200
    assert (await client.get("/healthz")).status_code == 200


async def test_as_many_unfinished_jobs_as_may_be(server: Asked) -> None:
    """One job too many is 429 and says when to try again; once one has ended there is room."""
    client = await server.with_key("a", may_graphs=True, concurrent=1)
    job = await submitted(client)
    body = {"workflow": {"1": {"class_type": "PrimitiveInt", "inputs": {"value": 3}}}}

    refused = await client.post("/api/v2/jobs", json=body)
    await client.post(f"/api/v2/jobs/{job['id']}/cancel")

    assert refusal(refused) == (429, "too_many_jobs")
    assert refused.headers["Retry-After"] == "2"
    assert (await client.post("/api/v2/jobs", json=body)).status_code == 201


async def test_priorities_are_capped(server: Asked) -> None:
    """A key gets no higher priority than it may, and any lower one."""
    client = await server.with_key("a", may_graphs=True, priority_max=5)

    got = [(await submitted(client, priority=wanted))["priority"] for wanted in (9, 5, -9)]

    assert got == [5, 5, -9]


async def test_counts_are_for_admins(server: Asked) -> None:
    """`/metrics` tells of all callers, so it takes an admin's key."""
    plain = await server.with_key("a", may_graphs=True, may_publish=True)
    admin = await server.with_key("b", is_admin=True)

    assert refusal(await plain.get("/metrics")) == (403, "forbidden")
    assert (await admin.get("/metrics")).status_code == 200


async def test_a_server_for_others_does_not_open_when_its_keys_are_forgotten(
    tmp_path: Path,
) -> None:
    """Who reset the keys of a server that others reach has closed it."""
    async with asked(tmp_path, host="0.0.0.0") as server:
        client = await server.with_key("a")
        assert (await client.get("/api/v2/jobs")).status_code == 200

        await server.host.access.reset()

        assert refusal(await client.get("/api/v2/jobs")) == (401, "unauthorized")
        assert refusal(await (await server.by()).get("/api/v2/jobs")) == (401, "unauthorized")


async def test_pages_of_listed_sites_may_ask_whether_they_may_send_a_key(tmp_path: Path) -> None:
    """A browser asks before it sends a key, and then without one."""
    site = "https://app.example.org"
    async with asked(tmp_path, allow_origins=(site,)) as server:
        secret = await server.secret("a")
        page = await server.by(origin=site)
        may = {"Access-Control-Request-Method": "POST"}
        may["Access-Control-Request-Headers"] = "authorization, x-api-key"

        preflight = await page.options("/api/v2/jobs", headers=may)
        refused = await page.get("/api/v2/jobs")
        answer = await page.get("/api/v2/jobs", headers={"X-API-Key": secret})

        assert preflight.status_code == 200
        assert (refused.status_code, answer.status_code) == (401, 200)
        assert refused.headers["Access-Control-Allow-Origin"] == site


@pytest.mark.parametrize(
    ("header", "reached", "answered"),
    [(None, True, None), ("good", True, None), ("bad", False, 401)],
)
async def test_a_socket_may_show_its_key_later(
    tmp_path: Path, header: str | None, reached: bool, answered: int | None
) -> None:
    """A handshake without a key is let in with no caller noted, one with a bad key is not."""
    seen: list[Any] = []
    sent: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["state"].get("caller"))

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    async with Store.open(tmp_path) as store:
        access = await Access.open(store)
        new = await access.create("a")
        headers = {"good": new.secret, "bad": f"{new.secret}x"}
        scope: Scope = {"type": "websocket", "path": "/api/ws", "state": {}, "headers": []}
        scope["extensions"] = {"websocket.http.response": {}}
        if header is not None:
            scope["headers"] = [(b"authorization", f"Bearer {headers[header]}".encode())]
        await KeyDoor(app, lambda: access, Settings())(scope, receive, send)

    assert bool(seen) is reached
    assert not reached or seen == [None if header is None else Caller(new.key)]
    assert answered is None or sent[0]["status"] == answered


async def test_keys_cost_a_keyless_server_no_question(tmp_path: Path) -> None:
    """Between two looks a second apart, no request asks the store who may ask."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        return

    async def unused(*_: Any) -> Any:
        raise AssertionError("nothing is received or sent")

    async with Store.open(tmp_path) as store:
        access = await Access.open(store, clock=lambda: 0.0)
        door = KeyDoor(app, lambda: access, Settings())
    for _ in range(100):  # the store is closed: a question would raise
        scope: Scope = {
            **{"type": "http", "method": "GET", "path": "/api/v2/jobs"},
            **{"headers": [(b"host", b"a")], "query_string": b"", "state": {}},
        }
        await door(scope, unused, unused)
        assert scope["state"]["caller"] == Caller()
