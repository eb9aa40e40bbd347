"""Which inputs a graph is found to have, and what each fills."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from comfyserve.workflows.graph import Address
from comfyserve.workflows.node_catalog import NodeCatalog
from comfyserve.workflows.parameters import Choice, Mask, Number, Parameter, Seed
from comfyserve.workflows.workflow import Workflow

Load = Callable[[str], Workflow]


def at(*addresses: str) -> tuple[Address, ...]:
    """Addresses as they are written: ``3.cfg``."""
    return tuple((node_id, name) for node_id, _, name in (a.partition(".") for a in addresses))


def targets(workflow: Workflow) -> dict[str, tuple[Address, ...]]:
    return {parameter.name: parameter.targets for parameter in workflow.parameters}


def node(class_type: str, title: str = "", **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs, "_meta": {"title": title}}


def named(workflow: Workflow, name: str) -> Parameter:
    found = workflow.find(name)
    assert found is not None
    return found


# For each graph, all of its parameters in order, with what they fill.
EXPECTED = {
    "text_to_image": {
        "prompt": at("6.text"),
        "negative_prompt": at("7.text"),
        "seed": at("3.seed"),
        "steps": at("3.steps"),
        "cfg": at("3.cfg"),
        "denoise": at("3.denoise"),
        "width": at("5.width"),
        "height": at("5.height"),
        "batch_size": at("5.batch_size"),
        "sampler": at("3.sampler_name"),
        "scheduler": at("3.scheduler"),
        "model": at("4.ckpt_name"),
    },
    # The size comes from the picture.
    "image_to_image": {
        "prompt": at("6.text"),
        "negative_prompt": at("7.text"),
        "image": at("10.image"),
        "seed": at("3.seed"),
        "steps": at("3.steps"),
        "cfg": at("3.cfg"),
        "denoise": at("3.denoise"),
        "sampler": at("3.sampler_name"),
        "scheduler": at("3.scheduler"),
        "model": at("4.ckpt_name"),
    },
    "inpaint_with_drawn_mask": {
        "prompt": at("3.text"),
        "negative_prompt": at("4.text"),
        "image": at("2.image"),
        "mask": at("2.image"),
        "seed": at("6.seed"),
        "steps": at("6.steps"),
        "cfg": at("6.cfg"),
        "denoise": at("6.denoise"),
        "sampler": at("6.sampler_name"),
        "scheduler": at("6.scheduler"),
        "model": at("1.ckpt_name"),
    },
    # The refiner adds no noise: its seed does nothing.
    "base_and_refiner": {
        "prompt": at("4.text_g", "4.text_l", "6.text"),
        "negative_prompt": at("5.text", "7.text"),
        "seed": at("10.noise_seed"),
        "steps": at("10.steps", "11.steps"),
        "cfg": at("10.cfg"),
        "cfg_2": at("11.cfg"),
        "width": at("3.width"),
        "height": at("3.height"),
        "batch_size": at("3.batch_size"),
        "sampler": at("10.sampler_name", "11.sampler_name"),
        "scheduler": at("10.scheduler", "11.scheduler"),
        "model": at("1.ckpt_name"),
        "model_2": at("2.ckpt_name"),
    },
    # The second pass stands first in the file, and still comes second.
    "high_resolution_pass": {
        "prompt": at("3.text"),
        "prompt_2": at("21.text"),
        "negative_prompt": at("4.text"),
        "seed": at("5.seed", "9.seed"),
        "steps": at("5.steps"),
        "steps_2": at("9.steps"),
        "cfg": at("5.cfg", "9.cfg"),
        "denoise": at("5.denoise"),
        "denoise_2": at("9.denoise"),
        "width": at("2.width"),
        "height": at("2.height"),
        "batch_size": at("2.batch_size"),
        "sampler": at("5.sampler_name", "9.sampler_name"),
        "scheduler": at("5.scheduler", "9.scheduler"),
        "model": at("1.ckpt_name"),
    },
    # Values stand in primitives; a BasicGuider has neither cfg nor negative.
    "flux": {
        "prompt": at("43.value"),
        "seed": at("25.noise_seed"),
        "steps": at("17.steps"),
        "denoise": at("17.denoise"),
        "width": at("41.value"),
        "height": at("42.value"),
        "batch_size": at("27.batch_size"),
        "sampler": at("16.sampler_name"),
        "scheduler": at("17.scheduler"),
        "model": at("12.unet_name"),
    },
    "controlnet": {
        "prompt": at("3.text"),
        "negative_prompt": at("4.text"),
        "image": at("2.image"),
        "seed": at("8.seed"),
        "steps": at("8.steps"),
        "cfg": at("8.cfg"),
        "denoise": at("8.denoise"),
        "width": at("7.width"),
        "height": at("7.height"),
        "batch_size": at("7.batch_size"),
        "sampler": at("8.sampler_name"),
        "scheduler": at("8.scheduler"),
        "model": at("1.ckpt_name"),
    },
    # A zeroed conditioning is no negative prompt.
    "zeroed_negative": {
        "prompt": at("3.text"),
        "seed": at("6.seed"),
        "steps": at("6.steps"),
        "cfg": at("6.cfg"),
        "denoise": at("6.denoise"),
        "width": at("5.width"),
        "height": at("5.height"),
        "batch_size": at("5.batch_size"),
        "sampler": at("6.sampler_name"),
        "scheduler": at("6.scheduler"),
        "model": at("1.unet_name"),
    },
    "image_to_video": {
        "prompt": at("6.text"),
        "negative_prompt": at("7.text"),
        "image": at("5.image"),
        "seed": at("9.noise_seed"),
        "steps": at("9.steps", "10.steps"),
        "cfg": at("9.cfg", "10.cfg"),
        "width": at("8.width"),
        "height": at("8.height"),
        "batch_size": at("8.batch_size"),
        "sampler": at("9.sampler_name", "10.sampler_name"),
        "scheduler": at("9.scheduler", "10.scheduler"),
        "model": at("1.unet_name"),
        "model_2": at("2.unet_name"),
    },
    # A resized picture's size is no input of the workflow.
    "no_sampler": {"image": at("1.image")},
    "partner_node": {
        "prompt": at("2.prompt"),
        "image": at("1.image"),
        "seed": at("2.seed", "3.seed"),
    },
}


@pytest.mark.parametrize("name", EXPECTED)
def test_finds_the_inputs(load: Load, name: str) -> None:
    """A graph has these inputs, in this order, filling these places."""
    found = targets(load(name))
    assert found == EXPECTED[name]
    assert list(found) == list(EXPECTED[name])


@pytest.mark.parametrize("name", EXPECTED)
def test_a_catalogue_changes_no_names(load: Load, catalog: NodeCatalog, name: str) -> None:
    """With a server's catalogue the inputs are the same ones, known better."""
    assert targets(load(name).described_by(catalog)) == EXPECTED[name]


@pytest.mark.parametrize("name", EXPECTED)
def test_every_parameter_says_why(load: Load, name: str) -> None:
    """Each parameter tells which node it was found at."""
    assert all("node " in parameter.why for parameter in load(name).parameters)


def test_the_catalogue_brings_limits_and_choices(load: Load, catalog: NodeCatalog) -> None:
    """Limits come from the node that uses a value, even where a primitive holds it."""
    flux = load("flux").described_by(catalog)
    width, scheduler = named(flux, "width"), named(flux, "scheduler")
    assert isinstance(width, Number)
    assert (width.minimum, width.maximum) == (16, 16384)
    assert isinstance(scheduler, Choice)
    assert "karras" in (scheduler.choices or ())
    assert named(load("text_to_image").described_by(catalog), "cfg").description.startswith("The C")


def test_a_seed_fits_every_node_it_fills(load: Load, catalog: NodeCatalog) -> None:
    """A seed shared by several nodes has the narrowest of their limits."""
    seed = named(load("partner_node").described_by(catalog), "seed")
    assert isinstance(seed, Seed)
    assert seed.maximum == 2**31 - 1


def test_a_drawn_mask_is_laid_over_its_image(load: Load) -> None:
    """Where a graph uses the mask of a LoadImage, the mask belongs to that image."""
    mask = named(load("inpaint_with_drawn_mask"), "mask")
    assert isinstance(mask, Mask)
    assert mask.mask_of == ("2", "image")


def test_a_mask_node_is_a_mask_of_its_own() -> None:
    """A LoadImageMask makes the mask a file of its own."""
    workflow = Workflow.from_json(
        {
            "1": node("LoadImage", image="a.png"),
            "2": node("LoadImageMask", image="m.png", channel="red"),
            "3": node("Combine", image=["1", 0], drawn=["1", 1], mask=["2", 0]),
            "4": node("SaveImage", images=["3", 0]),
        }
    )
    mask = named(workflow, "mask")
    assert targets(workflow) == {"image": at("1.image"), "mask": at("2.image")}
    assert isinstance(mask, Mask)
    assert mask.mask_of is None


def test_finds_media_by_the_servers_flags(catalog: NodeCatalog) -> None:
    """Files are inputs wherever the server lets one upload them."""
    workflow = Workflow.from_json(
        {
            "1": node("LoadVideo", file="a.mp4"),
            "2": node("LoadAudio", audio="a.flac"),
            "3": node("LoadImageOutput", image="old.png [output]"),
            "4": node("LoadImage", image="one.png"),
            "5": node("LoadImage", image="one.png"),
            "6": node("SaveAll", a=["1", 0], b=["2", 0], c=["3", 0], d=["4", 0], e=["5", 0]),
        }
    )
    expected = {
        "image": at("4.image"),
        "image_2": at("5.image"),
        "video": at("1.file"),
        "audio": at("2.audio"),
    }
    assert targets(workflow) == targets(workflow.described_by(catalog)) == expected


def test_leaves_out_what_no_output_needs() -> None:
    """Nodes that lead to no output bring no inputs."""
    workflow = Workflow.from_json(
        {
            "1": node("EmptyImage", width=8, height=8),
            "2": node("SaveImage", images=["1", 0]),
            "3": node("LoadImage", image="unused.png"),
            "4": node("Generate", prompt="unused", seed=3),
        }
    )
    assert targets(workflow) == {"width": at("1.width"), "height": at("1.height")}


SAMPLER: dict[str, Any] = {
    "s": node("KSampler", seed=1, steps=2, positive=["p", 0], latent_image=["l", 0]),
    "l": node("EmptyLatentImage", width=8, height=8),
    "o": node("SaveImage", images=["s", 0]),
}


@pytest.mark.parametrize(
    ("nodes", "prompts"),
    [
        # All texts of a combination, the one that others are added to first.
        (
            {
                "p": node("ConditioningCombine", conditioning_1=["a", 0], conditioning_2=["b", 0]),
                "a": node("CLIPTextEncode", text="one"),
                "b": node("CLIPTextEncode", text="two"),
            },
            {"prompt": at("a.text"), "prompt_2": at("b.text")},
        ),
        # A switch is followed to the side that is chosen.
        (
            {
                "p": node("CLIPTextEncode", text=["w", 0]),
                "w": node("ComfySwitchNode", switch=True, on_false=["a", 0], on_true=["b", 0]),
                "a": node("PrimitiveString", value="one"),
                "b": node("PrimitiveString", value="two"),
            },
            {"prompt": at("b.value")},
        ),
        # A reroute hands on what it gets.
        (
            {"p": node("Reroute", value=["a", 0]), "a": node("CLIPTextEncode", text="one")},
            {"prompt": at("a.text")},
        ),
        # A system text and an addition are not what a person wants to write.
        (
            {
                "p": node("CLIPTextEncode", text=["c", 0]),
                "c": node("StringConcatenate", string_a=["a", 0], string_b=["b", 0]),
                "a": node("PrimitiveString", value="You are an assistant for pictures."),
                "b": node("PrimitiveString", "Prompt", value="a fox"),
            },
            {"prompt": at("b.value")},
        ),
        # What a display node shows is not what it was given.
        (
            {
                "p": node("CLIPTextEncode", text=["c", 0]),
                "c": node("ShowText|x", text=["a", 0], text_0="an old text"),
                "a": node("PrimitiveString", value="a fox"),
            },
            {"prompt": at("a.value")},
        ),
        # A loader that takes both texts itself.
        (
            {"p": node("Efficient Loader", positive="a fox", negative="bad")},
            {"prompt": at("p.positive")},
        ),
        # Lyrics are a text beside the tags.
        (
            {"p": node("TextEncodeAceStepAudio", tags="jazz", lyrics="la la")},
            {"prompt": at("p.tags"), "prompt_2": at("p.lyrics")},
        ),
    ],
)
def test_finds_the_text_a_person_writes(
    nodes: dict[str, Any], prompts: dict[str, tuple[Address, ...]]
) -> None:
    """The walk ends at the words, however they get to the sampler."""
    found = targets(Workflow.from_json({**SAMPLER, **nodes}))
    assert {name: where for name, where in found.items() if "prompt" in name} == prompts


def test_guiders_with_two_sides_have_both_texts() -> None:
    """A CFGGuider brings positive, negative and cfg to its sampler."""
    workflow = Workflow.from_json(
        {
            "1": node("SamplerCustomAdvanced", guider=["2", 0], noise=["3", 0], latent=["6", 0]),
            "2": node("CFGGuider", positive=["4", 0], negative=["5", 0], cfg=3.0),
            "3": node("RandomNoise", noise_seed=9),
            "4": node("CLIPTextEncode", text="a fox"),
            "5": node("CLIPTextEncode", text="rain"),
            "6": node("EmptyLatentImage", width=8, height=16),
            "7": node("SaveImage", images=["1", 0]),
        }
    )
    assert targets(workflow) == {
        "prompt": at("4.text"),
        "negative_prompt": at("5.text"),
        "seed": at("3.noise_seed"),
        "cfg": at("2.cfg"),
        "width": at("6.width"),
        "height": at("6.height"),
    }


def test_samplers_may_hand_on_both_sides() -> None:
    """A sampler that hands its texts to the next one does not swap them."""
    second = {
        "class_type": "KSampler (Efficient)",
        "inputs": {
            "steps": 2,
            "model": ["1", 0],
            "positive": ["1", 1],
            "negative": ["1", 2],
            "latent_image": ["1", 3],
        },
    }
    workflow = Workflow.from_json(
        {
            "1": node(
                "KSampler (Efficient)",
                steps=2,
                model=["2", 0],
                positive=["4", 0],
                negative=["5", 0],
                latent_image=["6", 0],
            ),
            "2": node("ADE_AnimateDiffLoaderWithContext", model_name="mm.ckpt", model=["3", 0]),
            "3": node("CheckpointLoaderSimple", ckpt_name="sd15.safetensors"),
            "4": node("CLIPTextEncode", text="a fox"),
            "5": node("CLIPTextEncode", text="rain"),
            "6": node("EmptyLatentImage", width="__WIDTH__", height=512),
            "7": second,
            "8": node("SaveImage", images=["7", 5]),
        }
    )
    assert targets(workflow) == {
        "prompt": at("4.text"),
        "negative_prompt": at("5.text"),
        "steps": at("1.steps", "7.steps"),
        "width": at("6.width"),
        "height": at("6.height"),
        "model": at("3.ckpt_name"),
    }
    assert named(workflow, "width").default is None


def test_texts_and_sizes_may_come_as_embeds() -> None:
    """A video sampler that takes embeds is walked like any other."""
    workflow = Workflow.from_json(
        {
            "1": node(
                "WanVideoSampler",
                seed=4,
                steps=30,
                cfg=6.0,
                text_embeds=["2", 0],
                image_embeds=["3", 0],
                model=["4", 0],
            ),
            "2": node("WanVideoTextEncode", positive_prompt="a fox", negative_prompt="rain"),
            "3": node("WanVideoEmptyEmbeds", width=832, height=480, num_frames=81),
            "4": node("WanVideoModelLoader", model="wan.safetensors"),
            "5": node("VHS_VideoCombine", images=["1", 0]),
        }
    )
    assert targets(workflow) == {
        "prompt": at("2.positive_prompt"),
        "negative_prompt": at("2.negative_prompt"),
        "seed": at("1.seed"),
        "steps": at("1.steps"),
        "cfg": at("1.cfg"),
        "width": at("3.width"),
        "height": at("3.height"),
        "model": at("4.model"),
    }


def test_one_text_on_both_sides_is_the_prompt() -> None:
    """A text that feeds both sides is offered once."""
    both = {"p": node("CLIPTextEncode", text="a fox")}
    sampler = node("KSampler", steps=2, positive=["p", 0], negative=["p", 0], latent=["l", 0])
    found = targets(Workflow.from_json({**SAMPLER, **both, "s": sampler}))
    assert found["prompt"] == at("p.text")
    assert "negative_prompt" not in found


def test_a_zeroed_text_is_not_the_negative_prompt() -> None:
    """A text whose conditioning is zeroed has no effect, so it is not offered."""
    nodes = {
        "p": node("CLIPTextEncode", text="a fox"),
        "q": node("CLIPTextEncode", text="without effect"),
        "z": node("ConditioningZeroOut", conditioning=["q", 0]),
        "s": node("KSampler", steps=2, positive=["p", 0], negative=["z", 0], latent=["l", 0]),
    }
    assert "negative_prompt" not in targets(Workflow.from_json({**SAMPLER, **nodes}))


def test_a_planner_that_knows_the_size_follows_it() -> None:
    """A step planner with the latent's size gets the new size too."""
    workflow = Workflow.from_json(
        {
            "1": node("SamplerCustomAdvanced", guider=["2", 0], sigmas=["3", 0], latent=["6", 0]),
            "2": node("BasicGuider", conditioning=["4", 0]),
            "3": node("Flux2Scheduler", steps=20, width=640, height=480),
            "4": node("CLIPTextEncode", text="a fox"),
            "6": node("EmptyFlux2LatentImage", width=640, height=480),
            "7": node("SaveImage", images=["1", 0]),
        }
    )
    assert targets(workflow)["width"] == at("6.width", "3.width")


def test_a_computed_size_is_no_input() -> None:
    """A number that other nodes work out cannot be set, one that a primitive holds can."""
    workflow = Workflow.from_json(
        {
            "1": node("EmptyImage", width=["2", 0], height=["3", 0]),
            "2": node("SimpleMath+", value="a*2", a=["3", 0]),
            "3": node("PrimitiveInt", value=64),
            "4": node("SaveImage", images=["1", 0]),
        }
    )
    assert targets(workflow) == {"height": at("3.value")}


def test_titles_tell_loose_texts_apart() -> None:
    """Without a sampler, a text under the title Negative is the negative prompt."""
    workflow = Workflow.from_json(
        {
            "1": node("Encode", "Positive", text="a fox"),
            "2": node("Encode", "Negative", text="rain"),
            "3": node("Paint", a=["1", 0], b=["2", 0], system_prompt="You are a painter."),
            "4": node("SaveImage", images=["3", 0]),
        }
    )
    assert targets(workflow) == {
        "prompt": at("1.text"),
        "prompt_2": at("3.system_prompt"),
        "negative_prompt": at("2.text"),
    }


def test_outputs_are_those_the_server_says(catalog: NodeCatalog) -> None:
    """Output nodes go by the catalogue, and by their names without one."""
    graph = {
        "1": node("EmptyImage", width=8, height=8),
        "2": node("SaveImage", images=["1", 0]),
        "3": node("PreviewAny", source=["1", 0]),
        "4": node("ImageInvert", image=["1", 0]),
    }
    workflow = Workflow.from_json(graph)
    assert workflow.outputs == workflow.described_by(catalog).outputs == ("2", "3")
    other = NodeCatalog.from_json({"SaveImage": {"output_node": False}})
    assert workflow.described_by(other).outputs == ("3",)


@pytest.mark.parametrize("shape", ["samplers", "texts", "loose texts", "pictures"])
def test_hostile_graphs_take_no_time(shape: str) -> None:
    """However long its chains, a graph is read in bounded time."""
    makers: dict[str, Callable[[int], dict[str, Any]]] = {
        "samplers": lambda i: node(
            "KSampler", seed=i, steps=i, positive=[f"{i - 1}", 0], latent_image=[f"{i - 1}", 0]
        ),
        "texts": lambda i: node("StringConcatenate", string_a=f"{i}", text=[f"{i - 1}", 0]),
        "loose texts": lambda i: node("Encode", text=f"{i}"),
        "pictures": lambda i: node("LoadImage", image="a.png", mask=[f"{i - 1}", 1]),
    }
    graph = {str(i): makers[shape](i) for i in range(1, 5_000)}
    began = time.monotonic()
    workflow = Workflow.from_json({"0": node("Start"), **graph})
    assert workflow.parameters
    assert time.monotonic() - began < 10
