"""How well workflow files are read: every official template, against what its makers say of it.

``python -m bench.read`` prints each figure with its must, and exits 1 where one is missed. With
``--misses`` it names every template that counts against a figure, and why.

A template counts for prompt and seed when a core sampler runs in it and its makers list a text
among its inputs. Their lists of images and videos name the nodes, which are then looked for
among the targets of the inputs that were found. Marks of authors play no part: what is measured
is the reading of bare graphs with the recorded catalogue of nodes.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from comfyserve.cli.input_table import inspection_lines
from comfyserve.cli.inspect import warnings_of
from comfyserve.cli.target import Known
from comfyserve.errors import ComfyServeError
from comfyserve.workflows.graph import Graph, Node, nodes_of
from comfyserve.workflows.inference import infer
from comfyserve.workflows.node_catalog import NodeCatalog
from comfyserve.workflows.parameters import Parameter
from comfyserve.workflows.ui_format import convert
from comfyserve.workflows.workflow import Workflow
from tests.golden import OBJECT_INFO, golden, running_types, template_files
from tests.workflows.test_golden import differences

CORE_SAMPLERS = frozenset(
    {"KSampler", "KSamplerAdvanced", "SamplerCustom", "SamplerCustomAdvanced"}
)
SLOWEST = 0.5
"""Seconds that the largest template may take."""


@dataclass(frozen=True, slots=True)
class Miss:
    """One thing that counts against a figure, and why."""

    template: str
    why: str


@dataclass(frozen=True, slots=True)
class Figure:
    """A share of *total* things that were read right; *must* is the least share allowed.

    *seconds* and *must_seconds* are for a time instead, and *must_seconds* is the most.
    """

    what: str
    total: int = 0
    misses: tuple[Miss, ...] = ()
    must: float = 1.0
    seconds: float | None = None
    must_seconds: float = 0.0
    note: str = ""

    @property
    def share(self) -> float:
        return 1 - len(self.misses) / self.total if self.total else 0.0

    @property
    def is_missed(self) -> bool:
        if self.seconds is not None:
            return self.seconds > self.must_seconds
        return self.share < self.must

    def cells(self) -> tuple[str, ...]:
        """What stands in its row of the table."""
        verdict = "MISS" if self.is_missed else "pass"
        if self.seconds is not None:
            most = f"{self.must_seconds:g} s"
            return self.what, f"{self.seconds:.3f} s", most, verdict, self.note
        found = f"{self.total - len(self.misses)} of {self.total}"
        return self.what, f"{self.share:.1%}", f"{self.must:.0%}", verdict, self.note or found


@dataclass(frozen=True)
class Template:
    """One official template as it was read; *labels* are its makers' words on it."""

    name: str
    document: Mapping[str, Any]
    graph: Graph
    parameters: tuple[Parameter, ...]
    seconds: float

    @cached_property
    def has_sampler(self) -> bool:
        return bool(running_types(dict(self.document)) & CORE_SAMPLERS)

    @cached_property
    def nodes(self) -> Mapping[str, Node]:
        return nodes_of(self.graph)

    def named(self, name: str) -> Iterator[Parameter]:
        """The parameters of that name, numbered ones too."""
        return (p for p in self.parameters if re.fullmatch(rf"{name}(_\d+)?", p.name))

    def fills(self, kinds: Iterable[str], node_id: str) -> bool:
        """Whether a parameter of one of these kinds fills an input of that node."""
        wanted = frozenset(kinds)
        return any(
            target == node_id or target.endswith(f":{node_id}")
            for parameter in self.parameters
            if parameter.kind in wanted
            for target, _ in parameter.targets
        )


@dataclass(frozen=True, slots=True)
class Labels:
    """What the makers of the templates say: which take a text, and which nodes take files."""

    takes_text: frozenset[str]
    files: Mapping[str, tuple[tuple[str, str], ...]]

    @classmethod
    def read(cls, folder: Path) -> Labels:
        """Read the two indexes that lie beside the templates."""
        texts = {
            template["name"]
            for template in _entries(folder / "index.mcp.json")
            if any(label.startswith("text") for label in _inputs(template))
        }
        files = {
            template["name"]: tuple(
                (label["mediaType"], str(label["nodeId"])) for label in _inputs(template)
            )
            for template in _entries(folder / "index.json")
        }
        return cls(frozenset(texts), files)


def main() -> int:
    """Print every figure; 1 where a must is missed."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m bench.read")
    parser.add_argument("--misses", action="store_true", help="name what counts against a figure")
    asked = parser.parse_args()
    figures = measure()
    _show(figures, Console())
    if asked.misses:
        for figure in figures:
            for miss in figure.misses:
                print(f"{figure.what}: {miss.template}: {miss.why}")
    return 1 if any(figure.is_missed for figure in figures) else 0


def measure() -> list[Figure]:
    """Read every template, and compare."""
    catalog = NodeCatalog.from_json(json.loads(OBJECT_INFO.read_text(encoding="utf-8")))
    files = template_files()
    templates, unread = _read_all(files, catalog)
    labels = Labels.read(next(iter(files.values())).parent)
    with_prompt = [t for t in templates if t.has_sampler and t.name in labels.takes_text]
    return [
        Figure("templates that can be read", len(files), unread),
        _found("prompt", with_prompt, must=0.93),
        _found("seed", with_prompt, must=0.99),
        _files("image", ("image", "mask"), templates, labels, must=0.96),
        _files("video", ("video",), templates, labels, must=0.98),
        _sides(templates),
        *_conversions(catalog),
        _slowest(files, templates, catalog),
    ]


def _read_all(
    files: Mapping[str, Path], catalog: NodeCatalog
) -> tuple[list[Template], tuple[Miss, ...]]:
    read: list[Template] = []
    unread: list[Miss] = []
    for name, file in files.items():
        started = time.perf_counter()
        try:
            document = json.loads(file.read_text(encoding="utf-8"))
            graph = convert(document, catalog, source=name).graph
            parameters = infer(graph, catalog).parameters
        except ComfyServeError as error:
            unread.append(Miss(name, str(error)))
        else:
            seconds = time.perf_counter() - started
            read.append(Template(name, document, graph, parameters, seconds))
    return read, tuple(unread)


def _found(name: str, templates: list[Template], *, must: float) -> Figure:
    misses = (
        Miss(template.name, f"has only {', '.join(p.name for p in template.parameters) or 'none'}")
        for template in templates
        if not any(template.named(name))
    )
    what = f"{name} found (a sampler runs, a text is listed)"
    return Figure(what, len(templates), tuple(misses), must)


def _files(
    media: str, kinds: tuple[str, ...], templates: list[Template], labels: Labels, *, must: float
) -> Figure:
    total, misses = 0, []
    for template in templates:
        for label, node_id in labels.files.get(template.name, ()):
            if label == media:
                total += 1
                if not template.fills(kinds, node_id):
                    misses.append(Miss(template.name, _why_no_file(template, node_id)))
    return Figure(f"{media} inputs found", total, tuple(misses), must)


def _why_no_file(template: Template, node_id: str) -> str:
    found = [n for n in template.nodes.values() if f":{n.id}".endswith(f":{node_id}")]
    if not found:
        return f"node {node_id} is not in the graph that runs"
    return f"{found[0]} with {dict(found[0].literals())} was not taken for one"


def _sides(templates: list[Template]) -> Figure:
    """No prompt on what its author titled Negative, no negative on Positive."""
    total, misses = 0, []
    for template in templates:
        for name, wrong in (("prompt", "negative"), ("negative_prompt", "positive")):
            for parameter in template.named(name):
                for node in _titled(template, parameter):
                    total += 1
                    if re.search(wrong, node.title, re.IGNORECASE) and not _has_both(node):
                        why = f"{parameter.name} fills {node}, titled {node.title!r}"
                        misses.append(Miss(template.name, why))
    what = "prompt and negative on the side that titles say"
    return Figure(what, total, tuple(misses), must=1.0)


def _titled(template: Template, parameter: Parameter) -> list[Node]:
    nodes = (template.nodes[node_id] for node_id, _ in parameter.targets)
    return [n for n in nodes if re.search("positive|negative", n.title, re.IGNORECASE)]


def _has_both(node: Node) -> bool:
    return all(re.search(side, node.title, re.IGNORECASE) for side in ("positive", "negative"))


def _conversions(catalog: NodeCatalog) -> Iterator[Figure]:
    """Conversions against what the real frontend made of the same files."""
    recorded = golden()
    for what, graphs in (("templates", recorded.templates), ("handmade", recorded.handmade)):
        misses = (
            Miss(name, "; ".join(found))
            for name, graph in graphs.items()
            if (found := _told_apart(name, graph, catalog))
        )
        yield Figure(f"{what} converted exactly", len(graphs), tuple(misses))


def _told_apart(name: str, recorded: Graph, catalog: NodeCatalog) -> list[str]:
    try:
        return differences(name, dict(recorded), catalog)
    except ComfyServeError as error:
        return [str(error)]


def _slowest(files: Mapping[str, Path], templates: list[Template], catalog: NodeCatalog) -> Figure:
    """All that ``inspect`` does for the largest file, after the server told of its nodes."""
    largest = max(files.values(), key=lambda file: file.stat().st_size)
    started = time.perf_counter()
    workflow = Workflow.load(largest).described_by(catalog, strict=False)
    warnings = list(warnings_of(workflow, catalog))
    lines = list(inspection_lines(workflow, Known("", catalog), warnings, 80))
    seconds = time.perf_counter() - started
    slowest = max(templates, key=lambda template: template.seconds)
    note = f"{largest.name}, {len(lines)} lines; "
    note += f"the slowest to read, {slowest.name}: {slowest.seconds:.3f} s"
    return Figure(
        "inspect of the largest template", seconds=seconds, must_seconds=SLOWEST, note=note
    )


def _entries(index: Path) -> Iterator[Mapping[str, Any]]:
    for category in json.loads(index.read_text(encoding="utf-8")):
        yield from category["templates"]


def _inputs(template: Mapping[str, Any]) -> list[Any]:
    listed = template.get("io", {}).get("inputs", [])
    return listed if isinstance(listed, list) else []


def _show(figures: list[Figure], console: Console) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("what", overflow="fold")
    for name in ("measured", "must"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("how", overflow="fold", style="dim")
    for figure in figures:
        table.add_row(*figure.cells())
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
