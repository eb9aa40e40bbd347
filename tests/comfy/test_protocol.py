"""ComfyUI's words on the wire: all that were recorded, and all that never should be."""

from __future__ import annotations

import json
import struct
from collections import Counter
from typing import Any, get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from comfyserve.comfy.protocol import (
    FEATURE_FLAGS,
    Cached,
    Ended,
    Executed,
    Executing,
    Failed,
    Ignored,
    Interrupted,
    Message,
    NodeState,
    NodeStates,
    NodeText,
    Picture,
    QueueLength,
    Started,
    Step,
    Succeeded,
    Unreadable,
    read_binary_frame,
    read_text_frame,
)
from tests.comfy.recorded import bytes_of, every_raw_line, text_of

JOB = "0b2f5c1e-0000-4000-8000-000000000000"

# What the recorded server sends, and what each must become.
TEXT_TYPES: dict[str, type[Message]] = {
    "status": QueueLength,
    "feature_flags": Ignored,
    "execution_start": Started,
    "execution_cached": Cached,
    "executing": Executing,
    "progress": Step,
    "progress_state": NodeStates,
    "executed": Executed,
    "execution_success": Succeeded,
    "execution_error": Failed,
    "execution_interrupted": Interrupted,
}
BINARY_EVENTS: dict[int, type[Message]] = {1: Picture, 3: NodeText, 4: Picture}

SERVER_TEXTS = [
    raw for raw in every_raw_line() if raw["kind"] == "ws-text" and raw["from"] == "server"
]
SERVER_FRAMES = [raw for raw in every_raw_line() if raw["kind"] == "ws-binary"]


def text(kind: str, **data: Any) -> str:
    return json.dumps({"type": kind, "data": data})


def described(about: Any, picture: bytes = b"\xff\xd8") -> bytes:
    head = json.dumps(about).encode()
    return struct.pack(">II", 4, len(head)) + head + picture


def test_every_recorded_text_is_read_as_what_it_is() -> None:
    """As many messages of each type are read as the raw recordings hold, none unreadable."""
    told = Counter(type(read_text_frame(text_of(raw))) for raw in SERVER_TEXTS)

    expected: Counter[type[Message]] = Counter()
    for raw in SERVER_TEXTS:
        kind, data = raw["json"]["type"], raw["json"].get("data", {})
        is_end = kind == "executing" and data["node"] is None
        expected[Ended if is_end else TEXT_TYPES[kind]] += 1
    assert told == expected
    assert told.keys() == {*TEXT_TYPES.values(), Ended}
    assert told.total() > 3000


def test_every_recorded_frame_is_read_as_what_it_is() -> None:
    """Every binary frame is read as what the recorder saw in it, none unreadable."""
    assert len(SERVER_FRAMES) > 200
    for raw in SERVER_FRAMES:
        message, decoded = read_binary_frame(bytes_of(raw)), raw["decoded"]
        assert type(message) is BINARY_EVENTS[decoded["event"]]
        match message:
            case NodeText():
                assert (message.node_id, message.text) == (decoded["node_id"], decoded["text"])
            case Picture() if decoded["event"] == 1:
                kind = {1: "image/jpeg", 2: "image/png"}[decoded["image_type"]]
                assert (message.content_type, message.node_id) == (kind, None)
            case Picture():
                about = decoded["metadata"]
                assert message.content_type == about["image_type"]
                assert message.prompt_id == about["prompt_id"]
                assert message.node_id == about["display_node_id"]


def test_a_recorded_picture_is_a_picture() -> None:
    """What is left of a frame without its head begins like a picture of the type it names."""
    magic = {"image/jpeg": b"\xff\xd8\xff", "image/png": b"\x89PNG"}
    pictures = [read_binary_frame(bytes_of(raw)) for raw in SERVER_FRAMES]

    for picture in pictures:
        if isinstance(picture, Picture):
            assert picture.data.startswith(magic[picture.content_type])
    assert {p.content_type for p in pictures if isinstance(p, Picture)} == set(magic)


def test_every_recorded_message_names_its_prompt() -> None:
    """The prompt a message names in the raw recording is the one that is read."""
    for raw in SERVER_TEXTS:
        message = read_text_frame(text_of(raw))
        if not isinstance(message, Ignored):
            assert message.prompt_id == raw["json"]["data"].get("prompt_id")


MEANINGS: list[tuple[str, Message]] = [
    (text("status", status={"exec_info": {"queue_remaining": 3}}), QueueLength(3)),
    (text("execution_start", prompt_id=JOB, timestamp=1), Started(JOB)),
    (text("execution_cached", prompt_id=JOB, nodes=["4", "5"]), Cached(JOB, ("4", "5"))),
    (text("execution_cached", prompt_id=JOB, nodes=None), Cached(JOB, ())),
    (text("executing", prompt_id=JOB, node="3"), Executing(JOB, "3", "3")),
    (
        text("executing", prompt_id=JOB, node="2.0.1", display_node="2"),
        Executing(JOB, "2.0.1", "2"),
    ),
    (text("executing", node="3"), Executing(None, "3", "3")),
    (text("executing", prompt_id=JOB, node=None), Ended(JOB)),
    (text("executing", node=None), Ignored("executing nothing")),
    (text("progress", value=0, max=20, prompt_id=JOB, node="3"), Step(JOB, "3", 0.0, 20.0)),
    (text("progress", value=1, max=20), Step(None, None, 1.0, 20.0)),
    (text("progress", value=1, max=20, prompt_id=JOB, node=7), Step(JOB, "7", 1.0, 20.0)),
    (
        text(
            "progress_state",
            prompt_id=JOB,
            nodes={"2.1": {"value": 1, "max": 2, "state": "finished", "display_node_id": "2"}},
        ),
        NodeStates(JOB, {"2.1": NodeState("2", 1.0, 2.0, True)}),
    ),
    (
        text("executed", prompt_id=JOB, node="9", output={"images": []}),
        Executed(JOB, "9", {"images": []}),
    ),
    (text("executed", prompt_id=JOB, node="9", output=None), Executed(JOB, "9", {})),
    (text("execution_success", prompt_id=JOB), Succeeded(JOB)),
    (
        text("execution_error", prompt_id=JOB, exception_message="\n", traceback="none"),
        Failed(JOB, None, None, "", "Exception", ()),
    ),
    (
        text(
            "execution_error",
            prompt_id=JOB,
            node_id="3",
            node_type="KSampler",
            exception_message=" boom\n",
            exception_type="ValueError",
            traceback=["a", "b"],
        ),
        Failed(JOB, "3", "KSampler", "boom", "ValueError", ("a", "b")),
    ),
    (
        text("execution_interrupted", prompt_id=JOB, node_id="3", node_type="K"),
        Interrupted(JOB, "3", "K"),
    ),
    (text("execution_interrupted", prompt_id=JOB), Interrupted(JOB, None, None)),
    (text("crystools.monitor", cpu=3), Ignored("crystools.monitor")),
    ('{"type": "logs"}', Ignored("logs")),
]


@pytest.mark.parametrize(
    ("frame", "message"), MEANINGS, ids=[type(m).__name__ for _, m in MEANINGS]
)
def test_a_text_means_one_thing(frame: str, message: Message) -> None:
    """Each kind of message becomes the value that holds its facts, also where some are left out."""
    assert read_text_frame(frame) == message


BROKEN_TEXTS = [
    "",
    "not json",
    "[]",
    "null",
    "3",
    '"status"',
    "{}",
    '{"type": 3}',
    '{"type": "status"}',
    '{"type": "status", "data": []}',
    '{"type": "status", "data": {"status": {"exec_info": {"queue_remaining": Infinity}}}}',
    '{"type": "status", "data": {"status": {"exec_info": {"queue_remaining": NaN}}}}',
    '{"type": "status", "data": {"status": [1]}}',
    '{"type": "execution_start", "data": {}}',
    '{"type": "execution_start", "data": {"prompt_id": true}}',
    '{"type": "execution_start", "data": {"prompt_id": ["a"]}}',
    '{"type": "executing", "data": {}}',
    '{"type": "executing", "data": {"node": {}, "prompt_id": "a"}}',
    '{"type": "progress", "data": {"value": 1}}',
    '{"type": "progress", "data": {"value": NaN, "max": 3}}',
    '{"type": "progress", "data": {"value": 1, "max": Infinity}}',
    '{"type": "progress", "data": {"value": 1, "max": 1' + "0" * 400 + "}}",
    '{"type": "progress", "data": {"value": 1' + "0" * 5000 + ', "max": 1}}',
    '{"type": "progress_state", "data": {"prompt_id": "a", "nodes": []}}',
    '{"type": "progress_state", "data": {"prompt_id": "a", "nodes": {"1": null}}}',
    '{"type": "execution_cached", "data": {"prompt_id": "a", "nodes": 3}}',
    '{"type": "execution_cached", "data": {"prompt_id": "a", "nodes": [null]}}',
    '{"type": "executed", "data": {"prompt_id": "a"}}',
    "[" * 100_000,
    '{"type": ' * 100_000,
]


@pytest.mark.parametrize("frame", BROKEN_TEXTS, ids=lambda frame: frame[:70])
def test_a_broken_text_is_unreadable_and_says_why(frame: str) -> None:
    """A text that lacks its facts, or holds absurd ones, is told apart from all good ones."""
    message = read_text_frame(frame)

    assert isinstance(message, Unreadable)
    assert 0 < len(message.reason) < 300


@pytest.mark.parametrize("depth", range(50, 1000, 50))
def test_no_depth_of_nesting_is_too_much(depth: int) -> None:
    """A value nested as deep as Python itself can read breaks nothing where a word belongs."""
    deep = "[" * depth + "]" * depth
    for fact in ("prompt_id", "node", "exception_message", "traceback", "node_id"):
        for kind in ("execution_start", "execution_error", "executing", "executed"):
            facts = f'{{"prompt_id": "a", "node": "1", "{fact}": {deep}}}'
            message = read_text_frame(f'{{"type": "{kind}", "data": {facts}}}')
            assert isinstance(message, get_args(Message))


def test_event_4_tells_its_node_and_prompt() -> None:
    """A described picture belongs to the node that is shown in the graph, and to its prompt."""
    about = {
        "prompt_id": JOB,
        "node_id": "2.0.1",
        "display_node_id": "2",
        "image_type": "image/png",
    }

    assert read_binary_frame(described(about, b"png")) == Picture(JOB, "2", "image/png", b"png")
    assert read_binary_frame(described({})) == Picture(None, None, "image/jpeg", b"\xff\xd8")
    assert read_binary_frame(described({"node_id": 7, "image_type": 3}, b"")) == Picture(
        None, "7", "image/jpeg", b""
    )


@pytest.mark.parametrize(
    "about", [[], "text", 3, None, {"prompt_id": []}, {"node_id": {}}, {"display_node_id": True}]
)
def test_a_description_without_sense_is_unreadable(about: Any) -> None:
    """A preview whose description is no description breaks nothing."""
    assert isinstance(read_binary_frame(described(about)), Unreadable)


def test_event_3_is_a_nodes_text() -> None:
    """A text frame holds its node and its text, whatever bytes are in them."""
    assert read_binary_frame(struct.pack(">II", 3, 2) + b"17w\xc3\xb6rter") == NodeText(
        "17", "wörter"
    )
    assert read_binary_frame(struct.pack(">II", 3, 1) + b"1\xff") == NodeText("1", "\ufffd")
    assert read_binary_frame(struct.pack(">II", 3, 0)) == NodeText("", "")


@pytest.mark.parametrize("size", range(8))
def test_a_frame_without_a_head_is_unreadable(size: int) -> None:
    """Fewer than eight bytes are no frame."""
    assert isinstance(read_binary_frame(struct.pack(">II", 1, 2)[:size]), Unreadable)


def test_every_cut_of_a_frame_is_read_or_unreadable() -> None:
    """A frame that ends inside its own description says so; one that ends later is shorter."""
    about = {"prompt_id": JOB, "node_id": "3", "image_type": "image/jpeg"}
    whole = described(about, b"picture")
    head = len(whole) - len(b"picture")
    note = struct.pack(">II", 3, 3) + b"123text"

    for size in range(len(whole)):
        is_picture = isinstance(read_binary_frame(whole[:size]), Picture)
        assert is_picture is (size >= head)
    for size in range(len(note)):
        assert isinstance(read_binary_frame(note[:size]), NodeText) is (size >= 11)


@pytest.mark.parametrize("event", [0, 2, 5, 2**32 - 1])
def test_an_unknown_event_is_ignored(event: int) -> None:
    """A binary event of another kind says nothing about our jobs."""
    assert read_binary_frame(struct.pack(">II", event, 1)) == Ignored(f"binary event {event}")


def test_the_first_message_asks_for_described_previews() -> None:
    """The handshake is the very message that the recorded server understood."""
    said = [
        raw["json"]
        for raw in every_raw_line()
        if raw["kind"] == "ws-text" and raw["from"] == "client" and "json" in raw
    ]

    assert json.loads(FEATURE_FLAGS) in said


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["3", JOB, "finished", 10**400]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
FACTS = (
    *("prompt_id", "node", "display_node", "nodes", "value", "max", "output", "status", "state"),
    *("exec_info", "queue_remaining", "node_id", "node_type", "exception_message", "traceback"),
)
facts = st.dictionaries(st.sampled_from(FACTS), json_values)


@given(st.text())
def test_any_text_is_read(frame: str) -> None:
    """No text whatever raises."""
    assert isinstance(read_text_frame(frame), get_args(Message))


@given(st.sampled_from([*TEXT_TYPES, "other"]), facts | json_values)
@example("progress", {"value": 10**400, "max": 1})
@example("status", {"status": {"exec_info": {"queue_remaining": float("inf")}}})
def test_any_facts_are_read(kind: str, data: Any) -> None:
    """No JSON in a message of a known kind raises, whatever is missing or of another type."""
    frame = json.dumps({"type": kind, "data": data})

    assert isinstance(read_text_frame(frame), get_args(Message))


@given(st.binary(max_size=64))
def test_any_bytes_are_read(frame: bytes) -> None:
    """No bytes whatever raise."""
    assert isinstance(read_binary_frame(frame), get_args(Message))


@given(st.integers(0, 6), st.integers(0, 2**32 - 1) | st.integers(0, 40), st.binary(max_size=40))
def test_any_frame_with_a_head_is_read(event: int, word: int, rest: bytes) -> None:
    """No length in a head leads anywhere beyond the frame."""
    frame = struct.pack(">II", event, word) + rest

    assert isinstance(read_binary_frame(frame), get_args(Message))


@given(json_values, st.binary(max_size=8))
def test_any_description_is_read(about: Any, picture: bytes) -> None:
    """No JSON as a preview's description raises."""
    assert isinstance(read_binary_frame(described(about, picture)), (Picture, Unreadable))
