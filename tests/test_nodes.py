"""What each built-in node does to pixels, texts and latents, run in a context of its own."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from PIL import Image

from comfyserve.engine.folders import Folders
from comfyserve.engine.node import Input, Node
from comfyserve.engine.nodes import ALL
from comfyserve.engine.nodes.loaders import CHECKPOINT
from tests.node_bench import NODES, Bench, gray, noise

RECORDINGS = Path(__file__).parent / "traces" / "recordings"
EXAMPLES = Path(__file__).parent.parent / "examples"
REAL: dict[str, Any] = json.loads((RECORDINGS / "object_info.json").read_text(encoding="utf-8"))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(Folders(tmp_path))


# --- the same shape as the real nodes -------------------------------------------------------


@pytest.mark.parametrize("node", ALL, ids=lambda node: node.name)
def test_node_has_the_shape_of_comfyuis(node: Node, tmp_path: Path) -> None:
    """Each node has ComfyUI's inputs in its order, their types and limits, and its outputs."""
    real = REAL[node.name]
    required = {name: given for name, given in node.inputs.items() if given.required}

    assert list(required) == real["input_order"]["required"]
    for name, given in required.items():
        assert_same_input(given, real["input"]["required"][name], Folders(tmp_path))
    assert [output.type for output in node.outputs] == real["output"]
    assert [output.name for output in node.outputs] == real["output_name"]
    assert node.output_node == real["output_node"]
    assert node.category == real["category"]
    assert (node.display_name or node.name) == (real["display_name"] or node.name)


def assert_same_input(given: Input, real: list[Any], folders: Folders) -> None:
    kind, options = real[0], real[1] if len(real) > 1 else {}
    if callable(given.type):
        choices = given.type(folders)
        offered = options["options"] if kind == "COMBO" else kind
        if not options.get("image_upload") and list(choices) != [CHECKPOINT]:
            assert set(choices) <= set(offered)
    else:
        assert given.type == kind
    compared = set(given.options) | set(options) - {"options", "multiselect"}
    for option in compared - {"tooltip"}:
        assert given.options.get(option) == options.get(option), option
    json.dumps(dict(given.options))


def test_node_names_are_unique() -> None:
    """No two nodes claim the same name."""
    assert len(NODES) == len(ALL)


# --- pixels ---------------------------------------------------------------------------------


def test_pixels_equal_those_of_a_real_comfyui(bench: Bench) -> None:
    """A color through scale, invert and PNG gives the very pixels a ComfyUI sent."""
    image = bench.give("EmptyImage", width=32, height=32, batch_size=2, color=193)
    image = bench.give(
        "ImageScale", image=image, upscale_method="bilinear", width=32, height=32, crop="disabled"
    )
    bench.run("SaveImageWebsocket", images=bench.give("ImageInvert", image=image))

    ours = [np.asarray(Image.open(io.BytesIO(png))) for png, _ in bench.sent]
    theirs = np.asarray(Image.open(io.BytesIO(recorded_websocket_png())))

    assert len(ours) == 2
    for picture in ours:
        assert picture.tolist() == theirs.tolist()


def recorded_websocket_png() -> bytes:
    lines = (RECORDINGS / "save_image_websocket.jsonl").read_text(encoding="utf-8").splitlines()
    frames = [entry for entry in map(json.loads, lines) if entry["kind"] == "ws-binary"]
    return base64.b64decode(frames[0]["base64"])[8:]


def test_empty_image_has_the_color_and_the_size(bench: Bench) -> None:
    """EmptyImage splits the color number into red, green and blue."""
    image = bench.give("EmptyImage", width=3, height=2, batch_size=4, color=0xFF8000)

    assert image.shape == (4, 2, 3, 3)
    assert_allclose(image[3, 1, 2], [1, 128 / 255, 0])


def test_invert_turns_values_around(bench: Bench) -> None:
    """Inverting twice gives the picture back."""
    image = noise(1, 4, 4)

    once = bench.give("ImageInvert", image=image)

    assert_allclose(once, 1 - image)
    assert_allclose(bench.give("ImageInvert", image=once), image, atol=1e-6)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("nearest-exact", [0, 0, 1, 1]),
        ("bilinear", [0, 0.25, 0.75, 1]),
        ("bicubic", [-0.10546875, 0.2265625, 0.7734375, 1.10546875]),
        ("area", [0, 0, 1, 1]),
    ],
)
def test_scaling_up_follows_pytorch(bench: Bench, method: str, expected: list[float]) -> None:
    """Each method weighs the old pixels as PyTorch's interpolate does."""
    image = gray([0, 1])

    wide = bench.give(
        "ImageScale", image=image, upscale_method=method, width=4, height=1, crop="disabled"
    )

    assert_allclose(wide[0, 0, :, 1], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("nearest-exact", [0.0, 1.0]),
        ("bilinear", [0.05, 0.8]),
        ("area", [0.1, 0.6]),
    ],
)
def test_scaling_down_follows_pytorch(bench: Bench, method: str, expected: list[float]) -> None:
    """Three pixels become two by the same rules, whatever does not divide evenly."""
    image = gray([0, 0.2, 1])

    narrow = bench.give(
        "ImageScale", image=image, upscale_method=method, width=2, height=1, crop="disabled"
    )

    assert_allclose(narrow[0, 0, :, 0], expected, atol=1e-6)


@pytest.mark.parametrize("method", ["nearest-exact", "bilinear", "area", "bicubic"])
def test_scaling_to_the_same_size_changes_nothing(bench: Bench, method: str) -> None:
    """Every exact method leaves a picture of the right size as it is."""
    image = noise(2, 5, 7)

    same = bench.give(
        "ImageScale", image=image, upscale_method=method, width=7, height=5, crop="disabled"
    )

    assert_allclose(same, image, atol=1e-6)


def test_lanczos_goes_through_eight_bits(bench: Bench) -> None:
    """Lanczos is Pillow's own, on pixels of eight bits."""
    image = noise(2, 8, 8)

    small = bench.give("ImageScaleBy", image=image, upscale_method="lanczos", scale_by=0.5)

    eight = Image.fromarray((image[1] * 255).astype(np.uint8))
    expected = np.asarray(eight.resize((4, 4), Image.Resampling.LANCZOS)) / 255
    assert_allclose(small[1], expected, atol=1e-6)


def test_a_side_of_zero_follows_the_other(bench: Bench) -> None:
    """ImageScale keeps the proportions when one side is 0, and the picture when both are."""
    image = noise(1, 10, 20)
    given = {"image": image, "upscale_method": "bilinear", "crop": "disabled"}

    assert bench.give("ImageScale", width=0, height=5, **given).shape == (1, 5, 10, 3)
    assert bench.give("ImageScale", width=40, height=0, **given).shape == (1, 20, 40, 3)
    assert bench.give("ImageScale", width=0, height=0, **given) is image


def test_center_crop_cuts_the_longer_side(bench: Bench) -> None:
    """With crop, what is too wide is cut left and right before it is scaled."""
    image = gray([0.1, 0.5, 0.5, 0.9], [0.1, 0.5, 0.5, 0.9])

    square = bench.give(
        "ImageScale", image=image, upscale_method="area", width=1, height=1, crop="center"
    )

    assert_allclose(square, np.full((1, 1, 1, 3), 0.5), atol=1e-6)


def test_scale_by_never_makes_an_empty_picture(bench: Bench) -> None:
    """A tiny factor still leaves one pixel."""
    tiny = bench.give("ImageScaleBy", image=noise(1, 8, 8), upscale_method="area", scale_by=0.01)

    assert tiny.shape == (1, 1, 1, 3)


def test_batch_joins_pictures_of_different_sizes(bench: Bench) -> None:
    """The second picture takes the size of the first."""
    joined = bench.give("ImageBatch", image1=noise(2, 4, 6), image2=noise(3, 8, 8))

    assert joined.shape == (5, 4, 6, 3)
    assert_allclose(joined[:2], noise(2, 4, 6))


def test_crop_stops_at_the_edge(bench: Bench) -> None:
    """A crop that reaches outside gives what is there, at least one pixel."""
    image = noise(1, 6, 8)

    part = bench.give("ImageCrop", image=image, width=3, height=2, x=1, y=4)
    corner = bench.give("ImageCrop", image=image, width=100, height=100, x=100, y=100)

    assert_allclose(part, image[:, 4:6, 1:4])
    assert_allclose(corner, image[:, 5:, 7:])


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("normal", 0.75),
        ("multiply", 0.1875),
        ("screen", 0.8125),
        ("overlay", 0.375),
        ("soft_light", 0.375),
        ("difference", 0.0),
    ],
)
def test_blend_modes(bench: Bench, mode: str, expected: float) -> None:
    """Each mode mixes a dark and a light picture by its own formula; half of it is kept."""
    dark, light = gray([0.25]), gray([0.75])

    full = bench.give("ImageBlend", image1=dark, image2=light, blend_factor=1.0, blend_mode=mode)
    half = bench.give("ImageBlend", image1=dark, image2=light, blend_factor=0.5, blend_mode=mode)

    assert_allclose(full[0, 0, 0], [expected] * 3, atol=1e-6)
    unclipped = -0.5 if mode == "difference" else expected
    assert_allclose(half[0, 0, 0], [max(0, (0.25 + unclipped) / 2)] * 3, atol=1e-6)


def test_blend_says_when_batches_do_not_match(bench: Bench) -> None:
    """Two pictures cannot be blended with three, but one can."""
    given = {"blend_factor": 0.5, "blend_mode": "normal"}

    blended = bench.give("ImageBlend", image1=noise(1, 4, 4), image2=noise(3, 8, 8), **given)

    assert blended.shape == (3, 4, 4, 3)
    with pytest.raises(ValueError, match="image1 has 2 pictures and image2 has 3"):
        bench.run("ImageBlend", image1=noise(2, 4, 4), image2=noise(3, 4, 4), **given)


def test_blur_is_comfyuis_gaussian(bench: Bench) -> None:
    """One bright pixel becomes the square kernel, whose width is measured in radii."""
    image = np.zeros((1, 5, 5, 3), np.float32)
    image[0, 2, 2] = 1

    blurred = bench.give("ImageBlur", image=image, blur_radius=1, sigma=0.5)

    y, x = np.mgrid[-1:2, -1:2]
    kernel = np.exp(-(x**2 + y**2) / (2 * 0.5**2))
    assert_allclose(blurred[0, 1:4, 1:4, 0], kernel / kernel.sum(), atol=1e-6)
    assert_allclose(blurred[0, 0], 0, atol=1e-6)


def test_blur_mirrors_at_the_edges(bench: Bench) -> None:
    """A plain picture stays plain up to its edges, even under a radius larger than itself."""
    plain = np.full((1, 3, 4, 3), 0.3, np.float32)

    blurred = bench.give("ImageBlur", image=plain, blur_radius=31, sigma=10.0)

    assert_allclose(blurred, plain, atol=1e-5)


def test_padding_is_gray_and_its_mask_fades(bench: Bench) -> None:
    """The mask is 1 on the padding and falls as a square towards the middle."""
    image = noise(1, 8, 8)

    result = bench.run(
        "ImagePadForOutpaint", image=image, left=4, top=0, right=0, bottom=2, feathering=2
    )

    padded, mask = result.values
    assert padded.shape == (1, 10, 12, 3)
    assert mask.shape == (1, 10, 12)
    assert_allclose(padded[:, :8, 4:], image)
    assert_allclose(padded[0, 9, 0], 0.5)
    assert_allclose(mask[0, 3, :8], [1, 1, 1, 1, 1, 0.25, 0, 0])
    assert_allclose(mask[0, :, 11], [0, 0, 0, 0, 0, 0, 0, 0.25, 1, 1])


# --- texts and values -----------------------------------------------------------------------


def test_texts_are_joined(bench: Bench) -> None:
    """StringConcatenate puts the delimiter between its two texts."""
    joined = bench.give("StringConcatenate", string_a="hello", string_b="wörld", delimiter=" ")

    assert joined == "hello wörld"


@pytest.mark.parametrize(
    ("name", "value"),
    [("PrimitiveString", "a"), ("PrimitiveStringMultiline", "a\nb"), ("PrimitiveInt", -(2**60))],
)
def test_primitives_pass_their_value_on(bench: Bench, name: str, value: object) -> None:
    """A primitive gives exactly what it holds."""
    assert bench.give(name, value=value) == value


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("wörld", "wörld"),
        (42, "42"),
        (1.5, "1.5"),
        (True, "True"),
        (None, "None"),
        ({"a": [1]}, '{"a": [1]}'),
        (np.zeros(2), "[0. 0.]"),
    ],
)
def test_preview_any_shows_every_value(bench: Bench, source: object, shown: str) -> None:
    """PreviewAny writes texts, numbers, JSON and anything else as one text."""
    assert bench.run("PreviewAny", source=source).ui == {"text": [shown]}


# --- the examples ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["text_to_image", "image_to_image"])
def test_example_is_a_graph_of_these_nodes(name: str, tmp_path: Path) -> None:
    """Each example has a title on every node, knows every input, and links only what fits."""
    graph = example(name)

    for each in graph.values():
        node = NODES[each["class_type"]]
        assert each["_meta"]["title"]
        assert list(each["inputs"]) == list(node.inputs)
        for name_of_input, value in each["inputs"].items():
            if isinstance(value, list):
                source, slot = value
                given = NODES[graph[source]["class_type"]].outputs[slot]
                assert given.type == node.inputs[name_of_input].type


@pytest.mark.parametrize(
    ("name", "cfg", "denoise"), [("text_to_image", 6.2, 1.0), ("image_to_image", 8.0, 0.6)]
)
def test_example_has_the_articles_settings(name: str, cfg: float, denoise: float) -> None:
    """The examples sample in 22 steps of dpmpp_3m_sde with the karras scheduler."""
    (sampler,) = (each for each in example(name).values() if each["class_type"] == "KSampler")

    settings = {
        "steps": 22,
        "cfg": cfg,
        "sampler_name": "dpmpp_3m_sde",
        "scheduler": "karras",
        "denoise": denoise,
    }
    assert settings.items() <= sampler["inputs"].items()


def test_example_picture_can_be_loaded(bench: Bench) -> None:
    """The picture that the image to image example starts from is there and opaque."""
    (load,) = (
        each for each in example("image_to_image").values() if each["class_type"] == "LoadImage"
    )
    name = load["inputs"]["image"]
    (bench.folders.path("input") / name).write_bytes((EXAMPLES / "inputs" / name).read_bytes())

    image, mask = bench.run("LoadImage", image=name).values

    assert image.shape == (1, 512, 512, 3)
    assert not mask.any()


def example(name: str) -> dict[str, Any]:
    graph: dict[str, Any] = json.loads((EXAMPLES / f"{name}.json").read_text(encoding="utf-8"))
    return graph
