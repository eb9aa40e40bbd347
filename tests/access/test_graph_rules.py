"""Whose graphs a server runs, and who may look into those of others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from comfyserve.access import Access, Caller, GraphRules, Key, has_keys
from comfyserve.denials import Forbidden, KeyLacksPermission
from comfyserve.store import Store

GRAPH = {"1": {"class_type": "LoadImage", "inputs": {}}}


def caller(**may: Any) -> Caller:
    """Somebody with a key that may do so much."""
    return Caller(Key(id="k", name="app", created_at=0.0, **may))


@pytest.mark.parametrize(
    ("who", "is_open", "may_run", "may_see"),
    [
        (Caller(), True, True, True),
        (Caller(), False, False, False),
        (caller(), True, False, False),
        (caller(may_graphs=True), False, True, True),
        (caller(may_publish=True), False, False, True),
        (caller(is_admin=True), False, True, True),
    ],
)
def test_who_may(who: Caller, is_open: bool, may_run: bool, may_see: bool) -> None:
    """A key decides for itself; who has none may where it is open to all."""
    rules = GraphRules(is_open)

    assert _is_allowed(rules.require, who, GRAPH) is may_run
    assert _is_allowed(rules.require_graphs, who) is may_run
    assert _is_allowed(rules.require_sight, who) is may_see


def _is_allowed(asked: Any, *values: Any) -> bool:
    try:
        asked(*values)
    except Forbidden:
        return False
    return True


def test_the_lists_hold_for_admins_too() -> None:
    """What backends are not safe to run, nobody runs."""
    rules = GraphRules(allow=("*",), deny=("Load*",))

    with pytest.raises(Forbidden, match="'LoadImage'"):
        rules.require(caller(is_admin=True), GRAPH)


def test_the_refusal_says_what_would_help() -> None:
    """Who has a key hears of a better one, who has none of a key and the setting."""
    with pytest.raises(KeyLacksPermission, match="made with --graphs"):
        GraphRules().require_graphs(caller())
    with pytest.raises(Forbidden, match=r"keys create NAME --graphs.*open_graphs"):
        GraphRules(is_open=False).require_graphs(Caller())


async def test_a_folder_with_keys_is_known(tmp_path: Path) -> None:
    """Whether a server would ask for keys is known before it starts, and nothing is made by that;
    revoked keys count, for it does not open up by that."""
    folder = tmp_path / "data"
    assert not await has_keys(folder)
    assert not folder.exists()

    async with Store.open(folder) as store:
        access = await Access.open(store)
        assert not await has_keys(folder)
        await access.create("app")
        await access.revoke("app")

    assert await has_keys(folder)
