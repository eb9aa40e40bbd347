"""What the real ComfyUI frontend makes of editor-format graphs; README.md here tells how."""

from __future__ import annotations

import functools
import gzip
import importlib.resources
import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

TEMPLATES_PACKAGE = "comfyui-workflow-templates-json"
TEMPLATES_VERSION = "0.1.123"

FOLDER = Path(__file__).parent
HANDMADE = FOLDER / "handmade"
RECORDED = FOLDER / "api_graphs.json.gz"
OBJECT_INFO = FOLDER.parent / "traces" / "recordings" / "object_info.json"

MUTED, BYPASSED = 2, 4

# An editor graph or an API graph, as JSON has it.
Graph: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Golden:
    """The recorded API graphs, by the name of the editor graph (its file name without `.json`).

    `templates` are official ones, `handmade` ours; `virtual_types` are the node types that the
    frontend knows by itself and that no server runs.
    """

    frontend_version: str
    templates_version: str
    comfyui_version: str
    virtual_types: tuple[str, ...]
    templates: dict[str, Graph]
    handmade: dict[str, Graph]


@functools.cache
def golden() -> Golden:
    """Everything recorded."""
    told = json.loads(gzip.decompress(RECORDED.read_bytes()))
    return Golden(**{**told, "virtual_types": tuple(told["virtual_types"])})


@functools.cache
def template_files() -> dict[str, Path]:
    """Every official template by its name; LookupError when another version is installed."""
    installed = version(TEMPLATES_PACKAGE)
    if installed != TEMPLATES_VERSION:
        raise LookupError(
            f"{TEMPLATES_PACKAGE} {installed} is installed; "
            f"the fixtures were recorded with {TEMPLATES_VERSION}."
        )
    folder = importlib.resources.files("comfyui_workflow_templates_json") / "templates"
    with importlib.resources.as_file(folder) as path:
        files = sorted(path.glob("*.json"))
    return {file.stem: file for file in files if _is_graph(read_graph(file))}


def handmade_files() -> dict[str, Path]:
    """Every editor graph written for what the templates do not show, by its name."""
    return {file.stem: file for file in sorted(HANDMADE.glob("*.json"))}


def read_graph(file: Path) -> Any:
    """The JSON of a file; the package also holds lists and indexes that are no graphs."""
    return json.loads(file.read_text(encoding="utf-8"))


def running_types(graph: Graph) -> set[str]:
    """The node types that would run, subgraphs opened: what is muted or bypassed does not."""
    definitions = {
        one["id"]: one for one in (graph.get("definitions") or {}).get("subgraphs") or ()
    }
    types: set[str] = set()
    for node in graph["nodes"]:
        if node.get("mode") in (MUTED, BYPASSED):
            continue
        if definition := definitions.get(node["type"]):
            types |= running_types({**definition, "definitions": graph["definitions"]})
        else:
            types.add(node["type"])
    return types


def _is_graph(document: Any) -> bool:
    return isinstance(document, dict) and isinstance(document.get("nodes"), list)
