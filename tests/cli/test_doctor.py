"""What `doctor` understands of its words."""

from __future__ import annotations

from pathlib import Path

import pytest

from comfyserve.cli.doctor import target_and_files


@pytest.mark.parametrize(
    "word",
    [
        "http://gpu.example/comfy",
        "https://127.0.0.1",
        "127.0.0.1:8188",
        "gpu:8188/comfy",
        "localhost",
        "[::1]:8188",
    ],
)
def test_an_address_comes_first(word: str) -> None:
    """The first word is the server if it looks like an address."""
    assert target_and_files([word, "a.json"]) == (word, (Path("a.json"),))


@pytest.mark.parametrize("word", ["a.json", "my pictures/fox.png", "C:\\flows\\a.json", "flow"])
def test_anything_else_is_a_file(word: str) -> None:
    """Without an address every word is a file, and the server is the usual one."""
    assert target_and_files([word, "b.json"]) == (None, (Path(word), Path("b.json")))


def test_nothing_is_the_usual_server() -> None:
    """No words mean the usual server and no files."""
    assert target_and_files([]) == (None, ())


def test_a_file_that_looks_like_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is there is a file, whatever its name looks like."""
    monkeypatch.chdir(tmp_path)
    Path("localhost").write_text("{}", encoding="utf-8")

    assert target_and_files(["localhost"]) == (None, (Path("localhost"),))
