"""The inputs and outputs of a workflow as a table that fits on 80 columns, and into a pipe."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from textwrap import wrap

from comfyserve.cli.progress_words import printable
from comfyserve.cli.target import Known
from comfyserve.workflows.graph import nodes_of
from comfyserve.workflows.parameters import Choice, Media, Number, Parameter
from comfyserve.workflows.workflow import Workflow

NARROWEST = 60
WIDEST = 120

WITHOUT_NODES = "Without a server's nodes: no limits and no choices, and types are guesses."

_HEADS = ("INPUT", "TYPE", "DEFAULT", "LIMITS", "FILLS")
_MOST = (24, 8, 28, 22)
"""The most letters that each column but the last may take."""

_SHOWN_CHOICES = 6
_SHOWN_PLACES = 12
_SHOWN_WARNINGS = 20


def room() -> int:
    """The columns there are: those of the terminal, and 80 where there is none."""
    return max(NARROWEST, min(WIDEST, shutil.get_terminal_size((80, 24)).columns))


def inspection_lines(
    workflow: Workflow, known: Known, warnings: Sequence[str], width: int
) -> Iterator[str]:
    """All that `inspect` tells, line by line, none longer than *width*."""
    for words in (
        _headline(workflow),
        workflow.title,
        workflow.description,
        choosing(workflow.convention),
    ):
        yield from wrapped(words, width)
    if known.catalog is None:
        yield from wrapped(WITHOUT_NODES, width)
    yield from input_lines(workflow.parameters, width)
    yield from _outputs(workflow, width)
    yield from warning_lines(warnings, width)


def warning_lines(warnings: Sequence[str], width: int) -> Iterator[str]:
    """The first of the warnings, under a line of their own."""
    if warnings:
        yield from ("", "WARNINGS")
    for warning in warnings[:_SHOWN_WARNINGS]:
        yield from wrapped(warning, width, "- ", "  ")
    if len(warnings) > _SHOWN_WARNINGS:
        yield f"- and {len(warnings) - _SHOWN_WARNINGS} more; --json has them all"


def _headline(workflow: Workflow) -> str:
    saved = "in API format" if workflow.editor is None else "in the editor's format"
    counts = (
        counted(len(workflow.graph), "node"),
        counted(len(workflow.parameters), "input"),
        counted(len(workflow.outputs), "output"),
    )
    return f"{workflow.name}, {saved}: {', '.join(counts)}"


def choosing(convention: str) -> str:
    """Who decided which inputs there are."""
    who = _CONVENTIONS.get(convention)
    return f"The inputs are those of {who}." if who else ""


_CONVENTIONS = {
    "sidecar": "the sidecar beside the file",
    "app_mode": "the editor's App mode",
    "subgraph": "its subgraphs, as they show themselves",
    "titles": "the titles of its nodes",
    "comfyui_deploy": "its nodes of ComfyUI-Deploy",
    "comfy_pack": "its nodes of comfy-pack",
}


def input_lines(parameters: Sequence[Parameter], width: int) -> Iterator[str]:
    """The inputs as a table; without what they fill, where that is not known of any."""
    if not parameters:
        yield from ("", "No inputs were found; any value can be set by its address, like 3.cfg.")
        return
    columns = len(_HEADS) if any(parameter.targets for parameter in parameters) else len(_HEADS) - 1
    heads = _HEADS[:columns]
    rows = [_cells(parameter)[:columns] for parameter in parameters]
    widths = _widths([heads, *rows], width)
    yield ""
    yield _row(heads, widths)
    for advanced in (False, True):
        chosen = [
            pair for pair in zip(parameters, rows, strict=True) if pair[0].advanced is advanced
        ]
        if advanced and chosen:
            yield from ("", "ADVANCED")
        for parameter, row in chosen:
            yield _row(row, widths)
            for words in _further(parameter, widths[-1]):
                yield from wrapped(words, width, "    ", "    ")


def _cells(parameter: Parameter) -> tuple[str, ...]:
    places = _places(parameter)
    fills = places[0] if len(places) == 1 else f"{places[0]} +{len(places) - 1}"
    cells = (parameter.name, parameter.kind, _default(parameter), _limits(parameter), fills)
    return tuple(printable(cell) for cell in cells)


def _places(parameter: Parameter) -> list[str]:
    return [".".join(target) for target in parameter.targets] or ["-"]


def _default(parameter: Parameter) -> str:
    if parameter.default is None:
        return "-"
    if isinstance(parameter.default, str) and not isinstance(parameter, Choice | Media):
        return f'"{parameter.default}"'
    return str(parameter.default)


def _limits(parameter: Parameter) -> str:
    match parameter:
        case Number(minimum=least, maximum=most) if least is not None or most is not None:
            return f"{_short(least)} .. {_short(most)}"
        case Choice(choices=tuple(choices)):
            return counted(len(choices), "choice")
        case _:
            return "-"


def _short(limit: int | float | None) -> str:
    if limit is None:
        return ""
    return f"{limit:.2g}" if abs(limit) >= 10**9 else f"{limit:g}"


def _further(parameter: Parameter, room_for_place: int) -> Iterator[str]:
    """What is said of an input below its row, its place too where the row had to cut it."""
    label = "" if parameter.label == parameter.name else parameter.label
    if said := [words for words in (label, parameter.description) if words]:
        yield ": ".join(said)[:400]
    places = _places(parameter)
    if len(places) > 1 or len(places[0]) > room_for_place:
        yield f"fills: {', '.join(places[:_SHOWN_PLACES])}{', ..' * (len(places) > _SHOWN_PLACES)}"
    if parameter.why:
        yield f"why: {parameter.why}"
    if isinstance(parameter, Choice) and parameter.choices:
        names = [str(choice)[:80] for choice in parameter.choices]
        more = ", .." if len(names) > _SHOWN_CHOICES else ""
        yield f"choices: {', '.join(names[:_SHOWN_CHOICES])}{more}"


def _outputs(workflow: Workflow, width: int) -> Iterator[str]:
    nodes = nodes_of(workflow.graph)
    yield ""
    yield "OUTPUT" if workflow.outputs else "No node gives a result that could be saved."
    for node_id in workflow.outputs:
        node = nodes[node_id]
        yield output_line(node.id, node.class_type, node.title, width)


def output_line(node_id: str, class_type: str, title: str, width: int) -> str:
    """A node whose results are saved."""
    titled = f', "{title}"' if title and title != class_type else ""
    return _cut(printable(f"{node_id} ({class_type}{titled})"), width)


def _widths(rows: Sequence[tuple[str, ...]], width: int) -> list[int]:
    """How wide each column is; the last takes what is left, and the third gives way to it."""
    mosts = _MOST[: len(rows[0]) - 1]
    widths = [min(most, max(len(row[column]) for row in rows)) for column, most in enumerate(mosts)]
    left = width - sum(widths) - 2 * len(widths)
    wanted = min(max(len(row[-1]) for row in rows), 24)
    if left < wanted:
        given = min(wanted - left, max(0, widths[2] - 12))
        widths[2] -= given
        left += given
    return [*widths, max(left, 8)]


def _row(cells: tuple[str, ...], widths: Sequence[int]) -> str:
    fitted = (_cut(cell, width).ljust(width) for cell, width in zip(cells, widths, strict=True))
    return "  ".join(fitted).rstrip()


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 2]}.."


def wrapped(text: str, width: int, first: str = "", others: str = "") -> list[str]:
    """A text in lines that fit."""
    return wrap(printable(text), width, initial_indent=first, subsequent_indent=others)


def counted(count: int, noun: str) -> str:
    """So many of something."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
