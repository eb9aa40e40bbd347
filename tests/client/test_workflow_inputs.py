"""From a workflow file to a graph that one server can run."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from comfyserve import AsyncClient, InvalidInputs
from tests.client.graphs import emitting, inverting
from tests.engines import RunningEngine


def write(path: Path, size: int, time_ns: int) -> None:
    path.write_text(json.dumps(emitting(size=size)), encoding="utf-8")
    os.utime(path, ns=(time_ns, time_ns))


async def test_a_file_is_read_again_when_it_changes(client: AsyncClient, tmp_path: Path) -> None:
    """A workflow file that was edited is the edited one; one that was not is read once."""
    file = tmp_path / "w.json"
    write(file, 100, 1)

    first, again = await client.describe(file), await client.describe(file)
    write(file, 101, 2)
    edited = await client.describe(file)

    assert first is again
    assert first.graph["1"]["inputs"]["size"] == 100
    assert edited.graph["1"]["inputs"]["size"] == 101


async def test_a_picture_that_came_meanwhile_is_found(
    client: AsyncClient, engine: RunningEngine, picture: Path
) -> None:
    """What the server got after it was first asked is known all the same."""
    with pytest.raises(InvalidInputs, match=r"late\.png: there is no such file"):
        await client.bind(inverting(), {"image": "late.png"})
    shutil.copy(picture, engine.folder / "input" / "late.png")

    bound = await client.bind(inverting(), {"image": "late.png"})

    assert bound.graph["1"]["inputs"]["image"] == "late.png"
    assert bound.files == ()


async def test_a_name_with_a_folder_of_the_server_is_left_alone(client: AsyncClient) -> None:
    """A name that says in which of the server's folders it is can only mean a file there."""
    bound = await client.bind(inverting(), {"image": "sub/there.png [output]"})

    assert bound.graph["1"]["inputs"]["image"] == "sub/there.png [output]"


async def test_every_missing_file_is_named(client: AsyncClient) -> None:
    """All problems with files are told at once."""
    graph = inverting() | {"4": inverting()["1"]}

    with pytest.raises(InvalidInputs) as raised:
        await client.bind(graph, {"1.image": "a.png", "4.image": "b.png"})

    assert [problem.name for problem in raised.value.problems] == ["1.image", "4.image"]
