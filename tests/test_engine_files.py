"""Files of the built-in engine: what may be put in, what may be read, and what stays inside."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from PIL import Image

from tests.engine_client import engine_client, node
from tests.engines import RunningEngine, running_engine


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEngine]:
    with running_engine(
        tmp_path_factory.mktemp("engine"), test_nodes=True, max_upload_size=5
    ) as engine:
        yield engine


@pytest.fixture
async def session(engine: RunningEngine) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(engine.url) as session:
        yield session


async def upload(
    session: aiohttp.ClientSession,
    content: bytes,
    filename: str = "a.png",
    *,
    path: str = "/upload/image",
    **fields: str,
) -> tuple[int, Any]:
    form = aiohttp.FormData(quote_fields=False)
    form.add_field("image", io.BytesIO(content), filename=filename, content_type="image/png")
    for name, value in fields.items():
        form.add_field(name, value)
    async with session.post(path, data=form) as answer:
        is_json = answer.content_type == "application/json"
        return answer.status, await answer.json() if is_json else await answer.text()


def png(colour: str, mode: str = "RGBA", size: tuple[int, int] = (8, 8)) -> bytes:
    encoded = io.BytesIO()
    Image.new(mode, size, colour).save(encoded, "PNG")
    return encoded.getvalue()


async def test_simultaneous_uploads_of_one_name_all_survive(
    session: aiohttp.ClientSession, engine: RunningEngine
) -> None:
    """Different bytes under one name get different names, however they arrive."""
    contents = [f"picture {number}".encode() for number in range(8)]

    told = await asyncio.gather(*(upload(session, each, "race.png") for each in contents))

    names = {body["name"]: content for (_, body), content in zip(told, contents, strict=True)}
    assert len(names) == 8
    for name, content in names.items():
        assert (engine.folder / "input" / name).read_bytes() == content


@pytest.mark.parametrize(
    ("filename", "fields"),
    [
        ("../out.png", {}),
        ("/etc/out.png", {}),
        ("sub/out.png", {}),
        ("..\\out.png", {}),
        ("C:out.png", {}),
        ("..", {}),
        ("x" * 300 + ".png", {}),
        ("out.png", {"subfolder": ".."}),
        ("out.png", {"subfolder": "/etc"}),
        ("out.png", {"subfolder": "a/../../b"}),
        ("out.png", {"subfolder": "y" * 300}),
        ("out.png", {"type": "models"}),
    ],
)
async def test_no_upload_leaves_its_folder(
    session: aiohttp.ClientSession, engine: RunningEngine, filename: str, fields: dict[str, str]
) -> None:
    """A name or subfolder that leads elsewhere is refused, and nothing is written."""
    before = everything(engine.folder)

    status, body = await upload(session, b"content", filename, **fields)

    assert (status, body["error"]["type"]) == (400, "invalid_upload")
    assert everything(engine.folder) == before


async def test_an_upload_over_the_limit_is_refused(
    session: aiohttp.ClientSession, engine: RunningEngine
) -> None:
    """More than the largest body is a 413, whether its length was announced or not."""
    before = everything(engine.folder)
    status, _ = await upload(session, b"\0" * 6_000_000)

    async def unannounced() -> AsyncIterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
        for _ in range(60):
            yield b"\0" * 100_000
        yield b"\r\n--b--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    try:
        async with session.post("/upload/image", data=unannounced(), headers=headers) as answer:
            late = answer.status
    except aiohttp.ClientError:  # the engine hung up before all was sent
        late = 413

    assert (status, late) == (413, 413)
    assert everything(engine.folder) == before


async def test_a_broken_form_is_refused(session: aiohttp.ClientSession) -> None:
    """A form without an end, a boundary or a file is a 400."""
    cases = {
        "multipart/form-data; boundary=b": b"--b\r\nno header at all",
        "multipart/form-data": b"x",
        "application/json": b"{}",
    }
    for content_type, body in cases.items():
        headers = {"Content-Type": content_type}
        async with session.post("/upload/image", data=body, headers=headers) as answer:
            assert answer.status == 400, content_type


async def test_a_mask_becomes_the_alpha_of_its_picture(
    session: aiohttp.ClientSession, engine: RunningEngine
) -> None:
    """The stored picture has the original's colours and the mask's transparency."""
    await upload(session, png("red"), "colours.png")
    reference = '{"filename": "colours.png", "type": "input"}'

    status, told = await upload(
        session, png("#00000040"), "masked.png", path="/upload/mask", original_ref=reference
    )

    assert (status, told) == (200, {"name": "masked.png", "subfolder": "", "type": "input"})
    with Image.open(engine.folder / "input" / "masked.png") as masked:
        assert masked.getpixel((0, 0)) == (255, 0, 0, 64)


@pytest.mark.parametrize("reference", ["", "{}", "[]", '{"filename": "../x"}', '{"filename": "-"}'])
async def test_a_mask_of_nothing_is_refused(session: aiohttp.ClientSession, reference: str) -> None:
    """A reference that names no picture in the folders is a 400."""
    status, _ = await upload(
        session, png("red"), "m.png", path="/upload/mask", original_ref=reference
    )

    assert status == 400


async def test_a_link_out_of_the_folder_is_not_followed(
    session: aiohttp.ClientSession, engine: RunningEngine, tmp_path: Path
) -> None:
    """A symbolic link in the output folder does not open the rest of the disk."""
    secret = tmp_path / "secret.txt"
    secret.write_text("secret", encoding="utf-8")
    (engine.folder / "output").mkdir(exist_ok=True)
    try:
        (engine.folder / "output" / "link.txt").symlink_to(secret)
    except OSError:
        assert not hasattr(Path, "lchmod"), "only Windows may refuse to make a link"
        return

    async with session.get("/view?filename=link.txt") as answer:
        assert answer.status == 404


@pytest.mark.parametrize("kind", ["output", "temp"])
async def test_emitted_files_are_served_byte_for_byte(engine: RunningEngine, kind: str) -> None:
    """TestEmit shows files of the asked size under any key, and `/view` gives the same bytes."""
    graph = {
        "1": node(
            "TestEmit",
            key="gifs",
            kind="files",
            name="été 猫.bin",
            pattern="xyz",
            size=3_000_001,
            count=2,
            subfolder="a/b",
            type=kind,
        )
    }
    async with engine_client(engine.url) as client:
        await client.run(graph)
        files = client.messages("executed")[-1]["output"]["gifs"]
        for file in files:
            async with client.session.get("/view", params=file) as answer:
                assert answer.content_length == 3_000_001
                content = await answer.read()
            assert content == (b"xyz" * 1_000_001)[:3_000_001]

    assert [file["filename"] for file in files] == ["été 猫.bin", "été 猫_2.bin"]


async def test_a_preview_keeps_within_the_asked_format(session: aiohttp.ClientSession) -> None:
    """`preview=` gives WebP or JPEG, with WebP where there is anything else."""
    await upload(session, png("#00ff0080"), "shown.png")
    found = {}
    for asked in ("webp;90", "jpeg;5", "jpeg;9000", "tiff", "jpeg;90&channel=a", "webp;x"):
        path = f"/view?filename=shown.png&type=input&preview={asked}"
        async with session.get(path) as answer:
            found[asked] = answer.content_type

    assert [kind for kind in found.values()] == [
        "image/webp",
        "image/jpeg",
        "image/jpeg",
        "image/webp",
        "image/webp",
        "image/webp",
    ]


def everything(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
