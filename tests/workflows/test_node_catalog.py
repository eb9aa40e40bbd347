"""What nodes a server has: read from a real answer, and from the odd ones."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from comfyserve.workflows.node_catalog import NodeCatalog


def test_reads_a_real_servers_catalogue(catalog: NodeCatalog) -> None:
    """Every class of a recorded server is there, with limits, choices and flags."""
    assert len(catalog.classes) == 496
    assert sum(known.is_paid for known in catalog.classes.values()) == 100
    steps = catalog.input("KSampler", "steps")
    assert steps is not None
    assert (steps.kind, steps.minimum, steps.maximum, steps.default) == ("INT", 1, 10000, 20)
    assert steps.tooltip == "The number of steps used in the denoising process."
    known = catalog.get("SaveImage")
    assert known is not None
    assert known.is_output
    assert "KSampler" in catalog
    assert catalog.get("Nothing") is None


def test_reads_choices_of_both_styles(catalog: NodeCatalog) -> None:
    """Old lists and the newer COMBO come out alike."""
    old, new = catalog.input("KSampler", "scheduler"), catalog.input("SaveVideo", "format")
    assert old is not None
    assert new is not None
    assert old.kind == new.kind == "COMBO"
    assert "karras" in (old.choices or ())
    assert new.choices == ("auto", "mp4")


def test_reads_upload_flags(catalog: NodeCatalog) -> None:
    """An input that takes uploads says of what, unless it lists the server's own results."""
    flags = {
        ("LoadImage", "image"): "image",
        ("LoadImageMask", "image"): "image",
        ("LoadVideo", "file"): "video",
        ("LoadAudio", "audio"): "audio",
        ("LoadImageOutput", "image"): None,
        ("KSampler", "seed"): None,
    }
    found = {place: info.upload for place in flags if (info := catalog.input(*place))}
    assert found == flags


def test_lists_the_classes_a_server_lacks(catalog: NodeCatalog) -> None:
    """What a graph needs and the server has not is listed with its nodes."""
    graph: dict[str, Any] = {
        "1": {"class_type": "KSampler", "inputs": {}},
        "2": {"class_type": "FaceFixer", "inputs": {}},
        "3": {"class_type": "FaceFixer", "inputs": {}},
    }
    assert catalog.missing_classes(graph) == {"FaceFixer": ("2", "3")}


def test_leaves_out_what_makes_no_sense() -> None:
    """Nonsense in one place costs that place only."""
    odd = {
        "A": {
            "input": {
                "required": {
                    "n": ["INT", {"min": "low", "max": float("nan"), "default": 3}],
                    "c": [["x", None, {"y": 1}, 2], None],
                    "r": ["COMBO", {"remote": {"route": "/x"}, "options": []}],
                    "e": [],
                    "w": "INT",
                },
                "optional": ["not", "a", "mapping"],
            },
            "output": "IMAGE",
        },
        "B": None,
    }
    catalog = NodeCatalog.from_json(odd)
    n, c = catalog.input("A", "n"), catalog.input("A", "c")
    assert list(catalog.classes) == ["A"]
    assert n is not None
    assert (n.minimum, n.maximum, n.default) == (None, None, 3)
    assert c is not None
    assert c.choices == ("x", 2)
    remote, empty = catalog.input("A", "r"), catalog.input("A", "e")
    assert remote is not None
    assert remote.choices is None
    assert empty is not None
    assert empty.kind == "*"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["INT", "COMBO", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["input", "required", "optional", "output", "min", "options", "image_folder", "A"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=15,
)


@settings(deadline=None, max_examples=80)
@given(st.dictionaries(st.text(max_size=3), JSON, max_size=4))
def test_no_answer_of_a_server_raises(object_info: dict[str, Any]) -> None:
    """Whatever custom nodes put into the catalogue, it can be read."""
    catalog = NodeCatalog.from_json(object_info)
    assert set(catalog.classes) <= set(object_info)
