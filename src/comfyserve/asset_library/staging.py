"""What becomes of references to assets: names that nodes take, and files that have to be there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePath

from comfyserve.assets import Asset, InputPath, Upload, safe_name
from comfyserve.comfy.uploads import server_name
from comfyserve.errors import GraphInvalid
from comfyserve.jobs import JobFile
from comfyserve.refusals import MissingAsset
from comfyserve.workflows.asset_references import AssetReference, references_in
from comfyserve.workflows.graph import Graph, shown, with_inputs
from comfyserve.workflows.paths import value_at, written_path


@dataclass(frozen=True, slots=True)
class Resolved:
    """A graph with the names that its files get on a backend, and these files."""

    graph: Graph
    files: tuple[JobFile, ...] = ()


@dataclass(frozen=True, slots=True)
class Wanted:
    """The references of a graph. Raises `MissingAsset` when some of them say nothing."""

    graph: Graph
    references: tuple[AssetReference, ...]

    @classmethod
    def of(cls, graph: Graph) -> Wanted:
        """What *graph* wants."""
        found = references_in(graph)
        wanted = cls(graph, found.references)
        if problems := [*found.problems, *wanted._mask_problems()]:
            raise MissingAsset((), problems)
        return wanted

    @property
    def ids(self) -> list[str]:
        """The ids of the assets that are wanted."""
        return list(dict.fromkeys(one.id for one in self._all() if one.id is not None))

    @property
    def hashes(self) -> list[str]:
        """The hashes of the assets that are wanted by no more than that."""
        named = (one.hash for one in self._all() if one.id is None and one.hash is not None)
        return list(dict.fromkeys(named))

    def resolved(self, assets: Iterable[Asset]) -> Resolved:
        """The graph with names for references. Raises `MissingAsset`, naming all that lack."""
        if not self.references:
            return Resolved(self.graph)
        known = _Known.of(assets)
        lacking = [one.id or one.hash or "" for one in self._all() if known.get(one) is None]
        if lacking:
            raise MissingAsset(dict.fromkeys(lacking))
        staging = _Staging(self.graph, known)
        for reference in self.references:
            staging.place(reference)
        for reference in self.references:
            if reference.mask_of is not None:
                staging.lay_over(reference, reference.mask_of)
        return staging.done()

    def _all(self) -> Iterator[AssetReference]:
        for reference in self.references:
            yield reference
            if isinstance(reference.image, AssetReference):
                yield reference.image

    def _mask_problems(self) -> Iterator[str]:
        masks = {one.path for one in self.references if one.mask_of is not None}
        places = {one.path for one in self.references}
        for one in self.references:
            if one.mask_of is None or one.image is not None or one.mask_of in places - masks:
                continue
            place, at = (shown(written_path(path)) for path in (one.mask_of, one.path))
            if one.mask_of in masks:
                yield f"The mask at {at} is laid over {place}, which is a mask itself."
            elif not isinstance(_held(self.graph, one.mask_of), str):
                yield f"The mask at {at} is laid over {place}, where no image is named."


def _held(graph: Graph, path: InputPath) -> object:
    try:
        return value_at(graph, path)
    except GraphInvalid:
        return None


@dataclass(frozen=True, slots=True)
class _Known:
    by_id: dict[str, Asset] = field(default_factory=dict)
    by_hash: dict[str, Asset] = field(default_factory=dict)

    @classmethod
    def of(cls, assets: Iterable[Asset]) -> _Known:
        listed = list(assets)
        return cls({one.id: one for one in listed}, {one.hash: one for one in listed})

    def get(self, reference: AssetReference) -> Asset | None:
        if reference.id is not None:
            return self.by_id.get(reference.id)
        return self.by_hash.get(reference.hash or "")

    def __getitem__(self, reference: AssetReference) -> Asset:
        found = self.get(reference)
        assert found is not None
        return found


@dataclass(slots=True)
class _Staging:
    graph: Graph
    known: _Known
    names: dict[InputPath, str] = field(default_factory=dict)
    targets: dict[str, list[InputPath]] = field(default_factory=dict)
    assets: dict[str, Asset] = field(default_factory=dict)
    masks: list[JobFile] = field(default_factory=list)

    def place(self, reference: AssetReference) -> None:
        """Have a file itself where the reference is, or the image that it is a mask of."""
        if isinstance(reference.image, str):
            self.names[reference.path] = reference.image
            return
        shown = reference.image or reference
        if shown.mask_of is not None:
            return
        asset = self.known[shown]
        self.assets[asset.id] = asset
        self.targets.setdefault(asset.id, []).append(shown.path)
        self.names[shown.path] = _server_name(asset)

    def lay_over(self, reference: AssetReference, image: InputPath) -> None:
        """Have the image with this file's transparency where the reference is."""
        asset = self.known[reference]
        self.masks.append(_job_file(asset, (reference.path,), image))
        if not isinstance(reference.image, str):  # its name has to stand there until it is masked
            original = self.names.get(image) or str(value_at(self.graph, image))
            self.names[reference.path] = _server_name(asset, original)

    def done(self) -> Resolved:
        files = [_job_file(self.assets[id], tuple(paths)) for id, paths in self.targets.items()]
        return Resolved(with_inputs(self.graph, self.names), (*files, *self.masks))


def _server_name(asset: Asset, mask_of: str | None = None) -> str:
    return server_name(_named(asset), _digest(asset), asset.content_type, mask_of)


def _job_file(
    asset: Asset, targets: tuple[InputPath, ...], mask_of: InputPath | None = None
) -> JobFile:
    """The file under a name with the ending it gets, so that it gets the same one when its type
    is told anew."""
    own = PurePath(_named(asset).name)
    ending = PurePath(_server_name(asset)).suffix
    name = own.name if own.suffix.lower() == ending else f"{own.stem}{ending}"
    return JobFile(targets, asset.hash, name, asset.id, mask_of)


def _named(asset: Asset) -> Upload:
    return Upload(safe_name(asset.file_path or "file"), content=b"")


def _digest(asset: Asset) -> str:
    return asset.hash.removeprefix("blake3:")
