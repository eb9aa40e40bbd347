"""The workflows that a server hosts as a table, and one of them with all that it takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from comfyserve.cli.input_table import (
    WITHOUT_NODES,
    choosing,
    counted,
    input_lines,
    output_line,
    warning_lines,
    wrapped,
)
from comfyserve.cli.progress_words import printable
from comfyserve.cli.schema_inputs import parameters_of

_HEADS: Final = ("NAME", "TITLE", "SOURCE", "STATE")
_LONGEST_TITLE: Final = 30


def workflow_lines(workflows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A line for every workflow, under a line of heads."""
    rows = [_HEADS, *(_row(workflow) for workflow in workflows)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def workflow_detail_lines(workflow: Mapping[str, Any], width: int) -> Iterator[str]:
    """All that a caller has to know of one workflow, no line longer than *width*."""
    parameters = parameters_of(workflow["inputs"])
    outputs = workflow["outputs"]
    counts = f"{counted(len(parameters), 'input')}, {counted(len(outputs), 'output')}"
    title = "" if workflow["title"] == workflow["name"] else str(workflow["title"])
    for words in (
        f"{workflow['name']}, {_SOURCES.get(workflow['source'], workflow['source'])}: {counts}",
        title,
        str(workflow["description"]),
        choosing(workflow["convention"] or ""),
        "Any value may be set by its address, like 3.cfg." if workflow["open"] else "",
        f"It is {state.rstrip('.')}." if (state := state_of(workflow)) != "ok" else "",
        "" if workflow["is_described"] or not workflow["available"] else WITHOUT_NODES,
    ):
        yield from wrapped(words, width)
    if not workflow["available"]:
        return
    yield from input_lines(parameters, width) if parameters else ("", "It takes no inputs.")
    yield from ("", "OUTPUT") if outputs else ("", "No node gives a result that could be saved.")
    for output in outputs:
        yield output_line(output["node_id"], output["class_type"], output["title"], width)
    yield from warning_lines(warnings_of(workflow), width)


def warnings_of(workflow: Mapping[str, Any]) -> list[str]:
    """Where it does not fit a backend, and what could not be read."""
    unfit = [f"backend {one['backend']}: {one['message']}" for one in workflow["drift"]]
    return [*unfit, *map(str, workflow["warnings"])]


def state_of(workflow: Mapping[str, Any]) -> str:
    """How it stands, ``ok`` where all is well."""
    if not workflow["available"]:
        return f"broken: {workflow['problem']}"
    said = []
    if workflow["problem"]:
        said.append(f"as it was before: {workflow['problem']}")
    if workflow["drifted"]:
        said.append(f"does not fit backend {', '.join(workflow['drifted'])}")
    return "; ".join(said) or "ok"


_SOURCES: Final = {"folder": "of the server's folder", "published": "published"}


def _row(workflow: Mapping[str, Any]) -> tuple[str, ...]:
    title = printable(str(workflow["title"]))
    if len(title) > _LONGEST_TITLE:
        title = f"{title[: _LONGEST_TITLE - 2]}.."
    state = printable(state_of(workflow))
    return printable(str(workflow["name"])), title, printable(str(workflow["source"])), state
