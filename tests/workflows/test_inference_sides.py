"""Which texts and files are found where a graph is not as plain as most."""

from __future__ import annotations

from typing import Any

from comfyserve.workflows.node_catalog import NodeCatalog
from comfyserve.workflows.workflow import Workflow

_LOADER = {"input": {"required": {"image": [["a.png"], {"image_upload": True}]}}}
_ENCODER = {"input": {"required": {"text": ["STRING", {}]}}, "output": ["CONDITIONING"]}
_SAMPLER = {"input": {"required": {"steps": ["INT", {}]}}, "output": ["LATENT"]}
_SAVE = {"input": {"required": {"images": ["IMAGE"]}}, "output_node": True}
_PAIR = {
    "input": {"required": {"positive": ["CONDITIONING"], "negative": ["CONDITIONING"]}},
    "output": ["CONDITIONING", "CONDITIONING", "LATENT"],
}
CATALOG = NodeCatalog.from_json(
    {
        "LoadImage": _LOADER,
        "CLIPTextEncode": _ENCODER,
        "KSampler": _SAMPLER,
        "SaveImage": _SAVE,
        "Pair": _PAIR,
        "DualCFGGuider": {"input": {"required": {}}, "output": ["GUIDER"]},
        "SamplerCustomAdvanced": _SAMPLER,
    }
)


def node(class_type: str, title: str = "", **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs, "_meta": {"title": title}}


def found(graph: dict[str, Any]) -> dict[str, list[str]]:
    """The addresses that each input fills, by its name."""
    workflow = Workflow.from_json(graph, catalog=CATALOG)
    return {p.name: [".".join(target) for target in p.targets] for p in workflow.parameters}


def sampled(**more: Any) -> dict[str, Any]:
    """A sampler with two texts, and *more* nodes."""
    sampler = node("KSampler", steps=4, positive=["1", 0], negative=["2", 0])
    return {
        "1": node("CLIPTextEncode", text="a fox"),
        "2": node("CLIPTextEncode", text="blurry"),
        "3": sampler,
        "4": node("SaveImage", images=["3", 0]),
    } | more


def test_a_text_that_a_choice_brings() -> None:
    """The prompt that a choice of a dynamic combo brings goes by its last word."""
    inputs: dict[str, Any] = {"model": "Large", "model.prompt": "a fox", "model.seed": 1}
    graph = {"1": node("Paint", **inputs)}

    assert found(graph)["prompt"] == ["1.model.prompt"]


def test_a_negative_that_a_guider_mixes_in() -> None:
    """What comes out of a node's negative side is no second prompt, whatever takes it."""
    graph = {
        "1": node("CLIPTextEncode", "Positive", text="a fox"),
        "2": node("CLIPTextEncode", "Negative", text="blurry"),
        "3": node("Pair", positive=["1", 0], negative=["2", 0]),
        "4": node("DualCFGGuider", cond1=["3", 0], cond2=["3", 1], negative=["1", 0]),
        "5": node("SamplerCustomAdvanced", guider=["4", 0], latent_image=["3", 2]),
        "6": node("SaveImage", images=["5", 0]),
    }

    told = found(graph)

    assert (told["prompt"], told["negative_prompt"]) == (["1.text"], ["2.text"])
    assert "prompt_2" not in told


def test_a_title_for_the_other_side() -> None:
    """A text whose title contradicts its link is offered as neither."""
    slip = node("CLIPTextEncode", "Encode (Positive)", text="")

    assert "negative_prompt" not in found(sampled(**{"2": slip}))


def test_both_sides_behind_an_unknown_node() -> None:
    """Of a node nobody knows, each side is taken for what it is linked as."""
    graph = sampled(
        **{
            "3": node("KSampler", steps=4, positive=["9", 1], negative=["9", 2]),
            "9": node("OwnReference", positive=["1", 0], negative=["2", 0]),
        }
    )

    told = found(graph)

    assert (told["prompt"], told["negative_prompt"]) == (["1.text"], ["2.text"])


def test_an_end_that_the_server_does_not_know() -> None:
    """A node of an unknown kind at the end may be an output, so what it shows counts."""
    graph = sampled(
        **{"7": node("LoadImage", image="a.png"), "8": node("OwnCompare", image=["7", 0])}
    )

    assert found(graph)["image"] == ["7.image"]


def test_an_output_that_nothing_leads_to() -> None:
    """Where the last link is missing, the inputs are found all the same."""
    graph = sampled(**{"4": node("SaveImage", filename_prefix="x")})

    assert found(graph)["prompt"] == ["1.text"]
