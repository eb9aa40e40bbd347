"""The WebSocket API against a real server before a real engine."""

from __future__ import annotations

import asyncio
import base64
import socket as plain
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from comfyserve import __version__
from tests.client.graphs import emitting, failing, ticking
from tests.engines import RunningEngine, running_engine
from tests.server.socket_calls import Socket, numbers, socket
from tests.server_calls import ServerCalls, wait_until
from tests.servers import RunningServer, running_server

LONG = {"steps": 1000, "delay_ms": 30}
MANY = 20
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def engine() -> Iterator[RunningEngine]:
    """A ComfyUI with nodes made for tests."""
    with running_engine(test_nodes=True) as running:
        yield running


@pytest.fixture(scope="module")
def server(
    engine: RunningEngine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    """A server before it."""
    folder = tmp_path_factory.mktemp("server")
    with running_server(folder, backends=[engine.url], grace=1) as running:
        yield running
        print(running.stderr)


@pytest.fixture
def calls(server: RunningServer) -> ServerCalls:
    """Calls of that server over HTTP."""
    return ServerCalls(server.url)


async def test_a_socket_is_let_in_where_no_key_is_needed(server: RunningServer) -> None:
    """The first thing that is said is who the client is, and what it may do."""
    async with socket(server.url, until_ready=False) as opened:
        ready = await opened.next("ready")

    assert ready == {
        "type": "ready",
        "id": None,
        "version": __version__,
        "caller": None,
        "permissions": {"workflows": None, "graphs": True, "publish": True, "admin": True},
        "previews": "binary",
    }


async def test_a_job_is_handed_in_and_heard_to_its_end(
    server: RunningServer, calls: ServerCalls
) -> None:
    """The events are numbered without a gap, tell progress and outputs, and the end comes last;
    the documents are those of HTTP."""
    async with socket(server.url) as opened:
        job = await opened.submit(
            graph={**emitting(), **ticking()}, metadata={"for": "ann"}, priority=3
        )
        heard = await opened.hear_to_end(job["id"])
        kept = (await opened.ask("get", job_id=job["id"]))["job"]

    assert (job["metadata"], job["priority"], job["status"]) == ({"for": "ann"}, 3, "queued")
    assert numbers(heard) == [*range(1, len(numbers(heard)) + 1)]
    assert heard[0]["data"]["status"] == "queued"
    assert heard[-1]["data"]["status"] == "succeeded"
    assert {event["event"] for event in heard} == {"status", "progress", "output"}
    assert kept == calls.job(job["id"])
    saved = [event["data"] for event in heard if event["event"] == "output"]
    assert [output["url"] for output in saved] == [output["url"] for output in kept["outputs"]]
    over_http = [frame for frame in calls.events(job["id"], after=0) if frame.id is not None]
    told = [event for event in heard if event["seq"] is not None]
    assert [(frame.id, frame.event, {*frame.data}) for frame in over_http] == [
        (event["seq"], event["event"], {*event["data"]}) for event in told
    ]


async def test_a_job_that_fails_says_why(server: RunningServer) -> None:
    """The last event has the error, as the job has."""
    async with socket(server.url) as opened:
        job = await opened.submit(graph=failing("no more paint"))
        heard = await opened.hear_to_end(job["id"])

    assert heard[-1]["data"]["status"] == "failed"
    assert "no more paint" in heard[-1]["data"]["error"]["message"]


async def test_many_jobs_on_one_socket_are_not_mixed(server: RunningServer) -> None:
    """Each of many jobs is heard whole, under its own id, with its own numbers."""
    async with socket(server.url) as opened:
        names = [f"job {number}" for number in range(MANY)]
        for name in names:
            await opened.say("submit", id=name, graph=ticking(steps=2))
        jobs = [(await opened.answer_to(name))["job"]["id"] for name in names]
        heard = [await opened.hear_to_end(job_id) for job_id in jobs]

    assert len({*jobs}) == MANY
    for job_id, events in zip(jobs, heard, strict=True):
        assert {event["job_id"] for event in events} == {job_id}
        assert numbers(events) == [*range(1, len(numbers(events)) + 1)]
        assert events[-1]["data"]["status"] == "succeeded"


async def test_who_comes_back_goes_on_after_a_number(server: RunningServer) -> None:
    """A connection that breaks in the middle loses nothing and repeats nothing of what lasts."""
    async with socket(server.url) as opened:
        job = await opened.submit(graph={**emitting(), **ticking(steps=30, delay_ms=30)})
        await opened.hear_event(job["id"], lambda event: event["event"] == "progress")
        before = numbers(opened.events[job["id"]])
        _cut(opened)

    async with socket(server.url) as opened:
        answer = await opened.ask("follow", job_id=job["id"], after=before[-1])
        after = numbers(await opened.hear_to_end(job["id"]))

    assert answer["type"] == "following"
    assert (answer["job_id"], answer["after"]) == (job["id"], before[-1])
    assert [*before, *after] == [*range(1, after[-1] + 1)]


def _cut(opened: Socket) -> None:
    """Break the connection, as a network does."""
    opened.connection.get_extra_info("socket").shutdown(plain.SHUT_RDWR)


async def test_nothing_comes_of_a_job_that_was_heard_to_its_end(server: RunningServer) -> None:
    """Who follows after the last number is told at once that it is over; a number that the job
    never had is refused."""
    async with socket(server.url) as opened:
        job = await opened.submit(graph=ticking())
        last = (await opened.hear_to_end(job["id"]))[-1]["seq"]
        opened.unfollowed.clear()
        opened.events.clear()

        await opened.ask("follow", job_id=job["id"], after=last)
        heard = await opened.hear_to_end(job["id"])
        refused = await opened.ask("follow", job_id=job["id"], after=last + 1)

    assert heard == []
    assert opened.unfollowed[job["id"]]["reason"] == "over"
    assert refused["error"]["code"] == "invalid_request"


async def test_a_job_is_canceled(server: RunningServer) -> None:
    """`cancel` is answered with the job, and its end is heard."""
    async with socket(server.url) as opened:
        job = await opened.submit(graph=ticking(**LONG))
        await opened.hear_event(job["id"], lambda event: event["data"].get("status") == "running")

        answer = await opened.ask("cancel", job_id=job["id"])
        heard = await opened.hear_to_end(job["id"])

    assert (answer["type"], answer["job"]["id"]) == ("canceled", job["id"])
    assert answer["job"]["status"] in ("canceling", "canceled")
    assert heard[-1]["data"]["status"] == "canceled"


async def test_a_job_is_not_followed_any_more(server: RunningServer) -> None:
    """After the answer to `unfollow` nothing is told of the job, which goes on."""
    async with socket(server.url) as opened:
        job = await opened.submit(graph=ticking(steps=20, delay_ms=20))
        await opened.hear_event(job["id"], lambda event: event["event"] == "progress")
        answer = await opened.ask("unfollow", job_id=job["id"])
        count = len(opened.events[job["id"]])
        await opened.until_over(job["id"])

    assert answer["reason"] == "asked"
    assert len(opened.events[job["id"]]) == count


async def test_a_job_may_be_handed_in_without_being_followed(server: RunningServer) -> None:
    """With `follow` false nothing is told of it."""
    async with socket(server.url) as opened:
        job = await opened.submit(graph=ticking(), follow=False)
        await opened.until_over(job["id"])

    assert dict(opened.events) == {}


async def test_following_again_begins_anew(server: RunningServer) -> None:
    """A job that is followed already is told from the number that was asked for last."""
    async with socket(server.url) as opened:
        job = await opened.submit(graph=ticking(steps=20, delay_ms=50))
        await opened.hear_event(job["id"], lambda event: event["event"] == "progress")
        opened.events.clear()
        await opened.ask("follow", job_id=job["id"])
        await opened.hear_to_end(job["id"])
        await opened.ask("ping")
        heard = numbers(opened.events[job["id"]])

    assert heard == [*range(1, heard[-1] + 1)]


PREVIEWED = {"steps": 4, "delay_ms": 60, "previews": True}


async def test_previews_come_as_pictures(server: RunningServer) -> None:
    """A binary message holds the length of its head, the head and the picture."""
    async with socket(server.url) as opened:
        job = await opened.submit(graph=ticking(**PREVIEWED))
        await opened.hear_to_end(job["id"])

    head, drawn = opened.previews[-1]
    assert head == {
        "type": "preview",
        "job_id": job["id"],
        "node_id": "7",
        "content_type": head["content_type"],
    }
    assert drawn.startswith(
        {"image/png": b"\x89PNG", "image/jpeg": b"\xff\xd8"}[head["content_type"]]
    )


async def test_previews_come_as_text_where_wanted(server: RunningServer) -> None:
    """With "base64" they are events like all others, and with "none" there are none."""
    async with socket(server.url) as opened:
        greeted = await opened.ask("hello", previews="base64")
        job = await opened.submit(graph=ticking(**PREVIEWED))
        heard = await opened.hear_to_end(job["id"])
        await opened.ask("hello", previews="none")
        other = await opened.submit(graph=ticking(**PREVIEWED))
        unseen = await opened.hear_to_end(other["id"])

    assert greeted["previews"] == "base64"
    shown = [event["data"] for event in heard if event["event"] == "preview"]
    assert shown
    assert base64.b64decode(shown[-1]["data_base64"])[:2] in (b"\x89P", b"\xff\xd8")
    assert opened.previews == []
    assert "preview" not in {event["event"] for event in unseen}


async def test_jobs_go_with_their_socket_where_wanted(
    server: RunningServer, calls: ServerCalls
) -> None:
    """A job that was handed in with `cancel_on_disconnect` is canceled when the connection
    breaks, and another one of the socket goes on."""
    async with socket(server.url) as opened:
        going = await opened.submit(graph=ticking(**LONG), cancel_on_disconnect=True)
        staying = await opened.submit(graph=ticking(**LONG))
        _cut(opened)

    calls.until(going["id"], lambda job: job["status"] == "canceled")
    assert calls.job(staying["id"])["status"] in ("queued", "running")
    calls.cancel(staying["id"])
    calls.until_over(staying["id"])


async def test_the_same_key_is_the_same_job(server: RunningServer) -> None:
    """An `idempotency_key` that comes again with the same graph gives the same job, told from its
    beginning; with another graph it is refused."""
    graph = ticking()
    async with socket(server.url) as opened:
        job = await opened.submit(graph=graph, idempotency_key="sockets-1")
        await opened.hear_to_end(job["id"])
        opened.unfollowed.clear()
        opened.events.clear()
        again = await opened.submit(graph=graph, idempotency_key="sockets-1")
        heard = await opened.hear_to_end(job["id"])
        refused = await opened.ask("submit", graph=ticking(), idempotency_key="sockets-1")

    assert again["id"] == job["id"]
    assert numbers(heard) == [1, 2, 3, 4]
    assert refused["error"]["code"] == "idempotency_key_reuse"


async def test_a_workflow_is_run_by_its_name(engine: RunningEngine, tmp_path: Path) -> None:
    """Its inputs are checked, and told with the seeds that were really used; a picture comes as a
    `data:` address; over HTTP the same key is the same job."""
    picture = base64.b64encode((EXAMPLES / "inputs" / "sketch.png").read_bytes()).decode()
    wanted = {"prompt": "a fox", "steps": 1, "image": f"data:image/png;base64,{picture}"}
    with running_server(tmp_path, backends=[engine.url], workflows=EXAMPLES, grace=1) as server:
        async with socket(server.url) as opened:
            refused = await opened.ask(
                "submit", workflow="image_to_image", inputs={**wanted, "stepz": 2}
            )
            told = {"workflow": "image_to_image", "inputs": wanted}
            job = await opened.submit(**told, idempotency_key="fox")
            heard = await opened.hear_to_end(job["id"])
        over_http = await asyncio.to_thread(
            ServerCalls(server.url).ask,
            "POST",
            "/api/workflows/image_to_image/jobs",
            {"inputs": wanted},
            {"Idempotency-Key": "fox"},
        )

    assert refused["error"]["code"] == "invalid_inputs"
    assert "steps" in refused["error"]["message"]
    assert (job["workflow"], job["inputs"]["prompt"]) == ("image_to_image", "a fox")
    assert list(job["seeds"].values()) == [job["inputs"]["seed"]]
    assert heard[-1]["data"]["status"] == "succeeded"
    assert [event["data"]["type"] for event in heard if event["event"] == "output"] == ["image"]
    assert over_http.json()["id"] == job["id"]


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"graph": {}}, "invalid_workflow"),
    ({"graph": {"nodes": [], "links": []}}, "workflow_format_ui"),
    ({"graph": {"1": {"class_type": "NoSuchNode", "inputs": {}}}}, "invalid_workflow"),
    ({"graph": ticking(), "metadata": 3}, "metadata_invalid"),
    ({"graph": ticking(), "priority": "high"}, "invalid_request"),
    ({"graph": ticking(), "extra_data": {"key": "x"}}, "invalid_request"),
    ({"graph": ticking(), "follow": "yes"}, "invalid_request"),
    ({"graph": ticking(), "idempotency_key": ""}, "invalid_request"),
    ({"graph": ticking(), "inputs": {}}, "invalid_request"),
    ({"graph": ticking(), "workflow": "a"}, "invalid_request"),
    ({"graph": ticking(), "follow": False, "cancel_on_disconnect": True}, "invalid_request"),
    ({"workflow": "nowhere"}, "workflow_not_found"),
    ({"workflow": "nowhere", "inputs": []}, "invalid_request"),
    ({"workflow": 3}, "invalid_request"),
    ({}, "invalid_request"),
]


@pytest.mark.parametrize(("fields", "code"), REFUSED)
async def test_what_cannot_be_run_is_refused(
    server: RunningServer, fields: dict[str, Any], code: str
) -> None:
    """A submission that makes no sense is answered with the code that HTTP has for it, and the
    socket goes on."""
    async with socket(server.url) as opened:
        refused = await opened.ask("submit", **fields)

        assert (refused["type"], refused["error"]["code"]) == ("error", code)
        assert (await opened.ask("ping"))["type"] == "pong"


@pytest.mark.parametrize("type", ["follow", "cancel", "get"])
async def test_a_job_that_is_not_there(server: RunningServer, type: str) -> None:
    """It is an error like over HTTP."""
    async with socket(server.url) as opened:
        refused = await opened.ask(type, job_id="nobody")

    assert refused["error"]["code"] == "not_found"


async def test_a_page_of_another_site_is_refused(server: RunningServer) -> None:
    """No page but ours may open a socket with a browser that reaches this server, and none may
    under a foreign name."""
    for headers in ({"Origin": "https://evil.example"}, {"Host": "evil.example"}):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with socket(server.url, headers=headers):
                pass
        assert refused.value.status == 403

    async with socket(server.url, headers={"Origin": server.url}) as opened:
        assert (await opened.ask("ping"))["type"] == "pong"


async def test_a_message_has_an_end(server: RunningServer, calls: ServerCalls) -> None:
    """One that is larger than a body may be closes the socket with 1009, in one part or many."""
    async with socket(server.url) as opened:
        await opened.send('"' + "x" * (33 << 20) + '"')
        assert await opened.closed() == 1009

    assert calls.ask("GET", "/healthz").status == 200


def test_a_server_that_stops_says_so(engine: RunningEngine, tmp_path: Path) -> None:
    """Sockets are closed with 1012 and a reason once running jobs had their time; jobs that go
    with their socket are not canceled then, but taken up again."""
    with running_server(tmp_path, backends=[engine.url], grace=0.2) as server:
        job_id, code = asyncio.run(_stop_while_open(server))
        assert server.wait() == 0
        server.start()
        job = ServerCalls(server.url).until_over(job_id)

    assert code == 1012
    assert job["status"] == "succeeded"


async def _stop_while_open(server: RunningServer) -> tuple[str, int]:
    async with socket(server.url) as opened:
        graph = ticking(steps=10, delay_ms=300)
        job = await opened.submit(graph=graph, cancel_on_disconnect=True)
        await opened.hear_event(job["id"], lambda event: event["event"] == "progress")
        server.terminate()
        code = await opened.closed()
        assert opened.unfollowed[job["id"]]["reason"] == "stopping"
        assert "about to stop" in opened.closed_because
        return job["id"], code


def test_sockets_are_counted(server: RunningServer, calls: ServerCalls) -> None:
    """The metrics tell how many are open, and a client that leaves is gone at once."""

    async def count_open() -> int:
        async with socket(server.url), socket(server.url):
            return await asyncio.to_thread(_open_sockets, calls)

    assert asyncio.run(count_open()) >= 2
    wait_until(lambda: _open_sockets(calls) == 0)


def _open_sockets(calls: ServerCalls) -> int:
    lines = calls.ask("GET", "/metrics").body.decode().splitlines()
    [value] = [line.split()[1] for line in lines if line.startswith("comfyserve_sockets_open ")]
    return int(float(value))
