"""The documents of the repository: their code blocks, links and headings."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "docs" / "reference.md"


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block: where it begins, its language, the mark after it, its text."""

    file: Path
    line: int
    language: str
    mark: str
    text: str

    @property
    def place(self) -> str:
        """A name for test reports: ``README.md:12``."""
        return f"{self.file.relative_to(ROOT).as_posix()}:{self.line}"

    @property
    def is_for_users(self) -> bool:
        """A whole program that a reader may copy and run as it stands."""
        is_public = self.file == ROOT / "README.md" or ROOT / "docs" in self.file.parents
        return is_public and self.mark != "only-compiled"


def documents() -> list[Path]:
    """Every Markdown file a person reads."""
    return [path for path in repository_files() if path.suffix == ".md"]


def repository_files() -> list[Path]:
    """Every file that is in the repository or would be with the next commit."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            check=True,
            timeout=30,
        ).stdout.decode()
    except (OSError, subprocess.CalledProcessError):
        return sorted(_files_without_git(ROOT))
    paths = (ROOT / name for name in listed.split("\0") if name)
    return sorted(path for path in paths if path.is_file())


def _files_without_git(folder: Path) -> Iterator[Path]:
    built = {"__pycache__", "build", "dist", "output", "runs"}
    kept = {".ci", ".editorconfig", ".gitattributes", ".gitignore"}
    for path in folder.iterdir():
        if path.name in built or (path.name.startswith(".") and path.name not in kept):
            continue
        if path.is_dir():
            yield from _files_without_git(path)
        else:
            yield path


def blocks(*languages: str) -> list[Block]:
    """The fenced blocks in these languages, in all documents."""
    found = (block for path in documents() for block in _blocks_of(path))
    return [block for block in found if block.language in languages]


def _blocks_of(path: Path) -> Iterator[Block]:
    opened: tuple[int, list[str]] | None = None
    kept: list[str] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.startswith("```"):
            kept.append(line)
        elif opened is None:
            opened, kept = (number, line[3:].split()), []
        else:
            language, *marks = opened[1] or [""]
            yield Block(path, opened[0], language, " ".join(marks), "\n".join(kept) + "\n")
            opened = None


def prose_of(path: Path) -> str:
    """The document without its fenced blocks."""
    text = path.read_text(encoding="utf-8")
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def links_of(path: Path) -> list[str]:
    """The targets of all links and pictures in the document."""
    return re.findall(r"\]\(([^)\s]+)\)", prose_of(path))


def anchors_of(path: Path) -> set[str]:
    """The anchors a link may name, made of the headings as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose_of(path), flags=re.MULTILINE)
    return {_anchor(heading) for heading in headings}


def _anchor(heading: str) -> str:
    kept = re.sub(r"[^\w\- ]", "", heading.strip().lower())
    return kept.replace(" ", "-")


def command_lines() -> list[tuple[str, str]]:
    """Every ``comfyserve ..`` line of the shell blocks, and where it stands."""
    found = []
    for block in blocks("sh"):
        joined = block.text.replace("\\\n", " ")
        for line in joined.splitlines():
            command = line.split(" #")[0].strip()
            if command.startswith("comfyserve "):
                found.append((block.place, command))
    return found
