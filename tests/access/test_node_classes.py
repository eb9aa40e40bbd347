"""Which node classes the graphs that callers bring may use."""

from __future__ import annotations

import pytest

from comfyserve.access import refused_classes, require_classes
from comfyserve.denials import Forbidden

NAMES = ("LoadImage", "KSampler", "LoadImage", "RunPython", "Load [beta]")
GRAPH = {str(n): {"class_type": name, "inputs": {}} for n, name in enumerate(NAMES)}


@pytest.mark.parametrize(
    ("allow", "deny", "refused"),
    [
        ((), (), []),
        ((), ("RunPython",), ["RunPython"]),
        ((), ("Run*", "Load*"), ["LoadImage", "RunPython", "Load [beta]"]),
        (("Load*", "KSampler"), (), ["RunPython"]),
        (("*",), ("*",), ["LoadImage", "KSampler", "RunPython", "Load [beta]"]),
        (("Load*",), ("LoadImage",), ["LoadImage", "KSampler", "RunPython"]),
        ((), ("runpython",), []),
        ((), ("Load [[]beta]",), ["Load [beta]"]),
    ],
)
def test_classes_are_refused_by_pattern(
    allow: tuple[str, ...], deny: tuple[str, ...], refused: list[str]
) -> None:
    """What is denied or not allowed is named once, in the graph's order; denial goes first."""
    assert refused_classes(GRAPH, allow, deny) == refused


def test_a_graph_with_refused_classes_is_not_taken() -> None:
    """The sentence names the classes; a graph without any of them is taken."""
    with pytest.raises(Forbidden) as refused:
        require_classes(GRAPH, deny=["Run*", "KSampler"])
    require_classes(GRAPH, deny=["Nothing*"])

    assert str(refused.value) == (
        "This server does not run graphs with 'KSampler', 'RunPython'. Leave them out."
    )


def test_a_long_list_of_classes_is_cut() -> None:
    """However many are refused, the sentence stays readable."""
    graph = {str(n): {"class_type": f"X{n}", "inputs": {}} for n in range(25)}

    with pytest.raises(Forbidden, match=r"'X9' and 15 more\."):
        require_classes(graph, allow=["Y*"])
