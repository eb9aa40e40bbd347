"""What the tests of the catalogue start from: a folder, real files, and a real node catalogue."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from comfyserve.workflows.node_catalog import NodeCatalog

TESTS = Path(__file__).parents[1]
GRAPHS = TESTS / "workflows" / "graphs"
MEDIA = TESTS / "workflows" / "media"
EDITOR = TESTS / "golden" / "handmade"
TEXT_TO_IMAGE = (GRAPHS / "text_to_image.json").read_bytes()
IMAGE_TO_IMAGE = (GRAPHS / "image_to_image.json").read_bytes()
WITHOUT = (TESTS.parent / "examples" / "inputs" / "sketch.png").read_bytes()
"""A picture that carries no workflow."""

DEADLINE = 15.0


async def until(is_so: Callable[[], bool]) -> None:
    """Return once it is so, which has to be within the deadline."""
    end = time.monotonic() + DEADLINE
    while not is_so():
        assert time.monotonic() < end, "it never became so"
        await asyncio.sleep(0.01)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for workflows, with a name that wants care."""
    made = tmp_path / "wörk flows"
    made.mkdir()
    return made


@pytest.fixture(scope="session")
def object_info() -> bytes:
    return (TESTS / "traces" / "recordings" / "object_info.json").read_bytes()


@pytest.fixture(scope="session")
def nodes(object_info: bytes) -> NodeCatalog:
    """The nodes of a real server."""
    return NodeCatalog.from_json(json.loads(object_info))
