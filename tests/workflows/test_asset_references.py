"""References to assets that stand anywhere in a graph."""

from __future__ import annotations

from typing import Any

import pytest

from comfyserve.assets import InputPath
from comfyserve.errors import GraphInvalid
from comfyserve.workflows.asset_references import AssetReference, references_in
from comfyserve.workflows.graph import Graph, with_inputs
from comfyserve.workflows.paths import value_at, written_path


def reference(id: object = "a", **more: object) -> dict[str, Any]:
    return {"__type": "core/ASSET", "info": {"id": id, **more}}


def graph(**inputs: object) -> Graph:
    return {"1": {"class_type": "LoadImage", "inputs": inputs}}


def problem_of(value: object) -> str:
    found = references_in(graph(image=value))
    assert found.references == ()
    (problem,) = found.problems
    return problem


def test_a_reference_is_found_at_any_depth() -> None:
    """Wherever a reference stands inside an input, it is found with its path, in order."""
    nested = graph(
        image=reference("a"),
        files=[1, {"deep": [reference("b", hash="blake3:00", file_path="cat.png")]}],
        last=reference("c"),
        link=["2", 0],
    )

    found = references_in(nested)

    assert found.problems == ()
    assert [(one.id, written_path(one.path)) for one in found.references] == [
        ("a", "1.image"),
        ("b", "1.files[1].deep[0]"),
        ("c", "1.last"),
    ]
    assert (found.references[1].hash, found.references[1].file_path) == ("blake3:00", "cat.png")


def test_what_only_looks_like_one_is_left_alone() -> None:
    """Other typed objects, and the words of a reference as a text, are values like any other."""
    found = references_in(
        graph(a={"__type": "core/OTHER", "info": {"id": "x"}}, b="core/ASSET", c={"info": {}})
    )

    assert found == references_in({})


def test_a_hash_is_enough_where_there_is_no_id() -> None:
    """A reference without an id is one by its hash."""
    (one,) = references_in(graph(image=reference(None, hash="blake3:00"))).references

    assert (one.id, one.hash) == (None, "blake3:00")


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"__type": "core/ASSET"}, "no 'info'"),
        ({"__type": "core/ASSET", "info": "a"}, "no 'info'"),
        ({"__type": "core/ASSET", "info": {}}, "no 'id'"),
        (reference(""), "no 'id'"),
        (reference(None), "no 'id'"),
        (reference(None, hash=""), "no 'id'"),
        (reference(5), "5 as its 'id'"),
        (reference(["a"]), "as its 'id'"),
        (reference("a", hash=1), "1 as its 'hash'"),
        (reference("a", file_path={}), "as its 'file_path'"),
        (reference("a", mask_of=["10"]), "as its 'mask_of'"),
        (reference("a", mask_of=["10", None]), "as its 'mask_of'"),
        (reference("a", mask_of=["1", "image"]), "a mask of itself"),
        (reference("a", mask_of=reference("b", mask_of=reference("c"))), "a mask of a mask"),
        (reference("a", mask_of=reference(7)), "7 as its 'id'"),
    ],
)
def test_a_malformed_reference_is_named(value: object, says: str) -> None:
    """A reference that says nothing is told in a sentence with its place."""
    problem = problem_of(value)

    assert says in problem
    assert "'1.image'" in problem


def test_a_problem_never_repeats_a_long_value() -> None:
    """What somebody put there is cut before it is told."""
    assert len(problem_of(reference(["x" * 100_000]))) < 300


def test_a_mask_says_over_what_it_is_laid() -> None:
    """A mask names the place of its image, or brings the image itself, or its name."""
    at, with_image, by_name = references_in(
        graph(
            mask=reference("m", mask_of=["2", "image"]),
            both=reference("m", mask_of=reference()),
            theirs=reference("m", mask_of="cat.png"),
        )
    ).references

    assert (at.mask_of, at.image) == (("2", "image"), None)
    assert with_image.mask_of == ("1", "both")
    assert isinstance(with_image.image, AssetReference)
    assert with_image.image.id == "a"
    assert (by_name.mask_of, by_name.image) == (("1", "theirs"), "cat.png")


@pytest.mark.parametrize("odd", [{"1": 5}, {"1": {}}, {"1": {"inputs": [reference()]}}, {}])
def test_a_graph_that_is_none_has_no_references(odd: Graph) -> None:
    """What is no node holds no references, and raises nothing."""
    assert references_in(odd).references == ()


def test_depth_has_an_end() -> None:
    """A value that is nested beyond all reason is not followed to its bottom."""
    value: object = reference()
    for _ in range(5000):
        value = [value]

    assert references_in(graph(image=value)).references == ()


def test_values_are_put_anywhere_and_nothing_else_changes() -> None:
    """Values replace what stands at deep paths; the graph they were put into stays as it was."""
    before = graph(files=[1, {"deep": [reference("b")]}], text="x")
    path: InputPath = ("1", "files", 1, "deep", 0)

    after = with_inputs(before, {path: "b.png", ("1", "files", 0): 2, ("1", "new"): 3})

    assert after == graph(files=[2, {"deep": ["b.png"]}], text="x", new=3)
    assert before == graph(files=[1, {"deep": [reference("b")]}], text="x")
    assert value_at(after, path) == "b.png"


@pytest.mark.parametrize(
    "path",
    [("1", "files", 2), ("1", "files", -1), ("1", "files", "0"), ("1", "text", 0), ("1", "no", 0)],
)
def test_a_path_that_leads_nowhere_is_told(path: InputPath) -> None:
    """A value cannot be put where nothing stands, nor read there."""
    before = graph(files=[1, 2], text="x")

    with pytest.raises(GraphInvalid):
        with_inputs(before, {path: "y"})
    with pytest.raises(GraphInvalid):
        value_at(before, path)
