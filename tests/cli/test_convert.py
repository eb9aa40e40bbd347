"""What `convert` writes, and what it leaves alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from comfyserve.cli.written_files import write_new
from comfyserve.errors import OutputUnwritable


def test_writes_a_new_file(tmp_path: Path) -> None:
    """A new file holds the text in UTF-8, its lines ended alike on every system."""
    path = tmp_path / "größe 猫.json"

    write_new(path, "ü\n")

    assert path.read_bytes() == "ü\n".encode()


def test_keeps_what_is_there(tmp_path: Path) -> None:
    """A file that is there is kept, and the reason is the one given."""
    path = tmp_path / "api.json"
    path.write_text("precious", encoding="utf-8")

    with pytest.raises(OutputUnwritable, match="--force replaces it"):
        write_new(path, "new", if_there="--force replaces it")

    assert path.read_text(encoding="utf-8") == "precious"


def test_replaces_when_told(tmp_path: Path) -> None:
    """Told to replace, it does, and leaves nothing else behind."""
    path = tmp_path / "api.json"
    path.write_text("old", encoding="utf-8")

    write_new(path, "new", replace=True)

    assert [(p.name, p.read_text(encoding="utf-8")) for p in tmp_path.iterdir()] == [
        ("api.json", "new")
    ]


@pytest.mark.parametrize("replace", [False, True])
def test_a_place_that_takes_no_file(tmp_path: Path, replace: bool) -> None:
    """A folder in the way, and a folder that is not there, are told with the path."""
    (tmp_path / "api.json").mkdir()

    for path in (tmp_path / "api.json", tmp_path / "none" / "api.json"):
        with pytest.raises(OutputUnwritable, match=r"api\.json"):
            write_new(path, "new", replace=replace)

    assert [p.name for p in tmp_path.iterdir()] == ["api.json"]
