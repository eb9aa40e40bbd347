"""One ComfyUI: what is asked of it, and what comes of its answers."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import blake3
import pytest
from aiohttp import web

from comfyserve.assets import Upload
from comfyserve.comfy.backend import (
    UPLOAD_FOLDER,
    Accepted,
    Backend,
    Gone,
    Running,
    Timeouts,
    Waiting,
)
from comfyserve.comfy.http import CHUNK
from comfyserve.comfy.records import HistoryEntry, ShownFile
from comfyserve.errors import (
    BackendAnswerInvalid,
    BackendError,
    BackendRefused,
    BackendUnreachable,
    FileUnavailable,
    GraphRejected,
    InvalidInputs,
)
from tests.comfy.recorded import raw_lines
from tests.comfy.tiny_server import Handler, TinyServer, cut, hang, stall, tiny_server
from tests.traces.recording import FOLDER

QUICK = Timeouts(connect=2.0, answer=2.0, stall=0.3)
PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 32
PNG_NAME = f"{blake3.blake3(PNG).hexdigest()[:32]}.png"
PROMPT_ID = "0b2f5c1e-0000-4000-8000-000000000000"
GRAPH = {"9": {"class_type": "SaveImage", "inputs": {}}}
FILE = ShownFile("9", "images", 0, "a.png", "", "output")


@asynccontextmanager
async def backend_at(server: TinyServer, **options: Any) -> AsyncIterator[Backend]:
    async with asyncio.timeout(20), Backend(server.url, timeouts=QUICK, **options) as backend:
        yield backend


@pytest.fixture
async def server() -> AsyncIterator[TinyServer]:
    async with tiny_server() as server:
        yield server


@pytest.fixture
async def backend(server: TinyServer) -> AsyncIterator[Backend]:
    async with backend_at(server) as backend:
        yield backend


async def test_a_file_is_uploaded_under_its_hash(server: TinyServer, backend: Backend) -> None:
    """An upload lands in our own folder, named by its bytes, and that is what a node gets."""
    name = await backend.upload(Upload("../mein Bild.jpg", content=PNG))

    assert name == f"{UPLOAD_FOLDER}/{PNG_NAME}"
    assert server.files == {("input", UPLOAD_FOLDER, PNG_NAME): PNG}
    [sent] = server.asked("POST /upload/image")
    assert sent.part("image").filename == PNG_NAME
    assert (sent.text("type"), sent.text("subfolder")) == ("input", UPLOAD_FOLDER)


async def test_the_same_bytes_are_sent_once(server: TinyServer, tmp_path: Path) -> None:
    """Bytes the server has are not sent again: by another name, from a file, or by another us."""
    path = tmp_path / "ein Bild ü.png"
    path.write_bytes(PNG)

    async with backend_at(server) as backend:
        first = await backend.upload(Upload("a.png", content=PNG))
        again = await backend.upload(Upload("b.png", path=path))
    async with backend_at(server) as other:
        third = await other.upload(Upload("c.png", path=path))

    assert first == again == third
    assert len(server.asked("POST /upload/image")) == 1
    assert len(server.asked("HEAD /view")) == 3


async def test_uploads_at_the_same_time_are_one(server: TinyServer, backend: Backend) -> None:
    """Ten jobs that bring the same picture at once send it once; other pictures do not wait."""
    uploads = [Upload(f"{n}.png", content=PNG) for n in range(10)]
    other = Upload("other.png", content=PNG + b"x")

    names = await asyncio.gather(*map(backend.upload, [*uploads, other]))

    assert len(set(names)) == 2
    assert len(server.asked("POST /upload/image")) == 2


async def test_a_file_cut_short_is_sent_again(server: TinyServer, backend: Backend) -> None:
    """A file of our name but another length is a broken upload, and is replaced."""
    server.files[("input", UPLOAD_FOLDER, PNG_NAME)] = PNG[:5]

    await backend.upload(Upload("a.png", content=PNG))

    assert server.files[("input", UPLOAD_FOLDER, PNG_NAME)] == PNG


async def test_a_server_may_choose_another_name(server: TinyServer, backend: Backend) -> None:
    """What the server says it called the file is what the node gets."""
    server.on["POST /upload/image"] = web.json_response({"name": "x (1).png"})

    assert await backend.upload(Upload("a.png", content=PNG)) == f"{UPLOAD_FOLDER}/x (1).png"


async def test_a_mask_is_laid_over_its_picture(server: TinyServer, backend: Backend) -> None:
    """A mask goes to its own route, names the picture it is for, and gets a name of its own."""
    picture = await backend.upload(Upload("a.png", content=PNG))
    mask = Upload("mask.png", content=PNG + b"mask")

    name = await backend.upload(mask, mask_of=picture)
    again = await backend.upload(mask, mask_of=picture)

    assert name == again != picture
    [sent] = server.asked("POST /upload/mask")
    assert json.loads(sent.text("original_ref")) == {
        "filename": PNG_NAME,
        "subfolder": UPLOAD_FOLDER,
        "type": "input",
    }


async def test_a_mask_over_nothing_is_an_error(server: TinyServer, backend: Backend) -> None:
    """A mask whose picture is not there is answered like a success; we look, and say so."""
    server.on["POST /upload/mask"] = web.json_response({"name": "m.png"})

    with pytest.raises(BackendError, match=r"the mask was not laid over 'gone\.png'"):
        await backend.upload(Upload("mask.png", content=PNG), mask_of="gone.png")


@pytest.mark.parametrize(
    ("answer", "kind", "says"),
    [
        (web.json_response({}), BackendAnswerInvalid, "POST /upload/image names no file"),
        (web.json_response({"name": 3}), BackendAnswerInvalid, "names no file"),
        (web.Response(status=500, text="500 oops"), BackendAnswerInvalid, "500 and '500 oops'"),
        (web.Response(status=413, text="too large"), BackendAnswerInvalid, "413 and 'too large'"),
        (web.Response(status=401), BackendRefused, "401"),
        (hang, BackendUnreachable, "no answer in time"),
    ],
)
async def test_an_upload_that_goes_wrong_says_how(
    server: TinyServer, answer: Handler | web.Response, kind: type[BackendError], says: str
) -> None:
    """No upload is taken for done that was not, and none waits for ever."""
    server.on["POST /upload/image"] = answer
    timeouts = Timeouts(connect=2.0, answer=0.5, stall=0.3)

    async with asyncio.timeout(8), Backend(server.url, timeouts=timeouts) as backend:
        with pytest.raises(kind) as caught:
            await backend.upload(Upload("a.png", content=PNG))

    assert says in str(caught.value)


async def test_a_file_that_is_not_there_is_not_sent(
    server: TinyServer, backend: Backend, tmp_path: Path
) -> None:
    """A missing input file is the caller's problem, found before the server hears of it."""
    with pytest.raises(InvalidInputs, match="cannot be read"):
        await backend.upload(Upload("image", path=tmp_path / "gone.png"))
    assert server.requests == []


async def test_a_graph_is_queued_under_our_id(server: TinyServer, backend: Backend) -> None:
    """The graph goes with our prompt_id and client id, and extra data only if there is some."""
    server.on["POST /prompt"] = web.json_response({"prompt_id": PROMPT_ID, "node_errors": {}})

    plain = await backend.submit(GRAPH, PROMPT_ID)
    await backend.submit(GRAPH, PROMPT_ID, extra_data={"a": 1})

    assert plain == Accepted(PROMPT_ID, {})
    body = {"prompt": GRAPH, "client_id": backend.client_id, "prompt_id": PROMPT_ID}
    assert [r.json for r in server.requests] == [body, {**body, "extra_data": {"a": 1}}]


async def test_a_server_that_chooses_its_own_id_is_believed(
    server: TinyServer, backend: Backend
) -> None:
    """Older servers name the prompt themselves; errors of left-out nodes come along."""
    errors = {"9": {"class_type": "SaveImage", "errors": []}, "8": None}
    server.on["POST /prompt"] = web.json_response({"prompt_id": "own", "node_errors": errors})

    accepted = await backend.submit(GRAPH, PROMPT_ID)

    assert accepted == Accepted("own", {"9": {"class_type": "SaveImage", "errors": []}})


async def test_a_rejected_graph_says_why(server: TinyServer, backend: Backend) -> None:
    """Every graph a real server was recorded to reject is a `GraphRejected` in whole sentences."""
    asked: dict[int, str] = {}
    seen = 0
    for raw in raw_lines("prompt_errors"):
        if raw["kind"] == "http-request":
            asked[raw["id"]] = raw["path"]
        if raw["kind"] != "http-response" or raw["status"] != 400 or "json" not in raw:
            continue
        seen += 1
        server.on["POST /prompt"] = web.json_response(raw["json"], status=400)

        with pytest.raises(GraphRejected) as caught:
            await backend.submit(GRAPH, PROMPT_ID)

        assert raw["json"]["error"]["message"].rstrip(".") in str(caught.value)
        assert caught.value.node_errors == raw["json"]["node_errors"]
        for told in raw["json"]["node_errors"].values():
            assert all(error["message"] in str(caught.value) for error in told["errors"])
        assert str(caught.value)[-1] in ".?!"
    assert seen > 10


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"error": "no"},
        {"error": None, "node_errors": 3},
        {"error": {}, "node_errors": {"1": {}}},
    ],
)
async def test_a_rejection_without_reasons_is_still_one(
    server: TinyServer, backend: Backend, answer: dict[str, Any]
) -> None:
    """A 400 whose body says little is a rejection all the same."""
    server.on["POST /prompt"] = web.json_response(answer, status=400)

    with pytest.raises(GraphRejected, match="will not run this graph: "):
        await backend.submit(GRAPH, PROMPT_ID)


@pytest.mark.parametrize(
    "node_errors",
    [
        {"1": {"class_type": "K", "errors": None}},
        {"1": {"class_type": "K", "errors": 3}},
        {"1": {"errors": ["text", {"message": "bad", "details": ["x"]}]}},
    ],
)
async def test_node_errors_of_another_shape_do_no_harm(
    server: TinyServer, backend: Backend, node_errors: dict[str, Any]
) -> None:
    """Node errors that are not as they should be break no sentence."""
    answer = {"error": {"message": "No."}, "node_errors": node_errors}
    server.on["POST /prompt"] = web.json_response(answer, status=400)

    with pytest.raises(GraphRejected) as caught:
        await backend.submit(GRAPH, PROMPT_ID)

    assert caught.value.node_errors == node_errors


async def test_a_lost_answer_is_looked_up(server: TinyServer, backend: Backend) -> None:
    """Where the answer to a graph is lost, the queue tells whether the graph arrived."""
    server.on["POST /prompt"] = cut
    server.on[f"GET /history/{PROMPT_ID}"] = web.json_response({})
    queue: dict[str, list[Any]] = {"queue_running": [], "queue_pending": [[1, PROMPT_ID]]}
    server.on["GET /queue"] = web.json_response(queue)

    assert await backend.submit(GRAPH, PROMPT_ID) == Accepted(PROMPT_ID, {})

    server.on["GET /queue"] = web.json_response({"queue_running": [], "queue_pending": []})
    with pytest.raises(BackendUnreachable):
        await backend.submit(GRAPH, PROMPT_ID)
    assert len(server.asked("POST /prompt")) == 2


async def test_the_truth_about_a_prompt(server: TinyServer, backend: Backend) -> None:
    """A prompt is waiting at a place, running, remembered, or gone; the server's word decides."""
    places: list[list[Any]] = [[2, "b"], [1, "z"], [2, "a"]]
    queue = {"queue_running": [[0, "now"]], "queue_pending": places}
    server.on["GET /queue"] = web.json_response(queue)
    for prompt_id in ("a", "b", "z", "now", "gone"):
        server.on[f"GET /history/{prompt_id}"] = web.json_response({})
    entry = {"outputs": {}, "status": {"status_str": "success", "messages": []}}
    server.on["GET /history/old"] = web.json_response({"old": entry})

    found = {
        name: await backend.whereabouts(name) for name in ("a", "b", "z", "now", "old", "gone")
    }

    assert found == {
        "a": Waiting(2),
        "b": Waiting(3),
        "z": Waiting(1),
        "now": Running(),
        "old": HistoryEntry(True, {}, ()),
        "gone": Gone(),
    }


async def test_a_prompt_that_ends_between_two_questions_is_found(
    server: TinyServer, backend: Backend
) -> None:
    """A prompt that left the queue while we asked is in the history, not gone."""
    entry = {"outputs": {}, "status": {"status_str": "success", "messages": []}}

    async def history(_request: web.Request) -> web.Response:
        is_late = bool(server.asked("GET /queue"))
        return web.json_response({PROMPT_ID: entry} if is_late else {})

    server.on[f"GET /history/{PROMPT_ID}"] = history
    server.on["GET /queue"] = web.json_response({"queue_running": [], "queue_pending": []})

    assert await backend.whereabouts(PROMPT_ID) == HistoryEntry(True, {}, ())


async def test_a_queue_of_another_shape_is_no_answer(server: TinyServer, backend: Backend) -> None:
    """A queue that lists nothing is never taken for an empty one."""
    server.on["GET /queue"] = web.json_response({"jobs": []})

    with pytest.raises(BackendAnswerInvalid, match="lists no running and waiting prompts"):
        await backend.queue()


async def test_a_newer_server_cancels_by_itself(server: TinyServer, backend: Backend) -> None:
    """Where the server has a route to cancel one job, nothing else is asked of it."""
    server.on[f"POST /api/jobs/{PROMPT_ID}/cancel"] = web.json_response({})

    await backend.cancel(PROMPT_ID)

    assert len(server.requests) == 1


@pytest.mark.parametrize("running", ["mine", "somebody else's", "nothing"])
async def test_an_older_server_is_told_to_stop_exactly_ours(
    server: TinyServer, backend: Backend, running: str
) -> None:
    """Our prompt is deleted from the queue, and interrupted only while it is the running one."""
    ids = {"mine": [[0, PROMPT_ID]], "somebody else's": [[0, "other"]], "nothing": []}
    queue = {"queue_running": ids[running], "queue_pending": []}
    server.on["GET /queue"] = web.json_response(queue)
    server.on["POST /queue"] = server.on["POST /interrupt"] = web.Response()

    await backend.cancel(PROMPT_ID)

    assert [r.json for r in server.asked("POST /queue")] == [{"delete": [PROMPT_ID]}]
    interrupts = [r.json for r in server.asked("POST /interrupt")]
    assert interrupts == ([{"prompt_id": PROMPT_ID}] if running == "mine" else [])


async def test_memory_is_freed_on_request(server: TinyServer, backend: Backend) -> None:
    """Freeing asks for the cache, and for the models only if told to; a refusal is an error."""
    server.on["POST /free"] = web.Response()
    await backend.free()
    await backend.free(unload_models=True)

    assert [r.json for r in server.requests] == [
        {"free_memory": True, "unload_models": False},
        {"free_memory": True, "unload_models": True},
    ]
    server.on["POST /free"] = web.Response(status=500, text="no")
    with pytest.raises(BackendAnswerInvalid, match="POST /free was answered with 500"):
        await backend.free()


async def test_a_server_without_features_has_none(server: TinyServer, backend: Backend) -> None:
    """Older servers do not know the question; that is no error."""
    assert await backend.features() == {}
    server.on["GET /features"] = web.json_response({"supports_preview_metadata": True})
    assert await backend.features() == {"supports_preview_metadata": True}


async def test_the_catalogue_is_asked_once(server: TinyServer, backend: Backend) -> None:
    """The list of nodes is long, so it is kept until somebody wants it anew."""
    document = json.loads((FOLDER / "object_info.json").read_text(encoding="utf-8"))
    server.on["GET /object_info"] = web.json_response(document)
    known_before = backend.known_catalog

    catalog = await backend.node_catalog()
    assert await backend.node_catalog() is catalog is backend.known_catalog
    assert len(server.requests) == 1

    assert known_before is None
    kind = catalog.get("SaveImage")
    assert kind is not None and kind.is_output
    assert await backend.node_catalog(refresh=True) is not catalog
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    "name", ["a.png", "a b&c=d+e%20f#g?.png", "grüße 猫.png", "x (1).png", "\ud800.png", "a/b.png"]
)
async def test_a_file_is_asked_for_by_its_very_name(server: TinyServer, name: str) -> None:
    """Whatever letters are in a name, the server is asked for exactly those it can be asked for."""
    asked = name.encode(errors="replace").decode()
    server.files[("temp", "sub/dir ü", asked)] = PNG
    file = ShownFile("9", "images", 0, name, "sub/dir ü", "temp")

    async with backend_at(server) as backend:
        if name == asked:
            async with backend.open_file(file) as chunks:
                assert b"".join([chunk async for chunk in chunks]) == PNG
        else:
            with pytest.raises(FileUnavailable):
                async with backend.open_file(file):
                    pass


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (web.Response(status=404), FileUnavailable),
        (web.Response(status=403), FileUnavailable),
        (web.Response(status=401), BackendRefused),
        (web.Response(status=302, headers={"Location": "/login"}), BackendRefused),
        (web.Response(status=500, body=b"\xff oops"), BackendAnswerInvalid),
        (cut, BackendUnreachable),
        (stall, BackendUnreachable),
    ],
)
async def test_a_file_that_does_not_come_says_why(
    server: TinyServer, backend: Backend, answer: Handler | web.Response, kind: type[BackendError]
) -> None:
    """Gone, refused, broken off or stalled: each is its own error, and none is a short file."""
    server.on["GET /view"] = answer

    with pytest.raises(kind):
        async with backend.open_file(FILE) as chunks:
            async for _ in chunks:
                pass


async def test_a_large_file_passes_in_small_pieces(server: TinyServer, backend: Backend) -> None:
    """64 MB pass through in pieces, and never much more than a few pieces is held at once."""
    piece, count = b"\xa5" * (1 << 20), 64

    async def large(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = len(piece) * count
        await response.prepare(request)
        for _ in range(count):
            await response.write(piece)
        return response

    server.on["GET /view"] = large
    digest, size, largest = blake3.blake3(), 0, 0
    tracemalloc.start()
    try:
        async with backend.open_file(FILE) as chunks:
            async for chunk in chunks:
                digest.update(chunk)
                size += len(chunk)
                largest = max(largest, len(chunk))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert size == len(piece) * count
    assert digest.digest() == blake3.blake3(piece * count).digest()
    assert largest <= 4 * CHUNK
    assert peak < 16 << 20


async def test_a_slow_reader_slows_the_server(server: TinyServer, backend: Backend) -> None:
    """While nobody takes the bytes, the server cannot send them all: nothing piles up here."""
    sent = 0
    is_stuck = asyncio.Event()

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(512):
            try:
                async with asyncio.timeout(0.5):
                    await response.write(b"x" * (1 << 20))
            except TimeoutError:
                is_stuck.set()
                raise
            sent += 1
        return response

    server.on["GET /view"] = endless
    async with backend.open_file(FILE):
        async with asyncio.timeout(15):
            await is_stuck.wait()

    assert sent < 24


async def test_credentials_go_with_every_question(server: TinyServer) -> None:
    """Token and headers are sent with uploads, questions, files and the socket alike."""
    handshakes: list[dict[str, str]] = []

    async def refuse(request: web.Request) -> web.Response:
        handshakes.append(dict(request.headers))
        return web.Response(status=401)

    server.on["GET /ws"] = refuse
    server.files[("output", "", "a.png")] = PNG
    async with backend_at(server, token="t-secret", headers={"X-Key": "h-secret"}) as backend:
        await backend.upload(Upload("a.png", content=PNG))
        async with backend.open_file(FILE) as chunks:
            assert [chunk async for chunk in chunks] == [PNG]
        assert not await backend.socket.opened(5.0)

        assert "secret" not in backend.socket.last_error + repr(backend) + backend.url
        assert "401" in backend.socket.last_error
    sent = [r.headers for r in server.requests] + handshakes
    assert len(sent) >= 4
    assert {h["Authorization"] for h in sent} == {"Bearer t-secret"}
    assert {h["X-Key"] for h in sent} == {"h-secret"}


async def test_a_socket_sends_no_credentials_elsewhere(server: TinyServer) -> None:
    """A handshake that is redirected ends there: nobody else is shown our headers."""
    async with tiny_server() as other:
        elsewhere = web.Response(status=302, headers={"Location": f"{other.url}/ws"})
        server.on["GET /ws"] = elsewhere
        async with backend_at(server, headers={"X-Key": "h-secret"}) as backend:
            assert not await backend.socket.opened(5.0)

            assert f"it sends us on to {other.url}/ws" in backend.socket.last_error
        assert (other.requests, other.sockets) == ([], [])


async def test_closing_ends_everything(server: TinyServer) -> None:
    """After the block no task of the backend is left, whether its socket was open or not."""
    before = asyncio.all_tasks()
    async with backend_at(server) as backend:
        assert await backend.socket.opened(5.0)
        mine = {task for task in asyncio.all_tasks() - before if "socket of" in task.get_name()}
        assert len(mine) == 1
    assert all(task.done() for task in mine)
    assert uuid.UUID(backend.client_id).version == 4
