"""What `make bench-read` counts, and when it says that a must is missed."""

from __future__ import annotations

import pytest

from bench.read import Figure, Labels, Miss, measure
from tests.golden import template_files


def test_a_share_is_held_against_its_must() -> None:
    """A share at its must passes, one below it is a miss, and nothing measured is a miss."""
    one = (Miss("portrait", "has no prompt"),)

    assert not Figure("prompt", 10, one, must=0.9).is_missed
    assert Figure("prompt", 9, one, must=0.9).is_missed
    assert Figure("prompt", 0).is_missed
    assert Figure("prompt", 10, one, must=0.9).cells()[1:4] == ("90.0%", "90%", "pass")


def test_a_time_is_held_against_its_must() -> None:
    """A time above its must is a miss, one below it passes."""
    assert Figure("inspect", seconds=0.6, must_seconds=0.5).is_missed
    assert Figure("inspect", seconds=0.4, must_seconds=0.5).cells()[1:4] == (
        "0.400 s",
        "0.5 s",
        "pass",
    )


def test_the_makers_labels_are_read() -> None:
    """The indexes beside the templates tell which take a text, and which nodes take files."""
    labels = Labels.read(next(iter(template_files().values())).parent)

    assert len(labels.takes_text) == 488
    assert sum(kind == "image" for files in labels.files.values() for kind, _ in files) == 539


@pytest.mark.timeout(180)
def test_every_template_counts() -> None:
    """Nothing is left out of a figure: all templates, those with a sampler, all labelled files."""
    figures = {figure.what.partition(" (")[0]: figure for figure in measure()}

    totals = {what: figure.total for what, figure in figures.items()}
    assert totals["templates that can be read"] == 644
    assert totals["prompt found"] == totals["seed found"] == 211
    assert (totals["image inputs found"], totals["video inputs found"]) == (539, 70)
    assert totals["templates converted exactly"] >= 121
    assert not figures["templates that can be read"].misses
    for figure in figures.values():
        assert all(miss.template and miss.why for miss in figure.misses)
