"""What the built-in engine says while a graph runs, and what it writes down."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.engine_client import EngineClient, engine_client, kinds, node
from tests.engines import RunningEngine, running_engine


@pytest.fixture(scope="module")
def engine() -> Iterator[RunningEngine]:
    with running_engine(test_nodes=True) as engine:
        yield engine


@pytest.fixture
async def client(engine: RunningEngine) -> AsyncIterator[EngineClient]:
    async with engine_client(engine.url) as client:
        await client.forget()
        yield client


PICTURE = {
    "1": node("EmptyImage", width=16, height=16, batch_size=1, color=255),
    "2": node("TestProgress", steps=2, delay_ms=1, previews=True, value=["1", 0]),
    "3": node("SaveImage", images=["2", 0], filename_prefix="fox"),
}


async def test_a_run_is_told_in_comfyuis_order(client: EngineClient) -> None:
    """Status twice, start, cached, each node with its steps, success, status, and the end last."""
    heard = await client.run(PICTURE)

    assert kinds(heard) == [
        "status 1",
        "status 1",
        "execution_start",
        "execution_cached",
        "state 1 running 0/1",
        "executing 1",
        "state 1 finished 1/1",
        "state 2 running 0/1",
        "executing 2",
        "state 2 running 1/2",
        "progress 1/2",
        "event 1",
        "state 2 running 2/2",
        "progress 2/2",
        "event 1",
        "state 2 finished 2/2",
        "state 3 running 0/1",
        "executing 3",
        "executed 3",
        "state 3 finished 1/1",
        "execution_success",
        "status 0",
        "executing None",
    ]


async def test_history_is_there_at_the_end(client: EngineClient) -> None:
    """When the end is heard, the history holds the graph, the outputs and the messages."""
    prompt_id = await client.submit(PICTURE, extra_data={"tag": 7, "api_key_comfy_org": "SECRET"})
    await client.hear(lambda: client.has_ended(prompt_id))

    entry = (await client.get(f"/history/{prompt_id}"))[prompt_id]

    _, listed_id, graph, extra_data, outputs = entry["prompt"]
    assert (listed_id, graph, outputs) == (prompt_id, PICTURE, ["2", "3"])
    assert extra_data.pop("create_time") > 0
    assert extra_data == {"client_id": "tester", "tag": 7}
    assert entry["outputs"] == {"3": client.messages("executed", prompt_id)[0]["output"]}
    assert entry["status"]["status_str"] == "success"
    assert [kind for kind, _ in entry["status"]["messages"]] == [
        "execution_start",
        "execution_cached",
        "execution_success",
    ]


async def test_the_same_graph_again_is_cached(client: EngineClient) -> None:
    """A second run announces the old files again and makes no new ones."""
    first = await client.run(PICTURE)
    second = await client.run(PICTURE)

    assert kinds(second) == [
        "status 1",
        "status 1",
        "execution_start",
        "execution_cached",
        "state 2 finished 1/1",
        "executed 3",
        "state 3 finished 1/1",
        "execution_success",
        "status 0",
        "executing None",
    ]
    files = [each["output"] for each in client.messages("executed")]
    assert kinds(first).count("executed 3") == 1
    assert files[0] == files[1]
    assert client.messages("execution_cached")[-1]["nodes"] == ["1", "2", "3"]


async def test_only_what_changed_runs_again(client: EngineClient) -> None:
    """A new value runs its node and all below it; what is above stays cached."""
    await client.run(PICTURE)
    changed = PICTURE | {"3": node("SaveImage", images=["2", 0], filename_prefix="owl")}

    heard = await client.run(changed)

    assert client.messages("execution_cached")[-1]["nodes"] == ["1", "2"]
    assert [each for each in kinds(heard) if each.startswith("executing")] == [
        "executing 3",
        "executing None",
    ]


async def test_only_the_last_graph_stays_cached(client: EngineClient) -> None:
    """Another graph in between drives the first one out of the cache."""
    await client.run(PICTURE)
    await client.run({"9": node("TestText", text="hello")})

    await client.run(PICTURE)

    assert client.messages("execution_cached")[-1]["nodes"] == []


async def test_free_memory_empties_the_cache(client: EngineClient) -> None:
    """After `/free` the same graph runs again."""
    await client.run(PICTURE)
    await client.post("/free", {"free_memory": True})

    await client.run(PICTURE)

    assert client.messages("execution_cached")[-1]["nodes"] == []


async def test_another_picture_of_the_same_name_is_read_again(
    client: EngineClient, engine: RunningEngine
) -> None:
    """The content of an input file counts for the cache, not only its name."""
    from PIL import Image

    graph = {
        "1": node("LoadImage", image="changing.png"),
        "2": node("PreviewImage", images=["1", 0]),
    }
    path = engine.folder / "input" / "changing.png"
    for colour in ("red", "blue"):
        Image.new("RGB", (8, 8), colour).save(path)
        await client.run(graph)

    assert client.messages("execution_cached")[-1]["nodes"] == []


async def test_a_text_names_its_node(client: EngineClient) -> None:
    """Event 3 carries the node's id and the text."""
    heard = await client.run({"nod": node("TestText", text="höi")})

    frame = next(each for each in heard if isinstance(each, bytes))
    assert frame == struct.pack(">II", 3, 3) + b"nod" + "höi".encode()
    assert client.messages("executed")[-1]["output"] == {"text": ["höi"]}


async def test_pictures_sent_by_a_node_are_never_cached_away(client: EngineClient) -> None:
    """SaveImageWebsocket sends its PNG each time, and shows nothing in the history."""
    graph = {"1": PICTURE["1"], "2": node("SaveImageWebsocket", images=["1", 0])}
    frames = []
    for _ in range(2):
        heard = await client.run(graph)
        frames += [each for each in heard if isinstance(each, bytes)]

    assert len(frames) == 2
    assert all(frame.startswith(struct.pack(">II", 1, 2) + b"\x89PNG") for frame in frames)


async def test_a_failing_node_is_reported(client: EngineClient) -> None:
    """The error names the node, its class, its inputs and what ran before; earlier outputs stay."""
    graph = PICTURE | {"4": node("TestFail", message="no luck", value=["2", 0])}

    prompt_id = await client.submit(graph)
    await client.hear(lambda: client.has_ended(prompt_id))

    error = client.messages("execution_error", prompt_id)[0]
    assert (error["node_id"], error["node_type"]) == ("4", "TestFail")
    assert (error["exception_type"], error["exception_message"]) == ("RuntimeError", "no luck\n")
    assert error["current_inputs"]["message"] == ["no luck"]
    assert {"1", "2"} <= set(error["executed"])
    entry = await client.entry(prompt_id)
    assert (entry["status"]["status_str"], entry["status"]["completed"]) == ("error", False)
    assert entry["status"]["messages"][-1] == ["execution_error", error]


async def test_out_of_memory_has_the_type_that_clients_know(client: EngineClient) -> None:
    """Running out of memory is told apart from other errors by its type."""
    await client.run({"1": node("TestOutOfMemory")})

    error = client.messages("execution_error")[-1]
    assert error["exception_type"] == "torch.OutOfMemoryError"


@pytest.mark.parametrize(("message", "errors"), [("", []), ("not today", ["ExecutionBlocked"])])
async def test_a_blocked_value_stops_what_is_behind_it(
    client: EngineClient, message: str, errors: list[str]
) -> None:
    """Nothing behind a block runs; the prompt succeeds, and a block with a message is told."""
    graph = {
        "0": node("PrimitiveInt", value=1),
        "1": node("TestBlock", value=["0", 0], message=message),
        "2": node("PreviewAny", source=["1", 0]),
    }

    prompt_id = await client.submit(graph)
    await client.hear(lambda: client.has_ended(prompt_id))

    told = client.messages("execution_error", prompt_id)
    assert [each["exception_type"] for each in told] == errors
    assert len(client.messages("execution_success", prompt_id)) == 1
    assert (await client.entry(prompt_id))["outputs"] == {}


async def test_an_interrupt_ends_the_run_at_its_next_step(client: EngineClient) -> None:
    """An interrupt by prompt id is reported with the node, and history calls it an error."""
    graph = {"1": node("TestProgress", steps=10_000, delay_ms=5)}
    prompt_id = await client.submit(graph)
    await client.hear(lambda: client.is_stepping(prompt_id))

    await client.post("/interrupt", {"prompt_id": prompt_id})
    await client.hear(lambda: client.has_ended(prompt_id))

    told = client.messages("execution_interrupted", prompt_id)[0]
    assert (told["node_id"], told["node_type"]) == ("1", "TestProgress")
    assert (await client.entry(prompt_id))["status"]["messages"][-1][0] == "execution_interrupted"


async def test_a_node_that_cannot_be_interrupted_is_reported_at_the_next(
    client: EngineClient,
) -> None:
    """The interrupt waits for the node's end, and is then told of the node after it."""
    graph = {
        "1": node("TestSleep", seconds=0.3, interruptible=False),
        "2": node("PreviewAny", source=["1", 0]),
    }
    prompt_id = await client.submit(graph)
    await client.hear(lambda: bool(client.messages("executing", prompt_id)))

    await client.post("/interrupt", {})
    await client.hear(lambda: client.has_ended(prompt_id))

    assert client.messages("execution_interrupted", prompt_id)[0]["node_id"] == "2"


async def test_a_checkpoint_is_loaded_once(client: EngineClient, engine: RunningEngine) -> None:
    """A loaded test checkpoint is warm until another one is loaded, or models are unloaded, and
    each time that one is loaded is written down."""
    counted = engine.folder / "output" / "loads.txt"
    counted.unlink(missing_ok=True)

    async def warm(name: str, seed: int) -> str:
        graph = {
            "1": node("TestCheckpoint", ckpt_name=name, load_seconds=0.0, seed=seed),
            "2": node("PreviewAny", source=["1", 2]),
        }
        await client.run(graph)
        text: str = client.messages("executed")[-1]["output"]["text"][0]
        return text

    a, b = "test-a.safetensors", "test-b.safetensors"
    found = [await warm(name, seed) for seed, name in enumerate((a, a, b, a))]
    await client.post("/free", {"unload_models": True})
    found.append(await warm(a, 9))

    assert found == ["False", "True", "False", "False", "False"]
    assert counted.read_text(encoding="utf-8").split() == [a, b, a, a]


async def test_a_sleep_may_be_interrupted(client: EngineClient) -> None:
    """An interruptible sleep ends long before its time."""
    prompt_id = await client.submit({"1": node("TestSleep", seconds=600, interruptible=True)})
    await client.hear(lambda: bool(client.messages("executing", prompt_id)))

    await client.post("/interrupt", {"prompt_id": prompt_id})
    await client.hear(lambda: client.has_ended(prompt_id))

    assert client.messages("execution_interrupted", prompt_id)[0]["node_id"] == "1"


async def test_sent_pictures_are_numbered_from_nothing(client: EngineClient) -> None:
    """TestPicture reports a step that counts from 0 before each of its PNGs."""
    heard = await client.run({"1": node("TestPicture", count=2, width=4, height=3)})

    steps = [each for each in kinds(heard) if each.startswith(("progress", "event"))]
    assert steps == ["progress 0/2", "event 1", "progress 1/2", "event 1"]
    assert client.messages("executed") == []


async def test_any_bytes_are_emitted(client: EngineClient, engine: RunningEngine) -> None:
    """A pattern of hex digits is written as the bytes that they spell."""
    what = {"key": "k", "kind": "files", "name": "raw.bin", "pattern": "hex:00ff10", "size": 7}

    await client.run({"1": node("TestEmit", **what, shown_as="../x")})

    assert (engine.folder / "output" / "raw.bin").read_bytes() == bytes.fromhex("00ff1000ff1000")
    assert client.messages("executed")[-1]["output"]["k"][0]["filename"] == "../x"


async def test_test_nodes_say_what_they_are(client: EngineClient) -> None:
    """Each has a description and a word on every input; only the paid one is an `api_node`."""
    offered = await client.get("/object_info")
    ours = {name: each for name, each in offered.items() if name.startswith("Test")}

    assert len(ours) == 11
    assert [name for name, each in offered.items() if each["api_node"]] == ["TestPaid"]
    for each in ours.values():
        assert each["description"].endswith(".")
        specs = [spec for section in each["input"].values() for spec in section.values()]
        assert all(spec[1]["tooltip"] for spec in specs)
