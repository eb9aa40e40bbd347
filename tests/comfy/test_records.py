"""What a server keeps: history, queue, and what its nodes showed."""

from __future__ import annotations

import json
import time
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyserve.comfy.protocol import Cached, Failed, Interrupted, Message, Started, Succeeded
from comfyserve.comfy.records import (
    HistoryEntry,
    QueueState,
    ShownFile,
    ShownText,
    read_history,
    read_queue,
    shown,
)
from tests.comfy.recorded import answers, every_raw_line

HISTORIES = [body for _, body in answers("/history") if isinstance(body, dict)]
QUEUES = [body for _, body in answers("/queue")]
ENTRIES = [(prompt_id, entry) for body in HISTORIES for prompt_id, entry in body.items()]

MESSAGE_TYPES = {
    "execution_start": Started,
    "execution_cached": Cached,
    "execution_success": Succeeded,
    "execution_error": Failed,
    "execution_interrupted": Interrupted,
}


def test_every_recorded_history_is_read() -> None:
    """Every entry of every recorded history is read, with all its messages and outputs."""
    assert len(ENTRIES) > 100
    for prompt_id, raw in ENTRIES:
        entry = read_history({prompt_id: raw}, prompt_id)

        assert isinstance(entry, HistoryEntry)
        assert entry.completed is raw["status"]["completed"]
        assert entry.uis == raw["outputs"]
        assert [type(message) for message in entry.messages] == [
            MESSAGE_TYPES[kind] for kind, _ in raw["status"]["messages"]
        ]
        assert {message.prompt_id for message in entry.messages} <= {prompt_id}


def test_an_entry_is_found_by_its_prompt_alone() -> None:
    """In the history of all prompts each entry is its own, and an unknown id has none."""
    whole = max(HISTORIES, key=len)

    assert len(whole) > 3
    for prompt_id in whole:
        assert read_history(whole, prompt_id) == read_history(
            {prompt_id: whole[prompt_id]}, prompt_id
        )
    assert read_history(whole, "no-such-id") is None
    assert read_history({}, "a") is None


def test_every_recorded_queue_is_read() -> None:
    """Every recorded queue is read, with as many running and waiting prompts as it has."""
    assert len(QUEUES) > 20
    for raw in QUEUES:
        queue = read_queue(raw)

        assert queue is not None
        assert list(queue.running) == [item[1] for item in raw["queue_running"]]
        assert sorted(queue.pending) == sorted(item[1] for item in raw["queue_pending"])
    assert max(len(raw["queue_pending"]) for raw in QUEUES) >= 3


def test_prompts_wait_in_the_order_in_which_they_ran() -> None:
    """The places told from a recorded queue are the order in which those prompts then started."""
    queue = read_queue(max(QUEUES, key=lambda raw: len(raw["queue_pending"])))
    assert queue is not None

    started = [
        raw["json"]["data"]["prompt_id"]
        for raw in every_raw_line()
        if raw["kind"] == "ws-text" and raw.get("json", {}).get("type") == "execution_start"
    ]
    ran = [prompt_id for prompt_id in dict.fromkeys(started) if prompt_id in queue.pending]

    assert len(ran) >= 3
    assert [prompt_id for prompt_id in queue.pending if prompt_id in ran] == ran


def test_prompts_wait_by_number_and_then_by_id() -> None:
    """A heap's order is no order: the number decides, then the id."""
    waiting: list[list[Any]] = [[3, "c"], [-2, "z"], [3, "a"], [2.5, "b"], [10**30, "y"]]

    state = read_queue({"queue_running": [[1, "r", {}, {}, []]], "queue_pending": waiting})

    assert state == QueueState(running=("r",), pending=("z", "b", "a", "c", "y"))


@pytest.mark.parametrize(
    "document",
    [None, [], 3, "queue", {}, {"queue_running": []}, {"queue_running": {}, "queue_pending": []}],
)
def test_what_is_no_queue_is_none(document: Any) -> None:
    """An answer of another shape is told apart from an empty queue."""
    assert read_queue(document) is None
    assert read_queue({"queue_running": [], "queue_pending": []}) == QueueState((), ())


def test_broken_places_are_left_out() -> None:
    """Entries of a queue that name no prompt hide none that do."""
    broken: list[Any] = [[1], [], None, ["x", "y"], [1, 2], {"a": 1}, [2, "ok"]]

    assert read_queue({"queue_running": broken, "queue_pending": broken}) == QueueState(
        ("ok",), ("ok",)
    )


def test_a_broken_entry_still_tells_what_it_can() -> None:
    """An entry without status, outputs or readable messages is an entry of a run that failed."""
    for raw in ({}, {"status": None, "outputs": None}, {"status": {"messages": 3}, "outputs": []}):
        assert read_history({"a": raw}, "a") == HistoryEntry(False, {}, ())
    messages = [
        ["execution_start", {}],
        [],
        None,
        ["execution_success", {"prompt_id": "a"}],
        [1, {}],
    ]

    entry = read_history({"a": {"outputs": {"9": 3}, "status": {"messages": messages}}}, "a")

    assert entry == HistoryEntry(False, {}, (Succeeded("a"),))


def test_an_odd_recorded_output_is_found_whole() -> None:
    """All files and strings in what a strange node showed are found; numbers and flags are not."""
    [ui] = [
        raw["json"]["data"]["output"]
        for raw in every_raw_line()
        if raw["kind"] == "ws-text"
        and raw.get("json", {}).get("type") == "executed"
        and "nested" in raw["json"]["data"]["output"]
    ]

    assert list(shown("2", ui)) == [
        ShownFile("2", "gifs", 0, "clip_00001.mp4", "", "output"),
        ShownText("2", "string", 0, "a"),
        ShownText("2", "string", 1, "b"),
        ShownText("2", "string", 2, "c"),
    ]


def test_every_recorded_file_is_found() -> None:
    """Every file name in any recorded output is found, with its folder, once for each mention."""
    for _, entry in ENTRIES:
        for node, ui in entry["outputs"].items():
            found = [thing for thing in shown(node, ui) if isinstance(thing, ShownFile)]
            mentioned = [item for value in ui.values() for item in value if isinstance(item, dict)]
            files = [item for item in mentioned if "filename" in item]

            assert [(f.filename, f.subfolder, f.folder) for f in found] == [
                (item["filename"], item["subfolder"], item["type"]) for item in files
            ]


def test_things_are_found_wherever_they_lie() -> None:
    """Files and strings are found in lists, in objects and bare, each with a place of its own."""
    ui = {
        "bare": "a string",
        "file": {
            "filename": "a.png",
            "subfolder": None,
            "type": 3,
            "more": ["not", "looked", "at"],
        },
        "mixed": [1, "x", {"filename": "b.png", "subfolder": "s", "type": "temp"}, None, True],
        "deep": {"a": [{"b": {"filename": "c.glb"}}], "c": ["y"]},
        "nothing": [[], {}, 0, False, None, {"filename": 3}],
    }

    assert list(shown("7", ui)) == [
        ShownText("7", "bare", 0, "a string"),
        ShownFile("7", "file", 0, "a.png", "", "output"),
        ShownText("7", "mixed", 0, "x"),
        ShownFile("7", "mixed", 1, "b.png", "s", "temp"),
        ShownFile("7", "deep", 0, "c.glb", "", "output"),
        ShownText("7", "deep", 1, "y"),
    ]


@pytest.mark.parametrize("depth", [1, 8, 9, 400])
def test_depth_has_a_bound(depth: int) -> None:
    """A string within eight lists is found; below that nobody looks, however deep it goes."""
    ui = {"text": json.loads("[" * depth + '"here"' + "]" * depth)}

    assert len(list(shown("1", ui))) == (1 if depth <= 8 else 0)


def test_a_huge_list_is_read_quickly() -> None:
    """Fifty thousand files in one output are found within seconds."""
    ui = {
        "images": [
            {"filename": f"{n}.png", "subfolder": "", "type": "output"} for n in range(50_000)
        ]
    }
    start = time.perf_counter()

    found = list(shown("1", ui))

    assert len(found) == len({thing.index for thing in found}) == 50_000
    assert time.perf_counter() - start < 5


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["a", "filename", "subfolder", "type", "status", "outputs", "messages"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@given(json_values)
def test_any_document_is_read(document: Any) -> None:
    """No JSON as history, queue or output raises."""
    entry = read_history({"a": document}, "a")
    read_queue(document)
    read_queue({"queue_running": [document], "queue_pending": [[1, "a"], document]})

    assert entry is None or all(isinstance(m, get_args(Message)) for m in entry.messages)
    assert read_history(document, "a") is None or isinstance(document, dict)


@given(st.dictionaries(st.text(max_size=5), json_values, max_size=4))
def test_any_output_is_looked_through(ui: dict[str, Any]) -> None:
    """Whatever a node showed, each thing found has a place of its own under its word."""
    found = list(shown("1", ui))

    places = [(thing.key, thing.index) for thing in found]
    assert len(places) == len(set(places))
    for thing in found:
        assert thing.key in ui
        if isinstance(thing, ShownFile):
            assert isinstance(thing.subfolder, str) and thing.folder
