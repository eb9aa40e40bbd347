"""The docs are true: complete, without dead links, and their examples run."""

from __future__ import annotations

import ast
import dataclasses
import doctest
import importlib
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args
from urllib.parse import unquote

import pytest
import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

import comfyserve
from comfyserve import denials, errors, events, refusals
from comfyserve.cli.app import app
from comfyserve.server.metrics import Metrics
from comfyserve.settings import Description, described
from tests.documents import (
    REFERENCE,
    ROOT,
    Block,
    anchors_of,
    blocks,
    command_lines,
    documents,
    links_of,
    repository_files,
)
from tests.engines import engine_environment, running_engine

REFERENCE_TEXT = REFERENCE.read_text(encoding="utf-8")
PYTHON_BLOCKS = blocks("python")
MODULES = [
    info.name
    for info in pkgutil.walk_packages(comfyserve.__path__, "comfyserve.")
    if not info.name.endswith("__main__")
]
RUN_DEADLINE = 120


def _place(block: Block) -> str:
    return block.place


def _group() -> TyperGroup:
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    return group


def _commands(name: str, command: TyperGroup | TyperCommand) -> Iterator[tuple[str, list[Any]]]:
    """The command and all below it, each with what it takes."""
    yield name, command.params
    if isinstance(command, TyperGroup):
        for below, one in command.commands.items():
            assert isinstance(one, TyperGroup | TyperCommand)
            yield from _commands(f"{name} {below}", one)


COMMANDS = dict(_commands("comfyserve", _group()))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_is_in_the_reference(name: str) -> None:
    """A command has a heading in the reference, and each of its options is told there."""
    section = _section(f"`{name}`")

    options = [spelling for option in COMMANDS[name] for spelling in _spellings(option)]

    assert [option for option in options if f"`{option}" not in section] == []


def _section(heading: str) -> str:
    """What stands below *heading* in the reference, up to the next one."""
    match = re.search(rf"^#+ {re.escape(heading)}$(.*?)(?=^#|\Z)", REFERENCE_TEXT, re.M | re.S)
    assert match is not None, f"the reference has no heading {heading}"
    return match[1]


def _spellings(option: object) -> list[str]:
    match option:
        case TyperOption(opts=opts, secondary_opts=others):
            return [*opts, *others]
        case TyperArgument(metavar=str(metavar)):
            return [metavar]
        case _:
            raise AssertionError(f"{option} has no name that a document could tell")


def test_the_reference_tells_no_option_that_is_not_there() -> None:
    """An option named in the reference's sections on commands exists."""
    known = {
        spelling
        for options in COMMANDS.values()
        for option in options
        for spelling in _spellings(option)
    }
    told = {
        option for name in COMMANDS for option in re.findall(r"`(--[a-z-]+)", _section(f"`{name}`"))
    }

    assert told - known - {"--help"} == set()


def _below(kind: type[errors.ComfyServeError]) -> Iterator[type[errors.ComfyServeError]]:
    yield kind
    for narrower in kind.__subclasses__():
        yield from _below(narrower)


assert denials and refusals  # imported, so that all errors are known
ERRORS = [kind for kind in _below(errors.ComfyServeError) if not kind.__name__.startswith("_")]


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_every_error_is_in_the_reference(kind: type[errors.ComfyServeError]) -> None:
    """An error's class and its code stand in one row of the reference's table."""
    rows = [line for line in REFERENCE_TEXT.splitlines() if line.startswith("|")]

    assert any(f"`{kind.__name__}`" in row and f"`{kind.code}`" in row for row in rows)


@pytest.mark.parametrize("event", get_args(events.Event), ids=lambda event: event.__name__)
def test_every_event_is_in_the_reference(event: type[events.Event]) -> None:
    """An event and each of its fields stand in the reference."""
    section = _section(f"`{event.__name__}`")

    names = [field.name for field in dataclasses.fields(event)]
    fields = [name for name in names if name not in ("job_id", "is_last")]

    assert [name for name in fields if f"`{name}`" not in section] == []


@pytest.mark.parametrize("name", comfyserve.__all__)
def test_every_public_name_is_in_the_reference(name: str) -> None:
    """What `comfyserve` exports is there, and the reference tells it."""
    assert hasattr(comfyserve, name)
    assert f"`{name}`" in REFERENCE_TEXT or f"`{name}(" in REFERENCE_TEXT


CLASSES = [
    comfyserve.Client,
    comfyserve.AsyncClient,
    comfyserve.JobHandle,
    comfyserve.AsyncJobHandle,
    comfyserve.FinishedJob,
    comfyserve.OutputFile,
    comfyserve.Progress,
    comfyserve.Timings,
    comfyserve.Preview,
]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_public_member_is_in_the_reference(kind: type) -> None:
    """Each public method and field of the classes people hold stands in the reference."""
    fields = getattr(kind, "__dataclass_fields__", {})
    members = {name for name in {*dir(kind), *fields} if not name.startswith("_")}
    internal = {"hear", "learn", "fail", "leave", "of", "keeper"}

    told = set(re.findall(r"`\.?(\w+)", REFERENCE_TEXT))

    assert members - internal - told == set()


def test_every_environment_variable_is_in_the_reference() -> None:
    """Each COMFYSERVE_ variable that the code reads stands in the reference, and no other."""
    sources = (path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    read = {name for source in sources for name in re.findall(r"\bCOMFYSERVE_[A-Z_]+\b", source)}

    told = set(re.findall(r"\bCOMFYSERVE_[A-Z_]+\b", REFERENCE_TEXT))

    assert told >= {name for name in read if not name.endswith("_")}
    assert told - read <= {one.variable for one in described()}


@pytest.mark.parametrize("setting", described(), ids=lambda one: one.name)
def test_every_setting_is_in_the_reference(setting: Description) -> None:
    """A setting has a row of its own, with what it means."""
    row = re.search(rf"^\| `{setting.name}` \|.*$", _section("Settings"), re.M)

    assert row is not None
    assert setting.help[1:-1] in row[0]


def test_every_route_is_in_the_reference() -> None:
    """The routes that the server has are those that the reference tells, with their methods."""
    told = set(re.findall(r"^\| `([A-Z]+ /\S*)` \|", _section("Routes"), re.M))
    rooms = (ROOT / "src" / "comfyserve" / "server").rglob("*.py")

    assert told >= {f"{method} {path}" for room in rooms for method, path in _routes(room)}


def _routes(source: Path) -> Iterator[tuple[str, str]]:
    """The routes that a module declares, without those that only answer HEAD beside GET."""
    name = ".".join(source.relative_to(ROOT / "src").with_suffix("").parts)
    for route in getattr(getattr(importlib.import_module(name), "router", None), "routes", ()):
        if not hasattr(route, "methods"):
            yield "WS", route.path
            continue
        methods = route.methods - {"HEAD"} if route.methods != {"HEAD"} else route.methods
        beside_get = methods == {"HEAD"} and not route.include_in_schema
        yield from () if beside_get else ((method, route.path) for method in methods)


def test_every_code_is_in_the_reference() -> None:
    """Each code that an answer may have, beside those of the errors, is told."""
    source = (ROOT / "src/comfyserve/server/problems.py").read_text("utf-8")
    known = {kind.code for kind in ERRORS}

    named = set(re.findall(r'"([a-z]+(?:_[a-z]+)+)"', source)) - {"request_id"}

    assert [code for code in named | known if f"`{code}`" not in REFERENCE_TEXT] == []


def test_every_metric_is_in_the_reference() -> None:
    """The names that /metrics has are those that the reference tells."""
    told = set(re.findall(r"^\| `(comfyserve_\w+)` \|", _section("Metrics"), re.M))
    counted = {family.name for family in Metrics().registry.collect()}
    suffixed = {name.removesuffix("_total") for name in told}
    at_call = {"comfyserve_jobs_running", "comfyserve_streams_open", "comfyserve_sockets_open"}
    at_call |= {"comfyserve_backends", "comfyserve_backends_up"}

    assert suffixed == counted | at_call


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(path: Path) -> None:
    """Every relative link names a file that is there and, if any, a heading in it."""
    dead = [link for link in links_of(path) if not _leads_somewhere(path, link)]

    assert dead == []


def _leads_somewhere(path: Path, link: str) -> bool:
    if re.match(r"[a-z]+:", link):
        return True
    name, _, anchor = unquote(link).partition("#")
    target = path.parent / name if name else path
    return target.exists() and (not anchor or anchor in anchors_of(target))


@pytest.mark.parametrize("block", PYTHON_BLOCKS, ids=_place)
def test_python_examples_compile(block: Block) -> None:
    """Every Python example is a whole program."""
    compile(block.text, block.place, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_are_true(name: str) -> None:
    """Every example in a docstring gives what it says it gives."""
    seen = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)

    assert seen.failed == 0


@pytest.mark.timeout(RUN_DEADLINE + 60)
@pytest.mark.parametrize(
    "block", [block for block in PYTHON_BLOCKS if block.is_for_users], ids=_place
)
def test_python_examples_run(block: Block, engine_url: str, reader_folder: Path) -> None:
    """An example for users runs as it stands, in a process of its own, against the engine."""
    text = block.text.replace("http://127.0.0.1:8188", engine_url)

    ended = _run([sys.executable, "-W", "error", "-c", text], reader_folder, engine_url)

    assert ended.returncode == 0, ended.stderr


COMMAND_LINES = [pytest.param(line, id=f"{place} {line}") for place, line in command_lines()]


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_command_lines_parse(line: str) -> None:
    """Every command line in the docs is one that the command line understands."""
    name, *arguments = shlex.split(line)[1:]

    _group().commands[name].make_context(name, arguments).close()


RUN_LINES = [
    pytest.param(line, id=f"{place} {line}")
    for place, line in command_lines()
    if line.startswith("comfyserve run examples/") and "sd_xl" not in line
]


@pytest.mark.timeout(RUN_DEADLINE + 60)
@pytest.mark.parametrize("line", RUN_LINES)
def test_run_lines_run(line: str, engine_url: str, reader_folder: Path) -> None:
    """Every run of an example in the docs succeeds against the engine, and says what it saved."""
    arguments = [sys.executable, "-m", "comfyserve", *shlex.split(line)[1:]]

    ended = _run(arguments, reader_folder, engine_url)

    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip()


@pytest.fixture(scope="module")
def engine_url() -> Iterator[str]:
    """The address of a built-in engine."""
    with running_engine() as engine:
        yield engine.url


@pytest.fixture
def reader_folder(tmp_path: Path) -> Path:
    """A folder as a reader of the docs has it: with the examples, and a space in its name."""
    folder = tmp_path / "a reader"
    shutil.copytree(ROOT / "examples", folder / "examples")
    return folder


def _run(command: list[str], folder: Path, server: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        env={**engine_environment(), "COMFYSERVE_SERVER": server},
        capture_output=True,
        encoding="utf-8",
        timeout=RUN_DEADLINE,
    )


def test_the_changelog_tells_the_current_version() -> None:
    """The changelog has a dated section for the version, with something in it."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    version = re.escape(comfyserve.__version__)

    section = re.search(
        rf"^## \[{version}\] - \d{{4}}-\d\d-\d\d\n(.*?)(?=^## |\Z)", text, re.M | re.S
    )

    assert section is not None
    assert re.search(r"^- \S", section[1], re.M)


def test_every_decision_is_listed_and_short() -> None:
    """Each decision is linked from their list, and is read in a minute."""
    folder = ROOT / "docs" / "decisions"
    decisions = {path.name for path in folder.glob("*.md")} - {"README.md"}

    listed = set(links_of(folder / "README.md"))
    long = [name for name in decisions if len((folder / name).read_text("utf-8").split()) > 200]

    assert listed == decisions
    assert long == []


def test_every_make_target_in_the_docs_exists() -> None:
    """A `make X` that the docs name is a target of the Makefile."""
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M)
    texts = [path.read_text(encoding="utf-8") for path in documents()]

    named = {name for text in texts for name in re.findall(r"(?:`|^)make ([a-z-]+)", text, re.M)}

    assert named - set(targets) == set()


FOREIGN = re.compile(
    r"(?<![\w.~-])/(?:work|root|home/\w+)/"  # a machine's own folders
    r"|https?://[^\s\"']+\.(?:whl|tgz|deb)\b|--?(?:extra.)?index.url|find.links",  # a registry
)


def test_files_name_no_machine_and_no_registry() -> None:
    """No file of the repository holds a path of one machine or the address of a registry."""
    found = [
        f"{path.relative_to(ROOT)}:{number}: {match[0]}"
        for path in repository_files()
        if path != Path(__file__)
        for number, line in enumerate(_lines(path), start=1)
        if (match := FOREIGN.search(line))
    ]

    assert found == []


def _lines(path: Path) -> list[str]:
    content = path.read_bytes()
    return [] if b"\0" in content[:8192] else content.decode(errors="replace").splitlines()
