"""Is this graph one that can run? The answer in ComfyUI's words.

A graph may be partly valid: the outputs that can run do, and the nodes in the way of the others
are named. Values are coerced in place, so what is queued is what the nodes get.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from comfyserve.engine.folders import Folders
from comfyserve.engine.input_checks import (
    InputError,
    check_link,
    coerce,
    refuse_out_of_bounds,
    required_input_missing,
)
from comfyserve.engine.node import Node
from comfyserve.engine.registry import Registry, choices_of

Graph = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What validation found: the outputs that can run, and what is wrong with the others.

    *error* is set when nothing can run. *node_errors* may be filled even when something can.
    """

    outputs: tuple[str, ...] = ()
    error: dict[str, Any] | None = None
    node_errors: dict[str, Any] = field(default_factory=dict)


def validate(
    graph: Graph, registry: Registry, folders: Folders, targets: list[str] | None = None
) -> Verdict:
    """Check *graph*; with *targets* only those output nodes count."""
    for node_id, node in graph.items():
        problem = _class_problem(node, registry)
        if problem:
            return Verdict(error=error("invalid_prompt", problem, f"Node ID '#{node_id}'"))
    outputs = [
        node_id
        for node_id, node in graph.items()
        if registry[node["class_type"]].output_node and (targets is None or node_id in targets)
    ]
    if not outputs:
        return Verdict(error=error("prompt_no_outputs", "Prompt has no outputs"))
    return _Validation(graph, registry, folders).verdict(outputs)


def error(kind: str, message: str, details: str = "") -> dict[str, Any]:
    """The ``error`` object of a 400 answer."""
    return {"type": kind, "message": message, "details": details, "extra_info": {}}


def _class_problem(node: object, registry: Registry) -> str | None:
    if not isinstance(node, dict) or "class_type" not in node:
        return "Cannot execute because a node is missing the class_type property."
    name = node["class_type"]
    if not isinstance(name, str) or name not in registry:
        return f"Cannot execute because node {name} does not exist."
    return None


@dataclass(frozen=True, slots=True)
class _Finding:
    """What is wrong with one node. Invalid with no errors: something above it is wrong."""

    valid: bool
    errors: tuple[InputError, ...] = ()


@dataclass(frozen=True, slots=True)
class _Asker:
    """The link through which validation first reached a node."""

    input_name: str
    input_config: list[Any]
    link: list[Any]


class _Validation:
    """The findings of one graph, node by node, those above before those below."""

    def __init__(self, graph: Graph, registry: Registry, folders: Folders) -> None:
        self.graph = graph
        self.registry = registry
        self.folders = folders
        self.findings: dict[str, _Finding] = {}
        self._configs: dict[tuple[str, str], list[Any]] = {}

    def verdict(self, outputs: list[str]) -> Verdict:
        good: list[str] = []
        details: list[str] = []
        node_errors: dict[str, Any] = {}
        for output in outputs:
            cycle = self._check_all_above(output)
            if cycle is None and self.findings[output].valid:
                good.append(output)
                continue
            details += [cycle] if cycle else []
            own = self.findings.get(output, _Finding(False))
            details += [f"{found['message']}: {found['details']}" for found in own.errors]
            self._blame(output, node_errors)
        if good:
            return Verdict(tuple(good), node_errors=node_errors)
        message = "Prompt outputs failed validation"
        failed = error("prompt_outputs_failed_validation", message, "\n".join(details))
        return Verdict(error=failed, node_errors=node_errors)

    def _blame(self, output: str, node_errors: dict[str, Any]) -> None:
        for node_id in self._above(output):
            finding = self.findings.get(node_id)
            if finding is None or not finding.errors:
                continue
            entry = node_errors.setdefault(
                node_id,
                {
                    "errors": list(finding.errors),
                    "dependent_outputs": [],
                    "class_type": self.graph[node_id]["class_type"],
                },
            )
            entry["dependent_outputs"].append(output)

    def _above(self, output: str) -> dict[str, None]:
        """*output* and every node it hangs on, each once."""
        seen = {output: None}
        waiting = [output]
        while waiting:
            for _, _, source in self._links(waiting.pop()):
                if source not in seen:
                    seen[source] = None
                    waiting.append(source)
        return seen

    def _check_all_above(self, output: str) -> str | None:
        """Find out about *output* and all above it; a sentence if they form a cycle.

        Iterative, because a graph may be deeper than the interpreter's stack.
        """
        askers: dict[str, _Asker | None] = {output: None}
        path: dict[str, Iterator[tuple[str, list[Any], str]]] = {}
        if output not in self.findings:
            path[output] = self._links(output)
        while path:
            node_id, links = next(reversed(path.items()))
            for name, link, source in links:
                if source in path:
                    nodes = list(path)
                    ring = [*nodes[nodes.index(source) :], source]
                    return f"Dependency cycle: {' -> '.join(reversed(ring))}"
                if source not in self.findings:
                    askers[source] = _Asker(name, self._config(node_id, name), link)
                    path[source] = self._links(source)
                    break
            else:
                self.findings[node_id] = self._guarded(node_id, askers[node_id])
                del path[node_id]
        return None

    def _links(self, node_id: str) -> Iterator[tuple[str, list[Any], str]]:
        """The sound links of a node: its input's name, the link, and the node above."""
        given = self.graph[node_id].get("inputs")
        declared = self.registry[self.graph[node_id]["class_type"]].inputs
        for name, link in given.items() if isinstance(given, dict) else ():
            if name in declared and isinstance(link, list):
                config = self._config(node_id, name)
                with suppress(KeyError, IndexError, TypeError):  # reported when its turn comes
                    if check_link(name, link, config, self._output_types) is None:
                        yield name, link, link[0]

    def _config(self, node_id: str, input_name: str) -> list[Any]:
        """An input's type or choices, and its options; looked up once, as choices read folders."""
        class_type = self.graph[node_id]["class_type"]
        known = self._configs.get((class_type, input_name))
        if known is None:
            declared = self.registry[class_type].inputs[input_name]
            choices = choices_of(declared, self.folders)
            kind = declared.type if choices is None else choices
            known = self._configs[class_type, input_name] = [kind, dict(declared.options)]
        return known

    def _guarded(self, node_id: str, asker: _Asker | None) -> _Finding:
        try:
            return self._check(node_id)
        except Exception as broken:
            return _Finding(False, (_exception_error(broken, asker),))

    def _check(self, node_id: str) -> _Finding:
        node = self.registry[self.graph[node_id]["class_type"]]
        given = self.graph[node_id]["inputs"]
        if not isinstance(given, dict):
            raise TypeError(f"inputs must be an object, not {type(given).__name__}")
        left_to_check = named_inputs(node.check, node)
        errors: list[InputError] = []
        sound_above = True
        for name, declared in node.inputs.items():
            config = self._config(node_id, name)
            if name not in given:
                errors += [required_input_missing(name)] if declared.required else []
                continue
            value = given[name]
            if isinstance(value, list):
                problem = check_link(name, value, config, self._output_types)
                if problem:
                    errors.append(problem)
                elif not self.findings[value[0]].valid:
                    sound_above = False
                continue
            given[name], problem = coerce(name, value, config)
            if problem is None and name not in left_to_check:
                problem = refuse_out_of_bounds(name, given[name], config)
            errors += [problem] if problem else []
        if node.check is not None:
            errors += self._custom_errors(node, given, left_to_check)
        return _Finding(not errors and sound_above, tuple(errors))

    def _output_types(self, node_id: str) -> tuple[str, ...]:
        source = self.registry[self.graph[node_id]["class_type"]]
        return tuple(output.type for output in source.outputs)

    def _custom_errors(
        self, node: Node, given: Mapping[str, Any], names: tuple[str, ...]
    ) -> list[InputError]:
        assert node.check is not None
        sentence = node.check(self.folders, **literals(given, names))
        if sentence is None:
            return []
        return [
            {
                "type": "custom_validation_failed",
                "message": "Custom validation failed for node",
                "details": f"{name} - {sentence}",
                "extra_info": {"input_name": name},
            }
            for name in names
            if name in given
        ]


def literals(given: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Those of the *given* inputs that are named; None for one that is a link."""
    return {
        name: None if isinstance(given[name], list) else given[name]
        for name in names
        if name in given
    }


def named_inputs(function: Callable[..., object] | None, node: Node) -> tuple[str, ...]:
    """The inputs of *node* that *function* takes."""
    if function is None:
        return ()
    taken = inspect.signature(function).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values()):
        return tuple(node.inputs)
    return tuple(name for name in node.inputs if name in taken)


def _exception_error(broken: Exception, asker: _Asker | None) -> InputError:
    """A broken node is described by the link that leads to it, as ComfyUI does."""
    about: dict[str, Any] = {
        "exception_type": type(broken).__qualname__,
        "traceback": traceback.format_tb(broken.__traceback__),
    }
    if asker is None:
        return {
            "type": "exception_during_validation",
            "message": "Exception when validating node",
            "details": str(broken),
            "extra_info": about,
        }
    return {
        "type": "exception_during_inner_validation",
        "message": "Exception when validating inner node",
        "details": str(broken),
        "extra_info": {
            "input_name": asker.input_name,
            "input_config": asker.input_config,
            "exception_message": str(broken),
            **about,
            "linked_node": asker.link,
        },
    }
