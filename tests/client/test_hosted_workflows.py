"""Hosted workflows by name, from the library, against a real comfyserve and the built-in engine."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from comfyserve import AsyncClient, Client, InvalidInputs, JobStatus, JobTimedOut
from comfyserve.errors import NoComfyserve, RequestRefused
from comfyserve.refusals import WorkflowNotFound
from tests.engines import RunningEngine
from tests.servers import RunningServer, running_server

EXAMPLES = Path(__file__).parents[2] / "examples"
QUICK: dict[str, Any] = {"steps": 2, "prompt": "red apple"}


@pytest.fixture(scope="session")
def hosting(
    engine: RunningEngine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    """One comfyserve that hosts the examples, and a workflow that only waits."""
    folder = tmp_path_factory.mktemp("hosting") / "workflows"
    folder.mkdir()
    for name in ("text_to_image", "image_to_image"):
        shutil.copy(EXAMPLES / f"{name}.json", folder)
    wait = {"1": {"class_type": "TestSleep", "inputs": {"seconds": 30.0, "interruptible": True}}}
    (folder / "wait.json").write_text(json.dumps(wait), encoding="utf-8")
    data = folder.with_name("data")
    with running_server(data, backends=[engine.url], workflows=folder) as running:
        yield running


@pytest.fixture
async def client(hosting: RunningServer, tmp_path: Path) -> AsyncIterator[AsyncClient]:
    """A client of that server, with a folder of its own."""
    async with AsyncClient(hosting.url, output_dir=tmp_path / "output") as opened:
        yield opened


async def test_a_workflow_is_called_by_its_name(client: AsyncClient) -> None:
    """Inputs go in by name, the outputs come home, the inputs and seeds really used are told."""
    job = await client.workflows["text_to_image"](**QUICK, seed=7)

    assert [output.path.suffix for output in job.outputs] == [".png"]
    assert job.outputs[0].path.stat().st_size == job.outputs[0].size_bytes
    assert (job.inputs["prompt"], job.inputs["steps"]) == ("red apple", 2)
    assert list(job.seeds.values()) == [7]


async def test_files_are_brought_along(client: AsyncClient) -> None:
    """A path, bytes, an open file, an earlier output and an asset's id all are a picture."""
    workflow = client.workflows["image_to_image"]
    sketch = EXAMPLES / "inputs" / "sketch.png"
    first = await workflow(**QUICK, image=sketch)
    asset_id = first.inputs["image"]

    for image in (
        str(sketch),
        sketch.read_bytes(),
        io.BytesIO(sketch.read_bytes()),
        first.outputs[0],
        asset_id,
    ):
        job = await workflow(**QUICK, image=image)
        assert len(job.outputs) == 1


async def test_what_is_hosted_is_listed_and_described(client: AsyncClient) -> None:
    """Names and titles in a list, the inputs as a JSON Schema."""
    names = [item["name"] for item in await client.workflows.list()]
    schema = await client.workflows["text_to_image"].schema()
    detail = await client.workflows["text_to_image"].describe()

    image = (await client.workflows["image_to_image"].schema())["properties"]["image"]
    assert names == ["image_to_image", "text_to_image", "wait"]
    assert (await client.workflows["image_to_image"].schema())["required"] == ["image"]
    assert "default" not in image
    assert "required" not in schema
    assert schema["type"] == "object"
    assert {"prompt", "seed", "steps"} <= schema["properties"].keys()
    assert detail["inputs"] == schema


async def test_wrong_calls_are_told_at_once(client: AsyncClient, tmp_path: Path) -> None:
    """Before a handle is there: every bad input by its name, and names that look like it."""
    workflow = client.workflows["text_to_image"]

    with pytest.raises(InvalidInputs, match="steps") as refused:
        await workflow.submit(steps=0, prompt="red apple")
    assert [problem.name for problem in refused.value.problems] == ["steps"]
    with pytest.raises(InvalidInputs, match="prompt"):
        await workflow.submit(promt="red apple")
    with pytest.raises(WorkflowNotFound, match="text_to_image"):
        await client.workflows["text_to_imag"].submit(prompt="x")
    with pytest.raises(WorkflowNotFound):
        await client.workflows["text_to_imag"].schema()
    with pytest.raises(InvalidInputs, match=r"nothing\.png"):
        await client.workflows["image_to_image"].submit(image=tmp_path / "nothing.png")


async def test_it_waits_no_longer_than_it_is_told(client: AsyncClient) -> None:
    """After the timeout the job goes on, and its handle can cancel it."""
    handle = await client.workflows["wait"].submit(metadata={"who": "me"}, priority=3)

    with pytest.raises(JobTimedOut):
        await handle.wait(0.2)
    assert handle.status in (JobStatus.QUEUED, JobStatus.RUNNING)
    await handle.cancel()

    assert await handle.wait(20) is JobStatus.CANCELED


async def test_a_comfyui_hosts_nothing(engine: RunningEngine) -> None:
    """It says what it is, and what would be needed."""
    async with AsyncClient(engine.url) as client:
        with pytest.raises(NoComfyserve, match="hosts no workflows"):
            await client.workflows.list()
        with pytest.raises(NoComfyserve):
            await client.workflows["text_to_image"](prompt="x")


def test_blocking_code_does_the_same(hosting: RunningServer) -> None:
    """The shape that the README shows: names in a loop, a schema, a call, a handle."""
    with Client(hosting.url, timeout=60) as client:
        assert "text_to_image" in list(client.workflows)
        workflow = client.workflows["text_to_image"]
        assert "prompt" in workflow.schema["properties"]
        assert workflow.describe()["name"] == workflow.name

        job = workflow(**QUICK)
        handle = workflow.submit(QUICK | {"seed": 3})

        assert job.outputs[0].size_bytes > 0
        assert handle.wait(60) is JobStatus.SUCCEEDED
        assert list(handle.seeds.values()) == [3]
        assert handle.inputs["prompt"] == "red apple"


async def test_a_file_is_published_and_withdrawn(client: AsyncClient, tmp_path: Path) -> None:
    """A path brings its sidecar along unless another is given; bytes do as well as a path."""
    file = tmp_path / "mine.json"
    shutil.copy(EXAMPLES / "text_to_image.json", file)
    file.with_suffix(".toml").write_text('title = "Beside"', encoding="utf-8")

    titles = [
        (await client.workflows.publish("mine", *given))["title"]
        for given in ((file,), (file, b'title = "Given"'), (file, b""), (file.read_bytes(),))
    ]
    validity = await client.workflows["mine"].validate(steps=0)
    await client.workflows.withdraw("mine")

    assert titles == ["Beside", "Given", "mine", "mine"]
    assert (validity["valid"], validity["problems"][0]["input"]) == (False, "steps")
    with pytest.raises(WorkflowNotFound):
        await client.workflows.withdraw("mine")
    with pytest.raises(RequestRefused, match="folder"):
        await client.workflows.withdraw("wait")
    with pytest.raises(InvalidInputs, match=r"no such file.*mine\.json"):
        await client.workflows.publish("mine", tmp_path / "min.json")
    with pytest.raises(InvalidInputs, match="sidecar"):
        await client.workflows.publish("mine", file, tmp_path / "nothing.toml")


async def test_a_path_is_a_file_for_an_input_of_any_file(
    hosting: RunningServer, tmp_path: Path
) -> None:
    """Also where the author says no more than that it takes a file."""
    shutil.copy(EXAMPLES / "image_to_image.json", tmp_path / "any.json")
    sidecar = '[inputs.image]\ntargets = ["10.image"]\ntype = "file"\n'
    (tmp_path / "any.toml").write_text(sidecar, encoding="utf-8")
    async with AsyncClient(hosting.url, output_dir=tmp_path / "out") as client:
        await client.workflows.publish("any", tmp_path / "any.json")

        job = await client.workflows["any"](image=str(EXAMPLES / "inputs" / "sketch.png"))

        assert len(job.outputs) == 1
        await client.workflows.withdraw("any")
