"""What a sidecar says of a graph, looked up in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from comfyserve.errors import did_you_mean, nearest
from comfyserve.workflows.graph import Address, shown
from comfyserve.workflows.mark import Mark, Reading, Subject, plain, written
from comfyserve.workflows.parameters import Parameter
from comfyserve.workflows.sidecar import Sidecar, SidecarInput


def read_sidecar_marks(
    sidecar: Sidecar, subject: Subject, known: Iterable[Parameter], *, certain: bool = True
) -> Reading:
    """What the sidecar marks.

    *known* are the inputs that the workflow has without it: by their names the sidecar may say
    more of them. Raises `WorkflowUnreadable` for what is not in the graph; if the graph is not
    *certain* those are warnings.
    """
    lookup = _Lookup(subject, {parameter.name: parameter for parameter in known})
    marks = [lookup.mark(made, sidecar.source) for made in sidecar.inputs]
    for node_id in sidecar.outputs:
        lookup.check_output(node_id)
    if lookup.problems and certain:
        raise sidecar.refusal(lookup.problems)
    return Reading(
        "sidecar",
        tuple(mark for mark in marks if mark.targets),
        tuple(node_id for node_id in sidecar.outputs if subject.gives_output(node_id)),
        title=sidecar.title,
        description=sidecar.description,
        warnings=tuple(f"{sidecar.source}: {key} {why}." for key, why in lookup.problems),
    )


class _Lookup:
    """Finds in one graph what a sidecar names; what is not there is noted."""

    def __init__(self, subject: Subject, known: dict[str, Parameter]) -> None:
        self.subject = subject
        self.known = known
        self.owners: dict[Address, str] = {}
        self.problems: list[tuple[str, str]] = []

    def mark(self, made: SidecarInput, source: str) -> Mark:
        targets = tuple(self._targets(made))
        known = self.known.get(made.name)
        if not made.targets and known is not None:
            targets = known.targets
        if not targets and not made.targets:
            self._note(made, None, self._nameless(made.name))
        if made.type != "mask" and not (known and known.kind == "mask" and not made.type):
            self._claim(made, targets)
        return Mark(
            targets,
            f"marked in the sidecar {source}",
            name=made.name,
            label=made.label,
            description=made.description,
            kind=made.type or ("mask" if known and known.kind == "mask" else ""),
            default=made.default,
            minimum=made.minimum,
            maximum=made.maximum,
            choices=made.choices,
            advanced=made.advanced,
        )

    def check_output(self, node_id: str) -> None:
        if node_id not in self.subject.nodes:
            near = did_you_mean(node_id[:60], self.subject.nodes).rstrip(".")
            self.problems.append(("outputs", f"names node {shown(node_id)}, which is not in {_IT}"))
            self._add_hint(near)
        elif not self.subject.gives_output(node_id):
            why = f"names {self.subject.nodes[node_id]}, which saves nothing"
            self.problems.append(("outputs", why))

    def _targets(self, made: SidecarInput) -> Iterator[Address]:
        for target in made.targets:
            address = self._address(target)
            if self.subject.settable(address):
                yield address
            else:
                self._note(made, "targets", self._missing(target, address))

    def _address(self, target: str) -> Address:
        """Node id and input name; both may have dots of their own."""
        ends = (index for index, character in enumerate(target) if character == ".")
        for end in islice(ends, 20):
            if target[:end] in self.subject.nodes:
                return target[:end], target[end + 1 :]
        node_id, _, name = target.partition(".")
        return node_id, name

    def _missing(self, target: str, address: Address) -> str:
        node_id, name = address
        node = self.subject.nodes.get(node_id)
        if node is None:
            named = [known for known in self._addresses() if known[1] == name]
            words = [written(known) for known in named[:500]]
            close = nearest(target[:60], words, 2) or words[:2]
            return f"names {shown(target)}, but there is no node {plain(node_id)}{_or(close)}"
        if link := node.link(name):
            behind = self.subject.behind(address)
            instead = f"; set {written(behind)} instead" if behind else ""
            return f"names {shown(target)}, which is linked to node {link.node_id}{instead}"
        names = [written((node_id, literal)) for literal, _ in node.literals()]
        close = nearest(target[:60], names, 2) or names[:2]
        return f"names {shown(target)}, but {node} has no input {plain(name)}{_or(close)}"

    def _nameless(self, name: str) -> str:
        hint = did_you_mean(name[:60], self.known).rstrip(".")
        return f"has no targets, and the workflow has no input of that name.{hint}".rstrip(".")

    def _claim(self, made: SidecarInput, targets: Iterable[Address]) -> None:
        for target in targets:
            other = self.owners.setdefault(target, made.name)
            if other != made.name:
                why = f"names {written(target)}, which inputs.{other} fills already"
                self._note(made, "targets" if made.targets else None, why)

    def _addresses(self) -> list[Address]:
        nodes = self.subject.nodes.values()
        return [(node.id, name) for node in nodes for name, _ in node.literals()]

    def _note(self, made: SidecarInput, key: str | None, why: str) -> None:
        self.problems.append((f"inputs.{made.name}" + (f".{key}" if key else ""), why))

    def _add_hint(self, hint: str) -> None:
        key, why = self.problems.pop()
        self.problems.append((key, f"{why}.{hint}" if hint else why))


_IT = "the workflow"


def _or(words: list[str]) -> str:
    return f". Did you mean {' or '.join(map(repr, words))}?" if words else ""
