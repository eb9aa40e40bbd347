"""What the server costs where the bytes are: a large picture made, a large picture sent in."""

from __future__ import annotations

import io
import itertools
import os
from collections.abc import Iterator
from typing import Any

from PIL import Image, ImageChops

from bench import bare_client, pictures, server_client
from bench.budgets import Measured, WrongResult
from bench.engine import Engine
from bench.rounds import Check, Run, in_turns, p50_of_bare, p50_of_ours, ratio, refuse_wrong
from bench.server_process import serving

OUTPUT_PIXELS = 1650
"""The side of a picture of noise that takes 8 MB."""
INPUT_PIXELS = 830
"""The side of one that takes 2 MB."""
WARM_UP_ROUNDS = 1
MEASURED_ROUNDS = 7
MUST = 1.15
AIM = 1.05


async def measure(engine: Engine) -> list[Measured]:
    """Run the same jobs directly and through the server, in turns."""
    with serving(engine.url) as server:
        async with (
            bare_client.connect(engine.url) as bare,
            server_client.connect(server.url) as ours,
        ):
            return [await _output(bare, ours), await _input(bare, ours)]


async def _output(bare: bare_client.BareClient, ours: server_client.ServerClient) -> Measured:
    """Save again and again a picture that the engine has already."""
    noise = _noise(OUTPUT_PIXELS)
    name = await bare.upload("bench noise.png", _png(noise))

    async def run_bare(number: int) -> bytes:
        return await bare.run(_output_graph(name, number))

    async def run_ours(number: int) -> bytes:
        return await ours.run(_output_graph(name, number))

    def check(content: bytes, number: int) -> None:
        _check_alike(content, noise)

    return await _compared("8 MB output", run_bare, run_ours, itertools.count(1), check)


async def _input(bare: bare_client.BareClient, ours: server_client.ServerClient) -> Measured:
    """Send a picture, and have it inverted."""
    sent: dict[int, tuple[Image.Image, bytes]] = {}

    def numbers() -> Iterator[int]:
        for number in itertools.count(1):  # each is drawn before its time is taken
            noise = _noise(INPUT_PIXELS)
            sent[number] = noise, _png(noise)
            yield number

    async def run_bare(number: int) -> bytes:
        return await bare.run(
            _input_graph(await bare.upload(f"bench {number}.png", sent[number][1]))
        )

    async def run_ours(number: int) -> bytes:
        return await ours.run(_input_graph(await ours.upload("bench.png", sent[number][1])))

    def check(content: bytes, number: int) -> None:
        _check_alike(content, ImageChops.invert(sent.pop(number)[0]))

    return await _compared("2 MB input", run_bare, run_ours, numbers(), check)


async def _compared(
    what: str, bare: Run, ours: Run, numbers: Iterator[int], check: Check
) -> Measured:
    rounds = refuse_wrong(
        await in_turns(bare, ours, numbers, check, warm_up=WARM_UP_ROUNDS, measured=MEASURED_ROUNDS)
    )
    return Measured(
        f"a picture with {what}, median of {MEASURED_ROUNDS}",
        ratio(rounds),
        "x",
        must=MUST,
        aim=AIM,
        detail=f"{p50_of_bare(rounds):.1f} and {p50_of_ours(rounds):.1f} ms",
    )


def _output_graph(image: str, number: int) -> dict[str, Any]:
    saved = {"images": ["1", 0], "filename_prefix": f"bench {number}"}
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": image}},
        "2": {"class_type": "SaveImage", "inputs": saved},
    }


def _input_graph(image: object) -> dict[str, Any]:
    loaded = {"1": {"class_type": "LoadImage", "inputs": {"image": image}}}
    return {**loaded, **pictures.inverted_and_saved(["1", 0])}


def _noise(side: int) -> Image.Image:
    return Image.frombytes("RGB", (side, side), os.urandom(side * side * 3))


def _png(picture: Image.Image) -> bytes:
    target = io.BytesIO()
    picture.save(target, "PNG", compress_level=1)
    return target.getvalue()


def _check_alike(content: bytes, due: Image.Image) -> None:
    with Image.open(io.BytesIO(content)) as image:
        difference = ImageChops.difference(image.convert("RGB"), due)
    # ComfyUI's way from byte to float and back may lose one.
    if max(difference.tobytes()) > 1:
        raise WrongResult(f"a picture of {len(content)} bytes is another than was due")
