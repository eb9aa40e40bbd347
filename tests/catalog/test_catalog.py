"""The catalogue as a server uses it, on a real folder and in real time."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import shutil
import time
from pathlib import Path

import pytest

from comfyserve.catalog import Catalog, Published
from comfyserve.refusals import (
    WorkflowBroken,
    WorkflowFolderMissing,
    WorkflowNameRefused,
    WorkflowNotFound,
)
from comfyserve.workflows.node_catalog import NodeCatalog
from tests.catalog.conftest import (
    DEADLINE,
    EDITOR,
    IMAGE_TO_IMAGE,
    MEDIA,
    TEXT_TO_IMAGE,
    WITHOUT,
    until,
)


async def test_a_file_is_served_within_a_second(folder: Path) -> None:
    """A file dropped in, edited, described or removed is noticed while the server runs."""
    async with Catalog.open(folder) as catalog:
        assert catalog.entries() == []
        seconds = []

        begin = time.monotonic()
        (folder / "portrait.json").write_bytes(TEXT_TO_IMAGE)
        await until(lambda: "portrait" in catalog)
        seconds.append(time.monotonic() - begin)
        first = catalog["portrait"].version

        begin = time.monotonic()
        (folder / "portrait.toml").write_text('title = "Faces"\n', encoding="utf-8")
        await until(lambda: catalog["portrait"].version != first)
        seconds.append(time.monotonic() - begin)
        workflow = await catalog.described("portrait")
        assert workflow.title == "Faces"

        begin = time.monotonic()
        (folder / "portrait.json").unlink()
        await until(lambda: "portrait" not in catalog)
        seconds.append(time.monotonic() - begin)

    # Other programs on a busy machine may take their share of the time.
    assert min(seconds) < 1.0
    assert max(seconds) < 5.0


async def test_a_file_that_is_copied_slowly_is_served_when_it_is_whole(folder: Path) -> None:
    """While it is being written nobody hears of a problem."""
    async with Catalog.open(folder, pause=0.05) as catalog:
        with (folder / "portrait.json").open("wb") as file:
            step = len(TEXT_TO_IMAGE) // 10 + 1
            for start in range(0, len(TEXT_TO_IMAGE), step):
                file.write(TEXT_TO_IMAGE[start : start + step])
                file.flush()
                await asyncio.sleep(0.1)
                assert catalog.problems() == []

        await until(lambda: "portrait" in catalog)

        assert catalog["portrait"].problem is None


async def test_a_broken_edit_is_told_and_keeps_the_last_version(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Who looks, who listens and the log hear of it; callers are served as before."""
    file = folder / "portrait.json"
    file.write_bytes(TEXT_TO_IMAGE)
    async with Catalog.open(folder, pause=0.05, patience=0.1) as catalog:
        with catalog.changes() as changes, caplog.at_level(logging.WARNING):
            file.write_bytes(b'{"1": ')
            async with asyncio.timeout(DEADLINE):
                change = await anext(changes)

        workflow = await catalog.described("portrait")
        [problem] = catalog.problems()

    assert change.name == "portrait"
    assert change.entry is not None
    assert change.entry.problem == problem.message
    assert problem.message in caplog.text
    assert workflow.bind({"prompt": "a fox"}, rng=random.Random()).graph["6"]["inputs"]["text"] == (
        "a fox"
    )


async def test_changes_are_heard_by_all_and_end_with_the_catalogue(folder: Path) -> None:
    """Every listener hears what comes and goes; of each name the slow hear only the latest."""
    async with Catalog.open(folder, pause=0.05) as catalog:
        with catalog.changes() as quick, catalog.changes() as slow:
            async with asyncio.timeout(DEADLINE):
                (folder / "one.json").write_bytes(TEXT_TO_IMAGE)
                added = await anext(quick)
                (folder / "one.json").unlink()
                removed = await anext(quick)
            leftover = slow
    rest = [change async for change in leftover]

    assert (added.name, removed.name, removed.entry) == ("one", "one", None)
    assert added.entry is not None
    assert [(change.name, change.entry) for change in rest] == [("one", None)]


async def test_a_name_that_is_not_there_is_told_with_the_nearest(folder: Path) -> None:
    """A slip of the finger, the other case and the file's own name all lead to the right one."""
    (folder / "My Portrait.json").write_bytes(TEXT_TO_IMAGE)
    async with Catalog.open(folder) as catalog:
        for wrong in ("My-Portrat", "my-portrait", "My Portrait"):
            with pytest.raises(WorkflowNotFound, match=r"Did you mean 'My-Portrait'\?"):
                catalog[wrong]
        with pytest.raises(WorkflowNotFound) as caught:
            catalog["../../etc/passwd"]

    assert str(caught.value) == "No workflow is named '../../etc/passwd'."


async def test_a_workflow_that_never_was_one_cannot_be_run(folder: Path) -> None:
    """Its entry is there to say so."""
    (folder / "photo.png").write_bytes(WITHOUT)
    async with Catalog.open(folder, pause=0.05, patience=0.1) as catalog:
        await until(lambda: "photo" in catalog)

        with pytest.raises(WorkflowBroken, match="without a ComfyUI workflow inside"):
            await catalog.described("photo")


@pytest.mark.parametrize("name", ["none", "file.json"])
async def test_a_folder_that_is_none_is_refused(folder: Path, name: str) -> None:
    """A slip in the command line is told at the start."""
    (folder / "file.json").write_bytes(TEXT_TO_IMAGE)

    with pytest.raises(WorkflowFolderMissing, match=name):
        async with Catalog.open(folder / name):
            pass


async def test_a_folder_that_is_lost_is_told_and_found_again(folder: Path) -> None:
    """What it had on offer stays on offer meanwhile."""
    (folder / "portrait.json").write_bytes(TEXT_TO_IMAGE)
    async with Catalog.open(folder, pause=0.05) as catalog:
        away = Path(shutil.move(folder, folder.parent / "away"))
        await until(lambda: catalog.folder_problem is not None)
        assert "portrait" in catalog
        assert catalog.problems()[0].name is None

        shutil.move(away, folder)
        await until(lambda: catalog.folder_problem is None)


async def test_many_files_at_once_are_all_served(folder: Path) -> None:
    """Nothing is lost where a whole collection is copied into the folder."""
    async with Catalog.open(folder, pause=0.05) as catalog:
        for number in range(100):
            (folder / f"w{number:03}.json").write_bytes(TEXT_TO_IMAGE)
        await until(lambda: len(catalog) == 100)
        for number in range(100):
            os.remove(folder / f"w{number:03}.json")
        await until(lambda: len(catalog) == 0)


async def test_the_loop_is_free_while_files_are_read(folder: Path) -> None:
    """Requests are answered while a heavy workflow is parsed."""
    nodes = (
        f'"{number}": {{"class_type": "A", "inputs": {{"a": {number}}}}}' for number in range(9000)
    )
    (folder / "heavy.json").write_text("{" + ",".join(nodes) + "}", encoding="utf-8")
    longest = 0.0

    async def beat() -> None:
        nonlocal longest
        while True:
            begin = time.monotonic()
            await asyncio.sleep(0)
            longest = max(longest, time.monotonic() - begin)

    beating = asyncio.create_task(beat())
    begin = time.monotonic()
    async with Catalog.open(folder) as catalog:
        whole = time.monotonic() - begin
        assert "heavy" in catalog
    beating.cancel()

    assert longest < whole / 2


async def test_published_workflows_are_offered_without_a_folder() -> None:
    """What was handed in is described, edited and withdrawn like a file."""
    kept = Published("kept", IMAGE_TO_IMAGE, 'title = "Kept"\n', 5.0)
    async with Catalog.open(None, published=[kept]) as catalog:
        entry = await catalog.publish(Published("portrait", TEXT_TO_IMAGE, changed_at=6.0))
        edited = await catalog.publish(Published("portrait", IMAGE_TO_IMAGE, changed_at=7.0))
        assert [one.name for one in catalog.entries()] == ["kept", "portrait"]
        assert (await catalog.described("kept")).title == "Kept"

        await catalog.withdraw("portrait")
        assert "portrait" not in catalog
        with pytest.raises(WorkflowNotFound):
            await catalog.withdraw("portrait")

    assert (entry.source, entry.changed_at) == ("published", 6.0)
    assert edited.version != entry.version


async def test_what_is_no_workflow_cannot_be_published() -> None:
    """It is refused with the reason, and what was published before stays."""
    async with Catalog.open(None) as catalog:
        before = await catalog.publish(Published("portrait", TEXT_TO_IMAGE))
        for wrong in (b"{", WITHOUT, b"", b"[1]"):
            with pytest.raises(Exception, match="portrait"):
                await catalog.publish(Published("portrait", wrong))
        with pytest.raises(Exception, match="The sidecar of portrait cannot be used"):
            await catalog.publish(Published("portrait", TEXT_TO_IMAGE, "titel = 1"))
        with pytest.raises(WorkflowNameRefused):
            await catalog.publish(Published("../portrait", TEXT_TO_IMAGE))

        assert catalog["portrait"] is before


async def test_the_folder_comes_before_what_was_published(folder: Path) -> None:
    """A file takes the name, and what was published under it comes back when the file goes."""
    handed_in = Published("Portrait", IMAGE_TO_IMAGE)
    async with Catalog.open(folder, published=[handed_in], pause=0.05) as catalog:
        (folder / "portrait.json").write_bytes(TEXT_TO_IMAGE)
        await until(lambda: "portrait" in catalog)
        assert "Portrait" not in catalog
        assert catalog["portrait"].warnings == (
            "A workflow of this name was published too; portrait.json comes first.",
        )
        with pytest.raises(WorkflowNameRefused, match=r"portrait\.json in the server's folder"):
            await catalog.publish(handed_in)

        (folder / "portrait.json").unlink()
        await until(lambda: "Portrait" in catalog)

        assert catalog["Portrait"].source == "published"
        assert len(catalog) == 1


async def test_a_file_that_never_was_a_workflow_takes_no_name(folder: Path) -> None:
    """What was published stays on offer beside a stray picture of its name."""
    handed_in = [Published("photo", TEXT_TO_IMAGE)]
    async with Catalog.open(folder, published=handed_in, pause=0.05, patience=0.1) as catalog:
        (folder / "photo.png").write_bytes(WITHOUT)
        await until(lambda: bool(catalog["photo"].warnings))

        assert catalog["photo"].source == "published"
        assert "photo.png, which is not offered" in catalog["photo"].warnings[0]


async def test_all_that_is_published_can_be_set_at_once() -> None:
    """Another process published and withdrew; what did not change stays the same."""
    async with Catalog.open(None, published=[Published("a", TEXT_TO_IMAGE)]) as catalog:
        before = catalog["a"]
        same = Published("a", TEXT_TO_IMAGE)
        await catalog.set_published([same, Published("b", IMAGE_TO_IMAGE), Published("c", b"{")])
        assert catalog["a"] is before
        assert catalog["c"].problem is not None

        await catalog.set_published([Published("b", IMAGE_TO_IMAGE)])

        assert [entry.name for entry in catalog.entries()] == ["b"]


async def test_a_workflow_has_a_picture(folder: Path) -> None:
    """The one beside it, or it is one itself, be it a file or published."""
    (folder / "drawn.json").write_bytes(TEXT_TO_IMAGE)
    (folder / "drawn.png").write_bytes(WITHOUT)
    (folder / "saved.webp").write_bytes((MEDIA / "exif.webp").read_bytes())
    (folder / "plain.json").write_bytes(TEXT_TO_IMAGE)
    (folder / "lying.json").write_bytes(TEXT_TO_IMAGE)
    (folder / "lying.png").write_bytes(b"<script>")
    handed_in = Published("handed", (MEDIA / "text.png").read_bytes())
    async with Catalog.open(folder, published=[handed_in]) as catalog:
        pictures = {entry.name: await catalog.thumbnail(entry.name) for entry in catalog.entries()}

    kinds = {name: picture and picture.content_type for name, picture in pictures.items()}
    assert kinds == {
        "drawn": "image/png",
        "handed": "image/png",
        "lying": None,
        "plain": None,
        "saved": "image/webp",
    }
    assert pictures["drawn"] is not None
    assert pictures["drawn"].content == WITHOUT


async def test_a_backend_describes_what_the_file_leaves_out(
    folder: Path, nodes: NodeCatalog
) -> None:
    """Limits and choices come from its nodes, and what the editor saved is read for certain."""
    (folder / "portrait.json").write_bytes(TEXT_TO_IMAGE)
    shutil.copy(EDITOR / "converted_widgets.json", folder / "edited.json")
    async with Catalog.open(folder) as catalog:
        bare = await catalog.described("portrait")
        assert bare.catalog is None

        await catalog.learn({"gpu1": nodes})
        described = await catalog.described("portrait")
        edited = await catalog.described("edited", "gpu1")

        assert described.catalog is nodes
        assert described.json_schema()["properties"]["steps"]["maximum"] == 10000
        assert await catalog.described("portrait") is described
        assert edited.catalog is nodes
        assert await catalog.described("portrait", "gpu9") is bare
