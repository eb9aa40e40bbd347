"""What callers may do to the built-in engine, and what it does not let them do to each other."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from comfyserve.engine.folders import Folders
from comfyserve.engine.registry import builtin_registry
from comfyserve.engine.validation import validate
from tests.engine_client import PATIENCE, engine_client, node
from tests.engines import RunningEngine, running_engine


@pytest.fixture(scope="module")
def engine() -> Iterator[RunningEngine]:
    with running_engine(test_nodes=True, max_upload_size=40) as engine:
        yield engine


STEPS = 1500
OK: dict[str, Any] = {"1": node("TestText", text="fine")}


def chain(length: int) -> dict[str, Any]:
    """A graph of nodes "0", "1", .. where each waits for the one before."""
    graph = {"0": node("PrimitiveInt", value=1)}
    for number in range(1, length):
        above = [str(number - 1), 0]
        graph[str(number)] = node("TestSleep", seconds=0, interruptible=True, value=above)
    return graph


def emit_text(size: int, seed: int = 0) -> dict[str, Any]:
    """A graph that shows a text of *size* characters."""
    what = {"key": "text", "kind": "strings", "name": "-", "pattern": "ab", "size": size}
    return {"1": node("TestEmit", **what, seed=seed)}


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", "invalid_json"),
        (b"not json", "invalid_json"),
        (b"\xff\xfe\xfd", "invalid_json"),
        (b"[" * 100_000, "invalid_json"),
        (b'{"x": ' + b"[" * 900 + b"]" * 900 + b"}", "invalid_json"),
        (b'{"prompt": {"1": {"inputs": {"x": 1e999}}}}', "invalid_json"),
        (b'{"number": NaN, "prompt": {}}', "invalid_json"),
        (b'{"number": ' + b"9" * 5000 + b"}", "invalid_json"),
        (b"[1]", "no_prompt"),
        (b"{}", "no_prompt"),
        ({"prompt": None}, "invalid_prompt"),
        ({"prompt": {"nodes": []}}, "invalid_prompt"),
        ({"prompt": {"1": {"class_type": ["x"]}}}, "invalid_prompt"),
        ({"prompt": OK, "extra_data": None}, "invalid_extra_data"),
        ({"prompt": OK, "extra_data": {"extra_pnginfo": 5}}, "invalid_extra_data"),
        ({"prompt": OK, "extra_data": {"client_id": {}}}, "invalid_client_id"),
        ({"prompt": OK, "client_id": {"a": 1}}, "invalid_client_id"),
        ({"prompt": OK, "client_id": 5}, "invalid_client_id"),
        ({"prompt": OK, "number": "soon"}, "invalid_number"),
        ({"prompt": OK, "number": "inf"}, "invalid_number"),
        ({"prompt": OK, "number": 10**400}, "invalid_number"),
        ({"prompt": OK, "prompt_id": "job-1"}, "invalid_prompt_id"),
        (
            {"prompt": OK, "prompt_id": "0AA3EC96-D984-4276-983D-5226EC4BF4D3"},
            "invalid_prompt_id",
        ),
        ({"prompt": OK, "partial_execution_targets": 5}, "invalid_targets"),
    ],
)
async def test_a_bad_prompt_is_refused_in_the_usual_shape(
    engine: RunningEngine, body: bytes | dict[str, Any], kind: str
) -> None:
    """What cannot be taken is a 400 that says why, and the next prompt runs."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with engine_client(engine.url) as client:
        async with client.session.post("/prompt", data=content) as answer:
            told = await answer.json()

        assert (answer.status, told["error"]["type"]) == (400, kind)
        assert told["error"].keys() == {"type", "message", "details", "extra_info"}
        assert told["node_errors"] == {}
        await client.run(OK)


@pytest.mark.parametrize("path", ["/queue", "/history", "/free"])
async def test_bad_commands_are_refused(engine: RunningEngine, path: str) -> None:
    """A command that is not a JSON object is a 400, never a 500."""
    async with aiohttp.ClientSession(engine.url) as session:
        for body in (b"", b"x", b"[]", b"null", b'"clear"'):
            async with session.post(path, data=body) as answer:
                assert answer.status == 400, body


async def test_a_twin_prompt_is_no_trouble(engine: RunningEngine) -> None:
    """Two waiting prompts with the same number and id both run."""
    prompt_id = "0aa3ec96-d984-4276-983d-5226ec4bf4d3"
    async with engine_client(engine.url) as client:
        await client.submit({"1": node("TestSleep", seconds=0.2, interruptible=True)})
        for text in ("a", "b"):
            graph = {"1": node("TestText", text=text)}
            assert await client.submit(graph, prompt_id=prompt_id, number=5) == prompt_id
        await client.hear(lambda: len(client.messages("execution_success", prompt_id)) == 2)


async def test_who_does_not_read_holds_up_nobody(engine: RunningEngine) -> None:
    """While one socket is never read, another client's messages arrive as ever."""
    async with engine_client(engine.url, "stalled") as stalled:
        # Each message about a step tells of all nodes so far: some 30 MB, more than is buffered.
        flood = chain(100) | {"end": node("TestProgress", steps=STEPS, delay_ms=0, value=["99", 0])}
        prompt_id = await stalled.submit(flood)
        async with engine_client(engine.url, "reader") as reader:
            await reader.entry(prompt_id)

            heard = await asyncio.wait_for(reader.run(OK), PATIENCE)

        assert heard
        await stalled.hear(lambda: stalled.has_ended(prompt_id))
    dropped = STEPS - len(stalled.messages("progress", prompt_id))
    assert dropped > 0
    assert len(stalled.messages("execution_success", prompt_id)) == 1


async def test_who_never_reads_is_hung_up_on(engine: RunningEngine) -> None:
    """A socket that leaves far too much unread is closed, so that its messages cost no memory."""
    async with engine_client(engine.url, "silent") as silent:
        for number in range(25):
            last = await silent.submit(emit_text(4_000_000, seed=number))
        await silent.entry(last)

        with pytest.raises(AssertionError, match="CLOSE"):
            await silent.hear(lambda: silent.has_ended(last))

    async with engine_client(engine.url) as client:
        await client.post("/history", {"clear": True})
        await client.run(OK)


async def test_a_huge_output_arrives_whole(engine: RunningEngine) -> None:
    """A text of many megabytes comes through the socket and the history."""
    size = 20_000_000
    async with engine_client(engine.url, "patient") as client:
        prompt_id = await client.submit(emit_text(size))
        await client.hear(lambda: client.has_ended(prompt_id))

        output = client.messages("executed", prompt_id)[0]["output"]
        entry = await client.entry(prompt_id)

    assert len(output["text"][0]) == size
    assert entry["outputs"] == {"1": output}


async def test_junk_on_the_socket_is_ignored(engine: RunningEngine) -> None:
    """Only the first JSON object on a socket means something."""
    async with engine_client(engine.url, "noisy") as client:
        for junk in ("not json", "[1, 2]", "[" * 50_000, "null"):
            await client.socket.send_str(junk)
        await client.socket.send_bytes(b"\0\1")

        await client.say_features({"supports_preview_metadata": "yes"})

        await client.run(OK)


REGISTRY = builtin_registry(test_nodes=True)


def test_a_very_deep_graph_is_checked(tmp_path: Path) -> None:
    """A chain of thousands of nodes is valid, and no deeper than any other."""
    verdict = validate(chain(3000), REGISTRY, Folders(tmp_path), ["2999"])

    assert verdict.outputs == ("2999",)


async def test_a_deep_graph_runs(engine: RunningEngine) -> None:
    """A chain of hundreds of nodes runs to its end."""
    async with engine_client(engine.url, "deep") as client:
        prompt_id = await client.submit(chain(200))
        assert (await client.entry(prompt_id))["status"]["completed"]


def test_a_cycle_names_its_nodes(tmp_path: Path) -> None:
    """Nodes that wait for each other are refused, and the sentence says which."""
    graph = {
        "1": node("TestSleep", seconds=0, interruptible=True, value=["2", 0]),
        "2": node("TestSleep", seconds=0, interruptible=True, value=["1", 0]),
    }

    verdict = validate(graph, REGISTRY, Folders(tmp_path))

    assert verdict.error is not None
    assert verdict.error["type"] == "prompt_outputs_failed_validation"
    assert "Dependency cycle: 1 -> 2 -> 1" in verdict.error["details"]


def test_a_number_that_is_none_is_refused(tmp_path: Path) -> None:
    """Infinity and NaN, which JSON cannot carry back, are invalid values."""
    for value in ("nan", "inf", 1e999):
        graph = {"1": node("TestSleep", seconds=value, interruptible=True)}

        verdict = validate(graph, REGISTRY, Folders(tmp_path))

        errors = verdict.node_errors["1"]["errors"]
        assert [error["type"] for error in errors] == ["invalid_input_type"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=12,
)
NODE = st.fixed_dictionaries(
    {},
    optional={
        "class_type": st.sampled_from(sorted(REGISTRY)) | JSON,
        "inputs": JSON
        | st.dictionaries(
            st.sampled_from(["value", "seconds", "image", "images", "text", "steps", "seed"]),
            JSON | st.tuples(st.sampled_from(["1", "2", "3"]), st.integers(-2, 3)).map(list),
        ),
    },
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(graph=st.dictionaries(st.sampled_from(["1", "2", "3"]), NODE | JSON))
def test_no_graph_breaks_validation(tmp_path: Path, graph: dict[str, Any]) -> None:
    """Whatever the graph, there is a verdict, and it is JSON."""
    verdict = validate(graph, REGISTRY, Folders(tmp_path))

    assert (verdict.error is None) == bool(verdict.outputs)
    json.dumps([verdict.error, verdict.node_errors])
