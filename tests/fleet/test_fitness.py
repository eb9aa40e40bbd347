"""Why no backend would run a graph."""

from __future__ import annotations

from typing import Any

from comfyserve.comfy.backend import Backend
from comfyserve.fleet import Member, refusal
from comfyserve.fleet.catalogs import Known
from comfyserve.workflows.graph_check import WHOLE_GRAPH
from comfyserve.workflows.node_catalog import NodeCatalog
from tests.stand_ins import SAVE, loading, nodes


def member(number: int, object_info: dict[str, Any] | None) -> Member:
    """A backend that was never asked, with what is known of its nodes."""
    made = Member(Backend(f"http://gpu{number}:8188"))
    if object_info is not None:
        made.remember(Known(str(number), b"", NodeCatalog.from_json(object_info)))
    return made


def refused(graph: dict[str, Any], *infos: dict[str, Any] | None) -> dict[str, list[str]]:
    """The reasons, by node id."""
    members = [member(number, info) for number, info in enumerate(infos, start=1)]
    return {
        node_id: [problem.reason for problem in problems]
        for node_id, problems in refusal(graph, members).items()
    }


def test_one_backend_that_has_everything_is_enough() -> None:
    """Whatever the others lack, and while nothing is known nothing is refused."""
    assert refused(loading("a.ckpt"), nodes("b.ckpt"), nodes("a.ckpt")) == {}
    assert refused(loading("a.ckpt"), None) == {}
    assert refused(loading("a.ckpt")) == {}


def test_a_model_that_nobody_has_is_named_with_what_was_meant() -> None:
    """At the node and the input that ask for it."""
    [problem] = refusal(loading("foxx.ckpt"), [member(1, nodes("fox.ckpt", "cat.ckpt"))])["4"]

    assert (problem.field, problem.reason) == ("ckpt_name", "missing_model")
    assert problem.message.startswith("Node '4' (CheckpointLoaderSimple) asks for the model")
    assert problem.message.endswith("the server does not have. Did you mean 'fox.ckpt'?")


def test_one_good_output_is_enough() -> None:
    """A backend runs what it can of a graph, as it always did."""
    graph = {**loading("a.ckpt"), "5": {"class_type": "Text", "inputs": {}}}
    text = {"output_node": True, "input": {}}

    assert refused(graph, nodes("b.ckpt", Text=text)) == {}


def test_what_two_backends_have_only_together_is_refused() -> None:
    """The nearest one's problems are told, and what each lacks, by number and not by address."""
    graph = loading("a.ckpt", n="Dice")
    members = [member(1, nodes("a.ckpt")), member(2, nodes("b.ckpt", Dice=SAVE)), member(3, None)]

    found = refusal(graph, members)

    assert found[WHOLE_GRAPH][0].reason == "no_backend"
    told = found[WHOLE_GRAPH][0].message
    assert "backend 1 lacks the node" in told and "Dice" in told
    assert "backend 2 lacks the model" in told and "a.ckpt" in told
    assert "of backend 3 nothing is known yet" in told
    assert "gpu" not in str(found)
    assert set(found) in ({WHOLE_GRAPH, "n"}, {WHOLE_GRAPH, "4"})


def test_backends_that_are_alike_are_told_as_one() -> None:
    """Nobody needs to read the same thing twice."""
    info = NodeCatalog.from_json(nodes("a.ckpt"))
    members = [member(1, None), member(2, None)]
    for one in members:
        one.remember(Known("same", b"", info))

    assert set(refusal(loading("a.ckpt", n="Dice"), members)) == {"n"}


def test_a_choice_that_is_elsewhere_is_a_problem_here() -> None:
    """Two backends that each take another part of the choices take no graph that has both."""

    def chooser(*choices: str) -> dict[str, Any]:
        return {"input": {"required": {"name": [list(choices)]}}, "output_node": True}

    graph = {
        "1": {"class_type": "One", "inputs": {"name": "x"}},
        "2": {"class_type": "Two", "inputs": {"name": "y"}},
    }
    first = {"One": chooser("x"), "Two": chooser("z")}
    second = {"One": chooser("z"), "Two": chooser("y")}

    assert refused(graph, first, second) == {WHOLE_GRAPH: ["no_backend"], "2": ["missing_choice"]}
    assert refused(graph, first) == {}


def test_a_graph_of_many_unknown_models_is_answered_at_once() -> None:
    """Only some are told, and only a few compared with all that there are."""
    models = [f"model-{number:05}.safetensors" for number in range(5000)]
    graph = {
        str(number): {
            "class_type": "CheckpointLoaderSimple",
            "inputs": {"ckpt_name": f"modle-{number}.safetensors"},
        }
        for number in range(1000)
    }
    saves = {
        f"save {number}": {"class_type": "SaveImage", "inputs": {"images": [number, 1]}}
        for number in graph
    }

    found = refusal({**graph, **saves}, [member(1, nodes(*models))])

    assert len(found) == 100
    assert sum("Did you mean" in problems[0].message for problems in found.values()) == 5
