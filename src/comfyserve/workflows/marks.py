"""What the author of a workflow marked as its inputs and outputs.

People mark them in many ways. The first of these that marks any input decides which inputs there
are: a sidecar, the editor's App mode, the outside of subgraphs, titles of nodes, the nodes of
ComfyUI-Deploy, those of comfy-pack. What stands lower only fills in what was left out for the
same places, and so does inference; where nobody marked anything, inference decides.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from comfyserve.workflows.declaration import declared_at
from comfyserve.workflows.editor_marks import read_app_mode, read_subgraphs
from comfyserve.workflows.editor_places import Editor, Held, NewIds
from comfyserve.workflows.graph import Address, Graph, nodes_of, with_inputs
from comfyserve.workflows.inference import Inferred
from comfyserve.workflows.mark import MOST_TARGETS, Mark, Reading, Subject, public_name
from comfyserve.workflows.marker_nodes import read_deploy_nodes, read_pack_nodes
from comfyserve.workflows.node_catalog import NodeCatalog
from comfyserve.workflows.parameter_kinds import as_kind
from comfyserve.workflows.parameters import Choice, Mask, Media, Number, Parameter, Seed
from comfyserve.workflows.sidecar import Sidecar
from comfyserve.workflows.sidecar_marks import read_sidecar_marks
from comfyserve.workflows.title_marks import read_title_marks


@dataclass(frozen=True, slots=True)
class Marked:
    """The inputs and outputs of a workflow as they should be offered.

    *convention* says who decided: ``sidecar, app_mode, subgraph, titles, comfyui_deploy,
    comfy_pack`` or ``inference``. *graph* is the graph with the defaults that the sidecar asks
    for. *seeds* are those that inference found and the author did not mark: nobody may set them,
    but they are still drawn afresh for each run. *warnings* are whole sentences.
    """

    parameters: tuple[Parameter, ...]
    outputs: tuple[str, ...]
    title: str = ""
    description: str = ""
    convention: str = "inference"
    warnings: tuple[str, ...] = ()
    seeds: tuple[Seed, ...] = ()
    graph: Graph = field(default_factory=dict, repr=False)


def read_marks(
    graph: Graph,
    *,
    inferred: Inferred,
    catalog: NodeCatalog | None = None,
    sidecar: Sidecar | None = None,
    editor: Mapping[str, Any] | None = None,
    held: Held | None = None,
    new_ids: NewIds | None = None,
    certain: bool = True,
) -> Marked:
    """Read every mark there is in and beside a checked *graph*.

    *editor* is the document in the editor's save format that the graph was made from, or that a
    picture carries beside it; *held* and *new_ids* come from its conversion. A graph is not
    *certain* when names in it had to be guessed, for want of a catalogue: then what is missing
    in it is a warning. Else a sidecar that does not fit the graph raises `WorkflowUnreadable`;
    no other mark can be wrong enough to stop a workflow.
    """
    subject = Subject(nodes_of(graph), inferred, catalog)
    places = None if editor is None else Editor(editor, subject, held or {}, new_ids or {})
    readings = [
        *((read_app_mode(places), read_subgraphs(places)) if places else ()),
        read_title_marks(subject, places),
        read_deploy_nodes(subject),
        read_pack_nodes(subject),
    ]
    if sidecar is not None:
        known = (*_Assembly(subject, readings).parameters(), *inferred.parameters)
        first_known = {parameter.name: parameter for parameter in reversed(known)}
        reading = read_sidecar_marks(sidecar, subject, first_known.values(), certain=certain)
        readings.insert(0, reading)
    assembly = _Assembly(subject, readings)
    parameters = assembly.parameters()
    if sidecar is not None and assembly.convention == "sidecar":
        _check_sidecar(sidecar, parameters)
    return Marked(
        parameters,
        next((reading.outputs for reading in readings if reading.outputs), inferred.outputs),
        next((reading.title for reading in readings if reading.title), ""),
        next((reading.description for reading in readings if reading.description), ""),
        assembly.convention,
        tuple(assembly.warnings(readings)),
        tuple(_unmarked_seeds(subject, parameters)),
        with_inputs(graph, dict(assembly.defaults())),
    )


class _Assembly:
    """Turns what the conventions say into parameters."""

    def __init__(self, subject: Subject, readings: list[Reading]) -> None:
        self.subject = subject
        readings = [replace(reading, marks=tuple(_few(reading.marks))) for reading in readings]
        deciding = next((reading for reading in readings if reading.marks), None)
        self.convention = deciding.convention if deciding else "inference"
        self.marks = _joined(deciding, subject) if deciding else ()
        lower = readings[readings.index(deciding) + 1 :] if deciding else []
        self.lower: dict[Address, list[Mark]] = {}
        for mark in (mark for reading in lower for mark in reading.marks):
            for target in mark.targets:
                self.lower.setdefault(target, []).append(mark)

    def parameters(self) -> tuple[Parameter, ...]:
        """Each marked input; in no convention but subgraphs' does inference add to them."""
        if self.convention == "inference":
            return self.subject.inferred.parameters
        made: list[Parameter] = []
        names: set[str] = set()
        taken: set[Address] = set()
        for mark in self.marks:
            is_mask = mark.kind == "mask"
            targets = tuple(t for t in mark.targets if is_mask or t not in taken)
            if targets:
                parameter = self._parameter(replace(mark, targets=targets), names)
                names.add(parameter.name)
                made.append(parameter)
                taken.update(() if is_mask else targets)
        if self.convention == "subgraph":
            made.extend(self._outside(taken, names))
        return tuple(made)

    def defaults(self) -> Iterator[tuple[Address, object]]:
        """What the graph should hold instead of what it does."""
        for mark in self.marks:
            if mark.default is not None:
                yield from ((target, mark.default) for target in mark.targets)

    def warnings(self, readings: Iterable[Reading]) -> Iterator[str]:
        """What the author should know of the marks."""
        yield from (warning for reading in readings for warning in reading.warnings)
        if self.convention != "inference":
            yield from _misfits(self.parameters())

    def _parameter(self, mark: Mark, names: set[str]) -> Parameter:
        lower = self._lower(mark)
        parts = [self._unmarked(target, mark) for target in mark.targets]
        base, said = parts[0], (mark, *lower)
        own_name = next((words.name for words in said if words.name), "")
        found = _plain_name(base.name) if self._is_inferred(base) else ""
        name = public_name(own_name) or found or public_name(mark.fallback) or "input"
        label = next((words.label for words in said if words.label), "")
        description = next((words.description for words in said if words.description), "")
        kind = mark.kind or ("choice" if mark.choices else _likelier(base, mark.likely))
        parameter = replace(
            as_kind(base, kind),
            name=_free(name, names),
            targets=mark.targets,
            label=label or (own_name if own_name not in ("", public_name(own_name)) else ""),
            description=description or base.description,
            default=self._default(mark, base),
            advanced=self._is_advanced(mark, base),
            why=_why(mark),
        )
        if isinstance(parameter, Mask):
            return replace(parameter, mask_of=self._mask_of(mark, base))
        if isinstance(parameter, Number):
            return _limited(parameter, parts, said)
        return _chosen(parameter, said) if isinstance(parameter, Choice) else parameter

    def _lower(self, mark: Mark) -> list[Mark]:
        """What stands lower on the same places; a mask and its image are not the same."""
        is_mask = mark.kind == "mask"
        found = (m for target in mark.targets for m in self.lower.get(target, ()))
        return [*dict.fromkeys(m for m in found if ("mask" in (m.kind, m.likely)) == is_mask)]

    def _unmarked(self, target: Address, mark: Mark) -> Parameter:
        """The parameter there would be without a mark."""
        found = self.subject.found_at(target)
        if found:
            alike = (p for p in found if isinstance(p, Mask) == (mark.kind == "mask"))
            return next(alike, found[0])
        node = self.subject.nodes[target[0]]
        return declared_at(target, self.subject.value(target), node, self.subject.catalog)

    def _is_inferred(self, parameter: Parameter) -> bool:
        return any(parameter is known for known in self.subject.inferred.parameters)

    def _default(self, mark: Mark, base: Parameter) -> Any:
        if mark.default is not None:
            return mark.default
        if base.targets == mark.targets or (isinstance(base, Mask) and base.mask_of):
            return base.default
        values = [self.subject.value(target) for target in mark.targets]
        return next((value for value in values if value), values[0])

    def _is_advanced(self, mark: Mark, base: Parameter) -> bool:
        if mark.advanced is not None or mark.name:
            return bool(mark.advanced)
        if self._is_inferred(base):
            return base.advanced
        # A subgraph shows its files of models too.
        return self.convention == "subgraph" and bool(_FILE.search(mark.fallback))

    def _mask_of(self, mark: Mark, base: Parameter) -> Address | None:
        if isinstance(base, Mask):
            return base.mask_of
        target = mark.targets[0]
        is_own_file = self.subject.nodes[target[0]].class_type == "LoadImageMask"
        return target if isinstance(base, Media) and not is_own_file else None

    def _outside(self, taken: set[Address], names: set[str]) -> Iterator[Parameter]:
        """What inference found outside of the subgraphs, and the seeds that they do not show."""
        for parameter in self.subject.inferred.parameters:
            is_seed = isinstance(parameter, Seed)
            is_overlay = isinstance(parameter, Mask) and parameter.mask_of is not None
            targets = tuple(
                target
                for target in parameter.targets
                if (is_overlay or target not in taken) and (is_seed or ":" not in target[0])
            )
            if targets:
                hidden = is_seed and all(":" in node_id for node_id, _ in targets)
                name = _free(_plain_name(parameter.name), names)
                names.add(name)
                folded = parameter.advanced or hidden
                yield replace(parameter, name=name, targets=targets, advanced=folded)


def _few(marks: Iterable[Mark]) -> Iterator[Mark]:
    """The marks as far as they fill no more places than anybody could mean."""
    count = 0
    for mark in marks:
        count += len(mark.targets)
        if count > MOST_TARGETS:
            return
        yield mark


def _joined(reading: Reading, subject: Subject) -> tuple[Mark, ...]:
    """The marks of a reading; of subgraphs used side by side, what was one value stays one."""
    if reading.convention != "subgraph":
        return reading.marks
    shown = {target for mark in reading.marks for target in mark.targets}
    joined: dict[object, Mark] = {}
    for number, mark in enumerate(reading.marks):
        found = next(iter(subject.found_at(mark.targets[0])), None)
        key: object = (found.name, mark.name) if found else number
        known = joined.get(key)
        targets = [*(known.targets if known else ()), *mark.targets]
        if isinstance(found, Seed):
            # One seed makes a run repeatable only if those that are not shown follow it.
            targets.extend(target for target in found.targets if target not in shown)
        joined[key] = replace(known or mark, targets=tuple(dict.fromkeys(targets)))
    return tuple(joined.values())


_FILE = re.compile(r"(_name[0-9]*|_encoder|vae|model)$")


def _why(mark: Mark) -> str:
    count = len(mark.targets)
    return mark.why + (f"; fills {count} places" if count > 1 else "")


def _plain_name(name: str) -> str:
    """The name of the first of its kind: ``prompt`` for ``prompt_2``."""
    stem = name.rstrip("0123456789")
    return stem[:-1] if stem != name and stem.endswith("_") else name


def _free(name: str, names: set[str]) -> str:
    number, free = 1, name
    while free in names:
        number += 1
        free = f"{name}_{number}"
    return free


def _likelier(base: Parameter, likely: str) -> str:
    """What an input is: as the graph has it, unless the mark tells more."""
    says_little = base.kind in ("any", "text", "number")
    becomes_seed = base.kind == "integer" and likely == "seed"
    if base.kind == "number" and likely not in ("integer", "seed"):
        return base.kind
    return likely if likely and (says_little or becomes_seed) else base.kind


def _limited(parameter: Number, parts: Iterable[Parameter], said: Iterable[Mark]) -> Number:
    """The narrowest of the author's limits and the nodes'; the author's if they leave nothing."""
    known = [part for part in parts if isinstance(part, Number)]
    low, high = _own_limits(said)
    lows = [value for value in (low, *(p.minimum for p in known)) if value is not None]
    highs = [value for value in (high, *(p.maximum for p in known)) if value is not None]
    least, most = max(lows, default=parameter.minimum), min(highs, default=parameter.maximum)
    if least is not None and most is not None and least > most:
        least, most = low, high
    return replace(parameter, minimum=least, maximum=most)


def _own_limits(said: Iterable[Mark]) -> tuple[int | float | None, int | float | None]:
    """Each limit from the first mark that gives it, unless an earlier mark's other forbids it."""
    low: int | float | None = None
    high: int | float | None = None
    for mark in said:
        least = mark.minimum if low is None else low
        most = mark.maximum if high is None else high
        if least is None or most is None or least <= most:
            low, high = least, most
    return low, high


def _chosen(parameter: Choice, said: Iterable[Mark]) -> Choice:
    """The author's choices, without those that the server lacks."""
    own = next((mark.choices for mark in said if mark.choices), None)
    if own is None:
        return parameter
    there = parameter.choices
    kept = own if there is None else tuple(choice for choice in own if choice in there)
    return replace(parameter, choices=kept or own)


def _check_sidecar(sidecar: Sidecar, parameters: Iterable[Parameter]) -> None:
    by_name = {parameter.name: parameter for parameter in parameters}
    problems: list[tuple[str, str]] = []
    for made in sidecar.inputs:
        parameter = by_name.get(made.name)
        if parameter is None:
            continue
        key = f"inputs.{made.name}"
        if not isinstance(parameter, Number):
            limits = (("min", made.minimum), ("max", made.maximum))
            wrong = (name for name, value in limits if value is not None)
            why = f"belongs to numbers, but this input is of the type {parameter.kind!r}"
            problems.extend((f"{key}.{name}", why) for name in wrong)
        if made.default is not None and (why := _misfit(parameter, made.default, made.choices)):
            problems.append((f"{key}.default", f"does not fit: {why}"))
    if problems:
        raise sidecar.refusal(problems)


def _misfit(
    parameter: Parameter, value: object, choices: tuple[str | int | float, ...] | None
) -> str:
    """Why *value* does not fit; what a server lacks is told when the workflow is run."""
    fitting = replace(parameter, choices=choices) if isinstance(parameter, Choice) else parameter
    try:
        fitting.check(value)
    except ValueError as error:
        return str(error).rstrip(".")
    return ""


def _misfits(parameters: Iterable[Parameter]) -> Iterator[str]:
    """What the graph holds against its author's own limits."""
    for parameter in parameters:
        if not isinstance(parameter, Number) or isinstance(parameter, Seed):
            continue
        held = parameter.default
        is_number = isinstance(held, int | float) and not isinstance(held, bool)
        if is_number and (why := _misfit(parameter, held, None)):
            yield f"The workflow's own value does not fit: {why}."


def _unmarked_seeds(subject: Subject, parameters: Iterable[Parameter]) -> Iterator[Seed]:
    marked = {target for parameter in parameters for target in parameter.targets}
    for parameter in subject.inferred.parameters:
        if isinstance(parameter, Seed):
            targets = tuple(target for target in parameter.targets if target not in marked)
            if targets:
                yield replace(parameter, targets=targets)
