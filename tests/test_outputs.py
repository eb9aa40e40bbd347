"""What nodes showed, brought home byte for byte into a sink."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import blake3
import pytest
from aiohttp import web

from comfyserve.client.output_folder import OutputFolder
from comfyserve.comfy.backend import Backend, Timeouts
from comfyserve.comfy.protocol import Picture
from comfyserve.comfy.records import ShownFile
from comfyserve.errors import BackendRefused, BackendUnreachable, OutputUnwritable
from comfyserve.jobs import Output
from comfyserve.outputs import Outputs, Sink, names_of
from tests.comfy.recorded import raw_lines
from tests.comfy.tiny_server import TinyServer, cut, tiny_server

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 32
JPEG = b"\xff\xd8\xff\xe0" + b"\0" * 32


def image(name: str, folder: str = "output", subfolder: str = "") -> dict[str, str]:
    return {"filename": name, "subfolder": subfolder, "type": folder}


def hash_of(content: bytes) -> str:
    return f"blake3:{blake3.blake3(content).hexdigest()}"


@dataclass
class MemorySink:
    """A sink in memory; *refuses* is the name it has no room for."""

    kept: dict[str, bytes] = field(default_factory=dict)
    opened: list[tuple[str, str, bool]] = field(default_factory=list)
    refuses: str = ""

    @asynccontextmanager
    async def open(self, name: str, subfolder: str, temp: bool) -> AsyncIterator[MemoryWriter]:
        self.opened.append((name, subfolder, temp))
        if name == self.refuses:
            raise OutputUnwritable(name, "no space left")
        writer = MemoryWriter(f"{len(self.opened)}:{name}")
        yield writer
        self.kept[writer.location] = writer.content


@dataclass
class MemoryWriter:
    location: str
    content: bytes = b""

    async def write(self, chunk: bytes) -> None:
        self.content += chunk


@pytest.fixture
async def server() -> AsyncIterator[TinyServer]:
    async with tiny_server() as server:
        yield server


@pytest.fixture
async def backend(server: TinyServer) -> AsyncIterator[Backend]:
    timeouts = Timeouts(connect=2.0, answer=2.0, stall=0.5)
    async with asyncio.timeout(20), Backend(server.url, timeouts=timeouts) as backend:
        yield backend


@pytest.fixture
def sink() -> MemorySink:
    return MemorySink()


@pytest.fixture
def outputs(backend: Backend, sink: MemorySink) -> Outputs:
    return Outputs(backend, sink, keep_temp=False)


async def taken(outputs: Outputs, ui: dict[str, Any], node_id: str = "9") -> list[Output]:
    return [output async for output in outputs.take(node_id, ui)]


async def taken_temp(outputs: Outputs) -> list[Output]:
    return [output async for output in outputs.take_temp()]


async def test_a_file_comes_home_whole(
    server: TinyServer, sink: MemorySink, outputs: Outputs
) -> None:
    """Size, hash and type of an output are those of its bytes; name and folder the server's."""
    server.files[("output", "sub/dir", "liar.jpg")] = PNG

    [output] = await taken(outputs, {"gifs": [1, image("liar.jpg", subfolder="sub/dir")]})

    assert output == Output(
        node_id="9",
        key="gifs",
        name="liar.jpg",
        type="image",
        content_type="image/png",
        size_bytes=len(PNG),
        hash=hash_of(PNG),
        location="1:liar.jpg",
        subfolder="sub/dir",
        temp=False,
        index=0,
    )
    assert sink.kept == {"1:liar.jpg": PNG}
    assert sink.opened == [("liar.jpg", "sub/dir", False)]
    assert outputs.saved == [output]


async def test_every_recorded_output_comes_home(backend: Backend, server: TinyServer) -> None:
    """All kinds of files that a real server's nodes showed arrive byte for byte with their type."""
    sink = MemorySink()
    outputs = Outputs(backend, sink, keep_temp=True)
    asked: dict[int, str] = {}
    bodies: list[bytes] = []
    uis: list[tuple[str, dict[str, Any]]] = []
    for raw in raw_lines("other_outputs"):
        if raw["kind"] == "http-request":
            asked[raw["id"]] = raw["path"]
        elif raw["kind"] == "http-response" and "/view" in asked[raw["id"]] and "base64" in raw:
            bodies.append(base64.b64decode(raw["base64"]))
        elif raw["kind"] == "ws-text" and raw.get("json", {}).get("type") == "executed":
            data = raw["json"]["data"]
            uis.append((f"{len(uis)}.{data['node']}", data["output"]))
    files = [
        item for _, ui in uis for value in ui.values() for item in value if isinstance(item, dict)
    ]
    for item, body in zip(files, bodies, strict=False):
        server.files[(item["type"], item["subfolder"], item["filename"])] = body

    saved = [output for node, ui in uis for output in await taken(outputs, ui, node)]

    by_hash = {output.hash: output for output in saved}
    assert len(bodies) >= 10
    assert all(by_hash[hash_of(body)].size_bytes == len(body) for body in bodies)
    assert {output.type for output in saved} >= {"image", "audio", "video", "latent", "text"}


async def test_an_output_is_taken_once(
    server: TinyServer, sink: MemorySink, outputs: Outputs
) -> None:
    """What was announced live is not fetched again when the history lists it."""
    server.files[("output", "", "a.png")] = PNG
    ui = {"images": [image("a.png")], "text": ["words"]}

    first = await taken(outputs, ui)
    second = await taken(outputs, {**ui, "again": [image("a.png")]})

    assert [output.key for output in first] == ["images", "text"]
    assert second == []
    assert len(server.asked("GET /view")) == 1
    assert len(sink.opened) == 2


async def test_a_later_announcement_brings_only_what_is_new(
    server: TinyServer, outputs: Outputs
) -> None:
    """A node that shows more and more brings each of its files once, at its place."""
    for name in ("a.png", "b.png"):
        server.files[("output", "", name)] = name.encode()

    first = await taken(outputs, {"images": [image("a.png")]})
    second = await taken(outputs, {"images": [image("a.png"), image("b.png")]})

    assert [(o.name, o.index) for o in first + second] == [("a.png", 0), ("b.png", 1)]


async def test_a_string_becomes_a_text_file(sink: MemorySink, outputs: Outputs) -> None:
    """A string that a node showed is kept as UTF-8, under a name made of node, key and number."""
    said = ["grüße 猫", "", "\ud800 half a letter"]

    found = await taken(outputs, {"te/xt": said}, node_id="2.0.1")

    assert [output.name for output in found] == [f"node_2.0.1_xt_{n}.txt" for n in (1, 2, 3)]
    assert list(sink.kept.values()) == ["grüße 猫".encode(), b"", b"? half a letter"]
    assert {(output.type, output.content_type) for output in found} == {("text", "text/plain")}


async def test_temporary_files_wait(server: TinyServer, outputs: Outputs) -> None:
    """A temporary file is not fetched while something better may come, and not after it did."""
    server.files = {("temp", "", "t.png"): JPEG, ("output", "", "a.png"): PNG}

    assert await taken(outputs, {"images": [image("t.png", "temp")]}, node_id="8") == []
    assert len(await taken(outputs, {"images": [image("a.png")]})) == 1
    assert await taken_temp(outputs) == []
    assert len(server.requests) == 1


async def test_temporary_files_are_the_result_if_nothing_else_is(
    server: TinyServer, outputs: Outputs
) -> None:
    """Where a graph only previews, that is its output, also where a node showed a text."""
    server.files = {("temp", "", "t.png"): JPEG, ("input", "", "i.png"): PNG}
    ui = {"images": [image("t.png", "temp"), image("i.png", "input")], "text": ["a note"]}
    [note] = await taken(outputs, ui)

    found = await taken_temp(outputs)

    assert note.type == "text"
    assert [(o.name, o.temp, o.content_type) for o in found] == [
        ("t.png", True, "image/jpeg"),
        ("i.png", True, "image/png"),
    ]
    assert await taken_temp(outputs) == []


async def test_temporary_files_can_be_asked_for(backend: Backend, server: TinyServer) -> None:
    """With *keep_temp* they come at once, marked as what they are."""
    server.files[("temp", "", "t.png")] = JPEG
    sink = MemorySink()
    outputs = Outputs(backend, sink, keep_temp=True)

    [output] = await taken(outputs, {"images": [image("t.png", "temp")]})

    assert output.temp
    assert sink.opened == [("t.png", "", True)]


async def test_a_picture_from_the_socket_is_kept(sink: MemorySink, outputs: Outputs) -> None:
    """Pictures that are stored nowhere else get names of their own, in the order they came."""
    pictures = [("7", Picture(None, None, "image/png", PNG))]
    pictures.append(("a/b", Picture(None, "a/b", "image/jpeg", JPEG)))
    first, second = [
        output for node, picture in pictures async for output in outputs.take_picture(node, picture)
    ]

    assert [(o.name, o.index, o.content_type) for o in (first, second)] == [
        ("node_7_00001.png", 0, "image/png"),
        ("node_b_00002.jpg", 1, "image/jpeg"),
    ]
    assert list(sink.kept.values()) == [PNG, JPEG]
    assert outputs.saved == [first, second]


async def test_a_missing_file_is_remembered(
    server: TinyServer, sink: MemorySink, outputs: Outputs
) -> None:
    """A file the server no longer has stops nothing, is listed once, and leaves nothing behind."""
    server.files[("output", "", "b.png")] = PNG
    ui = {"images": [image("gone.png"), image("b.png")]}

    found = await taken(outputs, ui) + await taken(outputs, ui)

    assert [output.name for output in found] == ["b.png"]
    assert outputs.missing == [ShownFile("9", "images", 0, "gone.png", "", "output")]
    assert names_of(outputs.missing) == "'gone.png'"
    assert len(sink.kept) == 1


async def test_missing_files_keep_temporary_ones_away(server: TinyServer, outputs: Outputs) -> None:
    """A temporary file is no substitute for a saved one that is gone."""
    server.files[("temp", "", "t.png")] = JPEG
    await taken(outputs, {"images": [image("gone.png"), image("t.png", "temp")]})

    assert await taken_temp(outputs) == []


async def test_another_attempt_may_bring_what_was_missing(
    server: TinyServer, outputs: Outputs
) -> None:
    """After a new attempt the missing is fetched, and what is here already is not."""
    server.files[("output", "", "a.png")] = PNG
    ui = {"images": [image("a.png"), image("gone.png")]}
    await taken(outputs, ui)

    outputs.try_again()
    server.files[("output", "", "new.png")] = JPEG
    found = await taken(outputs, {"images": [image("a2.png"), image("new.png")]})

    assert [output.name for output in found] == ["new.png"]
    assert outputs.missing == []
    assert [output.name for output in outputs.saved] == ["a.png", "new.png"]


async def test_a_file_that_breaks_off_is_fetched_again(
    server: TinyServer, sink: MemorySink, outputs: Outputs
) -> None:
    """Half a file is thrown away and fetched once more; only the whole one is kept."""

    async def fail_once(request: web.Request) -> web.StreamResponse:
        if len(server.requests) == 1:
            return await cut(request)
        return web.Response(body=PNG)

    server.on["GET /view"] = fail_once

    [output] = await taken(outputs, {"images": [image("a.png")]})

    assert (output.size_bytes, output.hash) == (len(PNG), hash_of(PNG))
    assert list(sink.kept.values()) == [PNG]
    assert len(server.requests) == 2


async def test_a_file_that_always_breaks_off_is_given_up(
    server: TinyServer, sink: MemorySink, outputs: Outputs
) -> None:
    """After three tries the connection's error is told, and no half file is kept."""
    server.on["GET /view"] = cut

    with pytest.raises(BackendUnreachable):
        await taken(outputs, {"images": [image("a.png")]})

    assert len(server.requests) == 3
    assert sink.kept == {}


async def test_what_cannot_get_better_is_not_tried_again(
    server: TinyServer, outputs: Outputs
) -> None:
    """A closed door stays closed, so it is told at once."""
    server.on["GET /view"] = web.Response(status=401)

    with pytest.raises(BackendRefused):
        await taken(outputs, {"images": [image("a.png")]})

    assert len(server.requests) == 1


async def test_a_full_disk_is_told_and_not_tried_again(
    server: TinyServer, backend: Backend
) -> None:
    """Where the sink has no room, its error passes unchanged after one try."""
    server.files[("output", "", "a.png")] = PNG
    outputs = Outputs(backend, MemorySink(refuses="a.png"), keep_temp=False)

    with pytest.raises(OutputUnwritable, match="no space left"):
        await taken(outputs, {"images": [image("a.png")]})

    assert len(server.requests) == 1
    assert outputs.saved == []


async def test_an_error_of_the_sink_is_not_the_servers(
    server: TinyServer, backend: Backend
) -> None:
    """An OS error of a sink is never taken for a lost connection, nor tried again."""

    @dataclass
    class FullWriter(MemoryWriter):
        async def write(self, chunk: bytes) -> None:
            raise OSError(28, "No space left on device")

    class FullSink:
        @asynccontextmanager
        async def open(self, name: str, subfolder: str, temp: bool) -> AsyncIterator[FullWriter]:
            yield FullWriter(name)

    server.files[("output", "", "a.png")] = PNG
    outputs = Outputs(backend, FullSink(), keep_temp=False)

    with pytest.raises(OSError, match="No space left"):
        await taken(outputs, {"images": [image("a.png")]})

    assert len(server.requests) == 1


async def test_files_and_folders_of_a_hostile_server_stay_inside(
    server: TinyServer, backend: Backend, tmp_path: Path
) -> None:
    """In a real folder every output lies below it, is whole, and none replaces another."""
    root = tmp_path / "out ü"
    sink: Sink = OutputFolder(root)
    places = [
        ("../../evil.png", "../.."),
        ("/abs.png", "/etc"),
        ("C:\\x.png", "..\\.."),
        ("con", ""),
    ]
    for name, folder in places:
        server.files[("output", folder, name)] = f"{name} {folder}".encode()
    images = [image(name, subfolder=folder) for name, folder in places]

    found = await taken(Outputs(backend, sink, keep_temp=False), {"images": images})
    again = await taken(Outputs(backend, sink, keep_temp=False), {"images": images})

    assert_all_inside(root, tmp_path, found + again)


def assert_all_inside(root: Path, around: Path, outputs: list[Output]) -> None:
    """The files below *around* are the outputs', all lie in *root*, and each has its own bytes."""
    kept = sorted(path for path in around.rglob("*") if path.is_file())
    assert kept == sorted(Path(output.location) for output in outputs)
    assert all(path.resolve().is_relative_to(root.resolve()) for path in kept)
    assert len(kept) == 8
    for output in outputs:
        content = Path(output.location).read_bytes()
        assert content == f"{output.name} {output.subfolder}".encode()
        assert output.hash == hash_of(content)
