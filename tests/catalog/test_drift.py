"""Which workflow no longer fits which backend, and what is said of it."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from comfyserve.catalog import Catalog, Published
from comfyserve.catalog.drift import MOST_MISFITS, misfits
from comfyserve.workflows.node_catalog import NodeCatalog
from comfyserve.workflows.sidecar import read_sidecar
from comfyserve.workflows.workflow import Workflow
from tests.catalog.conftest import DEADLINE, EDITOR, TEXT_TO_IMAGE, until

Changed = Callable[[dict[str, Any]], object]


@pytest.fixture
def changed(object_info: bytes) -> Callable[[Changed], NodeCatalog]:
    """The real server's nodes after something happened to them."""

    def with_change(change: Changed) -> NodeCatalog:
        document = json.loads(object_info)
        change(document)
        return NodeCatalog.from_json(document)

    return with_change


@pytest.fixture
def portrait() -> Workflow:
    return Workflow.from_bytes(TEXT_TO_IMAGE, "portrait")


def _inputs(document: dict[str, Any], kind: str) -> dict[str, Any]:
    inputs: dict[str, Any] = document[kind]["input"]["required"]
    return inputs


def test_what_fits_has_no_misfits(portrait: Workflow, nodes: NodeCatalog) -> None:
    """A workflow that the backend would run is not spoken of."""
    assert misfits(portrait, nodes) == ()


def test_a_missing_model_is_told_with_the_nearest(
    portrait: Workflow, changed: Callable[[Changed], NodeCatalog]
) -> None:
    """Somebody replaced the checkpoint by a newer one."""
    there = ["zz.ckpt", "tiny_random_sd15_v2.safetensors"]
    catalog = changed(
        lambda info: _inputs(info, "CheckpointLoaderSimple").update(ckpt_name=[there, {}])
    )

    [misfit] = misfits(portrait, catalog)

    assert (misfit.node, misfit.input, misfit.what) == ("4", "ckpt_name", "missing_model")
    assert misfit.nearest[0] == "tiny_random_sd15_v2.safetensors"
    assert misfit.message == (
        "There is no model 'tiny_random_sd15.safetensors', which node 4 (CheckpointLoaderSimple) "
        "asks for at ckpt_name. The nearest there are: tiny_random_sd15_v2.safetensors."
    )


def test_a_model_with_the_other_slash_is_the_same(
    changed: Callable[[Changed], NodeCatalog],
) -> None:
    """A server on Windows lists the models of a folder its own way."""
    document = json.loads(TEXT_TO_IMAGE)
    document["4"]["inputs"]["ckpt_name"] = "sd/one.safetensors"
    catalog = changed(
        lambda info: _inputs(info, "CheckpointLoaderSimple").update(
            ckpt_name=[["sd\\one.safetensors"], {}]
        )
    )

    assert misfits(Workflow.from_json(document), catalog) == ()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda info: info.pop("KSampler"), ("3", None, "unknown_node")),
        (
            lambda info: _inputs(info, "KSampler")["steps"][1].update(max=10),
            ("3", "steps", "out_of_range"),
        ),
        (
            lambda info: _inputs(info, "KSampler")["cfg"][1].update(min=7.5),
            ("3", "cfg", "out_of_range"),
        ),
        (
            lambda info: _inputs(info, "KSampler").update(sampler_name=[["euler"], {}]),
            ("3", "sampler_name", "missing_choice"),
        ),
        (
            lambda info: _inputs(info, "KSampler").update(guidance=["FLOAT", {}]),
            ("3", "guidance", "missing_input"),
        ),
        (lambda info: info["SaveImage"].update(output_node=False), ("", None, "no_output")),
    ],
)
def test_every_kind_of_drift_is_told(
    portrait: Workflow,
    changed: Callable[[Changed], NodeCatalog],
    change: Changed,
    told: tuple[str, str | None, str],
) -> None:
    """A class that went, a limit that moved, a choice that went, an input that came."""
    [misfit] = misfits(portrait, changed(change))

    assert (misfit.node, misfit.input, misfit.what) == told
    assert misfit.message[0].isupper()
    assert misfit.message[-1] in ".?"


def test_what_the_editor_saved_is_held_against_a_backend_too(
    changed: Callable[[Changed], NodeCatalog], nodes: NodeCatalog
) -> None:
    """It is read anew with the backend's nodes, which its graph depends on."""
    workflow = Workflow.load(EDITOR / "converted_widgets.json")
    kinds = {
        entry["class_type"] for entry in workflow.described_by(nodes, strict=False).graph.values()
    }
    gone = sorted(kind for kind in kinds if kind in nodes)[0]

    found = misfits(workflow, changed(lambda info: info.pop(gone)))

    assert "unknown_node" in {misfit.what for misfit in found}
    assert any(gone in misfit.message for misfit in found)


def test_a_sidecar_that_a_backend_makes_nonsense_of_is_told(
    changed: Callable[[Changed], NodeCatalog],
) -> None:
    """Its default is more than the nodes there take."""
    sidecar = read_sidecar("[inputs.steps]\ndefault = 50\n", "portrait.toml")
    workflow = Workflow.from_bytes(TEXT_TO_IMAGE, "portrait", sidecar=sidecar)
    catalog = changed(lambda info: _inputs(info, "KSampler")["steps"][1].update(max=30))

    [misfit] = misfits(workflow, catalog)

    assert misfit.what == "unreadable"
    assert "portrait.toml cannot be used: inputs.steps.default" in misfit.message


def test_a_workflow_of_strangers_is_told_in_bounds(nodes: NodeCatalog) -> None:
    """Hundreds of missing nodes make no endless list."""
    graph = {
        str(number): {"class_type": f"Stranger{number}", "inputs": {}} for number in range(300)
    }

    assert len(misfits(Workflow.from_json(graph), nodes)) == MOST_MISFITS


async def test_drift_is_told_per_backend_before_a_caller_finds_out(
    folder: Path, nodes: NodeCatalog, changed: Callable[[Changed], NodeCatalog]
) -> None:
    """A backend that lost a model is named; the workflow is described by one that it fits."""
    (folder / "portrait.json").write_bytes(TEXT_TO_IMAGE)
    poor = changed(lambda info: _inputs(info, "CheckpointLoaderSimple").update(ckpt_name=[[], {}]))
    async with Catalog.open(folder, catalogs={"gpu1": nodes, "gpu2": nodes}) as catalog:
        assert catalog.drift() == ()
        with catalog.changes() as changes:
            await catalog.learn({"gpu1": poor, "gpu2": nodes})
            async with asyncio.timeout(DEADLINE):
                change = await anext(changes)

        [drift] = catalog.drift("portrait")
        assert (drift.workflow, drift.backend, drift.what) == ("portrait", "gpu1", "missing_model")
        assert change.drift == catalog.drift() == (drift,)
        assert (await catalog.described("portrait")).catalog is nodes

        await catalog.learn({"gpu1": nodes, "gpu2": nodes})
        assert catalog.drift() == ()


async def test_an_edit_that_does_not_fit_is_told(
    folder: Path, changed: Callable[[Changed], NodeCatalog]
) -> None:
    """Drift is worked out anew where a file changed, and forgotten with the file."""
    catalog_of = changed(lambda info: info)
    document = json.loads(TEXT_TO_IMAGE)
    file = folder / "portrait.json"
    file.write_text(json.dumps(document), encoding="utf-8")
    async with Catalog.open(folder, catalogs={"gpu1": catalog_of}, pause=0.05) as catalog:
        document["3"]["inputs"]["steps"] = 20_000
        file.write_text(json.dumps(document), encoding="utf-8")
        await until(lambda: bool(catalog.drift()))
        assert catalog.drift()[0].message == (
            "Node 3 (KSampler) has 20000 for its input steps; the most is 10000."
        )

        file.unlink()
        await until(lambda: not catalog.drift())


async def test_the_same_nodes_read_again_are_no_news(
    nodes: NodeCatalog, changed: Callable[[Changed], NodeCatalog]
) -> None:
    """What was described stays, where a backend told the same once more."""
    async with Catalog.open(None, catalogs={"gpu1": nodes}) as catalog:
        await catalog.publish(Published("portrait", TEXT_TO_IMAGE))
        before = await catalog.described("portrait")

        await catalog.learn({"gpu1": changed(lambda info: info), "gpu2": nodes})

        assert await catalog.described("portrait", "gpu2") is before


async def test_a_model_that_goes_does_not_flood_the_log(
    changed: Callable[[Changed], NodeCatalog], caplog: pytest.LogCaptureFixture
) -> None:
    """It may take hundreds of workflows with it; the catalogue has them all."""
    poor = changed(lambda info: _inputs(info, "CheckpointLoaderSimple").update(ckpt_name=[[], {}]))
    published = [Published(f"w{number}", TEXT_TO_IMAGE) for number in range(30)]
    async with Catalog.open(None, published=published) as catalog:
        with caplog.at_level(logging.WARNING):
            await catalog.learn({"gpu1": poor})

        assert len(catalog.drift()) == 30
    assert len(caplog.records) == 21
    assert caplog.messages[-1] == "And 10 more workflows do not fit a backend."
