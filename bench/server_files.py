"""What the server costs where the bytes are: a large output, a large input."""

from __future__ import annotations

import io
import itertools
import os
from collections.abc import Iterator
from typing import Any

from PIL import Image

from bench import bare_client, pictures, server_client
from bench.budgets import Measured, WrongResult
from bench.engine import Engine, bytes_of, file_graph
from bench.rounds import Check, Run, in_turns, p50_of_bare, p50_of_ours, ratio, refuse_wrong
from bench.server_process import serving

OUTPUT_SIZE = 8_000_000
INPUT_SIZE = 2_000_000
LATENTS = 32
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
            return [await _output(engine, bare, ours), await _input(bare, ours)]


async def _output(
    engine: Engine, bare: bare_client.BareClient, ours: server_client.ServerClient
) -> Measured:
    async def run_bare(number: int) -> bytes:
        return await bare.run(_output_graph(engine, number))

    async def run_ours(number: int) -> bytes:
        return await ours.run(_output_graph(engine, number))

    check = _check_file if engine.has_test_nodes else _check_latents
    return await _compared("8 MB output", run_bare, run_ours, itertools.count(1), check)


async def _input(bare: bare_client.BareClient, ours: server_client.ServerClient) -> Measured:
    async def run_bare(color: int) -> bytes:
        name = await bare.upload(f"bench {color}.png", _large_picture(color))
        return await bare.run(_input_graph(name))

    async def run_ours(color: int) -> bytes:
        return await ours.run(_input_graph(await ours.upload("bench.png", _large_picture(color))))

    return await _compared("2 MB input", run_bare, run_ours, pictures.colors(), pictures.check)


async def _compared(
    what: str, bare: Run, ours: Run, numbers: Iterator[int], check: Check
) -> Measured:
    rounds = refuse_wrong(
        await in_turns(bare, ours, numbers, check, warm_up=WARM_UP_ROUNDS, measured=MEASURED_ROUNDS)
    )
    return Measured(
        f"a job with {what}, median of {MEASURED_ROUNDS}",
        ratio(rounds),
        "x",
        must=MUST,
        aim=AIM,
        detail=f"{p50_of_bare(rounds):.1f} and {p50_of_ours(rounds):.1f} ms",
    )


def _output_graph(engine: Engine, number: int) -> dict[str, Any]:
    if engine.has_test_nodes:
        return file_graph("large.bin", f"{number} ", OUTPUT_SIZE)
    size = {"width": 1024, "height": 1024, "batch_size": LATENTS}
    saved = {"samples": ["1", 0], "filename_prefix": f"bench {number}"}
    return {
        "1": {"class_type": "EmptyLatentImage", "inputs": size},
        "2": {"class_type": "SaveLatent", "inputs": saved},
    }


def _check_file(content: bytes, number: int) -> None:
    if content != bytes_of(f"{number} ", OUTPUT_SIZE):
        raise WrongResult(f"the output of job {number} has {len(content)} bytes, or others")


def _check_latents(content: bytes, number: int) -> None:
    if len(content) < OUTPUT_SIZE or f"bench {number}".encode() not in content:
        raise WrongResult(f"the latents of job {number} have {len(content)} bytes, or others")


def _input_graph(image: object) -> dict[str, Any]:
    loaded = {"1": {"class_type": "LoadImage", "inputs": {"image": image}}}
    return {**loaded, **pictures.inverted_and_saved(["1", 0])}


def _large_picture(color: int) -> bytes:
    """A small picture with much behind its end, which costs only to carry."""
    picture = io.BytesIO()
    Image.new("RGB", (64, 64), pictures.parts_of(color)).save(picture, "PNG")
    return picture.getvalue() + os.urandom(INPUT_SIZE)
