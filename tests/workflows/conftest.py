"""What the tests of workflows start from: graphs we wrote, and a real server's node catalogue."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from comfyserve.workflows.node_catalog import NodeCatalog
from comfyserve.workflows.workflow import Workflow

GRAPHS = Path(__file__).parent / "graphs"
RECORDINGS = Path(__file__).parents[1] / "traces" / "recordings"


@pytest.fixture(scope="session")
def catalog() -> NodeCatalog:
    return NodeCatalog.from_json(json.loads((RECORDINGS / "object_info.json").read_bytes()))


@pytest.fixture
def load() -> Callable[[str], Workflow]:
    return lambda name: Workflow.load(GRAPHS / f"{name}.json")
