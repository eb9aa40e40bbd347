"""A replay fails exactly as it is asked to, and obeys a client that interrupts or deletes."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from tests.traces.faults import (
    Answer,
    DropSocket,
    EmptyHistory,
    GoSilent,
    Hang,
    Hold,
    HoldAnswer,
    Inject,
    Kill,
    RefuseSockets,
    Vanish,
    Withhold,
)
from tests.traces.plain import Plain, plain_client, until, within
from tests.traces.recording import Recording
from tests.traces.replay import Replay

FAST = 1000.0


async def test_interrupting_ends_exactly_our_job() -> None:
    """POST /interrupt with the running id ends it as ComfyUI does; with another id it does not."""
    async with Replay("txt2img", Hold("binary")) as replay, plain_client(replay) as me:
        mine = await me.submit()
        await me.hear(lambda message: message["type"] == "progress")
        await me.post("/interrupt", {"prompt_id": "another"})
        still = await me.get("/queue")
        await me.post("/interrupt", {"prompt_id": mine})
        await me.hear_end()
        await within(replay.finished.wait())
        await me.hear_all()
        entry = (await me.get(f"/history/{mine}"))[mine]

    assert [item[1] for item in still["queue_running"]] == [mine]
    about_end = [m["type"] for m in me.heard[-3:] if isinstance(m, dict)]
    assert about_end == ["execution_interrupted", "status", "executing"]
    assert "execution_success" not in [m["type"] for m in me.heard if isinstance(m, dict)]
    assert entry["status"]["status_str"] == "error"
    assert entry["status"]["messages"][-1][0] == "execution_interrupted"
    assert [r.json for r in replay.calls("POST", "/interrupt")] == [
        {"prompt_id": "another"},
        {"prompt_id": mine},
    ]


async def test_a_release_may_come_first() -> None:
    """A release before the Hold is reached is not lost: the replay does not stand still there."""
    async with Replay("txt2img", Hold("binary")) as replay, plain_client(replay) as me:
        replay.release()
        await me.submit()
        await me.hear_end()


async def test_a_waiting_job_can_be_deleted() -> None:
    """POST /queue takes our waiting job away: no message, no history, only a status."""
    async with (
        Replay("interrupt_prompt_id", Hold("binary"), run=1) as replay,
        plain_client(replay) as me,
    ):
        mine = await me.submit()
        await me.hear(lambda message: message["type"] == "progress")
        await me.post("/queue", {"delete": [mine]})
        queue = await me.get("/queue")
        replay.release()
        await within(replay.finished.wait())
        await me.hear_all()
        history = await me.get(f"/history/{mine}")

    assert (queue["queue_pending"], history) == ([], {})
    assert all(m["data"].get("prompt_id") != mine for m in me.heard if isinstance(m, dict))


async def test_drop_cuts_without_a_close_frame() -> None:
    """A dropped socket ends with 1006, refuses some tries, then names the node it is at."""
    drop = DropSocket("binary", refuse=2)
    async with Replay("txt2img", drop, Hold(30)) as replay, plain_client(replay) as me:
        mine = await me.submit()
        await me.hear_end_of_socket()
        code = me.socket.close_code
        refused = [await me.try_socket(), await me.try_socket()]
        await me.open_socket()
        replay.release()
        await me.hear_end()
        entry = await me.ended(mine)

    assert code == 1006
    assert refused == [503, 503]
    assert [m["type"] for m in me.greetings[-2:]] == ["status", "executing"]
    assert me.greetings[-1]["data"] == {"node": "3"}
    assert entry["status"]["completed"] is True


async def test_a_recorded_drop_is_a_drop() -> None:
    """Where the recorded client lost its socket during a job, ours does, and finds it going on."""
    async with Replay("ws_reconnect_midrun") as replay, plain_client(replay) as me:
        await me.submit()
        await me.hear_end_of_socket()
        await me.open_socket()
        await me.hear_end()

    assert me.greetings[-1] == {"type": "executing", "data": {"node": "3"}}


async def test_an_older_socket_takes_the_newer_down() -> None:
    """Two sockets of one client id: when the older closes, the newer hears nothing more."""
    async with Replay("txt2img", speed=FAST) as replay, plain_client(replay) as me:
        newer = Plain(replay, me.http)
        await newer.open_socket()
        await me.close_socket()
        mine = await newer.submit()
        await newer.ended(mine)
        await within(replay.finished.wait())
        deaf = newer.heard == [] and not newer.socket.closed
        await newer.close_socket()

    assert deaf


async def test_refused_sockets_answer_503() -> None:
    """RefuseSockets(n) refuses the first n sockets and takes the next."""
    async with (
        Replay("txt2img", RefuseSockets(2)) as replay,
        plain_client(replay, opens=False) as me,
    ):
        assert [await me.try_socket(), await me.try_socket()] == [503, 503]
        await me.open_socket()
    assert len(replay.sockets) == 1


async def test_silence_leaves_http_true() -> None:
    """After GoSilent nothing arrives, the socket stays open, and HTTP tells the end."""
    async with Replay("txt2img", GoSilent("binary")) as replay, plain_client(replay) as me:
        mine = await me.submit()
        entry = await me.ended(mine)
        await within(replay.finished.wait())
        closed = me.socket.closed
        heard = len(me.heard)

    assert (closed, heard) == (False, _place_of(replay.recording, "binary"))
    assert entry["status"]["completed"] is True


async def test_silence_may_end_with_a_new_socket() -> None:
    """GoSilent(forever=False) leaves only the sockets silent that were open."""
    silence = GoSilent("binary", forever=False)
    async with Replay("txt2img", silence, Hold("executed")) as replay, plain_client(replay) as me:
        await me.submit()
        await until(lambda: replay.position == _place_of(replay.recording, "executed"))
        await me.close_socket()
        await me.open_socket()
        replay.release()
        await me.hear_end()

    assert [m["type"] for m in me.heard if isinstance(m, dict)][-1] == "executing"


async def test_killed_and_started_again() -> None:
    """Kill cuts everything and closes the port; after restart nothing is known any more."""
    async with Replay("txt2img_cached", Kill("binary")) as replay, plain_client(replay) as me:
        mine = await me.submit()
        await me.hear_end_of_socket()
        code = me.socket.close_code
        with pytest.raises(aiohttp.ClientConnectionError):
            await me.get("/queue")
        await replay.restart()
        queue, history = await me.get("/queue"), await me.get(f"/history/{mine}")
        await me.open_socket()
        again = await me.submit()
        await me.hear_end()
        entry = await me.ended(again)

    assert code == 1006
    assert (queue, history) == ({"queue_running": [], "queue_pending": []}, {})
    assert entry["status"]["completed"] is True


async def test_a_server_that_died_stays_dead() -> None:
    """Where the recorded server was stopped, ours is gone: 1006, then nobody listens."""
    async with Replay("server_stop_midrun") as replay, plain_client(replay) as me:
        await me.submit()
        await me.hear_end_of_socket()
        code = me.socket.close_code
        with pytest.raises(aiohttp.ClientConnectionError):
            await me.get("/queue")

    assert code == 1006


async def test_a_job_vanishes() -> None:
    """Vanish: the job is in no queue and no history, and only a status is sent of it."""
    async with Replay("txt2img", Vanish("execution_start")) as replay, plain_client(replay) as me:
        mine = await me.submit()
        await within(replay.finished.wait())
        await me.hear_all()
        left = await me.get("/queue"), await me.get(f"/history/{mine}")

    assert left == ({"queue_running": [], "queue_pending": []}, {})
    assert {m["type"] for m in me.heard if isinstance(m, dict)} == {"status"}


async def test_frames_of_our_own_making() -> None:
    """Inject sends texts and frames, whatever they are, at its moment, with our id filled in."""
    frames = ("not json", '{"type": "novel", "data": {"prompt_id": "$PROMPT_ID"}}', b"\0\0")
    inject = Inject("executed", frames)
    async with Replay("txt2img", inject, speed=FAST) as replay, plain_client(replay) as me:
        mine = await me.submit()
        await me.hear_end()

    at = next(i for i, m in enumerate(me.heard) if m == "not json")
    assert me.heard[at + 1 : at + 3] == [{"type": "novel", "data": {"prompt_id": mine}}, b"\0\0"]
    assert me.heard[at + 3]["type"] == "executed"


async def test_a_type_is_withheld() -> None:
    """Withhold keeps back every message of a type, and `end` means the last one alone."""
    lost = Withhold("progress_state"), Withhold("end")
    async with Replay("txt2img", *lost, speed=FAST) as replay, plain_client(replay) as me:
        await me.submit()
        await within(replay.finished.wait())
        await me.hear_all()

    texts = [m for m in me.heard if isinstance(m, dict)]
    assert "progress_state" not in {m["type"] for m in texts}
    assert "executing" in {m["type"] for m in texts}
    assert None not in [m["data"]["node"] for m in texts if m["type"] == "executing"]


async def test_messages_before_the_answer() -> None:
    """HoldAnswer(n) lets n messages, or the whole run, go before the answer to POST /prompt."""
    heard = []
    for messages in (8, 1000):
        async with (
            Replay("txt2img", HoldAnswer(messages), Hold(9)) as replay,
            plain_client(replay) as me,
        ):
            posting = asyncio.create_task(me.submit())
            await until(lambda me=me: len(me.heard) >= 8)
            replay.release()
            await within(posting)
            heard.append(replay.position)

    assert 8 <= heard[0] < heard[1]
    assert heard[1] == len(Recording.load("txt2img").messages("client-a", 3))


async def test_history_comes_late() -> None:
    """EmptyHistory(n): the first n reads of a finished job are empty, then it is there."""
    async with (
        Replay("txt2img", EmptyHistory(2), speed=FAST) as replay,
        plain_client(replay) as me,
    ):
        mine = await me.submit()
        await me.hear_end()
        reads = [await me.get(f"/history/{mine}") for _ in range(3)]

    assert [bool(read) for read in reads] == [False, False, True]


async def test_any_path_can_answer_anything() -> None:
    """Answer overrules a path, after some requests and for some times, with any body."""
    faults = (
        Answer("/queue", 500, "500 Internal Server Error", after=1, times=1),
        Answer("/history/*", 200, "<html>"),
        Answer("/jobs/*/cancel", 200, {"ok": True}, method="POST"),
    )
    async with Replay("txt2img", *faults) as replay, plain_client(replay) as me:
        queues = [await me.raw("/queue") for _ in range(3)]
        history = await me.raw("/history/x")
        cancel = await me.post("/api/jobs/1/cancel", {})

    assert [status for status, _ in queues] == [200, 500, 200]
    assert queues[1] == (500, b"500 Internal Server Error")
    assert history == (200, b"<html>")
    assert cancel == (200, {"ok": True})


async def test_a_path_can_hang() -> None:
    """Hang takes a request and never answers it; leaving the replay is quick all the same."""
    async with Replay("txt2img", Hang("/queue", times=1)) as replay, plain_client(replay) as me:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await me.get("/queue")
        after = await me.get("/queue")

    assert after == {"queue_running": [], "queue_pending": []}


async def test_leaving_early_ends_everything() -> None:
    """A replay left in the middle of a job leaves no task and no listener behind."""
    before = asyncio.all_tasks()
    async with (
        Replay("txt2img", Hold("binary"), HoldAnswer(1000)) as replay,
        plain_client(replay) as me,
    ):
        posting = asyncio.create_task(me.submit())
        await me.hear(lambda message: message["type"] == "progress")
    with pytest.raises(aiohttp.ClientConnectionError):
        await within(posting)

    assert asyncio.all_tasks() == before
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", int(replay.url.rpartition(":")[2]))


async def test_a_prompt_too_many_is_told() -> None:
    """When the recording is used up, POST /prompt fails with a sentence that says so."""
    async with Replay("txt2img", speed=FAST) as replay, plain_client(replay) as me:
        await me.submit()
        await within(replay.finished.wait())
        status, body = await me.post("/prompt", {"prompt": {}})

    assert (status, body) == (500, "the recording 'txt2img' holds no more POST /prompt to play")


def _place_of(recording: Recording, type: str) -> int:
    """How many messages come before the first of a type."""
    types = [line.type for _, line in recording.messages("client-a", recording.runs[0].post)]
    return types.index(type)
