"""Record what the real ComfyUI frontend makes of editor-format graphs; README.md tells how.

Every graph is loaded and exported twice, by two fresh browsers and in opposite orders, and both
must agree: nothing recorded depends on chance, on time, or on the graph loaded before.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import sys
from collections.abc import Iterable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from tests.golden import (
    OBJECT_INFO,
    RECORDED,
    TEMPLATES_PACKAGE,
    TEMPLATES_VERSION,
    Golden,
    Graph,
    golden,
    handmade_files,
    read_graph,
    running_types,
    template_files,
)
from tests.golden.browser import BrowserError, open_page
from tests.golden.frontend import COMFYUI_VERSION, serve_frontend

FRONTEND_PACKAGE = "comfyui-frontend-package"
FRONTEND_VERSION = "1.58.1"

READY = "window.app?.vueAppReady && window.LiteGraph?.registered_node_types?.KSampler"

# With no chance in it, `{red|blue}` in a text becomes its first choice.
EXPORT = """
(async (graph) => {
  if (!(await app.loadGraphData(graph))) throw new Error("the frontend refused this graph")
  const random = Math.random
  Math.random = () => 0
  try {
    return JSON.stringify((await app.graphToPrompt()).output)
  } finally {
    Math.random = random
  }
})(%s)
"""


def main() -> None:
    """Record all graphs, or with --check compare them with what was recorded before."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tests.golden.record")
    parser.add_argument("--browser", metavar="PROGRAM", help="a Chromium that is not on the PATH")
    parser.add_argument("--check", action="store_true", help="write nothing; compare only")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="print these graphs only")
    wanted = parser.parse_args()
    _require(FRONTEND_PACKAGE, FRONTEND_VERSION)
    _require(TEMPLATES_PACKAGE, TEMPLATES_VERSION)
    if wanted.only:
        print(json.dumps(asyncio.run(_export(_chosen(wanted.only), wanted.browser)), indent=2))
        return
    recorded = asyncio.run(_record(wanted.browser))
    if wanted.check:
        sys.exit(0 if recorded == golden() else "What the frontend exports now differs.")
    packed = _pack(recorded)
    RECORDED.write_bytes(packed)
    print(
        f"{len(recorded.templates)} templates and {len(recorded.handmade)} handmade graphs, "
        f"{len(packed)} bytes"
    )


def _require(package: str, pinned: str) -> None:
    if version(package) != pinned:
        sys.exit(f"{package} {version(package)} is installed; install {pinned}.")


def _chosen(names: Iterable[str]) -> dict[str, Graph]:
    files = template_files() | handmade_files()
    return _read({name: files[name] for name in names})


async def _record(browser: str | None) -> Golden:
    virtual = await _virtual_types(browser)
    known = set(virtual) | set(json.loads(OBJECT_INFO.read_text(encoding="utf-8")))
    templates = {
        name: graph
        for name, graph in _read(template_files()).items()
        if running_types(graph) <= known
    }
    handmade = _read(handmade_files())
    graphs = {**handmade, **templates}
    first = await _export(graphs, browser)
    second = await _export(dict(reversed(graphs.items())), browser)
    if unsteady := [name for name in graphs if first[name] != second[name]]:
        sys.exit(f"Two recordings differ in: {', '.join(unsteady)}.")
    return Golden(
        frontend_version=FRONTEND_VERSION,
        templates_version=TEMPLATES_VERSION,
        comfyui_version=COMFYUI_VERSION,
        virtual_types=virtual,
        templates={name: first[name] for name in templates},
        handmade={name: first[name] for name in handmade},
    )


async def _virtual_types(browser: str | None) -> tuple[str, ...]:
    async with serve_frontend() as url, open_page(url, browser) as page:
        await page.wait_for(READY)
        registered = await page.evaluate("Object.keys(LiteGraph.registered_node_types)")
    return tuple(sorted(set(registered) - set(json.loads(OBJECT_INFO.read_text("utf-8")))))


async def _export(graphs: dict[str, Graph], browser: str | None) -> dict[str, Graph]:
    """The API graph of every editor graph; what the frontend warns of goes to standard error."""
    exported = {}
    async with serve_frontend() as url, open_page(url, browser) as page:
        await page.wait_for(READY)
        for name, graph in graphs.items():
            page.console.clear()
            try:
                exported[name] = json.loads(await page.evaluate(EXPORT % json.dumps(graph)))
            except BrowserError as refused:
                sys.exit(f"{name}: {refused}")
            for line in page.console:
                told, _, _ = line.partition("\n")
                print(f"{name}: {told[:300]}", file=sys.stderr)
    return exported


def _read(files: dict[str, Path]) -> dict[str, Graph]:
    return {name: read_graph(file) for name, file in files.items()}


def _pack(recorded: Golden) -> bytes:
    """The same recording is the same bytes: no time, no chance in the order of names."""
    text = json.dumps(asdict(recorded), ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return gzip.compress(text.encode(), compresslevel=9, mtime=0)


if __name__ == "__main__":
    main()
