"""A folder that outputs are saved into."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyserve.client.output_folder import BATCH_SIZE, OutputFolder, copy_to_file, copy_to_folder
from comfyserve.errors import OutputUnwritable

HOSTILE = st.one_of(
    st.text(max_size=300),
    st.text(alphabet="./\\:~$ab \x00\n\udcff", max_size=40),
    st.sampled_from(["../../etc/passwd", "C:\\Windows\\x", "/abs", "..", ".", "", "CON.png", "a/"]),
)


async def save(
    folder: OutputFolder,
    data: bytes,
    name: str = "fox.png",
    subfolder: str = "",
    *,
    temp: bool = False,
) -> Path:
    async with folder.open(name, subfolder, temp) as writer:
        await writer.write(data)
    return Path(writer.location)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def content(path: str | Path) -> bytes:
    return Path(path).read_bytes()


async def test_saves_the_bytes_under_their_name(tmp_path: Path) -> None:
    """An output is saved byte for byte, under its name and in its subfolder."""
    path = await save(OutputFolder(tmp_path), b"fox", "füchse 1.png", "a/b c")

    assert path == tmp_path / "a" / "b c" / "füchse 1.png"
    assert content(path) == b"fox"


@pytest.mark.parametrize("place", ["file", "file/below", "file/below/it"])
def test_a_folder_that_cannot_be_made_is_told_beforehand(tmp_path: Path, place: str) -> None:
    """Preparing says whether files can be saved there, before there are any."""
    (tmp_path / "file").touch()

    with pytest.raises(OutputUnwritable, match="file"):
        OutputFolder(tmp_path / place).prepare()


def test_preparing_leaves_an_empty_folder(tmp_path: Path) -> None:
    """Trying whether a folder takes files leaves none behind, and what is there stays."""
    OutputFolder(tmp_path / "a" / "b").prepare()
    (tmp_path / "a" / "fox").touch()
    OutputFolder(tmp_path / "a").prepare()

    assert names_in(tmp_path / "a") == ["b", "fox"]
    assert names_in(tmp_path / "a" / "b") == []


async def test_temporary_outputs_have_a_folder_of_their_own(tmp_path: Path) -> None:
    """Temporary outputs are saved under temp/."""
    path = await save(OutputFolder(tmp_path), b"fox", temp=True)

    assert path == tmp_path / "temp" / "fox.png"


async def test_a_file_that_is_there_stays(tmp_path: Path) -> None:
    """An existing file is never overwritten; the new one takes the next free name."""
    folder = OutputFolder(tmp_path)

    paths = [await save(folder, each) for each in (b"1", b"2", b"3")]

    assert [path.name for path in paths] == ["fox.png", "fox (1).png", "fox (2).png"]
    assert [content(path) for path in paths] == [b"1", b"2", b"3"]


async def test_finds_a_free_name_among_many(tmp_path: Path) -> None:
    """A folder that is full of the same name still has room."""
    (tmp_path / "fox.png").touch()
    for number in range(1, 1201):
        (tmp_path / f"fox ({number}).png").touch()

    path = await save(OutputFolder(tmp_path), b"new")

    assert path.name == "fox (1201).png"


async def test_jobs_that_save_at_once_do_not_meet(tmp_path: Path) -> None:
    """Outputs of the same name that are saved at the same time all survive."""
    contents = [bytes([number]) * BATCH_SIZE for number in range(20)]

    paths = await asyncio.gather(*(save(OutputFolder(tmp_path), each) for each in contents))

    assert [content(path) for path in paths] == contents


async def test_large_outputs_arrive_whole(tmp_path: Path) -> None:
    """An output of many pieces of any size is the pieces, in order."""
    pieces = [os.urandom(size) for size in (1, BATCH_SIZE, 7, BATCH_SIZE * 2 + 1, 0, 300_000)]

    async with OutputFolder(tmp_path).open("big.bin", "", temp=False) as writer:
        for piece in pieces:
            await writer.write(piece)

    assert content(writer.location) == b"".join(pieces)


async def test_an_error_leaves_nothing_behind(tmp_path: Path) -> None:
    """An output that does not arrive whole leaves no file, not even a part of one."""
    with pytest.raises(ConnectionError):
        async with OutputFolder(tmp_path).open("fox.png", "", temp=False) as writer:
            await writer.write(b"x" * BATCH_SIZE)
            raise ConnectionError

    assert names_in(tmp_path) == []


async def test_canceling_leaves_nothing_behind(tmp_path: Path) -> None:
    """A task that is canceled while it saves leaves no file."""
    saving = asyncio.Event()

    async def save_for_ever() -> None:
        async with OutputFolder(tmp_path).open("fox.png", "", temp=False) as writer:
            while True:
                await writer.write(b"x" * BATCH_SIZE)
                saving.set()

    task = asyncio.create_task(save_for_ever())
    await saving.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert names_in(tmp_path) == []


async def test_works_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a file system without hard links the promises are the same."""

    def refuse(self: Path, target: Path) -> None:
        raise PermissionError(1, "no hard links here")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    folder = OutputFolder(tmp_path)

    paths = [await save(folder, each) for each in (b"1", b"2")]

    assert [path.name for path in paths] == ["fox.png", "fox (1).png"]
    assert names_in(tmp_path) == ["fox (1).png", "fox.png"]


@given(name=HOSTILE, subfolder=HOSTILE, temp=st.booleans())
def test_no_name_leads_out_of_the_folder(name: str, subfolder: str, temp: bool) -> None:
    """Whatever a server calls a file, it is saved inside the folder, and is one new file."""
    with tempfile.TemporaryDirectory() as root:
        path = asyncio.run(save(OutputFolder(root), b"fox", name, subfolder, temp=temp))

        assert path.resolve().is_relative_to(Path(root).resolve())
        assert [found for found in Path(root).rglob("*") if found.is_file()] == [path]


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
async def test_a_link_does_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    """A link inside the folder is not followed to a place outside."""
    outside = tmp_path / "outside"
    outside.mkdir()
    root = tmp_path / "root"
    root.mkdir()
    (root / "way").symlink_to(outside)

    with pytest.raises(OutputUnwritable, match="leads out"):
        await save(OutputFolder(root), b"fox", "fox.png", "way/out")

    assert names_in(outside) == []


async def test_a_disk_error_is_said_in_words(tmp_path: Path) -> None:
    """Where the folder cannot be made, the error names the path and the reason."""
    (tmp_path / "file").touch()

    with pytest.raises(OutputUnwritable, match=r"fox\.png cannot be written: "):
        await save(OutputFolder(tmp_path / "file"), b"fox")


def test_copies_take_a_free_name_in_a_folder(tmp_path: Path) -> None:
    """A copy into a folder never replaces what is there."""
    source = tmp_path / "spool.png"
    source.write_bytes(b"fox")

    paths = [copy_to_folder(source, tmp_path / "out", "fox.png") for _ in range(2)]

    assert [path.name for path in paths] == ["fox.png", "fox (1).png"]
    assert {path.read_bytes() for path in paths} == {b"fox"}


def test_copies_replace_a_file_only_when_told_to(tmp_path: Path) -> None:
    """A copy to an exact path is an error where a file is, unless it may be overwritten."""
    source = tmp_path / "spool.png"
    source.write_bytes(b"new")
    target = tmp_path / "fox.png"
    target.write_bytes(b"old")

    with pytest.raises(OutputUnwritable, match="overwrite=True"):
        copy_to_file(source, target, overwrite=False)
    assert target.read_bytes() == b"old"

    copy_to_file(source, target, overwrite=True)
    assert target.read_bytes() == b"new"
    assert names_in(tmp_path) == ["fox.png", "spool.png"]
