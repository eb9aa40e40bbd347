"""Inputs marked in ComfyUI's editor: picked for its App mode, or put outside on a subgraph."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from urllib.parse import unquote

from comfyserve.workflows.editor_places import (
    Editor,
    identity,
    items,
    mapping,
    own_label,
    proxies,
    text,
)
from comfyserve.workflows.graph import Address, shown
from comfyserve.workflows.mark import MOST_MARKS, Mark, Reading, plain


def read_app_mode(editor: Editor) -> Reading:
    """What the author picked for App mode; entries whose node has gone are dropped."""
    data = mapping(mapping(editor.document.get("extra")).get("linearData"))
    marks: list[Mark] = []
    warnings: list[str] = []
    for entry in items(data.get("inputs"))[:MOST_MARKS]:
        picked = _picked(entry)
        if picked is None:
            warnings.append(f"App mode lists {shown(entry)}, which names no input.")
            continue
        graph_id, node_id, name = picked
        if targets := _targets(editor, graph_id, node_id, name):
            marks.append(_app_mark(editor, node_id, name, targets, entry))
        else:
            place = f"{plain(name)} of node {plain(node_id)}"
            warnings.append(f"App mode lists {place}, but nothing there can be set.")
    results = (identity(result) for result in items(data.get("outputs"))[:MOST_MARKS])
    outputs = (result for result in results if editor.subject.gives_output(result))
    return Reading(
        "app_mode", tuple(marks), tuple(dict.fromkeys(outputs)), warnings=tuple(warnings)
    )


def read_subgraphs(editor: Editor) -> Reading:
    """What the subgraphs of the workflow show on their outside."""
    marks = (mark for mark in islice(_subgraph_marks(editor), MOST_MARKS) if mark.targets)
    return Reading("subgraph", tuple(marks))


def _picked(entry: object) -> tuple[str, str, str] | None:
    """Graph id, node id and widget of an entry; newer editors join the three, URI-encoded."""
    if not isinstance(entry, list) or len(entry) < 2:
        return None
    node_id, name = identity(entry[0]), text(entry[1])
    parts = node_id.split(":", 2)
    if len(parts) == 3 and "-" in parts[0]:
        graph_id, node_id, widget = (unquote(part) for part in parts)
        return (graph_id, node_id, widget or name) if node_id and (widget or name) else None
    return ("", node_id, name) if node_id and name else None


def _targets(editor: Editor, graph_id: str, node_id: str, name: str) -> tuple[Address, ...]:
    if graph_id in editor.subgraphs:
        return editor.filled_inside(node_id, name, graph_id)
    # Older editors wrote down the inner node although its subgraph shows the widget.
    return editor.filled_by(node_id, name) or editor.filled_inside(node_id, name)


def _app_mark(
    editor: Editor, node_id: str, name: str, targets: tuple[Address, ...], entry: object
) -> Mark:
    options = mapping(entry[2]) if isinstance(entry, list) and len(entry) > 2 else {}
    label = text(options.get("label")).strip() or editor.label(node_id, name)
    return Mark(
        targets,
        "picked in App mode",
        name=label,
        fallback=_fallback(editor, name, targets),
        label=label,
        description=text(options.get("description")).strip(),
        advanced=False,
    )


def _fallback(editor: Editor, name: str, targets: tuple[Address, ...]) -> str:
    """A word for an input without a label: its widget, or what the node is called."""
    word = name.rpartition(".")[2]
    titles = (editor.subject.own_title(node_id) for node_id, _ in targets)
    is_vague = re.sub(r"_[0-9]+$", "", word) in _VAGUE
    return next(filter(None, titles), word) if is_vague else word


_VAGUE = ("value", "string", "text", "int", "float", "boolean", "choice", "index")


def _subgraph_marks(editor: Editor) -> Iterator[Mark]:
    for host_id, host, definition in editor.hosts():
        title = editor.title(host_id) or text(definition.get("name")) or host_id
        where = f"of the subgraph {plain(title)} (node {plain(host_id)})"
        for port in items(definition.get("inputs")):
            name = text(mapping(port).get("name"))
            label = own_label(mapping(port), name)
            targets = editor.filled_by_port(host_id, name)
            # Editors name an input after its widget; only a label is the author's own word.
            yield Mark(
                targets,
                f"input {plain(label or name)} {where}",
                name=label,
                fallback=_fallback(editor, name, targets),
                label=label,
            )
        for inner, name in proxies(host):
            if inner != "-1":
                targets = editor.filled_inside_of(host_id, inner, name)
                why = f"{plain(name)} shown on the outside {where}"
                yield Mark(targets, why, fallback=_fallback(editor, name, targets))
