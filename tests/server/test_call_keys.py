"""Calls of workflows by callers with keys: each sees and does what is its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server.asked import Asked, asked
from tests.server.calling import png, problems, workflow_folder


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Asked]:
    """A server of workflows whose jobs wait."""
    async with asked(
        tmp_path / "data", workflows=workflow_folder(tmp_path / "workflows")
    ) as running:
        yield running


async def called(
    client: httpx.AsyncClient, name: str, inputs: dict[str, Any] | None = None, **headers: str
) -> httpx.Response:
    told = {header.replace("_", "-"): value for header, value in headers.items()}
    return await client.post(
        f"/api/workflows/{name}/jobs", json={"inputs": inputs or {}}, headers=told
    )


def refusal(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


async def test_a_key_calls_its_workflows_alone(server: Asked) -> None:
    """To a key for one workflow no other is there, neither to call nor to ask about."""
    some = await server.with_key("some", workflows=["nap"])
    assert (await called(some, "nap")).status_code == 201
    assert refusal(await called(some, "scale")) == (404, "workflow_not_found")
    answer = await some.post("/api/workflows/scale/validate", json={})
    assert refusal(answer) == (404, "workflow_not_found")


async def test_files_of_others_are_not_there(server: Asked) -> None:
    """Neither an asset nor the output of a job of another key can be named."""
    one, other = await server.with_key("one"), await server.with_key("other")
    form = {"image": ("a.png", png(), "image/png")}
    job = (await one.post("/api/workflows/scale/jobs", files=form)).json()
    for value in (job["inputs"]["image"], {"job_id": job["id"]}):
        found = problems(await called(other, "scale", {"image": value}))
        assert "There is no" in found["image"]
    told = (
        await other.post(
            "/api/workflows/scale/validate", json={"inputs": {"image": job["inputs"]["image"]}}
        )
    ).json()
    assert told["missing_assets"] == [job["inputs"]["image"]]


async def test_addresses_take_a_key_for_graphs(server: Asked) -> None:
    """Only a key for graphs sets inputs by their addresses, but for a workflow that is open."""
    plain = await server.with_key("plain")
    graphs = await server.with_key("graphs", may_graphs=True)
    inputs = {"2.upscale_method": "area"}
    assert set(problems(await called(plain, "scale", inputs))) == set(inputs)
    assert (await called(graphs, "scale", inputs)).status_code == 201
    assert (await called(plain, "one_of_two", {"3.filename_prefix": "q"})).status_code == 201


async def test_a_key_has_its_limits(server: Asked) -> None:
    """A job counts against its key and has no higher priority than the key may ask for; the same
    call again needs no second place."""
    key = await server.with_key("one job", concurrent=1, priority_max=2)
    answer = await key.post(
        "/api/workflows/nap/jobs", json={"priority": 9}, headers={"Idempotency-Key": "k"}
    )
    assert answer.json()["priority"] == 2
    assert refusal(await called(key, "nap")) == (429, "too_many_jobs")
    again = await key.post(
        "/api/workflows/nap/jobs", json={"priority": 9}, headers={"Idempotency-Key": "k"}
    )
    assert (again.status_code, again.json()["id"]) == (200, answer.json()["id"])


async def test_idempotency_keys_are_the_callers(server: Asked) -> None:
    """The same idempotency key of two callers makes two jobs."""
    one, other = await server.with_key("one"), await server.with_key("other")
    first = await called(one, "nap", idempotency_key="k")
    second = await called(other, "nap", idempotency_key="k")
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json()["id"] != second.json()["id"]


async def test_without_a_key_nothing_is_called(server: Asked) -> None:
    """Once there is a key, a call without one is refused before its body is read."""
    await server.secret("some")
    nobody = await server.by()
    form = {"image": ("a.png", png(), "image/png")}
    for part in ("jobs", "validate"):
        answer = await nobody.post(f"/api/workflows/scale/{part}", files=form)
        assert refusal(answer) == (401, "unauthorized")
