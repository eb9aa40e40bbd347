"""References to assets that stand in a graph where a file's name would.

``{"__type": "core/ASSET", "info": {"id": .., "hash": .., "file_path": ..}}`` may stand anywhere
inside an input. Our own word is ``mask_of``: lay this file's transparency over an image. That is
at another input ``[node id, input name]``, or is a reference itself, or the name of a file that
the server has.

>>> graph = {"1": {"class_type": "LoadImage", "inputs": {
...     "image": {"__type": "core/ASSET", "info": {"id": "a"}}}}}
>>> references_in(graph).references[0].path
('1', 'image')
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from comfyserve.assets import InputPath
from comfyserve.workflows.graph import MAX_DEPTH, Graph, shown
from comfyserve.workflows.paths import written_path

TYPE: Final = "core/ASSET"


@dataclass(frozen=True, slots=True)
class AssetReference:
    """Which asset is wanted at *path*.

    The *id* decides. Without one it is an asset over the bytes with this *hash*; *file_path* is
    no more than a hint. *mask_of* is the place of the image that this file is a mask of, and
    *image* that image, or its name, where that is the place of the mask too.
    """

    path: InputPath
    id: str | None
    hash: str | None = None
    file_path: str | None = None
    mask_of: InputPath | None = None
    image: AssetReference | str | None = None


@dataclass(frozen=True, slots=True)
class FoundReferences:
    """All references of a graph in its order, and a sentence for each that says nothing."""

    references: tuple[AssetReference, ...]
    problems: tuple[str, ...]


def references_in(graph: Graph) -> FoundReferences:
    """Look for references anywhere inside the inputs of *graph*."""
    references: list[AssetReference] = []
    problems: list[str] = []
    for path, document in _documents(graph):
        try:
            references.append(_read(path, document))
        except _Malformed as error:
            problems.append(str(error))
    return FoundReferences(tuple(references), tuple(problems))


class _Malformed(Exception):
    def __init__(self, path: InputPath, problem: str) -> None:
        super().__init__(f"The {TYPE} reference at {shown(written_path(path))} {problem}.")


def _documents(graph: Graph) -> Iterator[tuple[InputPath, Mapping[str, Any]]]:
    """Every reference as it stands there, in the order of the graph, with its path."""
    waiting: list[tuple[InputPath, Any]] = []
    for node_id, entry in reversed(list(graph.items())):
        inputs = entry.get("inputs") if isinstance(entry, Mapping) else None
        if isinstance(inputs, Mapping):
            waiting.extend(((node_id, name), inputs[name]) for name in reversed(list(inputs)))
    while waiting:
        path, value = waiting.pop()
        inner: list[tuple[InputPath, Any]] = []
        if isinstance(value, Mapping):
            if value.get("__type") == TYPE:
                yield path, value
                continue
            inner = [((*path, key), within) for key, within in value.items()]
        elif isinstance(value, list | tuple):
            inner = [((*path, place), within) for place, within in enumerate(value)]
        if len(path) < MAX_DEPTH:
            waiting.extend(reversed(inner))


def _read(path: InputPath, document: Mapping[str, Any]) -> AssetReference:
    info = document.get("info")
    if not isinstance(info, Mapping):
        raise _Malformed(path, "has no 'info' object")
    id, hash = _text(path, info, "id"), _text(path, info, "hash")
    if not id and not hash:
        raise _Malformed(path, "has no 'id' in its 'info'")
    mask_of, image = _mask_of(path, info.get("mask_of"))
    return AssetReference(
        path, id or None, hash or None, _text(path, info, "file_path"), mask_of, image
    )


def _text(path: InputPath, info: Mapping[str, Any], key: str) -> str | None:
    value = info.get(key)
    if value is None or isinstance(value, str):
        return value
    raise _Malformed(path, f"has {shown(value)} as its '{key}', which is no string")


def _mask_of(
    path: InputPath, value: object
) -> tuple[InputPath | None, AssetReference | str | None]:
    if value is None:
        return None, None
    if isinstance(value, str):
        return path, value
    if isinstance(value, Mapping) and value.get("__type") == TYPE:
        image = _read(path, value)
        if image.mask_of is not None:
            raise _Malformed(path, "is a mask of a mask")
        return path, image
    place = tuple(value) if isinstance(value, list | tuple) else ()
    if len(place) < 2 or not all(isinstance(part, str | int) for part in place):
        problem = f"has {shown(value)} as its 'mask_of'; it takes [node id, input name]"
        raise _Malformed(path, problem)
    if place == path:
        raise _Malformed(path, "is a mask of itself; put the image's reference into 'mask_of'")
    return place, None
