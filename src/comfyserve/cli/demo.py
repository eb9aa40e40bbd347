"""`comfyserve demo`: two pictures on this machine, without a graphics card or a ComfyUI."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from comfyserve.cli.engine_process import engine_process
from comfyserve.cli.examples import example
from comfyserve.cli.report import PathReport
from comfyserve.cli.run import run_job
from comfyserve.client.async_client import AsyncClient


async def run_demo(output_dir: Path) -> None:
    """Draw a picture from a text, then another from the first, and say where they are."""
    report = PathReport()
    _say("Starting the built-in engine, a small ComfyUI on your processor ..")
    async with engine_process() as url, AsyncClient(url, output_dir=output_dir) as client:
        _say(f"It listens on {url}. From the words 'red heart' to a picture:")
        drawing = client.submit(example("text_to_image.json"), prompt="red heart")
        first = await run_job(client, drawing, report)
        _say("From that picture and the words 'blue heart' to another:")
        inputs = {"image": first.outputs[0], "prompt": "blue heart"}
        redrawing = client.submit(example("image_to_image.json"), inputs)
        second = await run_job(client, redrawing, report)
    _say(f"{len(first.outputs) + len(second.outputs)} pictures are in {_full(output_dir)}.")


def _full(folder: Path) -> str:
    return os.path.abspath(folder)


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
