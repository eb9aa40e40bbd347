"""Setting inputs in a graph: each value checked, each seed drawn, each problem told at once."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice

from comfyserve.assets import InputFile, Upload
from comfyserve.errors import InputProblem, InvalidInputs, did_you_mean, nearest
from comfyserve.workflows.declaration import declared_at
from comfyserve.workflows.graph import Address, Graph, Link, Node, nodes_of, shown, with_inputs
from comfyserve.workflows.node_catalog import NodeCatalog
from comfyserve.workflows.parameters import Choice, Mask, Media, Parameter, Seed, Written


@dataclass(frozen=True, slots=True)
class Bound:
    """A graph ready to run.

    *files* have to be on the server first: masks that are laid over an image come after it.
    *inputs* are the values set, by the names they were given under, with every seed drawn.
    *seeds* are all seeds used, by address (``{"3.seed": 7}``).
    """

    graph: Graph
    files: tuple[InputFile, ...]
    inputs: Mapping[str, object]
    seeds: Mapping[str, int]


def bind_inputs(
    inputs: Mapping[str, object],
    graph: Graph,
    parameters: tuple[Parameter, ...],
    catalog: NodeCatalog | None,
    rng: random.Random,
    workflow: str,
    *,
    hidden_seeds: tuple[Seed, ...] = (),
) -> Bound:
    """See `workflow.Workflow.bind`; *hidden_seeds* are drawn though they are no parameters."""
    binding = _Binding(workflow, graph, parameters, catalog)
    binding.to_draw.extend(hidden_seeds)
    for name, value in inputs.items():
        binding.take(name, value)
    binding.draw_seeds(rng)
    binding.check_choices()
    return binding.result()


def find_parameter(
    name: str, graph: Graph, parameters: Iterable[Parameter], catalog: NodeCatalog | None
) -> Parameter | None:
    """The parameter of this name or address; None if there is none."""
    try:
        return _Binding("", graph, tuple(parameters), catalog).parameter(name)
    except ValueError:
        return None


@dataclass(slots=True)
class _Binding:
    """One graph while its inputs are being set."""

    workflow: str
    graph: Graph
    parameters: tuple[Parameter, ...]
    catalog: NodeCatalog | None
    nodes: Mapping[str, Node] = field(init=False)
    values: dict[Address, object] = field(default_factory=dict)
    setters: dict[Address, str] = field(default_factory=dict)
    files: list[InputFile] = field(default_factory=list)
    used: dict[str, object] = field(default_factory=dict)
    seeds: dict[str, int] = field(default_factory=dict)
    to_draw: list[Seed] = field(default_factory=list)
    problems: list[InputProblem] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.nodes = nodes_of(self.graph)
        self.to_draw.extend(p for p in self.parameters if isinstance(p, Seed))

    def take(self, name: str, value: object) -> None:
        """Set one input, or note why it cannot be set."""
        try:
            parameter = self.parameter(name)
            if value is None and not isinstance(parameter, Seed):
                return
            if isinstance(value, Written):
                self._set(parameter, parameter.parse(value.text))
            else:
                self._set(parameter, parameter.check(value))
        except ValueError as error:
            self.problems.append(InputProblem(name, str(error)))

    def draw_seeds(self, rng: random.Random) -> None:
        """Give every seed that was not set a fresh value: one for all that share it."""
        for parameter in self.to_draw:
            unset = tuple(target for target in parameter.targets if target not in self.setters)
            if unset:
                seed = parameter.fresh(rng)
                if parameter in self.parameters:
                    self.used.setdefault(parameter.name, seed)
                self._fill(parameter.name, unset, seed)
                self.seeds.update((_written(target), seed) for target in unset)

    def check_choices(self) -> None:
        """Note the choices in the graph itself that the server does not have."""
        for parameter in self.parameters:
            if isinstance(parameter, Choice) and parameter.choices is not None:
                for target in parameter.targets:
                    if target not in self.setters:
                        self._check_choice(parameter, target)

    def result(self) -> Bound:
        """The bound graph; raises what was noted."""
        self._check_numbers()
        if self.problems:
            raise InvalidInputs(self.problems)
        files = sorted(self.files, key=lambda file: file.mask_of is not None)
        return Bound(with_inputs(self.graph, self.values), tuple(files), self.used, self.seeds)

    def parameter(self, name: str) -> Parameter:
        """The parameter of this name or address; ValueError with a sentence otherwise."""
        known = next((p for p in self.parameters if p.name == name), None)
        if known is not None:
            return known
        node_id, dot, input_name = self._split(name)
        if not dot:
            raise ValueError(self._unknown_name(name))
        node = self.nodes.get(node_id)
        if node is None:
            raise ValueError(self._unknown_node(name, node_id, input_name))
        link = node.link(input_name)
        if link is not None:
            raise ValueError(self._linked(name, link))
        info = self.catalog.input(node.class_type, input_name) if self.catalog else None
        if input_name not in node.inputs and not (info and info.is_widget):
            names = [name for name, _ in node.literals()]
            hint = did_you_mean(input_name[:60], names)
            raise ValueError(f"{node} has no input {shown(input_name)}.{hint}")
        value = node.inputs.get(input_name, info.default if info else None)
        return declared_at((node_id, input_name), value, node, self.catalog)

    def _split(self, name: str) -> tuple[str, str, str]:
        """Node id, dot and input name; ids and names may both have dots of their own."""
        ends = (index for index, character in enumerate(name) if character == ".")
        for end in islice(ends, 20):
            if name[:end] in self.nodes:
                return name[:end], ".", name[end + 1 :]
        return name.partition(".")

    def _set(self, parameter: Parameter, value: object) -> None:
        if isinstance(parameter, Seed):
            if value == -1:
                # An address may name a seed that no parameter fills.
                self.to_draw.append(parameter)
                return
            if isinstance(value, int):
                self.seeds.update((_written(target), value) for target in parameter.targets)
        self.used[parameter.name] = value
        if isinstance(parameter, Media) and isinstance(value, Upload):
            mask_of = parameter.mask_of if isinstance(parameter, Mask) else None
            self.files.append(InputFile(parameter.targets, value, mask_of))
            if mask_of is None:
                self._claim(parameter.name, parameter.targets)
        else:
            self._claim(parameter.name, parameter.targets)
            self._fill(parameter.name, parameter.targets, value)

    def _claim(self, name: str, targets: Iterable[Address]) -> None:
        for target in targets:
            if other := self.setters.get(target):
                where = f"{target[1]} of {self.nodes[target[0]]}"
                raise ValueError(f"{other} and {name} both set {where}; give one of them.")
        self.setters.update(dict.fromkeys(targets, name))

    def _fill(self, name: str, targets: Iterable[Address], value: object) -> None:
        for target in targets:
            self.setters.setdefault(target, name)
            self.values[target] = value

    def _check_choice(self, parameter: Choice, target: Address) -> None:
        """The server's list decides: what the author offers may well leave out the graph's own."""
        node_id, input_name = target
        node = self.nodes[node_id]
        info = self.catalog.input(node.class_type, input_name) if self.catalog else None
        if info is None or info.choices is None:
            return
        there, value = replace(parameter, choices=info.choices), node.inputs[input_name]
        try:
            fit = there.check(value)
        except ValueError:
            where = f"{node} uses the {input_name} {shown(value)}"
            advice = f"{there.alternatives(value)} {parameter.name}=NAME sets another."
            if not info.choices:
                advice = "it has none at all. Put the file into its models folder."
            message = f"{where}, which this server does not have: {advice}"
            self.problems.append(InputProblem(parameter.name, message))
        else:
            if fit != value:
                self.values[target] = fit

    def _check_numbers(self) -> None:
        """Note what JSON has no word for, though pictures may carry it."""
        for node_id, input_name in self._literals():
            value = self.nodes[node_id].inputs[input_name]
            is_odd = isinstance(value, float) and not math.isfinite(value)
            if is_odd and (node_id, input_name) not in self.values:
                name = _written((node_id, input_name))
                told = f"{self.nodes[node_id]} holds {value} as its {input_name}"
                message = f"{told}, which no server takes. Set {name}=NUMBER."
                self.problems.append(InputProblem(name, message))

    def _unknown_name(self, name: str) -> str:
        names = [parameter.name for parameter in self.parameters]
        listed = ", ".join(names[:25]) + (" .." if len(names) > 25 else "")
        has = f"It has {listed}" if names else "It has no named inputs"
        example = next((f", like {_written(address)}" for address in self._literals()), "")
        hint = did_you_mean(name[:60], names)
        rest = f"any other value goes by its node and input{example}."
        return f"workflow {self.workflow!r} has no input {shown(name)}.{hint} {has}; {rest}"

    def _unknown_node(self, name: str, node_id: str, input_name: str) -> str:
        named = (address for address in self._literals() if address[1] == input_name)
        known = [_written(address) for address in islice(named, 500)]
        close = nearest(name[:60], known, 3) or known[:3]
        hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
        return f"{shown(name)} names no input: there is no node {shown(node_id)}.{hint}"

    def _linked(self, name: str, link: Link) -> str:
        source = self.nodes[link.node_id]
        values = [_written((source.id, name)) for name, _ in islice(source.literals(), 3)]
        instead = f" Set {' or '.join(values)} instead." if values else ""
        return f"{shown(name)} is no value of its own: it is linked to {source}.{instead}"

    def _literals(self) -> Iterable[Address]:
        return ((node.id, name) for node in self.nodes.values() for name, _ in node.literals())


def _written(address: Address) -> str:
    return ".".join(address)
