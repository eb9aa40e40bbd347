"""What a backend must have to run a graph: node classes, models, values that not all take.

Jobs with the same needs make a pool; who can run one of them can run all.

>>> needs = Needs(("KSampler", "SaveImage"), (("CheckpointLoaderSimple", "ckpt_name", "a.ckpt"),))
>>> Needs.from_json(needs.to_json()) == needs
True
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final, Self

from comfyserve.workflows.graph import Graph, nodes_of, upstream
from comfyserve.workflows.node_catalog import InputInfo, NodeCatalog

_POOL_BYTES: Final = 12


@dataclass(frozen=True, slots=True)
class Needs:
    """What a graph asks of a backend.

    *classes* are node classes in order, *choices* the values that some lists of choices must
    hold: node class, input, value. Both are sorted, so that equal needs are equal.
    """

    classes: tuple[str, ...] = ()
    choices: tuple[tuple[str, str, str], ...] = ()

    @property
    def pool(self) -> str:
        """The name of the pool of all jobs that need just this; empty where nothing is needed."""
        if not self.classes and not self.choices:
            return ""
        return hashlib.blake2b(self.to_json().encode(), digest_size=_POOL_BYTES).hexdigest()

    def to_json(self) -> str:
        """As a text to be kept, the same for the same needs."""
        return json.dumps([self.classes, self.choices], separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What `to_json` made."""
        classes, choices = json.loads(text)
        return cls(tuple(classes), tuple((node, name, value) for node, name, value in choices))


NOTHING: Final = Needs()
"""What any backend has."""


@dataclass(frozen=True, slots=True)
class Lack:
    """One thing of some needs that a backend does not have.

    A node class; or, with *input* and *value*, a value that this input of it does not take there.
    """

    node_class: str
    input: str | None = None
    value: str | None = None


def needs_of(graph: Graph, catalogs: Iterable[NodeCatalog]) -> Needs:
    """What the *graph* needs, as far as the *catalogs* of all known backends tell.

    Every node class counts. Of the values that nodes choose from lists those count which are
    models, and others where not all backends take them; what no list holds is left to the
    backend to judge. Files to upload come with the job, so they do not count.

    >>> object_info = {"Load": {"output_node": True, "input": {
    ...     "required": {"name": [["a.ckpt", "b.ckpt"]]}}}}
    >>> graph = {"1": {"class_type": "Load", "inputs": {"name": "a.ckpt"}}}
    >>> needs_of(graph, [NodeCatalog.from_json(object_info)])
    Needs(classes=('Load',), choices=(('Load', 'name', 'a.ckpt'),))
    """
    known = _each_once(catalogs)
    classes = tuple(sorted({entry["class_type"] for entry in graph.values()}))
    needed = [chosen for chosen in _chosen(graph, known) if chosen.is_needed]
    return Needs(classes, tuple(sorted(_live(graph, needed, known))))


def model_of(graph: Graph, catalogs: Iterable[NodeCatalog]) -> str:
    """The models that the *graph* loads, as one text; empty where it loads none.

    LoRAs are left out where there are others: they are laid over a model that stays loaded.
    """
    known = _each_once(catalogs)
    models = _live(graph, [chosen for chosen in _chosen(graph, known) if chosen.is_model], known)
    large = [choice for choice in models if not any(_LORA.search(word) for word in choice[:2])]
    return "\n".join(sorted({value for _, _, value in large or models}))


def lacks(needs: Needs, catalog: NodeCatalog) -> Iterator[Lack]:
    """What a backend with this *catalog* does not have of the *needs*; nothing where it can run.

    >>> next(lacks(Needs(("Dice",)), NodeCatalog()))
    Lack(node_class='Dice', input=None, value=None)
    """
    for node_class in needs.classes:
        if node_class not in catalog:
            yield Lack(node_class)
    for node_class, name, value in needs.choices:
        if takes(catalog, node_class, name, value) is False:
            yield Lack(node_class, name, value)


def takes(
    catalog: NodeCatalog, node_class: str, name: str, value: str | int | float
) -> bool | None:
    """Whether the list of choices at that input holds the *value*.

    None where there is no list to go by: another kind of input, or a class that is not there.
    """
    infos = _infos(catalog, node_class, name)
    lists = [info.choices for info in infos if info.choices is not None and _is_list(info)]
    if not lists:
        return None
    return any(
        value in choices or text_of(value) in [text_of(choice) for choice in choices]
        for choices in lists
    )


def is_model(value: object) -> bool:
    """Whether it is the name of a file with a model.

    >>> is_model("flux/dev.safetensors"), is_model("euler")
    (True, False)
    """
    return isinstance(value, str) and _MODEL_FILE.search(value) is not None


def text_of(value: str | int | float) -> str:
    """A choice as a text; numbers that are equal are one."""
    is_whole = isinstance(value, float) and value.is_integer()
    return str(int(value)) if is_whole else str(value)


_MODEL_FILE: Final = re.compile(r"\.(safetensors|sft|ckpt|pt|pth|bin|gguf|onnx|pkl)$", re.I)
_LORA: Final = re.compile("lora", re.I)

_Choice = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class _Chosen:
    """A value that a node has for an input; *verdicts* are those of `takes` for each catalogue.

    *is_known*: some catalogue has the node's class.
    """

    node_id: str
    choice: _Choice
    verdicts: tuple[bool | None, ...]
    is_known: bool

    @property
    def is_model(self) -> bool:
        """It names a model to load. Where nobody knows the class, it is taken at its word."""
        is_listed = any(verdict is not None for verdict in self.verdicts)
        return is_model(self.choice[2]) and (is_listed or not self.is_known)

    @property
    def is_needed(self) -> bool:
        """It decides where the graph can run. What no list holds decides nothing."""
        if self.is_model:
            return True in self.verdicts or not self.is_known
        return True in self.verdicts and False in self.verdicts


def _chosen(graph: Graph, catalogs: Sequence[NodeCatalog]) -> Iterator[_Chosen]:
    for node_id, entry in graph.items():
        node_class = entry["class_type"]
        is_known = any(node_class in catalog for catalog in catalogs)
        for name, value in entry["inputs"].items():
            if isinstance(value, str | int | float):
                verdicts = tuple(takes(one, node_class, name, value) for one in catalogs)
                yield _Chosen(node_id, (node_class, name, text_of(value)), verdicts, is_known)


def _live(graph: Graph, chosen: Sequence[_Chosen], catalogs: Sequence[NodeCatalog]) -> set[_Choice]:
    """The choices of nodes that some output needs; no backend looks at others."""
    if not chosen:
        return set()
    nodes = nodes_of(graph)
    ends = [node.id for node in nodes.values() if _may_be_output(node.class_type, catalogs)]
    live = upstream(nodes, ends)
    return {one.choice for one in chosen if one.node_id in live}


def _may_be_output(node_class: str, catalogs: Sequence[NodeCatalog]) -> bool:
    known = [kind for catalog in catalogs if (kind := catalog.get(node_class))]
    return not known or any(kind.is_output for kind in known)


def _each_once(catalogs: Iterable[NodeCatalog]) -> list[NodeCatalog]:
    """Backends of a fleet mostly have the same."""
    return list({id(catalog): catalog for catalog in catalogs}.values())


def _infos(catalog: NodeCatalog, node_class: str, name: str) -> Iterator[InputInfo]:
    """What is known of the input, under whichever choice of a dynamic combo it stands."""
    if (kind := catalog.get(node_class)) is None:
        return
    if info := kind.inputs.get(name):
        yield info
    elif "." in name:
        waiting = [kind.inputs[first]] if (first := name.partition(".")[0]) in kind.inputs else []
        while waiting:
            for info in chain.from_iterable(waiting.pop().branches.values()):
                if info.name == name:
                    yield info
                elif name.startswith(f"{info.name}."):
                    waiting.append(info)


def _is_list(info: InputInfo) -> bool:
    """A value is one of its choices, and not a file that comes with the job."""
    return not info.multiselect and info.upload is None
