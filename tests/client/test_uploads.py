"""What a caller may give for a file, and where an output may be copied."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from comfyserve.assets import Upload
from comfyserve.client.output_files import OutputFile
from comfyserve.client.spool import Spool
from comfyserve.client.uploads import as_upload, check_content
from comfyserve.errors import InvalidInputs, OutputUnwritable
from comfyserve.jobs import Output


@pytest.fixture
def output(tmp_path: Path) -> OutputFile:
    """An output whose bytes lie in a spool, under another name."""
    path = tmp_path / "spooled"
    path.write_bytes(b"fox")
    told = Output("9", "images", "fox.png", "image", "image/png", 3, "blake3:00", str(path))
    return OutputFile.of(told, keeper=None)


def test_a_path_is_sent_from_where_it_lies(tmp_path: Path) -> None:
    """A path, as text or not, is not read before it is sent."""
    path = tmp_path / "in ü.png"
    path.touch()

    assert as_upload("image", path) == as_upload("image", str(path)) == Upload("in ü.png", path)


def test_content_is_sent_as_it_is(tmp_path: Path) -> None:
    """Bytes of any kind and open files are content; a file's own name is kept for its ending."""
    contents = (b"fox", bytearray(b"fox"), memoryview(b"fox"), io.BytesIO(b"fox"))
    assert {as_upload("image", content).content for content in contents} == {b"fox"}
    path = tmp_path / "in.png"
    path.write_bytes(b"fox")
    with path.open("rb") as file:
        assert as_upload("image", file) == Upload("in.png", content=b"fox")


def test_an_output_is_an_input(output: OutputFile) -> None:
    """An output of an earlier job is sent from its file, under its real name."""
    assert as_upload("image", output) == Upload("fox.png", output.path)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("README.md", b"# A fox", "is none: it is text/markdown"),
        ("notes", b"a fox", "is none: it is text/plain"),
        ("graph.json", b"{}", "is none: it is application/json"),
        ("paper.pdf", b"%PDF-1.7", "is none: it is application/pdf"),
        ("in.png", b"PK\x03\x04", "is none: it is application/zip"),
        ("in.png", b"", "is empty"),
    ],
)
@pytest.mark.parametrize("kind", ["image", "mask", "video", "audio"])
def test_a_wrong_file_is_told_before_it_is_sent(
    tmp_path: Path, kind: str, name: str, content: bytes, said: str
) -> None:
    """What is plainly no picture, video or sound is refused, and the sentence names what it is."""
    path = tmp_path / name
    path.write_bytes(content)

    for upload in (Upload(name, path), Upload(name, content=content)):
        with pytest.raises(InvalidInputs, match=said):
            check_content("sketch", kind, upload)


@pytest.mark.parametrize(
    "content",
    [b"\x89PNG\r\n\x1a\n", b"P3\n1 1 255\n0 0 0\n", b"<svg/>", b"\x00\x01", b"\xff\xd8\xff"],
)
def test_a_file_that_may_be_right_is_left_to_the_server(content: bytes) -> None:
    """Pictures in rare formats, and what nobody knows, are sent."""
    check_content("sketch", "image", Upload("in", content=content))
    check_content("notes", "file", Upload("notes.txt", content=b"a fox"))


def test_an_upload_stays_one() -> None:
    """What is an upload already is left as it is."""
    upload = Upload("x", content=b"fox")

    assert as_upload("image", upload) is upload


def test_what_is_no_file_is_an_error(tmp_path: Path) -> None:
    """A folder, a missing file, a missing folder an open text file and a number are named."""
    (tmp_path / "in.png").touch()

    for given, said in [
        (tmp_path, "which is a folder"),
        (tmp_path / "inn.png", "Did you mean 'in.png'"),
        (tmp_path / "none" / "in.png", "There is no folder"),
    ]:
        with pytest.raises(InvalidInputs, match=f"^image cannot be .*{said}"):
            as_upload("image", given)
    with pytest.raises(InvalidInputs, match="mode 'rb'"):
        as_upload("image", io.StringIO("fox"))
    with pytest.raises(InvalidInputs, match=r"^image takes a path.*, not int"):
        as_upload("image", 5)


@pytest.mark.parametrize("target", ["out/", "out", "is there.d"])
def test_a_folder_gets_the_outputs_own_name(
    output: OutputFile, tmp_path: Path, target: str
) -> None:
    """A slash, no ending, or a folder that is there: the copy takes the output's name."""
    (tmp_path / "is there.d").mkdir()

    copies = [output.to_file(f"{tmp_path}/{target}") for _ in range(2)]

    assert [copy.name for copy in copies] == ["fox.png", "fox (1).png"]
    assert copies[0].parent == tmp_path / target.rstrip("/")


def test_a_file_is_replaced_only_when_told_to(output: OutputFile, tmp_path: Path) -> None:
    """An exact path is taken as given, and never overwritten silently."""
    target = tmp_path / "new" / "my.png"

    assert output.to_file(target) == target
    with pytest.raises(OutputUnwritable, match="overwrite=True"):
        output.to_file(target)
    target.write_bytes(b"old")
    output.to_file(target, overwrite=True)
    assert target.read_bytes() == b"fox"


def test_text_can_be_read(output: OutputFile) -> None:
    """A text output is text."""
    assert (output.to_text(), output.to_bytes()) == ("fox", b"fox")


async def test_a_spool_drops_what_nobody_keeps() -> None:
    """A spooled file goes with its keeper, and the rest when the spool is closed."""
    spool = Spool()
    kept, dropped = [await spooled(spool) for _ in range(2)]
    keepers = [spool.keeper(kept), spool.keeper(dropped)]

    keepers.pop()

    assert [exists(path) for path in (kept, dropped)] == [True, False]
    spool.close()
    assert not exists(kept)


async def spooled(spool: Spool) -> str:
    async with spool.open("../fox.png", "", temp=True) as writer:
        await writer.write(b"fox")
    assert writer.location.endswith(".png")
    return writer.location


def exists(path: str) -> bool:
    return Path(path).exists()
