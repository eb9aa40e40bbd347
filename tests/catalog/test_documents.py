"""The workflows on offer as callers see them."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema_rs
import pytest

from comfyserve.catalog import Catalog, Published, workflow_detail, workflow_item
from comfyserve.catalog.drift import Drift
from comfyserve.catalog.entry import Entry
from comfyserve.workflows.node_catalog import NodeCatalog
from tests.catalog.conftest import IMAGE_TO_IMAGE, MEDIA, TEXT_TO_IMAGE

SIDECAR = """
title = "Lighthouses"
description = "Paints a lighthouse."
public = true
timeout = 300

[inputs.prompt]
label = "What to paint"
targets = ["6.text"]

[inputs.seed]
targets = ["3.seed"]
advanced = true
"""


async def test_the_detail_has_all_that_a_form_needs(nodes: NodeCatalog) -> None:
    """Inputs in the author's order as a JSON Schema, basic and advanced; outputs; the words."""
    published = Published("lights", TEXT_TO_IMAGE, SIDECAR, 0.5)
    async with Catalog.open(None, published=[published], catalogs={"gpu": nodes}) as catalog:
        entry = catalog["lights"]
        detail = workflow_detail(entry, await catalog.described("lights"), catalog.drift("lights"))

    assert detail == {
        "name": "lights",
        "title": "Lighthouses",
        "description": "Paints a lighthouse.",
        "source": "published",
        "available": True,
        "public": True,
        "version": entry.version,
        "changed_at": "1970-01-01T00:00:00.500Z",
        "problem": None,
        "drifted": [],
        "thumbnail_url": None,
        "open": False,
        "timeout": 300,
        "format": "api",
        "convention": "sidecar",
        "is_described": True,
        "inputs": {
            "type": "object",
            "properties": detail["inputs"]["properties"],
            "additionalProperties": False,
        },
        "basic": ["prompt"],
        "advanced": ["seed"],
        "outputs": [{"node_id": "9", "class_type": "SaveImage", "title": ""}],
        "warnings": [],
        "drift": [],
    }
    assert list(detail["inputs"]["properties"]) == ["prompt", "seed"]
    assert detail["inputs"]["properties"]["prompt"]["title"] == "What to paint"
    assert detail["inputs"]["properties"]["prompt"]["x-kind"] == "text"
    assert detail["inputs"]["properties"]["seed"]["x-advanced"] is True


@pytest.mark.parametrize("content", [TEXT_TO_IMAGE, IMAGE_TO_IMAGE])
async def test_the_inputs_are_a_schema_that_checks(content: bytes, nodes: NodeCatalog) -> None:
    """Any validator can use it, and every default passes it."""
    async with Catalog.open(None, catalogs={"gpu": nodes}) as catalog:
        entry = await catalog.publish(Published("w", content))
        detail = workflow_detail(entry, await catalog.described("w"))

    schema = detail["inputs"]
    jsonschema_rs.meta.validate(schema)
    defaults = {
        name: one["default"] for name, one in schema["properties"].items() if "default" in one
    }
    assert defaults
    jsonschema_rs.Draft202012Validator(schema).validate(defaults)


@pytest.mark.parametrize("file", ["text.png", "tags.mp4"])
async def test_every_document_is_plain_json(folder: Path, file: str) -> None:
    """What ComfyUI wrote may hold NaN, which no browser reads."""
    (folder / file).write_bytes((MEDIA / file).read_bytes())
    async with Catalog.open(folder) as catalog:
        [entry] = catalog.entries()
        detail = workflow_detail(entry, thumbnail_url="/t")
        item = workflow_item(entry, thumbnail_url="/t")

    assert json.loads(json.dumps(detail, allow_nan=False)) == detail
    assert item == {key: detail[key] for key in item}
    assert item["thumbnail_url"] == ("/t" if file == "text.png" else None)


def test_a_workflow_that_never_was_one_has_documents() -> None:
    """A page shows what is wrong with it."""
    entry = Entry("photo", "folder", None, problem="photo.png is damaged.", changed_at=1e30)

    detail = workflow_detail(entry)

    assert (detail["available"], detail["problem"]) == (False, "photo.png is damaged.")
    assert (detail["inputs"]["properties"], detail["outputs"]) == ({}, [])
    assert json.loads(json.dumps(detail, allow_nan=False)) == detail


def test_drift_is_told_in_both() -> None:
    """A list names the backends, the detail says what and where."""
    entry = Entry("portrait", "folder", None)
    drift = [
        Drift("portrait", "gpu1", "4", "ckpt_name", "missing_model", "There is none.", ("b",)),
        Drift("portrait", "gpu1", "", None, "no_output", "Nothing is saved."),
    ]

    assert workflow_item(entry, drift)["drifted"] == ["gpu1"]
    assert workflow_detail(entry, None, drift)["drift"] == [
        {
            "workflow": "portrait",
            "backend": "gpu1",
            "node": "4",
            "input": "ckpt_name",
            "what": "missing_model",
            "message": "There is none.",
            "nearest": ["b"],
        },
        {
            "workflow": "portrait",
            "backend": "gpu1",
            "node": None,
            "input": None,
            "what": "no_output",
            "message": "Nothing is saved.",
            "nearest": [],
        },
    ]
