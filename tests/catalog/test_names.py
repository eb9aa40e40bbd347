"""From file names to names."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from comfyserve.catalog.names import MOST_LETTERS, check_name, key_of, name_of
from comfyserve.refusals import WorkflowNameRefused


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("portrait", "portrait"),
        ("my portrait (final) 2", "my-portrait-final-2"),
        ("flux.1-dev_v2", "flux.1-dev_v2"),
        ("Größe ändern", "Grosse-andern"),
        ("Gro\u0308\u00dfe", "Grosse"),
        ("smørrebrød", "smorrebrod"),
        ("肖像画 一", "肖像画-一"),
        ("पोर्ट्रेट", "पोर्ट्रेट"),
        ("..", "workflow"),
        ("?!#", "workflow"),
        (".hidden.", "hidden"),
        ("a/../b", "a-b"),
        ("a%2e%2e?x=1&y#z", "a-2e-2e-x-1-y-z"),
        ("con", "con_"),
        ("NUL.backup", "NUL_.backup"),
        ("console", "console"),
        ("bad\udcffbyte\x00\x1b[31m", "bad-byte-31m"),
        ("a - b", "a-b"),
    ],
)
def test_a_name_is_fit_for_an_address(stem: str, name: str) -> None:
    """A name is one step of an address, and naming it again changes nothing."""
    assert name_of(stem) == name
    assert name_of(name) == name
    assert quote(name, safe="") == quote(name)


def test_names_that_differ_in_case_share_a_key() -> None:
    """Not every disk tells `Portrait` from `portrait`, so the catalogue does not either."""
    assert key_of("Portrait") == key_of("pORTRAIT")


@pytest.mark.parametrize("name", ["", "..", "a b", "nul", "/etc", "é", "a" * (MOST_LETTERS + 1)])
def test_no_other_name_can_be_published(name: str) -> None:
    """What no file could be called is refused, and a name that would do is told."""
    with pytest.raises(WorkflowNameRefused, match="cannot be named"):
        check_name(name)


def test_a_good_name_can_be_published() -> None:
    """A name that a file gives is one that can be published."""
    check_name("portrait-2.1")
