"""`comfyserve doctor`: what is wrong with a server, and what workflows miss there."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any

import typer

from comfyserve.cli.exit_codes import FAILED, UNREACHABLE
from comfyserve.cli.input_table import room
from comfyserve.cli.progress_words import printable
from comfyserve.cli.target import Target
from comfyserve.client.api import Api
from comfyserve.client.checkup import examine as examine_comfyserve
from comfyserve.client.servers import Kind, kind_of, session
from comfyserve.comfy.checks import missing_files
from comfyserve.comfy.checkup import PATIENCE, Checkup, examine
from comfyserve.comfy.findings import Finding, Mark
from comfyserve.comfy.http import Http
from comfyserve.comfy.needs import ModelSource, files_of, model_sources, shortfalls
from comfyserve.errors import BackendUnreachable, GraphInvalid, WorkflowUnreadable
from comfyserve.workflows.node_catalog import NodeCatalog
from comfyserve.workflows.workflow import Workflow


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asked for."""

    target: Target
    files: tuple[Path, ...] = ()
    as_json: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    """What was found about one thing: the server, or a file."""

    about: str
    findings: tuple[Finding, ...]

    def to_json(self) -> dict[str, Any]:
        return {"about": self.about, "findings": [finding.to_json() for finding in self.findings]}


async def examine_all(options: Options) -> None:
    """Print all findings; ends with `typer.Exit` 1 if there are problems, 3 if nobody answers.

    Raises `InvalidAddress` where there is nobody who could be asked.
    """
    async with session(options.target.address(PATIENCE)) as http:
        kind = await _kind(http)
        if kind == "ComfyUI":
            checkup = await examine(http)
        else:
            api = Api(http, PATIENCE, is_official=kind == "official")
            checkup = await examine_comfyserve(api)
        # The files of the ComfyUIs behind a comfyserve are not to be seen from here.
        of_comfyui = http if kind == "ComfyUI" else None
        files = [await _of_file(of_comfyui, file, checkup.catalog) for file in options.files]
    sections = [Section(checkup.url, checkup.findings), *files]
    _print(sections, checkup, as_json=options.as_json)
    if not checkup.answers:
        raise typer.Exit(UNREACHABLE)
    if _count(sections, "problem"):
        raise typer.Exit(FAILED)


async def _kind(http: Http) -> Kind:
    try:
        return await kind_of(http)
    except BackendUnreachable:
        return "ComfyUI"  # the checkup finds out why nobody answers


def target_and_files(words: Sequence[str]) -> tuple[str | None, tuple[Path, ...]]:
    """The server's address, if the first of *words* is one, and the files.

    >>> target_and_files(["gpu:8188", "portrait.json"])[0]
    'gpu:8188'
    """
    if words and _is_address(words[0]):
        return words[0], tuple(map(Path, words[1:]))
    return None, tuple(map(Path, words))


def _is_address(word: str) -> bool:
    if "://" in word:
        return True
    named = re.fullmatch(r"(localhost|[\w.-]+:\d{1,5}|\[[0-9a-f:]+\](:\d{1,5})?)(/.*)?", word, re.I)
    return named is not None and not Path(word).exists()


async def _of_file(http: Http | None, file: Path, catalog: NodeCatalog | None) -> Section:
    try:
        workflow = await asyncio.to_thread(Workflow.load, file)
        if catalog is None:
            return Section(str(file), (_UNCHECKED,))
        workflow = await asyncio.to_thread(workflow.described_by, catalog, strict=False)
    except (WorkflowUnreadable, GraphInvalid) as error:
        return Section(str(file), (Finding("problem", "workflow", str(error)),))
    needed = files_of(workflow.graph, catalog)
    lacking = await missing_files(http, needed) if http is not None else frozenset[str]()
    sources = model_sources(workflow.source.editor or {})
    found = await asyncio.to_thread(_found, workflow, catalog, lacking, sources)
    return Section(str(file), found)


def _found(
    workflow: Workflow,
    catalog: NodeCatalog,
    lacking: frozenset[str],
    sources: dict[str, ModelSource],
) -> tuple[Finding, ...]:
    missing = shortfalls(workflow.graph, catalog, missing_files=lacking, sources=sources)
    unread = (
        Finding("warn", "workflow", str(warning))
        for warning in workflow.warnings
        if not _is_unknown(workflow, warning.node_id, catalog)
    )
    found = (*missing, *unread)
    if any(finding.mark == "problem" for finding in found):
        return found
    kinds = len({entry["class_type"] for entry in workflow.graph.values()})
    message = f"The server has all {kinds} kinds of nodes that it needs, and their models."
    return (Finding("ok", "workflow", message), *found)


def _is_unknown(workflow: Workflow, node_id: str, catalog: NodeCatalog) -> bool:
    """Whether the node is of a kind that is reported missing anyway."""
    entry = workflow.graph.get(node_id)
    return entry is not None and entry["class_type"] not in catalog


_UNCHECKED = Finding(
    "warn", "workflow", "It was not checked: there are no nodes of a server to go by."
)


def _print(sections: Sequence[Section], checkup: Checkup, *, as_json: bool) -> None:
    if as_json:
        server, *files = sections
        document = {
            "server": {**server.to_json(), "answers": checkup.answers},
            "workflows": [section.to_json() for section in files],
            "problems": _count(sections, "problem"),
            "warnings": _count(sections, "warn"),
        }
        print(json.dumps(document, indent=2))
        return
    width = room()
    for section in sections:
        for line in _lines(section, width):
            print(line)
    print(_summary(sections))


def _lines(section: Section, width: int) -> Iterator[str]:
    yield printable(section.about)
    for finding in section.findings:
        mark = f"  {finding.mark.ljust(7)}  "
        yield from _wrapped(finding.message, width, mark)
        if finding.advice:
            yield from _wrapped(finding.advice, width, f"{'':11}-> ")
    yield ""


def _wrapped(text: str, width: int, indent: str) -> list[str]:
    # An address or a path is never broken, so that it can be copied.
    return wrap(
        printable(text),
        width,
        initial_indent=indent,
        subsequent_indent=" " * len(indent),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _summary(sections: Sequence[Section]) -> str:
    problems, warnings = _count(sections, "problem"), _count(sections, "warn")
    counts = (
        f"{problems} problem{'s' * (problems != 1)}",
        f"{warnings} warning{'s' * (warnings != 1)}",
    )
    return f"{', '.join(counts)}." if problems or warnings else "All is well."


def _count(sections: Sequence[Section], mark: Mark) -> int:
    return sum(finding.mark == mark for section in sections for finding in section.findings)
