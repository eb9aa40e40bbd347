"""A workflow: a named graph, the inputs it takes, and the nodes whose results people want."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from comfyserve.workflows.binding import Bound, bind_inputs, find_parameter
from comfyserve.workflows.embedded import Embedded, find_embedded
from comfyserve.workflows.files import read_file, read_sidecar_beside
from comfyserve.workflows.graph import Graph
from comfyserve.workflows.inference import infer
from comfyserve.workflows.marks import read_marks
from comfyserve.workflows.node_catalog import NodeCatalog
from comfyserve.workflows.parameters import Parameter, Seed
from comfyserve.workflows.sidecar import Sidecar
from comfyserve.workflows.source import Source
from comfyserve.workflows.ui_format import Finding

__all__ = ["Bound", "Workflow"]


@dataclass(frozen=True, slots=True)
class Workflow:
    """A named graph with typed inputs and known outputs.

    *outputs* are the ids of its output nodes. *convention* says who decided which inputs there
    are: an author's mark, or ``inference``. *seeds* are drawn for each run though nobody may set
    them. *catalog* is what the parameters were read with; without one they have neither limits
    nor choices. *warnings* say what could not be read of the file, *notes* which of the author's
    marks could not be followed. *source* is what all this was read from.

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
    source: Source = field(repr=False, compare=False)
    title: str = ""
    description: str = ""
    convention: str = "inference"
    seeds: tuple[Seed, ...] = ()
    catalog: NodeCatalog | None = field(default=None, repr=False, compare=False)
    warnings: tuple[Finding, ...] = field(default=(), compare=False)
    notes: tuple[str, ...] = field(default=(), compare=False)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Workflow:
        """Read a workflow file; its name is the file's, without the ending.

        A picture, video, sound or 3D file that ComfyUI saved is one too: what it carries is read.
        A sidecar, ``NAME.toml`` beside it, says which inputs it takes.
        Raises `WorkflowUnreadable`, saying what was found instead, or `GraphInvalid`.
        """
        file = Path(path)
        content, sidecar = read_file(file), read_sidecar_beside(file)
        return cls._read(file.stem, Source.of(content, str(file), sidecar), None, strict=False)

    @classmethod
    def from_bytes(
        cls,
        data: bytes | str | Embedded,
        name: str = "workflow",
        *,
        source: str | None = None,
        sidecar: Sidecar | None = None,
    ) -> Workflow:
        """Read the content of a workflow file, or what a media file carries.

        *source* names it in messages.
        """
        named = source or f"workflow {name!r}"
        embedded = find_embedded(data, named) if isinstance(data, bytes) else None
        content: Embedded | bytes | str = embedded or data
        return cls._read(name, Source.of(content, named, sidecar), None, strict=False)

    @classmethod
    def from_json(
        cls,
        document: Mapping[str, Any],
        name: str = "workflow",
        *,
        catalog: NodeCatalog | None = None,
        sidecar: Sidecar | None = None,
    ) -> Workflow:
        """Read a workflow from JSON that was parsed already, described by *catalog* if given."""
        source = Source.of_document(document, f"workflow {name!r}", sidecar)
        return cls._read(name, source, catalog, strict=catalog is not None)

    @classmethod
    def _read(
        cls, name: str, source: Source, catalog: NodeCatalog | None, *, strict: bool
    ) -> Workflow:
        told = source.told(catalog, strict=strict)
        marked = read_marks(
            told.graph,
            inferred=infer(told.graph, catalog),
            catalog=catalog,
            sidecar=source.sidecar,
            editor=told.editor,
            held=told.held,
            new_ids=told.new_ids,
            # Without a catalogue nobody knows the names of all that the editor saved.
            certain=not told.warnings and (source.graph is not None or catalog is not None),
        )
        return cls(
            name,
            marked.graph,
            marked.parameters,
            marked.outputs,
            source,
            title=marked.title,
            description=marked.description,
            convention=marked.convention,
            seeds=marked.seeds,
            catalog=catalog,
            warnings=told.warnings,
            notes=marked.warnings,
        )

    @property
    def editor(self) -> Mapping[str, Any] | None:
        """The document as ComfyUI's editor saved it, if the graph was made from one.

        Only a catalogue tells for certain which graph it means.
        """
        return self.source.editor if self.source.graph is None else None

    def described_by(self, catalog: NodeCatalog, *, strict: bool = True) -> Workflow:
        """The same workflow with the limits, choices and help of a server's nodes.

        What the editor saved is read again, now for certain. With *strict*, for running, what
        the server cannot run raises `GraphInvalid`; else it is in *warnings*.
        """
        if catalog is self.catalog and not (strict and self.warnings):
            return self
        return self._read(self.name, self.source, catalog, strict=strict)

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
            inputs,
            workflow.graph,
            workflow.parameters,
            workflow.catalog,
            rng,
            self.name,
            hidden_seeds=workflow.seeds,
        )

    def json_schema(self) -> dict[str, Any]:
        """What `bind` takes by name, as the JSON Schema of an object."""
        properties = {parameter.name: parameter.json_schema() for parameter in self.parameters}
        return {"type": "object", "properties": properties, "additionalProperties": False}
