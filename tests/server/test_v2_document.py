"""The OpenAPI document: what it promises is what the official contract wants and what we answer."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import schemathesis

from comfyserve.host import open_host
from comfyserve.server.app import create_app
from comfyserve.settings import Settings

OFFICIAL = Path(__file__).parents[1] / "contract" / "comfy-api-v2.openapi.yaml"
METHODS = ("get", "head", "post", "delete")

# Keys come later, credits and signed addresses never; nobody is slowed down yet; streams are there.
NEVER_ANSWERED = {"401", "402", "302", "501"}
NOT_LIMITED = "rate_limited"


@pytest.fixture(scope="module")
def ours() -> dict[str, Any]:
    settings = Settings()
    return create_app(lambda counts: open_host(settings), settings).openapi()


@pytest.fixture(scope="module")
def official() -> dict[str, Any]:
    document: dict[str, Any] = schemathesis.openapi.from_path(OFFICIAL).raw_schema
    return document


def test_every_official_status_is_promised(ours: dict[str, Any], official: dict[str, Any]) -> None:
    """Each path, method and status of the contract that we can answer is in our document."""
    missing = [
        (path, method, status)
        for path, operations in official["paths"].items()
        for method in METHODS
        if method in operations
        for status, told in operations[method]["responses"].items()
        if status not in NEVER_ANSWERED
        and NOT_LIMITED not in str(resolved(official, told))
        and status not in ours["paths"][path][method]["responses"]
    ]
    assert missing == []


def test_operations_have_their_official_names(
    ours: dict[str, Any], official: dict[str, Any]
) -> None:
    """Generated clients call the operations as the contract does."""
    for path, operations in official["paths"].items():
        for method in METHODS:
            if method in operations:
                name = operations[method]["operationId"]
                assert ours["paths"][path][method]["operationId"] == name


@pytest.mark.parametrize("name", ["Asset", "Job", "Output", "Progress", "JobError", "JobUrls"])
def test_shapes_hold_all_that_the_contract_names(
    ours: dict[str, Any], official: dict[str, Any], name: str
) -> None:
    """Each official property is in our shape, and what the contract requires we promise."""
    theirs, mine = official["components"]["schemas"][name], ours["components"]["schemas"][name]
    assert theirs["properties"].keys() <= mine["properties"].keys()
    assert set(theirs.get("required", [])) <= set(mine["required"])


def test_what_is_sent_is_described(ours: dict[str, Any]) -> None:
    """Bodies and the parameters of every path are told, as nothing else tells them."""
    sent = str(ours["paths"]["/api/v2/jobs"]["post"]["requestBody"])
    assert "NewJob" in sent
    assert "workflow" in ours["components"]["schemas"]["NewJob"]["required"]
    form = ours["paths"]["/api/v2/assets"]["post"]["requestBody"]["content"]
    assert "multipart/form-data" in form
    for path, operations in ours["paths"].items():
        for method, operation in operations.items():
            named = {one["name"] for one in operation.get("parameters", []) if one["in"] == "path"}
            wanted = {part[1:-1] for part in path.split("/") if part.startswith("{")}
            assert named == wanted, (method, path)


def test_every_shape_that_is_named_is_there(ours: dict[str, Any]) -> None:
    """No reference in the document leads nowhere, and no shape is there for nothing."""
    named = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(ours)))
    assert named == ours["components"]["schemas"].keys()


def test_errors_are_described_as_they_come(ours: dict[str, Any]) -> None:
    """Every refusal in our document has our one error body."""
    for path, operations in ours["paths"].items():
        for method, operation in operations.items():
            for status, told in operation["responses"].items():
                if status.startswith(("4", "5")) and "content" in told:
                    schema = told["content"]["application/json"]["schema"]
                    assert schema["$ref"].endswith("/ErrorEnvelope"), (path, method, status)


def resolved(document: dict[str, Any], told: dict[str, Any]) -> dict[str, Any]:
    """The response itself where *told* only refers to it."""
    if "$ref" not in told:
        return told
    name = told["$ref"].rpartition("/")[2]
    response: dict[str, Any] = document["components"]["responses"][name]
    return response
