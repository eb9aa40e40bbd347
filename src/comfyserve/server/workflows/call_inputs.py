"""The inputs of a call, held against a workflow: what is wrong with them, what they set.

Everything that can be told without looking anything up is told here, and all of it at once.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from comfyserve.assets import Asset, InputPath, Upload, content_hash
from comfyserve.denials import InvalidRequest
from comfyserve.errors import InputProblem, InvalidInputs, did_you_mean
from comfyserve.server.workflows.media_values import (
    AssetNamed,
    At,
    Inline,
    Kept,
    MediaValue,
    OutputOf,
    ToCome,
    read_media,
)
from comfyserve.workflows.asset_references import TYPE
from comfyserve.workflows.graph import Graph, nodes_of, shown, upstream, with_inputs
from comfyserve.workflows.parameters import Media, Parameter, Seed, Written
from comfyserve.workflows.paths import value_at
from comfyserve.workflows.workflow import Bound, Workflow

MOST_INPUTS: Final = 1000
"""How many inputs a call may have: each that is none costs a search for what was meant."""

_MOST_SEARCHED: Final = 1_000_000
"""Nodes that are looked through for the addresses of one call: each goes through all."""

_LONGEST_NAME: Final = 1000

_LONGEST_OBJECT: Final = 10_000
"""Letters of a field of a form that may say which file is meant, as JSON."""

_MOST_NAMED: Final = 25


@dataclass(frozen=True, slots=True)
class BoundCall:
    """A workflow with the inputs of a call in it, before its files were looked up.

    *parsed* are the inputs as they were read, by the names of their parameters, without seeds to
    be drawn; *media* what is to be found of files, by the same names.
    """

    workflow: Workflow
    bound: Bound
    parameters: Mapping[str, Parameter]
    parsed: Mapping[str, object]
    media: Mapping[str, MediaValue]

    def digest(self, *others: object) -> str:
        """What stays the same where the same is asked for; seeds to be drawn do not count."""
        told = {
            name: _told(self.media[name]) if name in self.media else _plain(value)
            for name, value in self.parsed.items()
        }
        content = json.dumps([told, *others], sort_keys=True).encode("ascii")
        return hashlib.blake2b(content, digest_size=16).hexdigest()

    def graph(self, assets: Mapping[str, Asset]) -> Graph:
        """The graph to run, with references to *assets*, by parameter, where their files are
        needed. Where the sidecar says which outputs people want, nothing else is run."""
        graph = self._wanted_part()
        references: dict[InputPath, object] = {}
        for file in self.bound.files:
            asset = assets[file.upload.name]
            for target in (target for target in file.targets if target[0] in graph):
                mask_of: object = file.mask_of
                if mask_of == target:  # one place for both, so the mask brings its image along
                    mask_of = references.get(target) or value_at(graph, target)
                references[target] = _reference(asset, mask_of)
        return with_inputs(graph, references) if references else graph

    def inputs(self, assets: Mapping[str, Asset]) -> dict[str, Any]:
        """The inputs that are really used, ready for JSON: assets by their ids."""
        return {
            name: assets[name].id if name in assets else value
            for name, value in self.bound.inputs.items()
        }

    def seeds(self, graph: Graph) -> dict[str, int]:
        """The seeds that are used in *graph*, by address."""
        nodes = [f"{node_id}." for node_id in graph]
        return {
            address: seed
            for address, seed in self.bound.seeds.items()
            if address.startswith(tuple(nodes))
        }

    def _wanted_part(self) -> Graph:
        sidecar = self.workflow.source.sidecar
        if sidecar is None or not sidecar.outputs or not self.workflow.outputs:
            return self.bound.graph
        wanted = upstream(nodes_of(self.bound.graph), self.workflow.outputs)
        return {id: node for id, node in self.bound.graph.items() if id in wanted}


def bind_call(
    workflow: Workflow,
    inputs: Mapping[str, object],
    *,
    may_address: bool,
    rng: random.Random,
) -> BoundCall:
    """The workflow with these inputs. A value as a person wrote it comes as `Written`, a file
    that is an asset by now as `Kept`.

    Input addresses (``3.cfg``) are only taken with *may_address*. Raises `InvalidInputs` with
    every problem there is, `GraphInvalid` for a file that means no graph on the backends, and
    `InvalidRequest` for more inputs than any workflow has.
    """
    _refuse_too_many(inputs)
    _refuse_long_search(workflow, inputs)
    if workflow.catalog is not None:
        workflow = workflow.described_by(workflow.catalog)
    reading = _Reading(workflow, may_address)
    for name, value in inputs.items():
        reading.take(name, value)
    try:
        bound = workflow.bind(reading.to_bind, rng=rng)
    except InvalidInputs as error:
        raise InvalidInputs([*reading.problems, *error.problems]) from None
    if reading.problems:
        raise InvalidInputs(reading.problems)
    return BoundCall(workflow, bound, reading.parameters, reading.parsed, reading.media)


def _refuse_too_many(inputs: Mapping[str, object]) -> None:
    if len(inputs) > MOST_INPUTS:
        raise InvalidRequest(
            f"The call has {len(inputs):,} inputs, but may have {MOST_INPUTS:,} at most."
        )
    if any(len(name) > _LONGEST_NAME for name in inputs):
        raise InvalidRequest(f"An input's name may have {_LONGEST_NAME:,} characters at most.")


def _refuse_long_search(workflow: Workflow, inputs: Mapping[str, object]) -> None:
    names = {parameter.name for parameter in workflow.parameters}
    addresses = sum(name not in names and "." in name for name in inputs)
    if addresses * len(workflow.graph) > _MOST_SEARCHED:
        raise InvalidRequest(
            f"The call sets {addresses:,} inputs by their addresses, too many for a graph of "
            f"{len(workflow.graph):,} nodes. Give these inputs names in a sidecar."
        )


class _Reading:
    """The inputs while they are read one after the other."""

    def __init__(self, workflow: Workflow, may_address: bool) -> None:
        self.problems: list[InputProblem] = []
        self.to_bind: dict[str, object] = {}
        self.parameters: dict[str, Parameter] = {}
        self.parsed: dict[str, object] = {}
        self.media: dict[str, MediaValue] = {}
        self._workflow = workflow
        self._may_address = may_address

    def take(self, name: str, value: object) -> None:
        """Read one input, or note why it cannot be."""
        try:
            parameter = find_input(self._workflow, name, may_address=self._may_address)
            if parameter is None:  # binding says best what is wrong with an address
                self.to_bind[name] = value
                return
            if value is None and not isinstance(parameter, Seed):
                return
            if isinstance(parameter, Media):
                self._take_media(parameter, name, value)
            else:
                self._take_value(parameter, name, value)
        except ValueError as error:
            self.problems.append(InputProblem(name, str(error)))

    def _take_media(self, parameter: Media, name: str, value: object) -> None:
        value = _read_text(value) if isinstance(value, Written) else value
        if isinstance(value, str) and value == parameter.default:
            self._note(parameter, value)
            self.to_bind[name] = value
            return
        self.media[parameter.name] = read_media(parameter, value)
        self._note(parameter, None)
        # Stands in for the file until it is known to be there.
        self.to_bind[name] = Upload(parameter.name, content=b"")

    def _take_value(self, parameter: Parameter, name: str, value: object) -> None:
        if isinstance(value, Kept | ToCome):
            raise ValueError(f"{parameter.name} takes no file.")
        read = _read(parameter, value)
        self.to_bind[name] = read
        if not (isinstance(parameter, Seed) and read == -1):
            self._note(parameter, read)
        else:
            self.parameters[parameter.name] = parameter

    def _note(self, parameter: Parameter, value: object) -> None:
        self.parameters[parameter.name] = parameter
        self.parsed[parameter.name] = value


def find_input(workflow: Workflow, name: str, *, may_address: bool) -> Parameter | None:
    """The parameter of this name or address; None for an address that leads nowhere.

    Raises ValueError for a name that is none, and for an address where only names are taken.
    """
    known = next((one for one in workflow.parameters if one.name == name), None)
    if known is not None:
        return known
    names = [parameter.name for parameter in workflow.parameters]
    if not may_address or "." not in name:
        listed = ", ".join(names[:_MOST_NAMED]) + (" .." if len(names) > _MOST_NAMED else "")
        has = f" It has {listed}." if names else " It has none."
        hint = did_you_mean(name[:60], names)
        raise ValueError(f"{workflow.name} has no input {shown(name)}.{hint}{has}")
    return workflow.find(name)


def takes_file(workflow: Workflow, name: str, *, may_address: bool) -> bool:
    """Whether a file can be given under this name. Raises ValueError like `find_input`."""
    return isinstance(find_input(workflow, name, may_address=may_address), Media)


def _read(parameter: Parameter, value: object) -> object:
    if isinstance(value, Written):
        return parameter.parse(value.text)
    return parameter.check(value)


def _read_text(written: Written) -> object:
    """A field of a form, which may hold what is an object in JSON."""
    if len(written.text) <= _LONGEST_OBJECT and written.text.lstrip()[:1] == "{":
        try:
            return json.loads(written.text)
        except (ValueError, RecursionError):
            return written.text
    return written.text.strip()


def _plain(value: object) -> object:
    """Numbers that are the same are written the same."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _told(media: MediaValue) -> Sequence[object]:
    match media:
        case Kept(asset):
            return ["hash", asset.hash]
        case AssetNamed(id):
            return ["asset", id]
        case OutputOf(job_id, node_id, index):
            return ["output", job_id, node_id, index]
        case Inline(content):
            # The hash of an asset, so that a file is the same however it comes.
            return ["hash", content_hash(_blake3(content))]
        case At(url):
            return ["url", url]
        case ToCome():
            return ["file"]


def _blake3(content: bytes) -> str:
    from blake3 import blake3

    return blake3(content).hexdigest()


def _reference(asset: Asset, mask_of: object) -> dict[str, Any]:
    info: dict[str, Any] = {"id": asset.id}
    if mask_of is not None:
        info["mask_of"] = list(mask_of) if isinstance(mask_of, tuple) else mask_of
    return {"__type": TYPE, "info": info}
