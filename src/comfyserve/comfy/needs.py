"""What a graph needs and a server lacks: nodes with their packs, models, files, fitting values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, Final

from comfyserve.comfy.findings import Finding
from comfyserve.errors import nearest
from comfyserve.workflows.graph import Graph, Link, Node, nodes_of, shown, upstream
from comfyserve.workflows.node_catalog import InputInfo, NodeCatalog, NodeClass


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Where a model can be had, and the folder of the server's models that it belongs in."""

    url: str
    folder: str


def shortfalls(
    graph: Graph,
    catalog: NodeCatalog,
    *,
    missing_files: Iterable[str] = (),
    sources: Mapping[str, ModelSource] | None = None,
) -> Iterator[Finding]:
    """What keeps *graph* from running where *catalog* is from; nothing if all is there.

    *missing_files* are those of `files_of` that the server does not have. *sources* tell of
    models by name, as far as the workflow's file does.
    """
    nodes = nodes_of(graph)
    yield from missing_nodes(graph, catalog)
    known = _running(nodes, catalog)
    is_whole = not catalog.missing_classes(graph)
    if is_whole and not any(node_class.is_output for _, node_class in known):
        message = "None of its nodes gives a result, so the server would refuse it."
        yield Finding("problem", "workflow", message, "End it with a node such as SaveImage.")
    lacking = frozenset(missing_files)
    absent: dict[tuple[str, str], list[str]] = {}
    for node, node_class in known:
        for name, info in node_class.inputs.items():
            if name not in node.inputs:
                if info.required and _is_always_there(info):
                    message = f"{_capital(node)} lacks its input {name}."
                    yield Finding("problem", "values", message, "Set or link it in the editor.")
            elif info.upload:
                yield from _missing_file(node, name, lacking)
            elif _is_absent(node.inputs[name], info):
                absent.setdefault((name, str(node.inputs[name])), []).append(node.id)
            else:
                yield from _outside(node, name, info)
    for (name, value), ids in absent.items():
        yield _absent(name, value, [nodes[node_id] for node_id in ids], catalog, sources or {})
    yield from _paid(known)


def files_of(graph: Graph, catalog: NodeCatalog) -> list[str]:
    """The input files that a graph names and the catalogue does not list."""
    return [
        value
        for node, node_class in _running(nodes_of(graph), catalog)
        for name, value in node.literals()
        if (info := node_class.inputs.get(name)) and info.upload
        if isinstance(value, str) and value and value not in (info.choices or ())
    ]


def model_sources(document: Mapping[str, Any]) -> dict[str, ModelSource]:
    """Where the models of a file in the editor's format can be had, as far as it tells."""
    found: dict[str, ModelSource] = {}
    subgraphs = _items(_mapping(document.get("definitions")).get("subgraphs"))
    for graph in (document, *map(_mapping, subgraphs)):
        for node in map(_mapping, _items(graph.get("nodes"))):
            models = _items(_mapping(node.get("properties")).get("models"))
            for model in map(_mapping, (*models, *_items(graph.get("models")))):
                name, url = model.get("name"), model.get("url")
                folder = model.get("directory")
                if isinstance(name, str) and isinstance(url, str) and re.match("https?://", url):
                    where = folder if isinstance(folder, str) else ""
                    found.setdefault(name, ModelSource(url, where))
    return found


def _running(nodes: Mapping[str, Node], catalog: NodeCatalog) -> list[tuple[Node, NodeClass]]:
    """The nodes of known classes that an output needs: a server looks at no others."""
    outputs = [node.id for node in nodes.values() if _is_output(node, catalog)]
    live = upstream(nodes, outputs or nodes)
    return [
        (node, node_class)
        for node in nodes.values()
        if node.id in live and (node_class := catalog.get(node.class_type))
    ]


def _is_output(node: Node, catalog: NodeCatalog) -> bool:
    known = catalog.get(node.class_type)
    return known.is_output if known else True


def missing_nodes(graph: Graph, catalog: NodeCatalog) -> Iterator[Finding]:
    for class_type, ids in catalog.missing_classes(graph).items():
        places = f"node {ids[0]}" if len(ids) == 1 else f"nodes {_listed(ids)}"
        message = f"The server has no {shown(class_type)[1:-1]}, which {places} needs."
        if len(ids) > 1:
            message = message.replace(" needs.", " need.")
        packs = (_pack_advice(_mapping(graph[node_id].get("_meta"))) for node_id in ids)
        advice = next((told for told in packs if told), "")
        yield Finding("problem", "nodes", message, advice or _look_for_pack(class_type, catalog))


def _pack_advice(meta: Mapping[Any, Any]) -> str:
    pack, repository, version = (meta.get(key) for key in ("cnr_id", "aux_id", "ver"))
    of_version = f" {version}" if isinstance(version, str) and version else ""
    if pack == "comfy-core":
        saved = f" (the file is from{of_version})" if of_version else ""
        return f"It belongs to ComfyUI itself{saved}: use a newer, or the full, ComfyUI."
    if isinstance(pack, str) and pack:
        return f"Install the pack {pack}{of_version} there, with ComfyUI-Manager."
    if isinstance(repository, str) and repository:
        return f"Install the pack github.com/{repository} there."
    return ""


def _look_for_pack(class_type: str, catalog: NodeCatalog) -> str:
    close = nearest(class_type[:60], catalog.classes, 1)
    alike = close and SequenceMatcher(None, class_type, close[0]).ratio() > _ALIKE
    hint = f"Did you mean {close[0]!r}?" if alike else ""
    search = "The file does not tell which pack brings it; ComfyUI-Manager finds missing nodes."
    return f"{hint} {search}".strip()


_ALIKE: Final = 0.8


def _missing_file(node: Node, name: str, lacking: frozenset[str]) -> Iterator[Finding]:
    value = node.inputs[name]
    if isinstance(value, str) and value in lacking:
        message = f"{_capital(node)} loads {shown(value)}, which is not on the server."
        advice = f"Give a file with each run: {node.id}.{name}=@FILE, or by the input's name."
        yield Finding("warn", "files", message, advice)


def _is_absent(value: object, info: InputInfo) -> bool:
    """Whether *value* is none of the choices that the server has."""
    if info.kind != "COMBO" or info.choices is None or info.multiselect or Link.read(value):
        return False
    if isinstance(value, str):
        slashed = {str(choice).replace("\\", "/") for choice in info.choices}
        return value.replace("\\", "/") not in slashed
    return isinstance(value, int | float) and value not in info.choices


def _absent(
    name: str,
    value: str,
    users: list[Node],
    catalog: NodeCatalog,
    sources: Mapping[str, ModelSource],
) -> Finding:
    info = catalog.input(users[0].class_type, name)
    choices = [str(choice) for choice in (info.choices if info else None) or ()]
    who = _listed([str(node) for node in users], most=3)
    is_model = bool(_MODEL_FILE.search(value)) or value in sources
    what = "model" if is_model else f"{name}"
    message = f"The server has no {what} {shown(value)}, which {who} {_asks(users)}."
    close = nearest(value[:200], choices, 3)
    other = f"{users[0].id}.{name}=NAME sets another."
    if is_model:
        has = f"The nearest it has: {_listed(close)}; {other}" if close else ""
        advice = f"{_get(value, name, sources)} {has}".strip()
        return Finding("problem", "models", message, advice)
    has = f"It has {_listed(close or choices, most=6)}" if choices else "It has none at all"
    return Finding("problem", "values", message, f"{has}; {other}")


def _get(value: str, name: str, sources: Mapping[str, ModelSource]) -> str:
    folder = _FOLDERS.get(name.rstrip("0123456789"), "")
    if source := sources.get(value) or sources.get(value.replace("\\", "/").rpartition("/")[2]):
        return f"Download {source.url} into its models/{source.folder or folder}."
    return f"Put it into its models/{folder}." if folder else "Put it into its models folder."


_MODEL_FILE: Final = re.compile(r"\.(safetensors|sft|ckpt|pt|pth|bin|gguf|onnx|pkl)$", re.I)
_FOLDERS: Final[Mapping[str, str]] = {
    "ckpt_name": "checkpoints",
    "unet_name": "diffusion_models",
    "lora_name": "loras",
    "vae_name": "vae",
    "clip_name": "text_encoders",
    "control_net_name": "controlnet",
    "style_model_name": "style_models",
    "gligen_name": "gligen",
    "hypernetwork_name": "hypernetworks",
}


def _outside(node: Node, name: str, info: InputInfo) -> Iterator[Finding]:
    value = node.inputs[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    if info.kind not in ("INT", "FLOAT"):
        return
    for limit, is_beyond, word in (
        (info.minimum, info.minimum is not None and value < info.minimum, "least"),
        (info.maximum, info.maximum is not None and value > info.maximum, "most"),
    ):
        if is_beyond:
            message = f"{_capital(node)} has {name} {shown(value)}; the {word} is {limit}."
            yield Finding("problem", "values", message, f"Set another with {node.id}.{name}=N.")


def _is_always_there(info: InputInfo) -> bool:
    """Whether a graph must have this input; dynamic ones stand there under other names."""
    return not info.kind.startswith("COMFY_") and not info.branches


def _paid(known: list[tuple[Node, NodeClass]]) -> Iterator[Finding]:
    paid = [str(node) for node, node_class in known if node_class.is_paid]
    if paid:
        message = f"It spends credits of a Comfy account: {_listed(paid, most=3)}."
        yield Finding("warn", "workflow", message, "Make sure that this is what you want.")


def _asks(users: list[Node]) -> str:
    return "asks for" if len(users) == 1 else "ask for"


def _listed(words: Iterable[str], most: int = 8) -> str:
    every = list(words)
    return ", ".join(every[:most]) + (f" and {len(every) - most} more" * (len(every) > most))


def _capital(node: Node) -> str:
    return f"N{str(node)[1:]}"


def _mapping(value: object) -> Mapping[Any, Any]:
    return value if isinstance(value, Mapping) else {}


def _items(value: object) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []
