"""Inputs marked in the titles of nodes, as Pixelle and ComfyKit read them.

``$name.field!:description`` marks an input, ``$name`` one whose field is plain to see, ``$~name``
a file to upload; several stand with commas between them. ``$output.name`` marks a result, and the
text of a node titled ``MCP`` says what the workflow does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice

from comfyserve.workflows.editor_places import Editor, items
from comfyserve.workflows.graph import Address
from comfyserve.workflows.mark import MOST_MARKS, Mark, Reading, Subject, plain


def read_title_marks(subject: Subject, editor: Editor | None = None) -> Reading:
    """What the titles say, those of nodes that live in the editor only included."""
    marks: dict[str, Mark] = {}
    outputs: list[str] = []
    warnings: list[str] = []
    for node_id, said, places in islice(_all_said(subject, editor), MOST_MARKS):
        if said is None:
            where = f"node {plain(node_id)}"
            warnings.append(f"The title of {where} is no mark like $name.field; it is passed over.")
        elif said.is_output:
            outputs.append(node_id)
        else:
            targets = _targets(subject, node_id, said, places)
            _take(marks, said, targets, f"node {plain(node_id)}", warnings)
    kept = [node_id for node_id in outputs if subject.gives_output(node_id)]
    warnings.extend(
        f"The title of node {plain(node_id)} marks it as an output, but it saves nothing."
        for node_id in outputs
        if node_id not in kept
    )
    return Reading(
        "titles",
        tuple(marks.values()),
        tuple(dict.fromkeys(kept)),
        description=_description(subject, editor),
        warnings=tuple(warnings),
    )


@dataclass(frozen=True, slots=True)
class _Said:
    """One mark in a title."""

    name: str
    field: str
    is_upload: bool
    description: str

    @property
    def is_output(self) -> bool:
        return self.name == "output" and bool(self.field)


_MOST_TITLE = 4000
_ONE = re.compile(r"\$(~?)([^\W\d]\w*)(?:\.(~?)(\w[\w.\-]*))?(!?)\s*(?::(.*))?", re.DOTALL)


def _said(title: str) -> Iterator[_Said | None]:
    """The marks in a title; None for a part that begins like one and is none."""
    title = title.strip()[:_MOST_TITLE]
    if not re.match(r"\$~?[^\W\d]", title):
        return
    for part in re.split(r",\s*(?=\$)", title):
        match = _ONE.fullmatch(part.strip())
        if match is None:
            yield None
            continue
        upload, name, upload_field, field, _, description = match.groups()
        yield _Said(
            name,
            (field or "").strip(),
            bool(upload or upload_field),
            (description or "").strip(),
        )


Places = Mapping[str, tuple[Address, ...]]


def _all_said(
    subject: Subject, editor: Editor | None
) -> Iterator[tuple[str, _Said | None, Places | None]]:
    """Every mark with the id of its node; what its inputs fill, if the node itself never runs."""
    for node in subject.nodes.values():
        title = node.title or (editor.title(node.id) if editor else "")
        for said in _said(title):
            yield node.id, said, None
    for node_id, title, places in editor.titled_elsewhere() if editor else ():
        for said in _said(title):
            yield node_id, said, places


def _targets(
    subject: Subject, node_id: str, said: _Said, places: Places | None
) -> tuple[Address, ...]:
    if places is not None:
        alone = next(iter(places.values())) if len(places) == 1 and not said.field else ()
        return places.get(said.field or said.name) or alone
    address: Address | None = (node_id, said.field or said.name)
    if address and not said.field and not subject.settable(address):
        address = subject.main_input(node_id)
    return (address,) if address and subject.settable(address) else ()


def _take(
    marks: dict[str, Mark],
    said: _Said,
    targets: tuple[Address, ...],
    where: str,
    warnings: list[str],
) -> None:
    mark = f"${said.name}" + (f".{said.field}" if said.field else "")
    if not targets:
        warnings.append(f"The title mark {plain(mark)} on {where} names no input that can be set.")
        return
    known = marks.get(said.name)
    if known is not None:
        # The same name on several nodes is one input that fills them all.
        merged = tuple(dict.fromkeys((*known.targets, *targets)))
        words = known.description or said.description
        marks[said.name] = replace(known, targets=merged, description=words)
    elif len(marks) < MOST_MARKS:
        marks[said.name] = Mark(
            targets,
            f"title mark {plain(mark)} on {where}",
            name=said.name,
            description=said.description,
            likely=_upload_kind(f"{said.field} {said.name}") if said.is_upload else "",
        )


def _upload_kind(words: str) -> str:
    return next((kind for kind in ("video", "audio", "mask") if kind in words.lower()), "image")


def _description(subject: Subject, editor: Editor | None) -> str:
    for node in subject.nodes.values():
        if node.title.strip() == "MCP":
            return _first_text(node.inputs.get(name) for name in ("value", "text", "string"))
    for node_id, title, _ in editor.titled_elsewhere() if editor else ():
        if title == "MCP" and editor:
            values = editor.nodes[node_id].get("widgets_values")
            return _first_text(values.values() if isinstance(values, Mapping) else items(values))
    return ""


def _first_text(values: Iterable[object]) -> str:
    texts = (value.strip() for value in values if isinstance(value, str))
    return next((words for words in texts if words), "")
