"""A graph, and what a server knows of its nodes, read into the inputs a person would look for.

The names are always the same ones: ``prompt, negative_prompt, image, mask, video, audio, seed,
steps, cfg, denoise, width, height, batch_size, sampler, scheduler, model``; further ones of a
kind get ``_2``, ``_3``. One input fills every node that holds the same thing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import get_args

from comfyserve.workflows.declaration import Found, declared
from comfyserve.workflows.graph import Address, Graph, Link, Node
from comfyserve.workflows.node_catalog import NodeCatalog, UploadKind
from comfyserve.workflows.parameters import Parameter
from comfyserve.workflows.walk import MOST, Leaf, Setting, Side, Walk, last_part

_NAMES = (
    *("prompt", "negative_prompt", "image", "mask", "video", "audio", "seed", "steps", "cfg"),
    *("denoise", "width", "height", "batch_size", "sampler", "scheduler", "model"),
)
_ADVANCED = ("denoise", "batch_size", "sampler", "scheduler", "model")


@dataclass(frozen=True, slots=True)
class Inferred:
    """What a graph tells of itself: its inputs in the order a person wants to see them, and
    the ids of the nodes whose results people want, in the file's order."""

    parameters: tuple[Parameter, ...]
    outputs: tuple[str, ...]


def infer(graph: Graph, catalog: NodeCatalog | None = None) -> Inferred:
    """Read a checked graph.

    Without a catalogue the parameters have neither limits nor choices.
    """
    walk = Walk(graph, catalog)
    samplers = walk.samplers()
    finds = [*_behind_samplers(walk, samplers)]
    if not any(find.name in ("prompt", "negative_prompt") for find in finds):
        finds.extend(islice(_loose_texts(walk), MOST))
    if not samplers:
        finds.extend(islice(_loose_settings(walk), MOST))
    finds.extend(islice(_media(walk), MOST))
    parameters = (declared(find, walk.nodes, catalog) for find in _numbered(_merged(finds)))
    return Inferred(tuple(parameters), walk.outputs)


def _behind_samplers(walk: Walk, samplers: list[Node]) -> Iterator[Found]:
    for sampler in samplers:
        yield from _sampler_texts(walk, sampler)
        for setting in get_args(Setting):
            if leaf := walk.setting(sampler, setting):
                user, name = walk.nodes[leaf.consumer[0]], leaf.consumer[1]
                why = f"{name} of {user}" + ("" if user is sampler else f", used by {sampler}")
                yield Found(setting, (leaf,), why)
        if size := walk.size(sampler):
            yield from _sizes(walk, size, f"of the latent that {sampler} begins with")
        if model := walk.model(sampler):
            yield Found("model", (model,), f"the model that {sampler} uses")
        yield from _planned_sizes(walk, sampler)


def _sampler_texts(walk: Walk, sampler: Node) -> Iterator[Found]:
    sides: tuple[Side, ...] = ("positive", "negative")
    for side in sides:
        name = "prompt" if side == "positive" else "negative_prompt"
        for group in walk.texts(sampler, side):
            writer = walk.nodes[group[0].consumer[0]]
            if not _says_otherwise(writer, side):
                yield Found(name, group, f"text of {writer}, on the {side} side of {sampler}")


def _says_otherwise(node: Node, side: Side) -> bool:
    """The author's title is for the other side: a slip, and nobody can tell which of the two."""
    titled = {word for word in get_args(Side) if word in node.title.lower()}
    return bool(titled) and side not in titled


def _sizes(walk: Walk, node: Node, where: str) -> Iterator[Found]:
    for name in ("width", "height", "batch_size"):
        leaf = walk.value(node, name)
        if leaf and not isinstance(leaf.value, bool):
            yield Found(name, (leaf,), f"{name} of {node}, {where}")


def _planned_sizes(walk: Walk, sampler: Node) -> Iterator[Found]:
    """The size that some step planners want to know too: it must follow the latent's."""
    planner, size = walk.sigmas(sampler), walk.size(sampler)
    for name in ("width", "height"):
        if not planner or not size or planner is size:
            return
        latent, planned = walk.value(size, name), walk.value(planner, name)
        if latent and planned and latent.value == planned.value:
            yield Found(name, (planned,), f"{name} of {planner}")


def _loose_texts(walk: Walk) -> Iterator[Found]:
    """Texts named like prompts, where no sampler leads to one."""
    system: list[Found] = []
    for node in _makers(walk):
        if isinstance(node.inputs.get("negative_prompt"), str) and (
            negative := walk.text(node, "negative_prompt")
        ):
            yield Found("negative_prompt", (negative,), f"negative_prompt of {node}")
        for name in node.inputs:
            if re.match(r"system", name) and (leaf := _loose_text(walk, node, name)):
                system.append(Found("prompt", (leaf,), f"{name} of {node}", advanced=True))
            elif _LOOSE_TEXT.match(last_part(name)) and (leaf := _loose_text(walk, node, name)):
                negative_title = re.search("negative", node.title, re.IGNORECASE)
                public = "negative_prompt" if negative_title else "prompt"
                yield Found(public, (leaf,), f"{name} of {node}; no sampler leads to a text")
    yield from system


def _loose_text(walk: Walk, node: Node, name: str) -> Leaf | None:
    info = walk.catalog.input(node.class_type, name)
    if info and info.kind != "STRING":
        return None
    return walk.text(node, name)


_LOOSE_TEXT = re.compile(
    r"(positive_|user_|text_)?prompt$|text$|instructions?$|question$|lyrics$", re.IGNORECASE
)


def _loose_settings(walk: Walk) -> Iterator[Found]:
    """Seeds, sizes and models, where there is no sampler."""
    for node in _makers(walk):
        for name in ("seed", "noise_seed", "rand_seed"):
            if (leaf := walk.value(node, name)) and not isinstance(leaf.value, bool):
                yield Found("seed", (leaf,), f"{name} of {node}")
        feeds_on_pictures = any(re.search("image|pixels|mask", name) for name, _ in node.links())
        if "width" in node.inputs and "height" in node.inputs and not feeds_on_pictures:
            yield from _sizes(walk, node, "which makes a picture of that size")
    for node in walk.live_nodes():
        model = walk.model_of(node)
        if model and model.consumer[1] in ("ckpt_name", "unet_name"):
            yield Found("model", (model,), f"the model that {node} loads")


def _makers(walk: Walk) -> list[Node]:
    """Nodes that are neither loaders nor outputs, unless they are both: paid ones that make."""
    return [
        node
        for node in walk.live_nodes()
        if "load" not in node.class_type.lower() and not _only_shows(walk, node)
    ]


def _only_shows(walk: Walk, node: Node) -> bool:
    known = walk.catalog.get(node.class_type)
    return node.id in walk.outputs and not (known and known.is_paid)


def _media(walk: Walk) -> Iterator[Found]:
    has_mask_node = any(node.class_type == "LoadImageMask" for node in walk.live_nodes())
    for node in walk.live_nodes():
        for kind, name in _uploads(walk, node):
            leaf = Leaf((node.id, name), node.inputs[name], (node.id, name))
            is_mask = node.class_type == "LoadImageMask"
            yield Found("mask" if is_mask else kind, (leaf,), f"the file that {node} loads")
            mask = Link(node.id, 1)
            if node.class_type == "LoadImage" and not has_mask_node and mask in walk.used_outputs:
                why = f"{node} also gives a mask, drawn over its image"
                yield Found("mask", (leaf,), why, mask_of=leaf.address)


def _uploads(walk: Walk, node: Node) -> Iterator[tuple[UploadKind, str]]:
    known = walk.catalog.get(node.class_type)
    for name, value in node.literals():
        info = known.inputs.get(name) if known else None
        if isinstance(value, str) and info and info.upload:
            yield info.upload, name
    if known is None:
        for pattern, kind, name in _UPLOAD_NODES:
            if re.match(pattern, node.class_type) and isinstance(node.inputs.get(name), str):
                yield kind, name


_UPLOAD_NODES: tuple[tuple[str, UploadKind, str], ...] = (
    (r"LoadImage(Mask)?$", "image", "image"),
    (r"LoadVideo$", "video", "file"),
    (r"VHS_LoadVideo$|LoadVideo", "video", "video"),
    (r"LoadAudio$", "audio", "audio"),
    (r"VHS_LoadAudioUpload$", "audio", "audio"),
)


def _merged(finds: list[Found]) -> list[Found]:
    """One find for everything that holds the same value; each address belongs to one."""
    merged: dict[tuple[str, object], Found] = {}
    owners: dict[Address, tuple[str, object]] = {}
    for find in finds:
        key = (find.name, _sameness(find))
        leaves = tuple(
            leaf
            for leaf in find.leaves
            if find.mask_of or owners.setdefault(leaf.address, key) == key
        )
        if key in merged:
            merged[key] = merged[key].also(leaves)
        elif leaves:
            merged[key] = find.only(leaves)
    return list(merged.values())


def _sameness(find: Found) -> object:
    """What makes two finds of one name the same input: always for seeds, never for files."""
    if find.name == "seed":
        return None
    if find.name in get_args(UploadKind) or find.name == "mask":
        return find.leaves[0].address
    return find.value


def _numbered(finds: list[Found]) -> Iterator[Found]:
    for name in _NAMES:
        same = [find for find in finds if find.name == name]
        for number, find in enumerate(same, 1):
            folded = name in _ADVANCED or (number > 1 and name not in get_args(UploadKind))
            public = name if number == 1 else f"{name}_{number}"
            yield find.named(public, advanced=find.advanced or folded)
