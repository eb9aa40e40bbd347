"""What a graph needs of a backend, and what a backend lacks."""

from __future__ import annotations

from typing import Any

import pytest

from comfyserve.workflows.needs import (
    NOTHING,
    Lack,
    Needs,
    lacks,
    model_of,
    needs_of,
    takes,
)
from comfyserve.workflows.node_catalog import NodeCatalog
from tests.stand_ins import SAVE, loader, loading, nodes

MODEL = ("CheckpointLoaderSimple", "ckpt_name", "a.ckpt")


def catalog(object_info: dict[str, Any]) -> NodeCatalog:
    return NodeCatalog.from_json(object_info)


def test_node_classes_and_models_are_needed() -> None:
    """All classes, in order, and the models, though every backend has them."""
    needs = needs_of(loading("a.ckpt"), [catalog(nodes("a.ckpt", "b.ckpt"))])

    assert needs == Needs(("CheckpointLoaderSimple", "SaveImage"), (MODEL,))


def test_equal_needs_are_a_pool() -> None:
    """The order of a graph's nodes does not matter; another model makes another pool."""
    known = [catalog(nodes("a.ckpt", "b.ckpt"))]
    graph = loading("a.ckpt")
    turned = dict(reversed(graph.items()))

    assert needs_of(graph, known).pool == needs_of(turned, known).pool != ""
    assert needs_of(loading("b.ckpt"), known).pool != needs_of(graph, known).pool
    assert NOTHING.pool == ""


def sampler(*choices: str, **options: Any) -> dict[str, Any]:
    """A node that saves, with a list of choices that holds these."""
    return {"output_node": True, "input": {"required": {"name": [list(choices), options]}}}


def sampling(name: str) -> dict[str, Any]:
    return {"1": {"class_type": "Sampler", "inputs": {"name": name}}}


def test_a_choice_is_needed_where_backends_differ() -> None:
    """What all have says nothing about where to go, and neither does what none has."""
    both = [catalog({"Sampler": sampler("euler", "heun")}), catalog({"Sampler": sampler("euler")})]

    assert needs_of(sampling("heun"), both).choices == (("Sampler", "name", "heun"),)
    assert needs_of(sampling("euler"), both).choices == ()
    assert needs_of(sampling("nobody's"), both).choices == ()


def test_a_file_to_upload_is_not_needed() -> None:
    """It comes with the job, whatever a backend lists."""
    known = [
        catalog({"Sampler": sampler("cat.png", "x.ckpt", image_upload=True)}),
        catalog({"Sampler": sampler(image_upload=True)}),
    ]

    assert needs_of(sampling("cat.png"), known).choices == ()
    assert needs_of(sampling("x.ckpt"), known).choices == ()


def test_a_list_that_the_server_keeps_to_itself_is_not_needed() -> None:
    """Remote lists are not told, and of a list with many values nobody knows what is one."""
    remote = {"output_node": True, "input": {"required": {"name": ["COMBO", {"remote": {}}]}}}
    many = sampler("a.ckpt", multiselect=True)

    assert needs_of(sampling("a.ckpt"), [catalog({"Sampler": remote})]).choices == ()
    assert needs_of(sampling("a.ckpt"), [catalog({"Sampler": many})]).choices == ()


def test_a_text_that_looks_like_a_model_is_no_model() -> None:
    """Only what is chosen from a list is loaded."""
    text = {"output_node": True, "input": {"required": {"name": ["STRING", {}]}}}
    known = [catalog({"Sampler": text})]

    assert needs_of(sampling("notes.bin"), known).choices == ()
    assert model_of(sampling("notes.bin"), known) == ""


def test_a_node_that_no_output_needs_needs_no_model() -> None:
    """Backends do not look at it; its class must be there all the same."""
    graph = {**loading("a.ckpt"), "5": {"class_type": "Loader", "inputs": {"ckpt_name": "b.ckpt"}}}
    known = [catalog(nodes("a.ckpt", Loader=loader("b.ckpt")))]

    needs = needs_of(graph, known)

    assert needs.choices == (MODEL,)
    assert "Loader" in needs.classes
    assert model_of(graph, known) == "a.ckpt"


def test_while_nothing_is_known_models_are_taken_at_their_word() -> None:
    """So that a job that came early does not go where its model is not."""
    assert needs_of(loading("a.ckpt"), []).choices == (MODEL,)
    assert model_of(loading("a.ckpt"), []) == "a.ckpt"


def test_a_choice_within_a_choice_is_found() -> None:
    """Dynamic combos bring inputs of their own, named after them."""
    options = [
        {"key": "big", "inputs": {"required": {"file": [["a.ckpt"]]}}},
        {"key": "small", "inputs": {"required": {"size": ["INT", {}]}}},
    ]
    spec = ["COMFY_DYNAMICCOMBO_V3", {"options": options}]
    known = catalog({"Sampler": {"output_node": True, "input": {"required": {"model": spec}}}})
    inputs = {"model": "big", "model.file": "a.ckpt"}
    graph = {"1": {"class_type": "Sampler", "inputs": inputs}}

    assert needs_of(graph, [known]).choices == (("Sampler", "model.file", "a.ckpt"),)
    assert takes(known, "Sampler", "model.file", "b.ckpt") is False
    assert takes(known, "Sampler", "model", "huge") is False
    assert takes(known, "Sampler", "model.size", 3) is None


def test_what_a_backend_lacks() -> None:
    """Every class and every value it does not have, and nothing else."""
    needs = Needs(("CheckpointLoaderSimple", "Dice", "SaveImage"), (MODEL,))

    assert [*lacks(needs, catalog(nodes("a.ckpt", Dice=SAVE)))] == []
    assert [*lacks(needs, catalog(nodes("b.ckpt")))] == [Lack("Dice"), Lack(*MODEL)]
    assert [*lacks(NOTHING, NodeCatalog())] == []


@pytest.mark.parametrize("choice", [4, 4.0, "4"])
def test_numbers_are_choices_too(choice: object) -> None:
    """A list may hold numbers, which are needed as texts."""
    known = [
        catalog({"Sampler": {"output_node": True, "input": {"required": {"name": [[4, 8]]}}}}),
        catalog({"Sampler": {"output_node": True, "input": {"required": {"name": [[8]]}}}}),
    ]
    graph = {"1": {"class_type": "Sampler", "inputs": {"name": choice}}}

    needs = needs_of(graph, known)

    assert [not [*lacks(needs, one)] for one in known] == [True, False]


def test_loras_are_not_what_makes_a_backend_warm() -> None:
    """They are laid over a model that stays loaded; alone, they count."""
    lora = {
        "input": {"required": {"lora_name": [["x.safetensors"]], "model": ["MODEL"]}},
        "output_node": True,
    }
    known = [catalog(nodes("a.ckpt", LoraLoader=lora))]
    use = {"class_type": "LoraLoader", "inputs": {"lora_name": "x.safetensors", "model": ["4", 0]}}

    assert model_of({**loading("a.ckpt"), "5": use}, known) == "a.ckpt"
    assert model_of({"5": use}, known) == "x.safetensors"
    assert len(needs_of({**loading("a.ckpt"), "5": use}, known).choices) == 2
