"""What callers may do, and how they are told that they may not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from comfyserve.access import Caller, Key, Rate
from comfyserve.denials import Forbidden, KeyLacksPermission

PLAIN = Key(id="id-1", name="app", created_at=1.0)
ADMIN = replace(PLAIN, is_admin=True, workflows=())
REQUIRED: dict[str, Callable[[Caller], None]] = {
    "graphs": Caller.require_graphs,
    "publish": Caller.require_publish,
    "admin": Caller.require_admin,
    "workflow": lambda caller: caller.require_run("portrait"),
}


@pytest.mark.parametrize("caller", [Caller(), Caller(ADMIN)], ids=["keyless", "admin"])
@pytest.mark.parametrize("what", REQUIRED)
def test_who_may_all_is_never_refused(caller: Caller, what: str) -> None:
    """Without a key where none is needed, or with an admin's, everything is allowed."""
    REQUIRED[what](caller)

    assert (caller.may_graphs, caller.may_publish, caller.is_admin) == (True, True, True)
    assert caller.may_run("portrait")


@pytest.mark.parametrize(
    ("key", "what"),
    [
        (replace(PLAIN, may_graphs=True), "graphs"),
        (replace(PLAIN, may_publish=True), "publish"),
        (PLAIN, "workflow"),
        (replace(PLAIN, workflows=("portrait",)), "workflow"),
    ],
)
def test_a_permission_allows_its_own_thing_only(key: Key, what: str) -> None:
    """What the key was made for goes; nothing else comes with it."""
    REQUIRED[what](Caller(key))

    for other in {"graphs", "publish", "admin"} - {what}:
        with pytest.raises(KeyLacksPermission):
            REQUIRED[other](Caller(key))


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        (
            "graphs",
            "The key 'app' may not run graphs of its own. That takes a key made with --graphs.",
        ),
        (
            "publish",
            "The key 'app' may not publish workflows. That takes a key made with --publish.",
        ),
        (
            "admin",
            "The key 'app' may not manage this server. That takes a key made with --admin.",
        ),
        (
            "workflow",
            "The key 'app' may not run the workflow 'portrait'. It may run 'fox', 'dog'.",
        ),
    ],
)
def test_a_refusal_says_what_and_what_would_do(what: str, sentence: str) -> None:
    """The caller reads which key may not do what, and which kind may."""
    with pytest.raises(Forbidden) as refused:
        REQUIRED[what](Caller(replace(PLAIN, workflows=("fox", "dog"))))

    assert (str(refused.value), refused.value.code) == (sentence, "forbidden")


def test_a_key_for_no_workflow_runs_none() -> None:
    """An empty list is no workflow, not every workflow."""
    with pytest.raises(KeyLacksPermission, match="It may run none"):
        Caller(replace(PLAIN, workflows=())).require_run("portrait")


def test_a_long_list_is_not_told_whole() -> None:
    """A key for many workflows is refused with some of their names and a number."""
    names = tuple(f"w{n}" for n in range(30))

    with pytest.raises(KeyLacksPermission, match=r"'w9' and 20 more\.$"):
        Caller(replace(PLAIN, workflows=names)).require_run("portrait")


@pytest.mark.parametrize(
    ("caller", "asked", "given"),
    [
        (Caller(), 100, 100),
        (Caller(PLAIN), 100, 0),
        (Caller(PLAIN), -5, -5),
        (Caller(replace(PLAIN, priority_max=7)), 100, 7),
        (Caller(replace(PLAIN, priority_max=7)), 3, 3),
    ],
)
def test_a_priority_is_capped_by_the_key(caller: Caller, asked: int, given: int) -> None:
    """A job goes ahead no further than its key may, and back as far as it likes."""
    assert caller.capped(asked) == given


def test_a_key_owns_what_it_makes() -> None:
    """The owner is the key's id, which no other key ever has, and none without a key."""
    limited = Caller(replace(PLAIN, rate=Rate(5, 1), concurrent=2))

    assert (limited.owner, limited.rate, limited.concurrent) == ("id-1", Rate(5, 1), 2)
    assert (Caller().owner, Caller().rate, Caller().concurrent) == ("", None, None)
