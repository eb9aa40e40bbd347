"""Looks at a folder, one by one, with a clock that the test moves."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from comfyserve.catalog import folder as rooms
from comfyserve.catalog.entry import Entry
from comfyserve.catalog.folder import PATIENCE, Folder, Look
from comfyserve.catalog.reading import Group, Seen, read_group
from comfyserve.workflows.graph import MAX_BYTES
from tests.catalog.conftest import EDITOR, IMAGE_TO_IMAGE, MEDIA, TEXT_TO_IMAGE, WITHOUT


class Clock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Watcher:
    """Looks at a folder, and remembers what it has been told."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = Clock()
        self.folder = Folder(path, clock=self.clock)
        self.entries: dict[str, Entry] = {}

    def look(self, *, seconds: float = 0.1, at_once: bool = False) -> Look:
        self.clock.now += seconds
        look = self.folder.look(at_once=at_once)
        for key, entry in look.changes.items():
            if entry is None:
                del self.entries[key]
            else:
                self.entries[key] = entry
        return look

    def settle(self) -> None:
        """Look until nobody could be writing any more."""
        for _ in range(4):
            self.look(seconds=PATIENCE)


@pytest.fixture
def watcher(folder: Path) -> Watcher:
    return Watcher(folder)


def test_a_new_file_is_offered_once_two_looks_agree(watcher: Watcher) -> None:
    """One look could fall into the middle of a copy."""
    watcher.look(at_once=True)
    (watcher.path / "portrait.json").write_bytes(TEXT_TO_IMAGE)

    first, second = watcher.look(), watcher.look()

    assert (first.changes, first.is_settled) == ({}, False)
    assert second.is_settled
    entry = watcher.entries["portrait"]
    assert entry.workflow is not None
    assert [one.name for one in entry.workflow.parameters][:2] == ["prompt", "negative_prompt"]


def test_what_is_there_at_first_is_offered_at_once(watcher: Watcher) -> None:
    """A server that starts need not wait for a second look."""
    (watcher.path / "portrait.json").write_bytes(TEXT_TO_IMAGE)

    watcher.look(at_once=True)

    assert list(watcher.entries) == ["portrait"]


def test_nothing_changes_where_nothing_happens(watcher: Watcher) -> None:
    """A look at files that are as before reads none of them."""
    (watcher.path / "portrait.json").write_bytes(TEXT_TO_IMAGE)
    watcher.look(at_once=True)

    looks = [watcher.look() for _ in range(3)]

    assert all(look.changes == {} and look.is_settled for look in looks)


def test_a_half_written_file_is_no_problem_yet(watcher: Watcher) -> None:
    """A copy that stalls is waited for, and offered as soon as it is whole."""
    watcher.look(at_once=True)
    file = watcher.path / "portrait.json"
    file.write_bytes(TEXT_TO_IMAGE[:200])
    for _ in range(3):
        watcher.look()
    assert watcher.entries == {}

    file.write_bytes(TEXT_TO_IMAGE)
    watcher.look(), watcher.look()

    assert watcher.entries["portrait"].problem is None


def test_a_broken_file_is_told_in_the_end(watcher: Watcher) -> None:
    """Once nobody can be writing it any more, what is wrong with it is said in a sentence."""
    watcher.look(at_once=True)
    (watcher.path / "portrait.json").write_bytes(TEXT_TO_IMAGE[:200])

    watcher.settle()

    entry = watcher.entries["portrait"]
    assert entry.workflow is None
    assert entry.problem is not None
    assert entry.problem.startswith("portrait.json is not valid JSON: line ")
    assert str(watcher.path) not in entry.problem


def test_a_broken_file_that_is_old_is_told_at_once(watcher: Watcher) -> None:
    """Who starts a server sees what is wrong with the folder from the start."""
    file = watcher.path / "portrait.json"
    file.write_bytes(b"{")
    os.utime(file, (1_700_000_000, 1_700_000_000))

    watcher.look(at_once=True)

    assert watcher.entries["portrait"].problem


def test_a_broken_edit_keeps_the_last_good_version(watcher: Watcher) -> None:
    """Callers go on with the version before, and the entry says why it is not the latest."""
    file = watcher.path / "portrait.json"
    file.write_bytes(TEXT_TO_IMAGE)
    watcher.look(at_once=True)
    good = watcher.entries["portrait"]

    file.write_bytes(TEXT_TO_IMAGE[:-40])
    watcher.settle()

    broken = watcher.entries["portrait"]
    assert (broken.workflow, broken.version) == (good.workflow, good.version)
    assert broken.problem is not None
    assert "is not valid JSON" in broken.problem
    assert broken.problem.endswith("The version before is still offered.")

    file.write_bytes(IMAGE_TO_IMAGE)
    watcher.settle()

    mended = watcher.entries["portrait"]
    assert mended.problem is None
    assert mended.version != good.version


def test_a_sidecar_is_part_of_the_workflow(watcher: Watcher) -> None:
    """An edit of the sidecar is an edit, a broken one too; without it all is as before."""
    (watcher.path / "portrait.json").write_bytes(TEXT_TO_IMAGE)
    watcher.look(at_once=True)
    before = watcher.entries["portrait"]
    sidecar = watcher.path / "portrait.toml"

    sidecar.write_text('title = "Lighthouses"\n', encoding="utf-8")
    watcher.settle()
    titled = watcher.entries["portrait"]
    sidecar.write_text("titel = 3\n", encoding="utf-8")
    watcher.settle()
    broken = watcher.entries["portrait"]
    sidecar.unlink()
    watcher.settle()
    after = watcher.entries["portrait"]

    assert titled.workflow is not None
    assert titled.workflow.title == "Lighthouses"
    assert titled.version != before.version
    assert broken.workflow is titled.workflow
    assert broken.problem is not None
    assert broken.problem.startswith("portrait.toml cannot be used: titel (line 1) is no key")
    assert (after.version, after.problem) == (before.version, None)


def test_a_file_that_is_only_touched_did_not_change(watcher: Watcher) -> None:
    """The same bytes written again are no news to anybody."""
    file = watcher.path / "portrait.json"
    file.write_bytes(TEXT_TO_IMAGE)
    watcher.look(at_once=True)

    file.write_bytes(TEXT_TO_IMAGE)
    os.utime(file, (1_900_000_000, 1_900_000_000))

    assert [watcher.look().changes for _ in range(3)] == [{}, {}, {}]


def test_a_file_that_is_replaced_is_never_missing(watcher: Watcher) -> None:
    """Editors remove a file before they put the new one there; callers must not notice."""
    file = watcher.path / "portrait.json"
    file.write_bytes(TEXT_TO_IMAGE)
    watcher.look(at_once=True)

    file.unlink()
    watcher.look()
    file.write_bytes(IMAGE_TO_IMAGE)
    looks = [watcher.look(), watcher.look()]

    told = [entry for look in looks for entry in look.changes.values()]
    assert len(told) == 1
    assert told[0] is not None


def test_a_removed_file_is_gone_and_a_renamed_one_has_its_new_name(watcher: Watcher) -> None:
    """Names come and go with the files."""
    (watcher.path / "portrait.json").write_bytes(TEXT_TO_IMAGE)
    (watcher.path / "other.json").write_bytes(IMAGE_TO_IMAGE)
    watcher.look(at_once=True)

    (watcher.path / "other.json").unlink()
    (watcher.path / "portrait.json").rename(watcher.path / "Ein Porträt.json")
    watcher.settle()

    assert [entry.name for entry in watcher.entries.values()] == ["Ein-Portrat"]


def test_what_a_broken_removed_file_held_is_gone_too(watcher: Watcher) -> None:
    """The last good version does not outlive its file, even if a picture of the name stays."""
    (watcher.path / "portrait.json").write_bytes(TEXT_TO_IMAGE)
    (watcher.path / "portrait.png").write_bytes(WITHOUT)
    watcher.look(at_once=True)

    (watcher.path / "portrait.json").unlink()
    watcher.settle()

    entry = watcher.entries["portrait"]
    assert entry.workflow is None
    assert entry.problem is not None
    assert "a PNG picture without a ComfyUI workflow" in entry.problem


@pytest.mark.parametrize("file", sorted(MEDIA.glob("*.*4*")) + sorted(MEDIA.glob("*.[pwj]*g")))
def test_media_are_workflow_files(watcher: Watcher, file: Path) -> None:
    """A picture, film or sound that ComfyUI saved is offered like an export."""
    (watcher.path / file.name).write_bytes(file.read_bytes())

    watcher.look(at_once=True)

    [entry] = watcher.entries.values()
    assert entry.workflow is not None
    assert entry.problem is None


def test_what_the_editor_saved_is_a_workflow_file(watcher: Watcher) -> None:
    """It is read as far as it goes without a server; a server's nodes tell the rest."""
    document = (EDITOR / "muted_nodes.json").read_bytes()
    (watcher.path / "muted_nodes.json").write_bytes(document)

    watcher.look(at_once=True)

    workflow = watcher.entries["muted_nodes"].workflow
    assert workflow is not None
    assert workflow.editor is not None


@pytest.mark.parametrize(
    "name", ["README.md", "notes.txt", ".hidden.json", "._a.json", "~$a.json", "a.json.part"]
)
def test_other_files_are_nothing_to_it(watcher: Watcher, name: str) -> None:
    """What is no workflow file by its name, or not finished, is passed over in silence."""
    (watcher.path / name).write_bytes(b"{")

    watcher.settle()

    assert watcher.entries == {}


def test_a_sidecar_alone_and_a_folder_are_nothing_to_it(watcher: Watcher) -> None:
    """Settings may lie there too, and deeper folders are not read."""
    (watcher.path / "comfyserve.toml").write_text("port = 1\n", encoding="utf-8")
    (watcher.path / "deeper.json").mkdir()
    (watcher.path / "deeper").mkdir()
    (watcher.path / "deeper" / "portrait.json").write_bytes(TEXT_TO_IMAGE)

    watcher.settle()

    assert watcher.entries == {}


@pytest.mark.parametrize("name", ["data.json", "photo.png", "film.mp4"])
def test_a_workflow_file_by_name_that_holds_none_is_told(watcher: Watcher, name: str) -> None:
    """It was most likely meant to be one."""
    (watcher.path / name).write_bytes(WITHOUT if name == "photo.png" else b'{"a": 1}')

    watcher.settle()

    [entry] = watcher.entries.values()
    assert entry.workflow is None
    assert entry.problem is not None
    assert name in entry.problem


def test_of_two_files_with_one_name_one_is_offered(watcher: Watcher) -> None:
    """Which one does not depend on who came first, and the other is told."""
    film = (MEDIA / "tags.mp4").read_bytes()
    (watcher.path / "my portrait.mp4").write_bytes(film)
    watcher.look(at_once=True)
    assert watcher.entries["my-portrait"].file == "my portrait.mp4"

    (watcher.path / "my-portrait.json").write_bytes(TEXT_TO_IMAGE)
    watcher.settle()

    entry = watcher.entries["my-portrait"]
    assert entry.file == "my-portrait.json"
    assert entry.warnings == (
        "my portrait.mp4 would have the same name as my-portrait.json, so it is not offered."
        " Rename it.",
    )


def test_a_picture_beside_a_workflow_is_what_it_looks_like(watcher: Watcher) -> None:
    """It is no second workflow, even if it carries one; a new picture is a change."""
    (watcher.path / "portrait.json").write_bytes(TEXT_TO_IMAGE)
    (watcher.path / "portrait.png").write_bytes((MEDIA / "text.png").read_bytes())
    watcher.look(at_once=True)
    before = watcher.entries["portrait"]

    (watcher.path / "portrait.png").write_bytes(WITHOUT)
    watcher.settle()

    after = watcher.entries["portrait"]
    assert (before.file, before.thumbnail, before.warnings) == ("portrait.json", "portrait.png", ())
    assert after.thumbnail_version != before.thumbnail_version
    assert after.version == before.version


def test_links_stay_inside_the_folder(watcher: Watcher, tmp_path: Path) -> None:
    """A link to a file of the folder is followed, one that leads out or nowhere is refused."""
    (tmp_path / "outside.json").write_bytes(TEXT_TO_IMAGE)
    (watcher.path / "real.json").write_bytes(TEXT_TO_IMAGE)
    for name, target in {
        "inside.json": watcher.path / "real.json",
        "outside.json": tmp_path / "outside.json",
        "nowhere.json": watcher.path / "none.json",
    }.items():
        (watcher.path / name).symlink_to(target)

    watcher.settle()

    problems = {key: entry.problem for key, entry in watcher.entries.items()}
    assert problems == {
        "real": None,
        "inside": None,
        "outside": "outside.json is a link that leads out of the folder, which is not followed.",
        "nowhere": "nowhere.json is a link that leads nowhere.",
    }


def test_a_sidecar_that_leads_out_of_the_folder_is_refused(
    watcher: Watcher, tmp_path: Path
) -> None:
    """What stands in other files must not come out in a message."""
    (tmp_path / "secret.toml").write_text("secret = 1\n", encoding="utf-8")
    (watcher.path / "portrait.json").write_bytes(TEXT_TO_IMAGE)
    (watcher.path / "portrait.toml").symlink_to(tmp_path / "secret.toml")

    watcher.settle()

    problem = watcher.entries["portrait"].problem
    assert problem is not None
    assert problem.startswith("portrait.toml is a link that leads out of the folder")
    assert "secret" not in problem


def test_a_file_that_cannot_be_opened_is_tried_again(
    watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program may hold it, or its rights may be wrong: neither changes its time."""
    (watcher.path / "portrait.json").write_bytes(TEXT_TO_IMAGE)
    opened = Path.open

    def refused(path: Path, *args: object, **kwargs: object) -> object:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refused)
    watcher.settle()
    assert watcher.entries["portrait"].problem == (
        "portrait.json cannot be read: Permission denied."
    )

    monkeypatch.setattr(Path, "open", opened)
    watcher.settle()

    assert watcher.entries["portrait"].problem is None


def test_a_huge_file_is_refused_without_being_read_whole(watcher: Watcher) -> None:
    """No workflow is that large, whatever it is called."""
    with (watcher.path / "huge.json").open("wb") as file:
        file.truncate(MAX_BYTES + 1)

    watcher.settle()

    problem = watcher.entries["huge"].problem
    assert problem is not None
    assert "is larger than 64 MiB" in problem


def test_a_folder_of_too_many_files_is_offered_in_part(
    watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Always the same part, and the folder's problem says so."""
    monkeypatch.setattr(rooms, "MOST_FILES", 3)
    for number in range(5):
        (watcher.path / f"w{number}.json").write_bytes(TEXT_TO_IMAGE)

    look = watcher.look(at_once=True)

    assert sorted(watcher.entries) == ["w0", "w1", "w2"]
    assert look.problem is not None
    assert look.problem == (
        "The folder wörk flows has more than 3 files for workflows; the others are not offered."
    )


def test_a_folder_that_goes_away_keeps_its_workflows(watcher: Watcher, tmp_path: Path) -> None:
    """A network drive that is lost for a while takes no workflow with it."""
    (watcher.path / "portrait.json").write_bytes(TEXT_TO_IMAGE)
    watcher.look(at_once=True)

    watcher.path.rename(tmp_path / "elsewhere")
    gone = [watcher.look(), watcher.look()]
    (tmp_path / "elsewhere").rename(watcher.path)
    back = [watcher.look(), watcher.look()]

    assert all(look.problem and not look.changes for look in gone)
    assert all(look.problem is None and not look.changes for look in back)
    assert list(watcher.entries) == ["portrait"]


def test_a_name_that_plays_tricks_does_not_get_into_messages() -> None:
    """A file name may hold what moves a terminal's cursor, or no text at all."""
    seen = Seen("grün\x1b[2J\udcff.json", (), 0.0)

    assert seen.said == "grün?[2J?.json"


def test_a_file_that_breaks_the_reader_takes_no_other_with_it(
    watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What nobody thought of is told like any other problem, and the rest is offered."""

    def breaking(folder: Path, group: Group) -> Entry:
        if group.name == "bad":
            raise ZeroDivisionError
        return read_group(folder, group)

    monkeypatch.setattr("comfyserve.catalog.folder.read_group", breaking)
    for name in ("bad", "good"):
        (watcher.path / f"{name}.json").write_bytes(TEXT_TO_IMAGE)

    watcher.settle()

    assert watcher.entries["good"].problem is None
    assert watcher.entries["bad"].problem == (
        "bad.json could not be read; the server's log says why."
    )


class QuickClock(Clock):
    """Time passes whenever somebody looks at it."""

    def __call__(self) -> float:
        self.now += 0.05
        return self.now


def test_a_large_folder_is_read_in_parts(watcher: Watcher) -> None:
    """A look ends after a while, so that what it read is offered; the next one goes on."""
    watcher.folder = Folder(watcher.path, clock=QuickClock())
    for number in range(60):
        (watcher.path / f"w{number}.json").write_bytes(TEXT_TO_IMAGE)

    first = watcher.look(at_once=True)
    offered = len(watcher.entries)
    for _ in range(60):
        if watcher.look(at_once=True).is_whole:
            break

    assert not first.is_whole
    assert 0 < offered < 60
    assert len(watcher.entries) == 60
