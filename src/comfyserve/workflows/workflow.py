"""A workflow: a named graph, the inputs it takes, and the nodes whose results people want."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from comfyserve.errors import WorkflowUnreadable, did_you_mean
from comfyserve.workflows.binding import Bound, bind_inputs, find_parameter
from comfyserve.workflows.graph import MAX_BYTES, Graph, parse_graph, read_graph
from comfyserve.workflows.inference import infer
from comfyserve.workflows.node_catalog import NodeCatalog
from comfyserve.workflows.parameters import Parameter

__all__ = ["Bound", "Workflow"]


@dataclass(frozen=True, slots=True)
class Workflow:
    """A named graph with typed inputs and known outputs.

    *outputs* are the ids of its output nodes. *catalog* is what the parameters were read with;
    without one they have neither limits nor choices.

    >>> import random
    >>> workflow = Workflow.from_json({
    ...     "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64}},
    ...     "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}},
    ... })
    >>> [parameter.name for parameter in workflow.parameters]
    ['width', 'height']
    >>> workflow.bind({"width": 32}, rng=random.Random()).graph["1"]["inputs"]
    {'width': 32, 'height': 64}
    """

    name: str
    graph: Graph = field(repr=False)
    parameters: tuple[Parameter, ...]
    outputs: tuple[str, ...]
    catalog: NodeCatalog | None = field(default=None, repr=False, compare=False)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Workflow:
        """Read a workflow file; its name is the file's, without the ending.

        Raises `WorkflowUnreadable`, saying what was found instead, or `GraphInvalid`.
        """
        file = Path(path)
        return cls.from_bytes(_content(file), file.stem, source=str(file))

    @classmethod
    def from_bytes(
        cls, data: bytes | str, name: str = "workflow", *, source: str | None = None
    ) -> Workflow:
        """Read the content of a workflow file; *source* names it in messages."""
        return cls._of(name, parse_graph(data, source or f"workflow {name!r}"))

    @classmethod
    def from_json(
        cls,
        document: Mapping[str, Any],
        name: str = "workflow",
        *,
        catalog: NodeCatalog | None = None,
    ) -> Workflow:
        """Read a workflow from JSON that was parsed already, described by *catalog* if given."""
        return cls._of(name, read_graph(document, f"workflow {name!r}"), catalog)

    @classmethod
    def _of(cls, name: str, graph: Graph, catalog: NodeCatalog | None = None) -> Workflow:
        inferred = infer(graph, catalog)
        return cls(name, graph, inferred.parameters, inferred.outputs, catalog)

    def described_by(self, catalog: NodeCatalog) -> Workflow:
        """The same workflow with the limits, choices and help of a server's nodes."""
        if catalog is self.catalog:
            return self
        inferred = infer(self.graph, catalog)
        return Workflow(self.name, self.graph, inferred.parameters, inferred.outputs, catalog)

    def find(self, name: str) -> Parameter | None:
        """The parameter of this name, or of this address (``3.cfg``); None if there is none."""
        return find_parameter(name, self.graph, self.parameters, self.catalog)

    def bind(
        self,
        inputs: Mapping[str, object],
        *,
        rng: random.Random,
        catalog: NodeCatalog | None = None,
    ) -> Bound:
        """The graph with these inputs set, fresh seeds drawn, and the files it needs.

        Names are parameter names or addresses; None leaves what the graph has. A value that a
        person wrote comes as `Written`, a file to upload as `Upload`. With a *catalog* values
        are checked against the server's limits and choices. Raises `InvalidInputs` with every
        problem there is.
        """
        workflow = self if catalog is None else self.described_by(catalog)
        return bind_inputs(
            inputs, workflow.graph, workflow.parameters, workflow.catalog, rng, self.name
        )

    def json_schema(self) -> dict[str, Any]:
        """What `bind` takes by name, as the JSON Schema of an object."""
        properties = {parameter.name: parameter.json_schema() for parameter in self.parameters}
        return {"type": "object", "properties": properties, "additionalProperties": False}


def _content(file: Path) -> bytes:
    if file.is_dir():
        raise WorkflowUnreadable(str(file), "is a folder, not a workflow file", _inside(file))
    try:
        with file.open("rb") as opened:
            return opened.read(MAX_BYTES + 1)
    except FileNotFoundError:
        near = did_you_mean(file.name, _names_in(file.parent), at_most=2)
        raise WorkflowUnreadable(str(file), "does not exist", near.strip()) from None
    except OSError as error:
        raise WorkflowUnreadable(str(file), f"cannot be read: {error.strerror}") from None
    except ValueError as error:  # a name that no file system takes
        raise WorkflowUnreadable(repr(str(file)), f"cannot be read: {error}") from None


def _inside(folder: Path) -> str:
    names = [name for name in _names_in(folder) if name.lower().endswith(".json")]
    return f"It has {', '.join(names[:5])}" if names else ""


def _names_in(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in islice(folder.iterdir(), 1000))
    except OSError:
        return []
