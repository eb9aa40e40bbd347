"""Whose graphs a server runs, with which node classes, and who may look into those of others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from comfyserve.jobs import Standing
from tests.server.asked import GRAPH, Asked, asked, refusal, submitted

PYTHON = {"1": {"class_type": "RunPython", "inputs": {}}}


async def handed_in(client: httpx.AsyncClient, graph: Mapping[str, Any] = GRAPH) -> httpx.Response:
    """The answer to a graph of the caller's own."""
    return await client.post("/api/v2/jobs", json={"workflow": graph})


@pytest.mark.parametrize(
    ("may", "status"),
    [
        ({}, 403),
        ({"workflows": ["portrait"], "may_publish": True}, 403),
        ({"may_graphs": True}, 201),
        ({"workflows": [], "may_graphs": True}, 201),
        ({"is_admin": True}, 201),
    ],
)
async def test_graphs_of_ones_own_take_a_key_for_them(
    tmp_path: Path, may: dict[str, Any], status: int
) -> None:
    """A key runs raw graphs where it was made with `--graphs`, or is an admin's."""
    async with asked(tmp_path) as server:
        client = await server.with_key("a", **may)

        answer = await handed_in(client)

        assert answer.status_code == status
        if status == 403:
            assert answer.json()["error"]["code"] == "forbidden"
            assert "--graphs" in answer.json()["error"]["message"]
            assert (await client.get("/api/v2/jobs")).json()["jobs"] == []


@pytest.mark.parametrize(
    ("settings", "status"),
    [
        ({}, 201),
        ({"host": "0.0.0.0", "insecure": True}, 403),
        ({"host": "0.0.0.0", "insecure": True, "open_graphs": True}, 201),
    ],
)
async def test_without_keys_graphs_are_open_to_this_machine(
    tmp_path: Path, settings: dict[str, Any], status: int
) -> None:
    """Where others reach a server without keys, their graphs and its nodes are open only if that
    was said."""
    async with asked(tmp_path, **settings) as server:
        nobody = await server.by()

        answer, nodes = await handed_in(nobody), await nobody.get("/api/object_info")

        assert answer.status_code == status
        assert (nodes.status_code == 403) is (status == 403)
        assert status == 201 or "open_graphs" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("settings", "is_open"),
    [
        ({}, True),
        ({"host": "0.0.0.0", "insecure": True}, False),
        ({"host": "0.0.0.0", "insecure": True, "open_graphs": True}, True),
    ],
)
async def test_without_keys_strangers_neither_publish_nor_manage(
    tmp_path: Path, settings: dict[str, Any], is_open: bool
) -> None:
    """Where graphs are closed, nobody brings one in as a workflow, or a backend to run it on."""
    async with asked(tmp_path, **settings) as server:
        nobody = await server.by()

        answers = [
            await nobody.put("/api/workflows/mine", json=GRAPH),
            await nobody.post("/api/workflows/inspect", json=GRAPH),
            await nobody.delete("/api/workflows/mine"),
            await nobody.post("/api/backends", json={"url": "http://127.0.0.1:9/other"}),
            await nobody.get("/api/backends"),
        ]

        found = [answer.status_code for answer in answers]
        assert found == ([201, 200, 204, 201, 200] if is_open else [403] * 5)
        assert is_open or all("open_graphs" in one.json()["error"]["message"] for one in answers)


@pytest.mark.parametrize("may", [None, {"may_graphs": True}, {"is_admin": True}])
@pytest.mark.parametrize(
    ("lists", "graph", "status"),
    [
        ({"deny_nodes": ("Run*",)}, PYTHON, 403),
        ({"deny_nodes": ("Run*",)}, GRAPH, 201),
        ({"allow_nodes": ("Primitive*",)}, PYTHON, 403),
        ({"allow_nodes": ("Primitive*",)}, GRAPH, 201),
        ({"allow_nodes": ("*",), "deny_nodes": ("RunPython",)}, PYTHON, 403),
    ],
)
async def test_the_lists_of_node_classes_hold_for_all(
    tmp_path: Path,
    may: dict[str, Any] | None,
    lists: dict[str, Any],
    graph: Mapping[str, Any],
    status: int,
) -> None:
    """What a server does not let graphs use, nobody's graph uses: with no key, with an admin's."""
    async with asked(tmp_path, **lists) as server:
        client = await server.by() if may is None else await server.with_key("a", **may)

        answer = await handed_in(client, graph)

        assert answer.status_code == status
        assert status == 201 or "'RunPython'" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("may", "may_see"),
    [
        ({}, False),
        ({"workflows": ["portrait"]}, False),
        ({"may_graphs": True}, True),
        ({"may_publish": True}, True),
        ({"is_admin": True}, True),
    ],
)
async def test_a_workflows_graph_is_its_authors(
    tmp_path: Path, may: dict[str, Any], may_see: bool
) -> None:
    """Who may only run workflows sees neither their graphs in its jobs nor the nodes there are."""
    async with asked(tmp_path) as server:
        client = await server.with_key("a", **may)
        job = (await _called(server)).record.id

        graph = await client.get(f"/api/v2/jobs/{job}/workflow")
        nodes = await client.get("/api/object_info")

        assert graph.status_code == (200 if may_see else 403)
        assert (nodes.status_code == 403) is not may_see  # else no ComfyUI tells of any
        assert not may_see or graph.json()["workflow"] == GRAPH
        assert (await client.get(f"/api/v2/jobs/{job}")).json()["workflow"] == "portrait"


async def test_ones_own_graph_is_ones_own_to_see(tmp_path: Path) -> None:
    """The graph of a job that ran no workflow is shown to whose job it is."""
    async with asked(tmp_path) as server:
        client = await server.with_key("a", may_graphs=True)
        job = await submitted(client)

        answer = await client.get(f"/api/v2/jobs/{job['id']}/workflow")

        assert answer.json() == {"workflow": GRAPH, "format": "api"}


async def test_a_refused_graph_is_refused_before_all_else(tmp_path: Path) -> None:
    """Who may run no graph is told so, whatever else is wrong with what he sent."""
    async with asked(tmp_path) as server:
        client = await server.with_key("a")

        assert refusal(await client.post("/api/v2/jobs", json={})) == (403, "forbidden")


async def _called(server: Asked) -> Standing:
    """A job of the only key, which ran a workflow by its name."""
    (key,) = await server.host.access.list()
    return await server.host.job_queue.submit(GRAPH, owner=key.owner, workflow="portrait")
