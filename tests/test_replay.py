"""The replay server tells a client exactly what was recorded, and fails exactly as it is asked to.

What each recording shows, and which tests of comfyserve use it, is in `traces/README.md`.
"""

from __future__ import annotations

import asyncio
import io
import json
import struct
import uuid
from typing import Any

import aiohttp
import pytest
from PIL import Image

from tests.traces.faults import (
    Hold,
)
from tests.traces.lines import Closed, Opened, Sent
from tests.traces.plain import ME, Plain, plain_client, until, within
from tests.traces.recording import FOLDER, Recording, Run
from tests.traces.replay import Replay

FAST = 1000.0

SUBMITTING = [name for name in Recording.names() if Recording.load(name).runs]
ROLES = [
    (name, client)
    for name in SUBMITTING
    for client in sorted(
        {line.client_id for line in Recording.load(name).lines if isinstance(line, Opened)}
    )
    if Recording.load(name).messages(client, Recording.load(name).runs[0].post)
]


@pytest.mark.parametrize(("name", "client"), ROLES)
async def test_the_recorded_messages_arrive(name: str, client: str) -> None:
    """A client hears what the recorded one heard, in that order, with its own ids in it."""
    recording = Recording.load(name)
    ids = {run.index: str(uuid.uuid4()) for run in recording.runs}
    everything = len(recording.runs)

    async with (
        Replay(name, speed=FAST, jobs=everything, client=client, restarts=True) as replay,
        plain_client(replay, reopens=True) as me,
    ):
        for run in recording.runs:
            await submit_as_recorded(me, run, ids[run.index])
        await within(replay.finished.wait())
        await me.hear_all()

    expected = [
        as_heard(line, latest_ids(recording, index, ids))
        for index, line in recording.messages(client, recording.runs[0].post)
    ]
    assert [comparable(m) for m in me.heard] == expected


@pytest.mark.parametrize("name", SUBMITTING)
async def test_post_prompt_gets_the_recorded_answer(name: str) -> None:
    """Every POST /prompt gets the recorded status and body, with the client's id in it."""
    recording = Recording.load(name)
    seen: list[tuple[int, Any]] = []
    wanted: list[tuple[int, Any]] = []

    async with (
        Replay(name, speed=FAST, jobs=len(recording.runs), restarts=True) as replay,
        plain_client(replay, reopens=True) as me,
    ):
        for run in recording.runs:
            mine = str(uuid.uuid4())
            seen.append(comparable_reply(*await submit_as_recorded(me, run, mine)))
            answer = run.answer
            body = {**answer.json, "prompt_id": mine} if run.accepted and answer else None
            status = answer.status if answer else 0
            wanted.append(comparable_reply(status, body or (answer.json if answer else None)))

    assert seen == wanted


# history_race is one run twenty times over; poison_prompts has runs that end only with others'
HISTORIES = [
    (name, run.index)
    for name in SUBMITTING
    for run in Recording.load(name).runs
    if run.entry is not None and name not in ("poison_prompts", "history_race")
]


@pytest.mark.parametrize(("name", "index"), HISTORIES)
async def test_history_tells_how_a_job_ended(name: str, index: int) -> None:
    """Once a job ended /history has its recorded entry under the client's id, /queue has not."""
    run = Recording.load(name).runs[index]
    assert run.entry is not None

    async with (
        Replay(name, speed=FAST, run=index) as replay,
        plain_client(replay, reopens=True) as me,
    ):
        mine = await me.submit()
        entry = await me.ended(mine)
        queue = await me.get("/queue")

    assert entry["prompt"][1] == mine
    assert entry["status"]["status_str"] == run.entry["status"]["status_str"]
    assert entry["outputs"] == run.entry["outputs"]
    assert mine not in json.dumps(queue)


def test_every_recording_is_in_the_table() -> None:
    """The table of README.md says of every recording what it shows and what it is used as."""
    table = (FOLDER.parent / "README.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ")]

    assert [name for name in Recording.names() if name not in rows] == []


async def test_a_graph_without_an_id_gets_the_recorded_one() -> None:
    """A client that names no prompt_id is told the recorded one, as ComfyUI makes one up."""
    async with Replay("txt2img", speed=FAST) as replay, plain_client(replay) as me:
        status, reply = await me.post("/prompt", {"prompt": {}, "client_id": ME})

    assert (status, reply["prompt_id"]) == (200, replay.recording.runs[0].prompt_id)


async def test_the_pace_is_scaled() -> None:
    """A recording of 0.69 s takes about that at speed 1 and a fraction of it at speed 50."""
    took = {}
    for speed in (1.0, 50.0):
        async with Replay("txt2img", speed=speed) as replay, plain_client(replay) as me:
            began = asyncio.get_running_loop().time()
            await me.submit()
            await me.hear_end()
            took[speed] = asyncio.get_running_loop().time() - began

    assert took[1.0] >= 0.68
    assert took[50.0] < took[1.0] / 2


async def test_queue_and_history_follow_the_job() -> None:
    """While a job runs /queue lists it and /history is empty; afterwards it is the other way."""
    async with Replay("txt2img", Hold("executed")) as replay, plain_client(replay) as me:
        mine = await me.submit()
        await me.hear(lambda message: message["type"] == "progress")
        during = await me.get("/queue"), await me.get(f"/history/{mine}"), await me.get("/prompt")
        replay.release()
        await me.hear_end()
        after = await me.get("/api/queue"), await me.get(f"/history/{mine}")

    running, nothing, remaining = during
    assert [item[1] for item in running["queue_running"]] == [mine]
    assert running["queue_running"][0][3]["client_id"] == ME
    assert nothing == {}
    assert remaining == {"exec_info": {"queue_remaining": 1}}
    assert after[0] == {"queue_running": [], "queue_pending": []}
    assert list(after[1]) == [mine]


async def test_files_are_recorded_or_made() -> None:
    """/view gives recorded bytes, a valid made-up picture for what was never fetched, or 404."""
    async with Replay("txt2img", speed=FAST) as replay, plain_client(replay) as me:
        first = await me.view("ComfyUI_00001_.png")
        again = await me.view("ComfyUI_00001_.png")
        missing = await me.view("ComfyUI_00099_.png")
    async with Replay("two_clients", speed=FAST) as replay, plain_client(replay) as me:
        made = await me.view(next(iter(output_names(replay.recording))))

    assert first == again
    assert len(first[1]) == 7470
    assert missing == (404, b"")
    assert Image.open(io.BytesIO(made[1])).size == (1, 1)


async def test_a_deleted_file_is_404_in_its_run() -> None:
    """A file that came, went and came again is told as it was in the run the client is at."""
    async with Replay("cached_output_file_gone", speed=FAST) as replay, plain_client(replay) as me:
        statuses = []
        for _ in range(3):
            await me.submit()
            await me.hear_end()
            statuses.append((await me.view("gone_00001_.png"))[0])

    assert statuses == [200, 404, 200]


async def test_uploads_are_kept_and_told() -> None:
    """An upload answers name, subfolder and type, can be viewed, and its form is remembered."""
    async with Replay("txt2img", speed=FAST) as replay, plain_client(replay) as me:
        form = aiohttp.FormData({"subfolder": "mine", "overwrite": "true"}, quote_fields=False)
        form.add_field("image", b"some bytes", filename="ä b.png", content_type="image/png")
        _, told = await me.post("/upload/image", form)
        seen = await me.view("ä b.png", "mine", "input")

    assert told == {"name": "ä b.png", "subfolder": "mine", "type": "input"}
    assert seen == (200, b"some bytes")
    [request] = replay.calls("POST", "/upload/image")
    assert (request.part("image").filename, request.part("image").size) == ("ä b.png", 10)
    assert request.text("overwrite") == "true"


async def test_other_endpoints_answer_as_recorded() -> None:
    """Nodes, features and statistics are the recorded ones; what ComfyUI lacked is 404."""
    async with Replay("txt2img", speed=FAST) as replay, plain_client(replay) as me:
        node = await me.get("/object_info/KSampler")
        nodes = await me.get("/api/object_info")
        features = await me.get("/features")
        stats = await me.get("/system_stats")
        async with me.http.post(f"{replay.url}/api/jobs/1/cancel") as cancel:
            status = cancel.status

    assert list(node) == ["KSampler"]
    assert len(nodes) == 496
    assert features["supports_preview_metadata"] is True
    assert stats["system"]["comfyui_version"] == "0.3.64"
    assert status == 404


async def test_the_first_message_asks_for_flags() -> None:
    """A socket whose first message tells its flags hears the server's, once."""
    async with Replay("txt2img", speed=FAST) as replay, plain_client(replay) as me:
        for _ in range(2):
            await me.socket.send_json({"type": "feature_flags", "data": {}})
        await me.submit()
        await me.hear_end()

    assert [m["type"] for m in me.greetings] == ["status", "feature_flags"]
    assert replay.sockets[0].client_id == ME
    assert replay.sockets[0].first == {"type": "feature_flags", "data": {}}


async def test_a_later_post_of_theirs_happens_by_itself() -> None:
    """With run=1 the job before ours is somebody else's, and so are those posted meanwhile."""
    async with (
        Replay("queue_delete_and_clear", Hold("binary"), run=1) as replay,
        plain_client(replay) as me,
    ):
        mine = await me.submit()
        await me.hear(lambda message: message["type"] == "progress")
        waiting = await me.get("/queue")
        replay.release()
        await me.until_gone(mine)

    assert [item[1] for item in waiting["queue_running"]] == [replay.recording.runs[0].prompt_id]
    assert mine in [item[1] for item in waiting["queue_pending"]]
    assert len(waiting["queue_pending"]) == 3
    assert all(m["data"].get("prompt_id") != mine for m in me.heard if isinstance(m, dict))


async def submit_as_recorded(me: Plain, run: Run, prompt_id: str) -> tuple[int, Any]:
    """Post a graph as the recorded client did: after a death of the server on its new socket."""
    before = me.replay.recording.lines[: run.post]
    if any(isinstance(line, Closed) and line.by_server for line in before):
        opened = sum(isinstance(line, Opened) for line in before)
        await until(lambda: len(me.replay.sockets) >= opened)
    try:
        body = {**run.body, "prompt_id": prompt_id, "client_id": ME}
        return await me.post("/prompt", body)
    except aiohttp.ClientConnectionError:
        assert run.answer is None
        return 0, None


def latest_ids(recording: Recording, index: int, ids: dict[int, str]) -> dict[str, str]:
    posted = [run for run in recording.runs if run.post < index]
    return {run.prompt_id: ids[run.index] for run in posted}


def as_heard(line: Sent, ids: dict[str, str]) -> Any:
    """A recorded message as our client should hear it, told independently of the server."""
    if line.frame is not None and line.frame[:4] != struct.pack(">I", 4):
        return line.frame
    if line.frame is not None:
        length = struct.unpack(">I", line.frame[4:8])[0]
        head = json.loads(replaced(line.frame[8 : 8 + length].decode(), ids))
        return head, line.frame[8 + length :]
    return json.loads(replaced(json.dumps(line.message), ids))


def replaced(text: str, ids: dict[str, str]) -> str:
    for old, new in ids.items():
        if len(old) == 36:
            text = text.replace(old, new)
        text = text.replace(f'"prompt_id": {json.dumps(old)}', f'"prompt_id": {json.dumps(new)}')
    return text


def comparable(message: Any) -> Any:
    if isinstance(message, bytes) and message[:4] == struct.pack(">I", 4):
        length = struct.unpack(">I", message[4:8])[0]
        return json.loads(message[8 : 8 + length]), message[8 + length :]
    return message


def comparable_reply(status: int, body: Any) -> tuple[int, str]:
    """Status and body as text, for NaN is not equal to itself; a text body does not count."""
    return status, json.dumps(body) if isinstance(body, dict | list) else ""


def output_names(recording: Recording) -> list[str]:
    return [
        file["filename"]
        for _, line in recording.messages("client-a")
        if line.type == "executed"
        for file in line.data["output"]["images"]
    ]
