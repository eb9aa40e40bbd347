"""The built-in engine answers a recorded client the way the real ComfyUI did.

Each recording's requests are sent to the engine again; statuses, error types, JSON and the
messages on the sockets are compared. `ANSWERS` and `MESSAGES` list every difference there is, with
its reason; a difference that is not listed fails, and so does a listed one that is none.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from PIL import Image

from tests.engine_replay import RECORDINGS as RECORDINGS_FOLDER
from tests.engine_replay import Exchange, Replayed, replay
from tests.engine_words import same_names
from tests.engines import RunningEngine, running_engine

CHECKPOINT = "comfyserve-emoji-v1.safetensors"

REFUSED = "a request that cannot be taken is refused in so many words, never a crash"
CANONICAL = "a prompt_id has to be a UUID in its canonical form, as newer servers want it"
NEVER_RAN = "what was refused is not in the history"
NOT_OFFERED = "the engine has fewer nodes, model folders and routes"
NO_MASK = "a mask of a picture that is not there is refused, not silently dropped"
ALIVE = "no request stops the worker or the server"
NO_CORS = "the engine cannot be opened to foreign pages, so they are always refused"
PLAIN_405 = "there is no web page whose files a GET could mean"
TOLD = "the newer of two sockets with one client id hears until it closes itself"
CACHED_OTHERWISE = "the prompt before was refused, so the cache still holds the one before that"
TWO_CALLS = "a node reports progress, then sends its picture, whatever the socket asked for"

# recording -> request id -> the engine's status, and why its answer is another
ANSWERS: dict[str, dict[int, tuple[int, str]]] = {
    "client_prompt_id": {
        **dict.fromkeys((1, 3, 6, 9, 12), (400, CANONICAL)),
        **dict.fromkeys((2, 4, 5, 8, 11), (200, NEVER_RAN)),
    },
    "execution_error": {11: (400, NOT_OFFERED), 12: (200, NEVER_RAN)},
    "history_endpoints": {21: (400, REFUSED)},
    "interrupt_prompt_id": {11: (400, REFUSED)},
    "misc_endpoints": {
        **dict.fromkeys((6, 14, 23, 25), (404, NOT_OFFERED)),
        30: (400, REFUSED),
        34: (405, PLAIN_405),
    },
    "poison_prompts": {
        **dict.fromkeys((1, 4, 13, 16), (400, REFUSED)),
        **dict.fromkeys((3, 5, 6, 9), (200, ALIVE)),
    },
    "preview_none_and_limits": dict.fromkeys((5, 6), (403, NO_CORS)),
    "prompt_errors": dict.fromkeys((26, 27, 28, 31, 32, 34, 35, 36), (400, REFUSED)),
    "queue_delete_and_clear": {21: (400, REFUSED)},
    "upload_variants": {
        **dict.fromkeys((15, 18, 19, 21, 34), (400, REFUSED)),
        32: (400, NO_MASK),
    },
    "view_endpoint": dict.fromkeys((41, 42), (400, REFUSED)),
}

# recording -> the prompts (counted from 0) and sockets that hear other things, and why
MESSAGES: dict[str, dict[tuple[int, str], str]] = {
    "execution_error": {(4, "a"): CACHED_OTHERWISE},
    "poison_prompts": {
        (0, "a"): ALIVE,
        **dict.fromkeys(((4, "c"), (5, "c")), CACHED_OTHERWISE),
    },
    "save_image_websocket": {(2, "a2"): TWO_CALLS},
    "ws_same_client_id_twice": {(1, "a2"): TOLD},
}

UNKNOWN_WORDS = "text"
"""CLIPTextEncode tells, as a text, which words the engine's model does not know."""

RECORDINGS = (
    "batch_size_2",
    "cached_output_file_gone",
    "client_prompt_id",
    "execution_error",
    "extra_data",
    "feature_flags",
    "history_endpoints",
    "img2img_upload",
    "interrupt_global",
    "interrupt_prompt_id",
    "keepalive",
    "misc_endpoints",
    "no_model",
    "poison_prompts",
    "priority_and_order",
    "prompt_accepted_oddities",
    "prompt_errors",
    "queue_delete_and_clear",
    "save_image_websocket",
    "slow_reader",
    "two_clients",
    "two_outputs",
    "txt2img",
    "txt2img_cached",
    "txt2img_preview_image",
    "upload_variants",
    "view_endpoint",
    "ws_same_client_id_twice",
)

# The recordings that are not replayed here, and where their facts are proven instead.
NOT_REPLAYED = {
    "custom_nodes": "their nodes are not offered; the test nodes in test_engine_messages.py",
    "history_race": "what it asks is decided by a race; test_history_is_there_at_the_end",
    "other_outputs": "most of their nodes are not offered; SaveAnimatedWEBP in test_nodes.py",
    "preview_none_and_limits": "needs an engine of its own: the test below",
    "progress_text": "GetImageSize is not offered; TestText in test_engine_messages.py",
    "server_stop_midrun": "stopping is in test_engine_process.py",
    "ws_late_connect": "it depends on the moment; test_who_comes_late_hears_only_the_greeting",
    "ws_reconnect_midrun": "the same; test_who_comes_back_learns_where_its_prompt_is",
}


@dataclass(frozen=True, slots=True)
class Difference:
    """Where the engine's answer is not the recorded one."""

    recording: str
    exchange: Exchange
    recorded: object
    ours: object

    def __str__(self) -> str:
        request = self.exchange.request
        return (
            f"{self.recording} {self.exchange.id} ({self.exchange.note}) {request['method']} "
            f"{request['path']}:\n  recorded {self.recorded}\n  ours     {self.ours}"
        )


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEngine]:
    folder = tmp_path_factory.mktemp("engine")
    (folder / "input").mkdir()
    for name in ("example.png", "photo.png"):
        Image.new("RGB", (64, 64), "teal").save(folder / "input" / name)
    with running_engine(folder) as engine:
        yield engine


@pytest.mark.parametrize("name", RECORDINGS)
async def test_recorded_client_is_answered_alike(engine: RunningEngine, name: str) -> None:
    """Every request gets the recorded kind of answer, and every prompt the recorded messages."""
    await forget(engine)

    def beside_the_wire(note: str) -> None:
        if note == "the file is deleted on disk now":
            for path in (engine.folder / "output").glob("*_00*_.png"):
                path.unlink()

    replayed = await replay(
        name,
        engine.url,
        CHECKPOINT,
        rename_prompts=name != "client_prompt_id",
        at_note=beside_the_wire,
    )

    assert_same(name, replayed)


def test_every_recording_is_spoken_for() -> None:
    """Each recording is replayed here, or it is said why it is not."""
    names = {path.stem for path in RECORDINGS_FOLDER.glob("*.jsonl")}

    assert {*RECORDINGS, *NOT_REPLAYED} == names
    assert not NOT_REPLAYED.keys() & set(RECORDINGS)


async def test_no_previews_and_a_limit_on_bodies(tmp_path: Path) -> None:
    """With previews off no picture is sent, and a body over the limit is refused with 413."""
    with running_engine(tmp_path, preview_method="none", max_upload_size=1) as engine:
        replayed = await replay("preview_none_and_limits", engine.url, CHECKPOINT)

    assert_same("preview_none_and_limits", replayed)
    assert not [word for _, word in replayed.heard["a"].words if word.startswith("picture")]


async def test_nodes_are_described_as_comfyui_describes_them(engine: RunningEngine) -> None:
    """A graph made for ComfyUI's nodes fits ours: same inputs, outputs, types and ranges."""
    recorded = json.loads((RECORDINGS_FOLDER / "object_info.json").read_text(encoding="utf-8"))
    session = aiohttp.ClientSession(engine.url)
    async with session, session.get("/object_info") as answer:
        ours = await answer.json()

    shared = ours.keys() & recorded.keys()

    assert len(shared) >= 20
    for name in shared:
        assert gist_of_node(ours[name]) == gist_of_node(recorded[name]), name
        assert ours[name].keys() >= recorded[name].keys() - {"output_tooltips"}


def gist_of_node(node: dict[str, Any]) -> object:
    """What of a node's description a graph leans on."""
    inputs = {
        section: {name: gist_of_input(*spec) for name, spec in specs.items()}
        for section, specs in node["input"].items()
        if section != "hidden"  # ours see the prompt through their context
    }
    order = {section: names for section, names in node["input_order"].items() if section in inputs}
    return inputs, order, node["output"], node["output_name"], node["output_node"]


def gist_of_input(kind: Any, options: dict[str, Any] | None = None) -> object:
    ranges = {name: (options or {}).get(name) for name in ("default", "min", "max")}
    if isinstance(kind, list) or kind == "COMBO":
        return "COMBO"
    return kind, ranges


async def forget(engine: RunningEngine) -> None:
    """Have the engine start afresh: no history, no cached results."""
    async with aiohttp.ClientSession(engine.url) as session:
        await session.post("/history", json={"clear": True})
        await session.post("/free", json={"free_memory": True})


def assert_same(name: str, replayed: Replayed) -> None:
    listed = ANSWERS.get(name, {})
    found = [each for exchange in replayed.exchanges if (each := difference(name, exchange))]
    unlisted = [each for each in found if each.exchange.id not in listed]
    assert not unlisted, "\n".join(map(str, unlisted))
    statuses = {each.exchange.id: each.exchange.status for each in found}
    assert statuses == {number: status for number, (status, _) in listed.items()}
    otherwise = dict(said_otherwise(replayed))
    listed_words = MESSAGES.get(name, {})
    unlisted_words = [f"{key}: {otherwise[key]}" for key in otherwise if key not in listed_words]
    assert not unlisted_words, "\n".join(unlisted_words)
    assert otherwise.keys() == listed_words.keys()


def said_otherwise(replayed: Replayed) -> Iterator[tuple[tuple[int, str], str]]:
    for place, (recorded_id, our_id) in enumerate(replayed.prompts.items()):
        for socket, recorded in replayed.recorded.items():
            wanted = recorded.about_prompt(recorded_id)
            words = replayed.heard[socket].about_prompt(our_id)
            said = [word for word in words if word != UNKNOWN_WORDS or word in wanted]
            if wanted != said:
                yield (place, socket), _first_difference(wanted, said)
    for socket, recorded in replayed.recorded.items():
        heard = replayed.heard[socket]
        assert heard.about_prompt(None) == recorded.about_prompt(None)
        if recorded.greeting and len(recorded.greeting) < 32:
            assert heard.greeting == recorded.greeting


def _first_difference(wanted: list[str], said: list[str]) -> str:
    place = next(
        (i for i, pair in enumerate(zip(wanted, said, strict=False)) if len(set(pair)) > 1), 0
    )
    return f"\n  recorded ..{wanted[place : place + 4]}\n  ours     ..{said[place : place + 4]}"


def difference(name: str, exchange: Exchange) -> Difference | None:
    recorded = exchange.recorded
    if recorded is None:
        return Difference(name, exchange, "no answer", exchange.status)
    if recorded["status"] != exchange.status:
        return Difference(name, exchange, recorded["status"], exchange.status)
    wanted, got = gist_of_headers(recorded["headers"]), gist_of_headers(exchange.headers)
    if wanted != got:
        return Difference(name, exchange, wanted, got)
    if "json" in recorded:
        told, ours = gist(exchange, recorded["json"]), gist(exchange, exchange.json)
        if told != ours:
            return Difference(name, exchange, told, ours)
    return None


def gist_of_headers(headers: dict[str, str]) -> dict[str, str]:
    """What of an answer's headers a client leans on."""
    low = {name.lower(): value for name, value in headers.items()}
    told = ["content-range", "content-disposition"]
    kept = {name: low[name] for name in told if name in low}
    if low.get("content-disposition"):
        kept["content-type"] = low["content-type"]
        validators = ["etag", "last-modified", "accept-ranges"]
        kept |= {name: "" for name in validators if name in low}
    return {name: same_names(value) for name, value in kept.items()}


def gist(exchange: Exchange, body: Any) -> object:
    """What of an answer's JSON has to be the same."""
    path = exchange.request["path"].partition("?")[0].removeprefix("/api")
    match path.split("/")[1:]:
        case ["prompt"] if exchange.request["method"] == "POST":
            return gist_of_submission(body)
        case ["history", *_]:
            return [gist_of_entry(entry) for entry in body.values()]
        case ["queue"]:
            return sorted(len(item) for items in body.values() for item in items)
        case ["prompt"]:
            return body["exec_info"].keys()
        case ["upload", *_]:
            return same_names(body)
        case _:
            return type(body).__name__


def gist_of_submission(body: dict[str, Any]) -> object:
    errors = {
        node_id: {
            "class_type": node["class_type"],
            "dependent_outputs": sorted(node["dependent_outputs"]),
            "errors": sorted(
                json.dumps(
                    [
                        error["type"],
                        error["message"],
                        error["extra_info"].get("input_name"),
                        error["extra_info"].get("received_value"),
                        error["extra_info"].get("linked_node"),
                        sorted(error["extra_info"]),
                    ]
                )
                for error in node["errors"]
            ),
        }
        for node_id, node in body["node_errors"].items()
    }
    error = body.get("error")
    return sorted(body), errors, error and (error["type"], error["message"], sorted(error))


def gist_of_entry(entry: dict[str, Any]) -> object:
    _, _, graph, extra_data, outputs = entry["prompt"]
    status = entry["status"]
    return (
        sorted(entry),
        {node_id: sorted(node.get("inputs", {})) for node_id, node in graph.items()},
        {name: value for name, value in extra_data.items() if name != "create_time"},
        sorted(outputs),
        same_names(entry["outputs"]),
        entry["meta"],
        (status["status_str"], status["completed"]),
        [(kind, sorted(data)) for kind, data in status["messages"]],
    )
