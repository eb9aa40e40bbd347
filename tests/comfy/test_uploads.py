"""What a file needs before it goes to a server."""

from __future__ import annotations

import re
from pathlib import Path

import blake3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyserve.assets import Upload
from comfyserve.comfy.uploads import file_name, opened, prepare
from comfyserve.errors import InvalidInputs

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 32


def test_a_file_is_known_by_its_bytes(tmp_path: Path) -> None:
    """The same bytes have the same hash and type, whether they are a file or in memory."""
    path = tmp_path / "a file ü.jpg"
    path.write_bytes(PNG)

    from_file = prepare(Upload("a.jpg", path=path))

    assert from_file == (blake3.blake3(PNG).hexdigest(), "image/png")
    assert prepare(Upload("b.txt", content=PNG)) == from_file


def test_a_large_file_is_hashed_whole(tmp_path: Path) -> None:
    """Every byte counts, also beyond the pieces in which a file is read."""
    path = tmp_path / "large.bin"
    path.write_bytes(bytes(range(256)) * 20_000)

    digest, _ = prepare(Upload("large.bin", path=path))

    assert digest == blake3.blake3(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("own", "mime", "ending"),
    [
        ("a.jpg", "image/png", ".png"),
        ("a", "image/jpeg", ".jpg"),
        ("clip.mov", "video/mp4", ".mp4"),
        ("a.PTH", "application/octet-stream", ".pth"),
        ("a.tar.gz", "application/octet-stream", ".gz"),
        ("notes.txt", "text/plain", ".txt"),
        ("a.exe/../b", "application/octet-stream", ""),
        ("a.p ng", "application/octet-stream", ""),
        ("a.猫", "application/octet-stream", ""),
        ("a.averyverylongending", "application/octet-stream", ""),
        ("a.png [temp]", "application/octet-stream", ""),
        ("", "application/octet-stream", ""),
    ],
)
def test_the_content_decides_the_ending(own: str, mime: str, ending: str) -> None:
    """A known type has its ending; else the caller's own is kept if it is plain."""
    digest = "0123456789abcdef" * 4

    assert file_name(Upload(own, content=b""), digest, mime, None) == digest[:32] + ending


@given(st.text(), st.text(), st.none() | st.text())
def test_a_name_for_the_server_is_always_plain(own: str, mime: str, mask_of: str | None) -> None:
    """Whatever the caller calls a file, the server gets a short plain ASCII name."""
    name = file_name(Upload(own, content=b""), "ab" * 32, mime, mask_of)

    assert re.fullmatch(r"[0-9a-f]{32}(\.[a-z0-9]{1,9})?", name)


def test_a_mask_is_named_by_what_it_lies_over() -> None:
    """The same mask over two pictures makes two files, over one picture always the same."""
    mask = Upload("mask.png", content=PNG)

    over_a = file_name(mask, "00" * 32, "image/png", "comfyserve/a.png")

    assert over_a == file_name(mask, "00" * 32, "image/png", "comfyserve/a.png")
    assert over_a != file_name(mask, "00" * 32, "image/png", "comfyserve/b.png")
    assert over_a != file_name(mask, "00" * 32, "image/png", None)


def test_a_file_that_cannot_be_read_is_the_callers_problem(tmp_path: Path) -> None:
    """A missing file is told under its input's name, with its path and the system's reason."""
    missing = Upload("image", path=tmp_path / "gone.png")

    with pytest.raises(InvalidInputs) as caught:
        prepare(missing)

    [problem] = caught.value.problems
    assert problem.name == "image"
    assert str(tmp_path / "gone.png") in problem.message
    assert problem.message.endswith(".")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    """A folder given as a file is told like a file that is not there."""
    with pytest.raises(InvalidInputs, match="cannot be read"):
        prepare(Upload("image", path=tmp_path))


def test_an_opened_file_is_closed_again(tmp_path: Path) -> None:
    """The file is open while the block lasts and no longer, also when the block fails."""
    path = tmp_path / "a.png"
    path.write_bytes(PNG)

    with pytest.raises(RuntimeError, match="in the block"), opened(Upload("a", path=path)) as file:
        assert file.read() == PNG
        raise RuntimeError("in the block")

    assert file.closed


def test_bytes_with_a_known_hash_are_not_hashed_again(tmp_path: Path) -> None:
    """Where the hash is known, it is taken as it is, and the type is told from the beginning."""
    path = tmp_path / "a.bin"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100_000))

    told = prepare(Upload("a.bin", path=path, hash="blake3:" + "ab" * 32))

    assert told == ("ab" * 32, "image/png")
