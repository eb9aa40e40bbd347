"""The body of a submission: what it may say, and what is refused with which words."""

from __future__ import annotations

from typing import Any

import pytest

from comfyserve.denials import EditorFormatRefused, GraphRefused, InvalidRequest, MetadataInvalid
from comfyserve.errors import ComfyServeError, GraphInvalid
from comfyserve.server.requests import parsed
from comfyserve.server.v2.job_lists import read_list_request
from comfyserve.server.v2.submissions import read_job_request, read_metadata

GRAPH = {"1": {"class_type": "PrimitiveInt", "inputs": {"value": 3}}}


def test_a_graph_is_enough() -> None:
    """Everything but the graph may be left out, or be null."""
    wanted = read_job_request({"workflow": GRAPH, "inputs": None, "extra_data": None})
    assert wanted.graph == GRAPH
    assert (wanted.metadata, wanted.priority, wanted.extra_data) == (None, 0, {})


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({}, InvalidRequest),
        ({"workflow": None}, InvalidRequest),
        ({"workflow": []}, GraphInvalid),
        ({"workflow": {}}, GraphInvalid),
        ({"workflow": {"a": 1}}, GraphInvalid),
        ({"workflow": {"nodes": [], "links": []}}, EditorFormatRefused),
        ({"workflow": {"1": {"class_type": "A"}}}, GraphRefused),
        ({"workflow": {"1": {"class_type": "A", "inputs": {"x": ["2", 0]}}}}, GraphRefused),
        ({"workflow": GRAPH, "webhook_url": "http://a"}, GraphInvalid),
        ({"workflow": GRAPH, "inputs": {}}, GraphInvalid),
        ({"workflow": GRAPH, "extra_data": []}, InvalidRequest),
        ({"workflow": GRAPH, "extra_data": {"api_key": "s"}}, InvalidRequest),
        ({"workflow": GRAPH, "extra_data": {"api_key_comfy_org": 7}}, InvalidRequest),
        ({"workflow": GRAPH, "priority": 1.5}, InvalidRequest),
        ({"workflow": GRAPH, "priority": True}, InvalidRequest),
        ({"workflow": GRAPH, "priority": 1_000_001}, InvalidRequest),
        ({"workflow": GRAPH, "id": "7"}, InvalidRequest),
    ],
)
def test_what_does_not_fit_is_refused(body: dict[str, Any], error: type[ComfyServeError]) -> None:
    """Each thing that is wrong has the contract's code."""
    with pytest.raises(error):
        read_job_request(body)


def test_the_node_at_fault_is_named() -> None:
    """A graph that is wrong at one node says so by node id, in the contract's form."""
    with pytest.raises(GraphRefused) as refused:
        read_job_request({"workflow": {"1": {"class_type": "A", "inputs": {"x": ["2", 0]}}}})
    details = refused.value.details
    assert details is not None
    assert details["node_errors"]["1"][0].keys() >= {"field", "reason"}
    assert refused.value.code == "invalid_workflow"


def test_a_secret_is_never_quoted() -> None:
    """What stands in extra_data is in no message and no repr."""
    wanted = read_job_request(
        {"workflow": GRAPH, "extra_data": {"api_key_comfy_org": "sk-very-secret"}}
    )
    assert wanted.extra_data == {"api_key_comfy_org": "sk-very-secret"}
    assert "very-secret" not in repr(wanted)
    with pytest.raises(InvalidRequest) as refused:
        read_job_request({"workflow": GRAPH, "extra_data": {"api_key_comfy_or": "sk-very-secret"}})
    assert "very-secret" not in str(refused.value)
    assert "Did you mean 'api_key_comfy_org'?" in str(refused.value)


@pytest.mark.parametrize("given", ["x" * 1024, "", {}, {"a.B_c-9": "é" * 128}, None])
def test_metadata_in_both_dialects_are_taken(given: Any) -> None:
    """A text of up to 1 KiB and labels of up to 256 bytes come through unchanged."""
    assert read_metadata(given) == given


@pytest.mark.parametrize(
    "given",
    [
        "é" * 513,
        7,
        ["a"],
        {f"k{n}": "v" for n in range(17)},
        {"": "v"},
        {"k" * 41: "v"},
        {"with space": "v"},
        {"k": 1},
        {"k": "v" * 257},
        {"k": "a\nb"},
        {"k": "a\u202eb"},
        {"k": "a\u200eb"},
    ],
)
def test_metadata_beyond_their_limits_are_refused(given: Any) -> None:
    """Too much, or what is no plain text, is metadata_invalid."""
    with pytest.raises(MetadataInvalid):
        read_metadata(given)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b'{"a": "\\ud800"}',
        b'{"\\udc00": 1}',
        b"[" * 10_000 + b"]" * 10_000,
        b'{"a":' * 200 + b"1" + b"}" * 200,
        b"9" * 10_000,
    ],
    ids=lambda body: f"{body[:12]!r}",
)
def test_a_hostile_body_is_refused_in_words(body: bytes) -> None:
    """What no program could read again is an invalid request, never a crash."""
    with pytest.raises(InvalidRequest):
        parsed(body)


def test_whole_characters_beyond_the_first_plane_are_taken() -> None:
    """An escaped pair of surrogates is one character, and fine."""
    assert parsed(b'{"a": "\\ud83d\\ude00", "b": 1.5e3}') == {"a": "\U0001f600", "b": 1500.0}


def test_a_list_may_be_asked_for_in_many_ways() -> None:
    """Statuses with commas or repeated, labels, a limit and a cursor are understood."""
    wanted = read_list_request(
        [
            ("status", "queued,running"),
            ("status", "failed"),
            ("metadata[user]", "ann"),
            ("limit", "7"),
            ("cursor", ""),
        ]
    )
    assert [str(status) for status in wanted.statuses] == ["queued", "running", "failed"]
    assert (wanted.labels, wanted.limit, wanted.cursor) == ({"user": "ann"}, 7, None)


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ([("state", "queued")], "invalid_request"),
        ([("status", "succeded")], "invalid_request"),
        ([("limit", "0")], "invalid_request"),
        ([("limit", "101")], "invalid_request"),
        ([("limit", "x")], "invalid_request"),
        ([("limit", "\u0663")], "invalid_request"),
        ([("limit", "5"), ("limit", "6")], "invalid_request"),
        ([(f"metadata[k{n}]", "v") for n in range(4)], "invalid_metadata_filter"),
        ([("metadata[a b]", "v")], "invalid_metadata_filter"),
        ([("metadata[a]", "v"), ("metadata[a]", "w")], "invalid_metadata_filter"),
    ],
)
def test_a_question_that_nobody_understands_is_refused(
    query: list[tuple[str, str]], code: str
) -> None:
    """Unknown parameters and values are refused rather than passed over."""
    with pytest.raises(InvalidRequest) as refused:
        read_list_request(query)
    assert refused.value.code == code


def test_a_misspelt_status_is_told_the_right_one() -> None:
    """The sentence names the nearest status."""
    with pytest.raises(InvalidRequest, match="Did you mean 'succeeded'"):
        read_list_request([("status", "succeded")])
