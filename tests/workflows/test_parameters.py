"""What each kind of parameter takes, refuses, and says."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyserve.assets import Upload
from comfyserve.workflows.parameters import (
    LARGEST_FRESH_SEED,
    Anything,
    Audio,
    Choice,
    Flag,
    Image,
    Integer,
    Mask,
    Number,
    Parameter,
    Seed,
    Text,
    Video,
)

AT = (("3", "x"),)
UPLOAD = Upload("in.png", content=b"x")

prompt = Text(name="prompt", targets=AT)
steps = Integer(name="steps", targets=AT, default=20, minimum=1, maximum=100)
cfg = Number(name="cfg", targets=AT, minimum=0.0, maximum=30.0, step=0.1)
flag = Flag(name="3.tiling", targets=AT)
seed = Seed(name="seed", targets=AT, minimum=0, maximum=2**64 - 1)
sampler = Choice(name="sampler", targets=AT, choices=("euler", "heun", "dpmpp_2m"))
anything = Anything(name="3.points", targets=AT)
image = Image(name="image", targets=AT)
drawn = Mask(name="mask", targets=AT, mask_of=("3", "x"))
MODELS = tuple(f"folder/model_{number:03}.safetensors" for number in range(200))
model = Choice(name="model", targets=AT, choices=MODELS)


@pytest.mark.parametrize(
    ("parameter", "value", "taken"),
    [
        (prompt, "a fox", "a fox"),
        (prompt, "", ""),
        (prompt, "22", "22"),
        (steps, 22, 22),
        (steps, 22.0, 22),
        (steps, 1, 1),
        (steps, 100, 100),
        (cfg, 6.2, 6.2),
        (cfg, 6.25, 6.25),
        (cfg, 7, 7),
        (flag, True, True),
        (seed, 0, 0),
        (seed, -1, -1),
        (seed, None, -1),
        (seed, "18446744073709551615", 2**64 - 1),
        (sampler, "heun", "heun"),
        (Choice(name="x", targets=AT), "whatever", "whatever"),
        (Choice(name="x", targets=AT, choices=("sd\\a.ckpt",)), "sd/a.ckpt", "sd\\a.ckpt"),
        (Choice(name="x", targets=AT, choices=(1, 2)), 1.0, 1.0),
        (anything, {"a": [1, None]}, {"a": [1, None]}),
        (image, UPLOAD, UPLOAD),
        (image, "folder/there.png", "folder/there.png"),
        (drawn, UPLOAD, UPLOAD),
        (Integer(name="x", targets=AT), 10**400, 10**400),
    ],
)
def test_takes_what_fits(parameter: Parameter, value: object, taken: object) -> None:
    """A value that fits goes into the graph as it should stand there."""
    fit = parameter.check(value)
    assert fit == taken
    assert type(fit) is type(taken)


@pytest.mark.parametrize(
    ("parameter", "value", "said"),
    [
        (prompt, 3, "prompt takes text, not 3."),
        (prompt, UPLOAD, "prompt takes text, not a file."),
        (steps, "22", "steps takes a whole number, not '22'."),
        (steps, 22.5, "steps takes a whole number, not 22.5."),
        (steps, True, "steps takes a whole number, not True."),
        (steps, math.inf, "steps takes a whole number, not inf."),
        (steps, 0, "steps is 0; the least is 1."),
        (steps, 101, "steps is 101; the most is 100."),
        (cfg, math.nan, "cfg takes a number, not nan."),
        (cfg, -math.inf, "cfg takes a number, not -inf."),
        (cfg, False, "cfg takes a number, not False."),
        (cfg, None, "cfg takes a number, not None."),
        (cfg, 30.5, "cfg is 30.5; the most is 30."),
        (flag, 1, "3.tiling takes true or false, not 1."),
        (seed, -2, "seed is -2; the least is 0."),
        (seed, 2**64, "seed is 18446744073709551616; the most is 18446744073709551615."),
        (seed, "many", "seed takes a whole number, not 'many'."),
        (seed, "--5", "seed takes a whole number, not '--5'."),
        (seed, True, "seed takes a whole number, not True."),
        (sampler, "eular", "it can be 'euler', 'heun', 'dpmpp_2m'. Did you mean 'euler'?"),
        (sampler, ["euler"], "sampler takes one of its choices, not ['euler']."),
        (Choice(name="x", targets=AT, choices=(1, 2)), True, "x cannot be True: it can be"),
        (Choice(name="model", targets=AT, choices=()), "a", "the server has none to choose from."),
        (anything, {1, 2}, "3.points takes a value that JSON can hold, not {1, 2}."),
        (anything, ["4", 0], "3.points takes a value, not ['4', 0]: that is a link."),
        (anything, ["4", True], "that is a link."),
        (anything, ["4", 0.0], "that is a link."),
        (image, b"bytes", "image takes an image to upload, or the name of one"),
        (image, "", "image is empty; it takes an image to upload"),
        (drawn, "there.png", "mask takes a mask to upload, which is laid over its image"),
        (Video(name="video", targets=AT), 3, "video takes a video to upload"),
        (Audio(name="audio", targets=AT), 3, "audio takes an audio to upload"),
    ],
)
def test_says_what_does_not_fit(parameter: Parameter, value: object, said: str) -> None:
    """A value that does not fit is one sentence: the name, what was seen, what would fit."""
    with pytest.raises(ValueError) as caught:
        parameter.check(value)
    assert said in str(caught.value)


def test_names_the_nearest_models() -> None:
    """Among many choices the nearest are named, with how many there are."""
    with pytest.raises(ValueError) as caught:
        model.check("model_042.safetensor")
    said = str(caught.value)
    assert "the server has 200 to choose from; the nearest: 'folder/model_042.safetensors'" in said
    assert said.count("safetensors'") == 3


def test_says_when_no_model_is_near() -> None:
    """Where nothing is near, nothing is suggested."""
    with pytest.raises(ValueError, match="has 200 to choose from, none of them like it"):
        model.check("zzz")


@pytest.mark.parametrize(
    ("parameter", "text", "value"),
    [
        (prompt, "22", "22"),
        (prompt, "true", "true"),
        (steps, "22", 22),
        (steps, " 22.0 ", 22),
        (cfg, "6.2", 6.2),
        (cfg, "7", 7),
        (cfg, "1e1", 10.0),
        (flag, "true", True),
        (flag, "No", False),
        (seed, "-1", -1),
        (seed, "42", 42),
        (sampler, "euler", "euler"),
        (Choice(name="x", targets=AT, choices=(1, 2)), "2", 2),
        (anything, "[1, 2]", [1, 2]),
        (anything, "plain words", "plain words"),
        (image, "there.png", "there.png"),
    ],
)
def test_reads_what_a_person_writes(parameter: Parameter, text: str, value: object) -> None:
    """Written values follow the parameter's type."""
    read = parameter.parse(text)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("parameter", "text", "said"),
    [
        (steps, "many", "steps takes a whole number, not 'many'."),
        (steps, "1_0", "steps takes a whole number, not '1_0'."),
        (steps, "9" * 9999, "steps takes a whole number, not '999"),
        (cfg, "nan", "cfg takes a number, not nan."),
        (cfg, "", "cfg takes a number, not ''."),
        (flag, "maybe", "3.tiling takes true or false, not 'maybe'."),
    ],
)
def test_says_what_cannot_be_read(parameter: Parameter, text: str, said: str) -> None:
    """Written values that mean nothing are quoted."""
    with pytest.raises(ValueError) as caught:
        parameter.parse(text)
    assert said in str(caught.value)


@given(st.integers(1, 100))
def test_whole_numbers_survive_writing(value: int) -> None:
    """Reading a written whole number gives it back."""
    assert steps.parse(str(value)) == steps.check(value) == value


@given(st.floats(0, 30))
def test_numbers_survive_writing(value: float) -> None:
    """Reading a written number gives it back."""
    assert cfg.parse(repr(value)) == cfg.check(value) == value


def test_reads_no_values_without_end() -> None:
    """What a person writes is not read where it holds more values than memory is for."""
    with pytest.raises(ValueError, match="takes at most 2,000,000 values"):
        anything.parse("[" + "{}," * 1_000_000 + "{}]")


@given(st.text())
def test_text_stays_as_it_is(text: str) -> None:
    """No text is read as anything else."""
    assert prompt.parse(text) == text


@given(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.decimals()
    | st.complex_numbers()
    | st.binary()
    | st.text()
    | st.text("-0123456789")
    | st.lists(st.integers())
)
def test_a_value_fits_or_is_a_sentence(value: object) -> None:
    """Checking never fails in another way, whatever comes."""
    for parameter in (prompt, steps, cfg, flag, seed, sampler, image, drawn):
        try:
            parameter.check(value)
        except ValueError as error:
            assert str(error).endswith((".", "?"))


@given(st.integers(), st.integers(0, 2**64 - 1))
def test_fresh_seeds_are_in_everybodys_range(entropy: int, most: int) -> None:
    """A fresh seed fits its nodes and a browser."""
    bounded = Seed(name="seed", targets=AT, minimum=0, maximum=most)
    fresh = bounded.fresh(random.Random(entropy))
    assert bounded.check(fresh) == fresh
    assert 0 <= fresh <= min(most, LARGEST_FRESH_SEED)


@pytest.mark.parametrize(
    ("parameter", "schema"),
    [
        (prompt, {"type": "string", "x-multiline": True}),
        (steps, {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}),
        (cfg, {"type": "number", "minimum": 0, "maximum": 30, "x-step": 0.1}),
        (flag, {"type": "boolean"}),
        (sampler, {"enum": ["euler", "heun", "dpmpp_2m"]}),
        (image, {"type": "string", "format": "binary", "contentMediaType": "image/*"}),
        (drawn, {"type": "string", "format": "binary", "contentMediaType": "image/*"}),
        (anything, {}),
    ],
)
def test_describes_itself_as_json_schema(parameter: Parameter, schema: dict[str, Any]) -> None:
    """The schema states type, limits and default, and is plain JSON."""
    described = parameter.json_schema()
    assert {key: described[key] for key in described if key != "title"} == schema
    assert json.loads(json.dumps(described)) == described


def test_a_seeds_schema_allows_drawing() -> None:
    """The schema of a seed lets -1, null and strings of digits through."""
    described = seed.json_schema()
    assert described["type"] == ["integer", "string", "null"]
    assert described["minimum"] == -1
    assert described["title"] == "Seed"
