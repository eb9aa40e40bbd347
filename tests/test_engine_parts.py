"""The parts of the built-in engine that decide order, caching, and who is left behind."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from comfyserve.engine.folders import Folders
from comfyserve.engine.input_checks import coerce, fits
from comfyserve.engine.messages import Message, Weight
from comfyserve.engine.node import Input, Node, Output, Result
from comfyserve.engine.origin import is_foreign
from comfyserve.engine.output_cache import Signatures
from comfyserve.engine.prompt_queue import Chore, Outcome, Prompt, PromptQueue
from comfyserve.engine.registry import Registry
from comfyserve.engine.run_order import RunOrder
from comfyserve.engine.sockets import COMFORTABLE_COUNT, MOST_COUNT, Listener, Outbox, Sockets


def message(text: str, weight: Weight = Weight.NEEDED) -> Message:
    return Message(text, weight)


async def drained(outbox: Outbox) -> list[str | bytes]:
    """Everything that still waits in an outbox."""
    outbox.put(message("last"))
    frames: list[str | bytes] = []
    while (frame := (await outbox.take()).frame) != "last":
        frames.append(frame)
    return frames


async def test_previews_go_before_progress_and_progress_before_the_rest() -> None:
    """A listener who lags loses the oldest previews first, then the oldest progress."""
    outbox = Outbox()
    outbox.put(message("needed"))
    for number in range(COMFORTABLE_COUNT):
        outbox.put(message(f"progress {number}", Weight.PROGRESS))
        outbox.put(message(f"preview {number}", Weight.PREVIEW))

    left = await drained(outbox)

    assert left[0] == "needed"
    previews = [frame for frame in left if str(frame).startswith("preview")]
    assert previews == [f"preview {COMFORTABLE_COUNT - 1}"]
    assert left[-2:] == [f"progress {COMFORTABLE_COUNT - 1}", *previews]
    assert len(left) < COMFORTABLE_COUNT + 1


async def test_few_previews_are_dropped_not_all() -> None:
    """Only as many go as have to."""
    outbox = Outbox()
    for number in range(COMFORTABLE_COUNT + 3):
        outbox.put(message(f"preview {number}", Weight.PREVIEW))

    left = await drained(outbox)

    assert left[-1] == f"preview {COMFORTABLE_COUNT + 2}"
    assert len(left) >= COMFORTABLE_COUNT - 1


async def test_the_last_progress_is_always_told() -> None:
    """However much waits, the newest progress and the newest preview are kept."""
    outbox = Outbox()
    outbox.put(message("x" * 5_000_000))
    for number in range(3):
        outbox.put(message(f"progress {number}", Weight.PROGRESS))
        outbox.put(message(f"preview {number}", Weight.PREVIEW))

    assert (await drained(outbox))[1:] == ["progress 2", "preview 2"]


async def test_who_reads_nothing_needed_is_lost() -> None:
    """When even what is needed piles up, the listener is given up, and its memory with it."""
    outbox = Outbox()
    for number in range(MOST_COUNT + 100):
        outbox.put(message(f"needed {number}"))

    assert outbox.lost.is_set()


async def test_one_huge_message_is_nobodys_fault() -> None:
    """A single message over every bound is delivered."""
    outbox = Outbox()
    outbox.put(message("x" * 70_000_000))

    assert not outbox.lost.is_set()
    assert (await asyncio.wait_for(outbox.take(), 1)).size == 70_000_000


def test_the_newest_of_a_client_hears() -> None:
    """Of several sockets with one id the newest hears; when it goes, the one before it."""
    sockets, older, newer = Sockets(), Listener("a"), Listener("a")
    sockets.add(older)
    sockets.add(newer)
    both = sockets.hearing("a")
    sockets.remove(newer)

    assert both == [newer]
    assert sockets.hearing("a") == sockets.hearing(None) == [older]
    sockets.remove(older)
    assert sockets.hearing("a") == []


GRAPH = {"load": [], "text": ["load"], "draw": ["text", "load"], "save": ["draw"], "show": ["text"]}


@pytest.mark.parametrize(
    ("outputs", "order"),
    [
        (["save"], ["load", "text", "draw", "save"]),
        (["save", "show"], ["load", "text", "show", "draw", "save"]),
    ],
)
def test_what_shows_something_runs_first(outputs: list[str], order: list[str]) -> None:
    """Nodes run after what they need, and an output node as soon as it can."""
    run = RunOrder(GRAPH.__getitem__, {"save", "show"}.__contains__)
    for output in outputs:
        run.add(output)

    assert list(run) == order


def _node(name: str, **others: Any) -> Node:
    inputs = {"a": Input("*", required=False), "n": Input("INT", required=False)}
    return Node(name, lambda context: Result(), inputs, (Output("*", "a"),), **others)


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path)


def signatures(folders: Folders, graph: dict[str, Any], *nodes: Node) -> dict[str, str]:
    return Signatures(graph, Registry([_node("Plain"), *nodes]), folders).all()


def test_equal_nodes_have_equal_signatures(folders: Folders) -> None:
    """Class, inputs and all above decide; the node's own id does not."""
    found = signatures(
        folders,
        {
            "1": {"class_type": "Plain", "inputs": {"n": 1}},
            "2": {"class_type": "Plain", "inputs": {"n": 1}},
            "3": {"class_type": "Plain", "inputs": {"n": 2}},
            "4": {"class_type": "Plain", "inputs": {"a": ["1", 0]}},
            "5": {"class_type": "Plain", "inputs": {"a": ["2", 0]}},
            "6": {"class_type": "Plain", "inputs": {"a": ["3", 0]}},
        },
    )

    assert found["1"] == found["2"] != found["3"]
    assert found["4"] == found["5"] != found["6"]


def test_what_cannot_run_has_no_signature(folders: Folders) -> None:
    """Cycles, links to nothing and nodes without inputs are never cached; the rest is."""
    found = signatures(
        folders,
        {
            "1": {"class_type": "Plain", "inputs": {"a": ["2", 0]}},
            "2": {"class_type": "Plain", "inputs": {"a": ["1", 0]}},
            "3": {"class_type": "Plain", "inputs": {"a": ["99", 0]}},
            "4": {"class_type": "Plain"},
            "5": {"class_type": "Plain", "inputs": {"a": ["4", 0]}},
            "6": {"class_type": "Plain", "inputs": {"other": ["99", 0]}},
        },
    )

    assert set(found) == {"6"}


def test_a_failing_fingerprint_is_new_each_time(folders: Folders) -> None:
    """What cannot be told to be the same is not taken for the same."""

    def fails(folders: Folders) -> str:
        raise OSError

    graph = {"1": {"class_type": "Odd", "inputs": {}}}
    odd = _node("Odd", fingerprint=fails)

    assert signatures(folders, graph, odd) != signatures(folders, graph, odd)


def prompt(prompt_id: str, number: float = 0) -> Prompt:
    return Prompt(number, prompt_id, {}, {}, ())


def test_an_interrupt_hits_only_what_runs() -> None:
    """The flag is down when a prompt is taken, and rises only for that prompt."""
    queue = PromptQueue(lambda remaining: None)
    idle = queue.interrupt()
    queue.put(prompt("a"))
    taken = queue.take()
    fresh = queue.interrupted
    hits = [queue.interrupt("b"), queue.interrupted, queue.interrupt("a"), queue.interrupted]

    assert isinstance(taken, Prompt)
    assert (idle, fresh) == (False, False)
    assert hits == [False, False, True, True]


def test_the_lowest_number_is_taken_first() -> None:
    """Order is number, then id; equal twins keep the order they came in."""
    told: list[int] = []
    queue = PromptQueue(told.append)
    for prompt_id, number in (("c", 1), ("b", 1), ("a", 2), ("b", 1), ("z", -1)):
        queue.put(prompt(prompt_id, number))
    taken = []
    while queue.remaining:
        task = queue.take()
        assert isinstance(task, Prompt)
        taken.append(task.prompt_id)
        queue.finish(task, Outcome())

    assert taken == ["z", "b", "b", "c", "a"]
    assert told[:5] == [1, 2, 3, 4, 5]
    assert told[-1] == 0


def test_chores_come_before_prompts() -> None:
    """What is to be freed is freed before the next prompt, several wishes at once."""
    queue = PromptQueue(lambda remaining: None)
    queue.put(prompt("a"))
    queue.free(Chore(free_memory=True))
    queue.free(Chore(unload_models=True))

    assert queue.take() == Chore(free_memory=True, unload_models=True)
    assert isinstance(queue.take(), Prompt)


def test_a_closed_queue_gives_nothing() -> None:
    """Closing ends the worker, whatever waits."""
    queue = PromptQueue(lambda remaining: None)
    queue.put(prompt("a"))
    queue.close()

    assert queue.take() is None
    assert queue.interrupted


@pytest.mark.parametrize(
    ("received", "wanted", "verdict"),
    [
        ("IMAGE", "IMAGE", True),
        ("IMAGE", "LATENT", False),
        ("*", "LATENT", True),
        ("INT", "*", True),
        ("INT", "FLOAT,INT", True),
        ("STRING", ["a", "b"], False),
        ("COMBO", ["a", "b"], True),
    ],
)
def test_which_types_fit(received: str, wanted: str | list[str], verdict: bool) -> None:
    """Equal types, any type, one of several, and choices for choices."""
    assert fits(received, wanted) is verdict


@pytest.mark.parametrize(
    ("kind", "given", "taken"),
    [
        ("INT", "12", 12),
        ("INT", 2.9, 2),
        ("FLOAT", 1, 1.0),
        ("STRING", None, "None"),
        ("STRING", 5, "5"),
        ("BOOLEAN", "false", True),
        ("*", {"__value__": [1, 2]}, [1, 2]),
    ],
)
def test_values_are_coerced_as_leniently_as_comfyui_does(
    kind: str, given: object, taken: object
) -> None:
    """What can be made into the type is, and what is wrapped is unwrapped."""
    value, problem = coerce("x", given, [kind, {}])

    assert problem is None
    assert value == taken
    assert type(value) is type(taken)


@pytest.mark.parametrize(
    ("host", "origin", "foreign"),
    [
        ("127.0.0.1:8188", "http://127.0.0.1:8188", False),
        ("127.0.0.1:8188", "http://evil.example", True),
        ("127.0.0.1:8188", "http://localhost:8188", True),
        ("localhost:8188", "http://localhost:3000", True),
        ("[::1]:8188", "http://[::1]:8188", False),
        ("127.0.0.1:8188", "null", False),
        ("127.0.0.1:8188", None, False),
        ("comfy.example", "http://evil.example", False),
        ("127.0.0.1:8188", "http://x:99999999", True),
    ],
)
def test_pages_of_elsewhere_are_foreign(host: str, origin: str | None, foreign: bool) -> None:
    """On this machine's own address only pages of that same address may ask."""
    assert is_foreign(host, origin) is foreign
