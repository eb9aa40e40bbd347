"""The official document against the one that the server gives of itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import schemathesis

from tests.servers import RunningServer

OFFICIAL = Path(__file__).parent / "comfy-api-v2.openapi.yaml"
METHODS = ("get", "head", "post", "put", "patch", "delete")


@pytest.fixture(scope="module")
def ours(server: RunningServer) -> dict[str, Any]:
    """The document that the server gives."""
    with urlopen(f"{server.url}/openapi.json", timeout=10) as answer:
        document: dict[str, Any] = json.load(answer)
    return document


@pytest.fixture(scope="module")
def official() -> dict[str, Any]:
    """The public document of the Comfy API v2."""
    document: dict[str, Any] = schemathesis.openapi.from_path(OFFICIAL).raw_schema
    return document


def test_every_official_operation_is_there(ours: dict[str, Any], official: dict[str, Any]) -> None:
    """Each path and method of the official document is in ours."""
    assert _operations(official) - _operations(ours) == set()


def test_every_operation_has_a_name_of_its_own(ours: dict[str, Any]) -> None:
    """Operation ids are there and unique, so that clients can be generated."""
    ids = [
        operation["operationId"]
        for path in ours["paths"].values()
        for method, operation in path.items()
        if method in METHODS
    ]
    assert len(ids) == len(set(ids))


def test_refusals_are_told_as_they_come(ours: dict[str, Any]) -> None:
    """No v2 operation promises FastAPI's own error body, or a 400 that the contract lacks."""
    told = json.dumps(
        {path: told for path, told in ours["paths"].items() if path.startswith("/api/v2/")}
    )
    assert "HTTPValidationError" not in told


def _operations(document: dict[str, Any]) -> set[tuple[str, str]]:
    return {
        (_nameless(path), method)
        for path, operations in document["paths"].items()
        for method in operations
        if method in METHODS
    }


def _nameless(path: str) -> str:
    """The path without the names of its parameters, which are nobody's business."""
    return "/".join("{}" if part.startswith("{") else part for part in path.split("/"))
