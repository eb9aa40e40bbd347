"""What a workflow was read from; with a server's catalogue it can be read again, for certain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from comfyserve.errors import ComfyServeError
from comfyserve.workflows.editor_places import Held, NewIds
from comfyserve.workflows.embedded import Embedded
from comfyserve.workflows.graph import Graph, is_editor_format, read_document, read_graph
from comfyserve.workflows.node_catalog import NodeCatalog
from comfyserve.workflows.sidecar import Sidecar
from comfyserve.workflows.ui_format import Converted, Finding, convert


@dataclass(frozen=True, slots=True)
class Told:
    """What a source says, read with a catalogue or without.

    *editor* is the editor's document that belongs to the graph, where there is one; *held* and
    *new_ids* say where its nodes are in the graph.
    """

    graph: Graph
    editor: Mapping[str, Any] | None = None
    held: Held = field(default_factory=dict)
    new_ids: NewIds = field(default_factory=dict)
    warnings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class Source:
    """A graph in API format, or a document of the editor, or (in pictures) both; and a sidecar.

    Where there is a *graph*, the *editor*'s document is read for the author's marks alone.
    """

    name: str
    graph: Graph | None
    editor: Mapping[str, Any] | None
    sidecar: Sidecar | None

    @classmethod
    def of(cls, content: Embedded | bytes | str, name: str, sidecar: Sidecar | None) -> Source:
        """The source that the content of a file is; *name* is for messages."""
        if not isinstance(content, Embedded):
            return cls.of_document(read_document(content, name), name, sidecar)
        editor = _editor_document(content.workflow or "", name)
        try:
            source = cls.of_document(read_document(content.document, name), name, sidecar)
        except ComfyServeError:
            if editor is None:
                raise
            return cls(name, None, editor, sidecar)
        return source if source.graph is None else cls(name, source.graph, editor, sidecar)

    @classmethod
    def of_document(cls, document: object, name: str, sidecar: Sidecar | None) -> Source:
        """The source that a parsed document is."""
        if is_editor_format(document):
            return cls(name, None, document, sidecar)
        return cls(name, read_graph(document, name), None, sidecar)

    def told(self, catalog: NodeCatalog | None, *, strict: bool) -> Told:
        """Read it; with *strict*, what the catalogue's server cannot run raises `GraphInvalid`."""
        if self.graph is None:
            read = convert(self.editor or {}, catalog, strict=strict, source=self.name)
            return Told(read.graph, self.editor, read.held, read.new_ids, read.warnings)
        beside = self._converted_for_marks(catalog)
        if beside is None:
            return Told(self.graph)
        return Told(self.graph, self.editor, beside.held, beside.new_ids)

    def _converted_for_marks(self, catalog: NodeCatalog | None) -> Converted | None:
        """The editor's document beside the graph; one of another graph marks nothing."""
        if self.editor is None or self.graph is None:
            return None
        try:
            read = convert(self.editor, catalog, strict=False, source=self.name)
        except ComfyServeError:
            return None
        shared = read.graph.keys() & self.graph.keys()
        kinds = ((read.graph[n]["class_type"], self.graph[n]["class_type"]) for n in shared)
        return read if shared and all(ours == theirs for theirs, ours in kinds) else None


def _editor_document(text: str, name: str) -> Mapping[str, Any] | None:
    try:
        document = read_document(text, name)
    except ComfyServeError:
        return None
    return document if is_editor_format(document) else None
