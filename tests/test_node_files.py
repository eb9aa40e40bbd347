"""The nodes that read and write files: what they store, and that they stay in their folders."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from PIL import Image

from comfyserve.engine.folders import Folders
from comfyserve.engine.node import Interrupted, Result
from comfyserve.engine.nodes.file_names import NumberedFiles
from tests.node_bench import EDITOR, GRAPH, NODES, Bench, gray, noise

MOMENT = time.strptime("2026-03-04 05:06:07", "%Y-%m-%d %H:%M:%S")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(Folders(tmp_path / "ünser Ordner"))


# --- reading pictures -----------------------------------------------------------------------


def put(bench: Bench, name: str, picture: Image.Image, kind: str = "input", **options: Any) -> None:
    path = bench.folders.path(kind) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, **options)


def test_load_image_gives_pixels_and_transparency(bench: Bench) -> None:
    """Alpha becomes the mask, turned around: 1 is transparent."""
    put(bench, "bild ä.png", Image.new("RGBA", (3, 2), (255, 0, 51, 204)))

    image, mask = bench.run("LoadImage", image="bild ä.png").values

    assert image.shape == (1, 2, 3, 3)
    assert_allclose(image[0, 0, 0], [1, 0, 0.2], atol=1e-6)
    assert_allclose(mask, np.full((1, 2, 3), 0.2), atol=1e-6)


def test_load_image_without_alpha_has_an_empty_mask(bench: Bench) -> None:
    """An opaque picture comes with ComfyUI's 64 x 64 zeros."""
    put(bench, "a.jpg", Image.new("RGB", (5, 5)))

    mask = bench.run("LoadImage", image="a.jpg").values[1]

    assert mask.shape == (1, 64, 64)
    assert not mask.any()


def test_load_image_reads_palettes_gray_and_sixteen_bits(bench: Bench) -> None:
    """Every kind of PNG arrives as three channels from 0 to 1."""
    put(bench, "p.png", Image.new("RGB", (2, 2), (255, 0, 0)).quantize(2))
    put(bench, "l.png", Image.new("L", (2, 2), 51))
    put(bench, "i.png", Image.fromarray(np.full((2, 2), 32896, np.uint16)))

    read = {name: bench.give("LoadImage", image=name)[0, 0, 0] for name in ("p.png", "l.png")}

    assert_allclose(read["p.png"], [1, 0, 0])
    assert_allclose(read["l.png"], [0.2] * 3, atol=1e-6)
    assert_allclose(bench.give("LoadImage", image="i.png")[0, 0, 0], [128 / 255] * 3, atol=1e-6)


def test_load_image_turns_a_photo_upright(bench: Bench) -> None:
    """A photo taken sideways comes out as it is looked at."""
    exif = Image.Exif()
    exif[0x0112] = 6
    put(bench, "photo.jpg", Image.new("RGB", (8, 4)), exif=exif)

    assert bench.give("LoadImage", image="photo.jpg").shape == (1, 8, 4, 3)


def test_load_image_reads_all_frames_of_an_animation(bench: Bench) -> None:
    """A GIF of three frames is a batch of three."""
    frames = [Image.new("RGB", (4, 4), (40 * each, 0, 0)) for each in range(3)]
    put(bench, "a.gif", frames[0], save_all=True, append_images=frames[1:])

    image, mask = bench.run("LoadImage", image="a.gif").values

    assert image.shape == (3, 4, 4, 3)
    assert len(mask) == 3


def test_load_image_takes_subfolders_and_other_folders(bench: Bench) -> None:
    """Names may lead into a subfolder and say which folder they mean."""
    put(bench, "sub/a.png", Image.new("RGB", (1, 2)))
    put(bench, "b.png", Image.new("RGB", (3, 4)), "temp")

    check = NODES["LoadImage"].check
    assert check is not None
    assert check(bench.folders, image="sub/a.png") is None
    assert check(bench.folders, image="b.png [temp]") is None
    assert bench.give("LoadImage", image="sub/a.png").shape == (1, 2, 1, 3)
    assert bench.give("LoadImage", image="b.png [temp]").shape == (1, 4, 3, 3)


@pytest.mark.parametrize(
    "name", ["gone.png", "../secret.png", "", ".", "sub", "a\0b.png", "x" * 400, "b.png [output]"]
)
def test_load_image_refuses_what_is_not_there(bench: Bench, name: str) -> None:
    """A missing file, a folder, and a way out of the folder are all refused before running."""
    Image.new("RGB", (1, 1)).save(bench.folders.path("input").parent / "secret.png")
    (bench.folders.path("input") / "sub").mkdir()

    check = NODES["LoadImage"].check

    assert check is not None
    assert check(bench.folders, image=name) == f"Invalid image file: {name}"
    with pytest.raises(FileNotFoundError, match="has no file"):
        bench.run("LoadImage", image=name)


def test_load_image_offers_the_pictures_of_the_input_folder(bench: Bench) -> None:
    """The choices are the picture files at the top of the input folder, as they are now."""
    listed = NODES["LoadImage"].inputs["image"].type
    assert callable(listed)
    assert list(listed(bench.folders)) == []

    put(bench, "b.png", Image.new("RGB", (1, 1)))
    put(bench, "a.webp", Image.new("RGB", (1, 1)))
    put(bench, "sub/c.png", Image.new("RGB", (1, 1)))
    (bench.folders.path("input") / "notes.txt").write_text("no picture", encoding="utf-8")

    assert list(listed(bench.folders)) == ["a.webp", "b.png"]


def test_load_image_notices_new_content(bench: Bench) -> None:
    """The fingerprint follows the bytes of the file, not its name."""
    fingerprint = NODES["LoadImage"].fingerprint
    assert fingerprint is not None
    put(bench, "a.png", Image.new("RGB", (1, 1), "red"))
    first = fingerprint(bench.folders, image="a.png")
    assert fingerprint(bench.folders, image="a.png") == first

    put(bench, "a.png", Image.new("RGB", (1, 1), "blue"))

    assert fingerprint(bench.folders, image="a.png") != first


@pytest.mark.parametrize(
    ("channel", "expected"), [("red", 1.0), ("green", 0.2), ("blue", 0.0), ("alpha", 0.4)]
)
def test_load_mask_reads_one_channel(bench: Bench, channel: str, expected: float) -> None:
    """LoadImageMask gives the channel asked for; alpha turned around."""
    put(bench, "m.png", Image.new("RGBA", (3, 2), (255, 51, 0, 153)))

    mask = bench.give("LoadImageMask", image="m.png", channel=channel)

    assert_allclose(mask, np.full((1, 2, 3), expected), atol=1e-6)


# --- saving ---------------------------------------------------------------------------------


def test_saved_png_has_the_pixels_and_the_workflow_inside(bench: Bench) -> None:
    """A PNG holds each pixel cut to eight bits, the graph, and what the editor sent."""
    images = noise(1, 4, 6)

    ui = bench.run("SaveImage", images=images, filename_prefix="ComfyUI").ui

    assert ui == {"images": [{"filename": "ComfyUI_00001_.png", "subfolder": "", "type": "output"}]}
    with Image.open(bench.file(ui["images"][0])) as picture:
        assert isinstance(picture, Image.Image)
        assert json.loads(picture.info["prompt"]) == GRAPH
        assert json.loads(picture.info["workflow"]) == EDITOR
        assert np.asarray(picture).tolist() == (images[0] * 255).astype(np.uint8).tolist()


def test_values_out_of_range_are_cut_off(bench: Bench) -> None:
    """What is below 0, above 1 or no number at all still becomes a pixel."""
    ui = bench.run("SaveImage", images=gray([-3, 2, float("nan")]), filename_prefix="x").ui

    assert ui is not None
    with Image.open(bench.file(ui["images"][0])) as picture:
        assert np.asarray(picture)[0, :, 0].tolist() == [0, 255, 0]


def test_a_batch_is_numbered_on_and_nothing_is_overwritten(bench: Bench) -> None:
    """Each picture gets the next free number, after whatever is in the folder."""
    taken = bench.folders.path("output") / "a_00007_.png"
    taken.write_bytes(b"kept")

    first = bench.run("SaveImage", images=noise(2, 2, 2), filename_prefix="a").ui
    other = bench.run("SaveImage", images=noise(1, 2, 2), filename_prefix="ab").ui

    assert first is not None and other is not None
    names = [each["filename"] for each in (*first["images"], *other["images"])]
    assert names == ["a_00008_.png", "a_00009_.png", "ab_00001_.png"]
    assert taken.read_bytes() == b"kept"


def test_prefixes_may_be_any_language_and_name_folders(bench: Bench) -> None:
    """A prefix with subfolders, spaces and letters of any alphabet is kept."""
    ui = bench.run("SaveImage", images=noise(1, 2, 2), filename_prefix="bücher/新 年/猫").ui

    assert ui is not None
    saved = ui["images"][0]
    assert saved == {"filename": "猫_00001_.png", "subfolder": "bücher/新 年", "type": "output"}
    assert bench.file(saved).is_file()


@pytest.mark.parametrize(
    "prefix", ["../x", "a/../../x", "..", "/x", "..\\x", "C:\\x", "\\\\h\\s\\x"]
)
def test_a_prefix_never_leaves_the_folder(bench: Bench, prefix: str) -> None:
    """Every way out of the output folder is refused with a sentence, and nothing is written."""
    with pytest.raises(ValueError, match="leads out of the output folder"):
        bench.run("SaveImage", images=noise(1, 2, 2), filename_prefix=prefix)

    assert not [path for path in bench.folders.root.parent.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("prefix", "subfolder", "name"),
    [
        ("%width%x%height%", "", "640x480"),
        ("%year%-%month%-%day% %hour%%minute%%second%", "", "2026-03-04 050607"),
        ("%date:yyyy-MM-dd%/a", "2026-03-04", "a"),
        ("%date:yy_M_d_hh.mm.ss%", "", "26_3_4_05.06.07"),
        ("%unknown% 100%", "", "%unknown% 100%"),
        ("b%batch_num%", "", "b3"),
        ("a\\b", "a", "b"),
        ("a/", "", "a"),
        ("a/../b", "", "b"),
        ("", "", "ComfyUI"),
        ('what? "no" <tag>', "", "what_ _no_ _tag_"),
    ],
)
def test_prefix_fields_are_filled(bench: Bench, prefix: str, subfolder: str, name: str) -> None:
    """Fields become sizes and dates; what no system can store becomes an underscore."""
    files = NumberedFiles.at(bench.folders, "output", prefix, width=640, height=480, now=MOMENT)

    saved = files.write(b"..", ".png", batch_number=3)

    assert saved == {"filename": f"{name}_00001_.png", "subfolder": subfolder, "type": "output"}


def test_previews_go_to_the_temp_folder(bench: Bench) -> None:
    """PreviewImage saves under a name of its own that will not last."""
    ui = bench.run("PreviewImage", images=noise(2, 2, 2)).ui

    assert ui is not None
    assert [each["type"] for each in ui["images"]] == ["temp", "temp"]
    assert all(each["filename"].startswith("ComfyUI_temp_") for each in ui["images"])
    assert all(bench.file(each).is_file() for each in ui["images"])


def test_animation_has_all_frames_and_the_workflow_inside(bench: Bench) -> None:
    """SaveAnimatedWEBP makes one file of all pictures, exact when lossless."""
    images = np.concatenate([gray([0.0, 0.5]), gray([1.0, 0.25])])

    ui = bench.run(
        "SaveAnimatedWEBP",
        images=images,
        filename_prefix="anim",
        fps=4.0,
        lossless=True,
        quality=80,
        method="fastest",
    ).ui

    assert ui is not None
    assert ui["animated"] == [True]
    assert ui["images"][0]["filename"] == "anim_00001_.webp"
    with Image.open(bench.file(ui["images"][0])) as picture:
        assert getattr(picture, "n_frames", 1) == 2
        picture.seek(1)
        assert np.asarray(picture.convert("RGB"))[0, :, 0].tolist() == [255, 63]
        assert picture.info["duration"] == 250
        exif = picture.getexif()
        assert json.loads(exif[0x0110].removeprefix("prompt:")) == GRAPH
        assert json.loads(exif[0x010F].removeprefix("workflow:")) == EDITOR


def test_websocket_pictures_are_sent_and_not_saved(bench: Bench) -> None:
    """SaveImageWebsocket ticks and sends each picture, every time, and leaves no output."""
    result = bench.run("SaveImageWebsocket", images=noise(2, 3, 3))

    assert result == Result()
    assert bench.ticks == [(0, 2), (1, 2)]
    assert [mime for _, mime in bench.sent] == ["image/png", "image/png"]
    fingerprint = NODES["SaveImageWebsocket"].fingerprint
    assert fingerprint is not None
    assert fingerprint(bench.folders) != fingerprint(bench.folders)


def test_saving_stops_when_interrupted(bench: Bench) -> None:
    """An interrupted job saves no further picture."""
    bench.interrupt_at = 0

    with pytest.raises(Interrupted):
        bench.run("SaveImage", images=noise(3, 2, 2), filename_prefix="a")

    assert list(bench.folders.path("output").iterdir()) == []
