"""Calls where backends have other models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from comfyserve.access import Caller
from comfyserve.catalog import Catalog
from comfyserve.errors import InvalidInputs
from comfyserve.server.workflows.calls import bound_call
from comfyserve.server.workflows.validation import validate
from comfyserve.workflows.node_catalog import NodeCatalog
from tests.server.asked import asked

GRAPH = {
    "1": {"class_type": "Load", "inputs": {"model": "old.safetensors"}},
    "2": {"class_type": "Save", "inputs": {"images": ["1", 0]}},
}


def nodes(*models: str) -> NodeCatalog:
    """The nodes of a backend with these models."""
    load: dict[str, Any] = {"input": {"required": {"model": [list(models)]}}, "output": ["IMAGE"]}
    save = {"input": {"required": {"images": ["IMAGE"]}}, "output_node": True}
    return NodeCatalog.from_json({"Load": load, "Save": save})


async def test_a_value_that_only_another_backend_takes(tmp_path: Path) -> None:
    """A model that the preferred backend lacks is taken where another has it, and refused with
    the nearest name where none does."""
    folder = tmp_path / "workflows"
    folder.mkdir()
    (folder / "one.json").write_text(json.dumps(GRAPH), encoding="utf-8")
    sidecar = '[inputs.model]\ntargets = ["1.model"]\n'
    (folder / "one.toml").write_text(sidecar, encoding="utf-8")
    known = {
        "first": nodes("old.safetensors"),
        "second": nodes("old.safetensors", "new.safetensors"),
    }
    async with (
        asked(tmp_path / "data") as server,
        Catalog.open(folder, catalogs=known) as catalog,
    ):
        host = server.host
        host.catalog = catalog
        entry = catalog["one"]
        call = await bound_call(host, Caller(), entry, {"model": "new.safetensors"})
        assert call.bound.graph["1"]["inputs"]["model"] == "new.safetensors"
        with pytest.raises(InvalidInputs, match=r"Did you mean 'old\.safetensors'"):
            await bound_call(host, Caller(), entry, {"model": "odl.safetensors"})


async def test_what_a_backend_lacks_is_told_by_name(tmp_path: Path) -> None:
    """Asked first, a call is told for each backend which model it lacks and what is near,
    whether the call names that model or the workflow does."""
    folder = tmp_path / "workflows"
    folder.mkdir()
    (folder / "one.json").write_text(json.dumps(GRAPH), encoding="utf-8")
    sidecar = '[inputs.model]\ntargets = ["1.model"]\n'
    (folder / "one.toml").write_text(sidecar, encoding="utf-8")
    known = {"first": nodes("old.safetensors"), "second": nodes("new.safetensors")}
    async with (
        asked(tmp_path / "data") as server,
        Catalog.open(folder, catalogs=known) as catalog,
    ):
        server.host.catalog = catalog
        for inputs, misfit in (({}, 1), ({"model": "new.safetensors"}, 0)):
            told = await validate(server.host, Caller(), catalog["one"], {"inputs": inputs})
            assert told["valid"]
            assert [one["ok"] for one in told["backends"]] == [misfit == 1, misfit == 0]
            [problem] = told["backends"][misfit]["problems"]
            assert (problem["node"], problem["input"]) == ("1", "model")
            assert problem["what"] == "missing_model"
            assert problem["nearest"] == [["old.safetensors"], ["new.safetensors"]][misfit]
