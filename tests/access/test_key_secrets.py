"""What a key's holder sends: hard to guess, easy to tell from a typo."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyserve.access.key_secrets import hash_of, is_whole, new_secret

SECRET = new_secret()


def test_secrets_are_whole_and_differ() -> None:
    """Each is a word of its own that a double click selects, and fits a header."""
    made = {new_secret() for _ in range(200)}

    assert len(made) == 200
    assert all(re.fullmatch(r"cs_[a-z2-7]{40}", secret) for secret in made)
    assert all(map(is_whole, made))


def test_a_secret_has_one_hash() -> None:
    """The hash is always the same, and that of another secret is another."""
    other = new_secret()

    assert hash_of(SECRET) == hash_of(SECRET) != hash_of(other)
    assert re.fullmatch(r"[0-9a-f]{64}", hash_of(SECRET))


@given(st.integers(3, len(SECRET) - 1), st.sampled_from("abcdefghijklmnopqrstuvwxyz234567"))
def test_one_wrong_letter_is_noticed(place: int, letter: str) -> None:
    """A key in which any one letter is another is no key."""
    mistyped = SECRET[:place] + letter + SECRET[place + 1 :]

    assert is_whole(mistyped) == (mistyped == SECRET)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "cs_",
        SECRET[:-1],
        SECRET + "a",
        SECRET.upper(),
        SECRET.removeprefix("cs_"),
        " " + SECRET[:-1],
        "cs_" + "1" * 40,
        "cs_" + "ä" * 40,
        "cs_" + "\ud800" * 40,
        "cs_" + "ﬀ" * 40,
        "x" * 100_000,
    ],
)
def test_what_is_no_secret_is_not_taken_for_one(text: str) -> None:
    """Whatever comes in a header is looked at without an error."""
    assert not is_whole(text)
