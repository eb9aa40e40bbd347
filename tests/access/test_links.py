"""Signed links: they open one path for some time, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from comfyserve.access import Access, Links
from comfyserve.denials import Forbidden, LinkExpired
from comfyserve.store import Store
from tests.store.samples import START, Clock

PATH = "/api/v2/assets/7/content"


async def test_a_link_opens_its_path_until_its_time_is_over(access: Access, clock: Clock) -> None:
    """It is good up to the second that was signed, and then says that it is over."""
    token = access.links.sign(PATH, START + 60)

    clock.pass_seconds(59)
    await access.verify(PATH, token)

    clock.pass_seconds(1)
    with pytest.raises(LinkExpired, match="over"):
        await access.verify(PATH, token)


async def test_a_link_opens_no_other_path(access: Access) -> None:
    """The token of one asset is nothing for another one."""
    token = access.links.sign(PATH, START + 60)

    with pytest.raises(Forbidden, match="was changed"):
        await access.verify(PATH.replace("7", "8"), token)


async def test_a_link_cannot_be_made_longer(access: Access) -> None:
    """With another expiry the signature does not fit, and an old link is not told it was good."""
    expiry, generation, signature = access.links.sign(PATH, START + 60).split(".")

    for longer in (f"{int(expiry) + 1}", f"0{expiry}", "9" * 15, "0"):
        with pytest.raises(Forbidden, match="was changed"):
            await access.verify(PATH, f"{longer}.{generation}.{signature}")


@pytest.mark.parametrize(
    "token", ["", ".", "..", "1.0.x", "x.0.y", "²²", "1" * 5000, "1.0.\ud800", "-1.0.a", "1.0.ä"]
)
async def test_what_is_no_token_opens_nothing(access: Access, token: str) -> None:
    """Whatever stands in an address is refused like a wrong token."""
    with pytest.raises(Forbidden, match="was changed"):
        await access.verify(PATH, token)


async def test_a_token_is_short_and_fits_an_address(access: Access) -> None:
    """It needs no escaping, and is the same for the same path and second."""
    token = access.links.sign("/bilder/f\u00fcchse \ud800", START + 0.2)

    assert token == access.links.sign("/bilder/f\u00fcchse \ud800", START + 1)
    assert set(token) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")
    assert len(token) < 50


async def test_links_last_over_a_restart(tmp_path: Path) -> None:
    """The secret is kept; another server's links open nothing here."""
    tokens = []
    for folder in ("one", "one", "two"):
        async with Store.open(tmp_path / folder) as store:
            access = await Access.open(store)
            tokens.append(access.links.sign(PATH, START))

    assert tokens[0] == tokens[1] != tokens[2]


async def test_a_new_secret_ends_all_links(store: Store, access: Access, ticks: Clock) -> None:
    """Here at once, in other processes within a second; new links then hold in both."""
    other = await Access.open(store, clock=ticks)
    token = other.links.sign(PATH, START + 60)
    await access.verify(PATH, token)

    await access.links.rotate()

    with pytest.raises(Forbidden):
        await access.verify(PATH, token)
    await other.verify(PATH, token)
    ticks.pass_seconds(1.1)
    with pytest.raises(Forbidden):
        await other.verify(PATH, token)
    await access.verify(PATH, other.links.sign(PATH, START + 60))


async def test_a_secret_that_was_not_learned_signs_nothing(store: Store) -> None:
    """Without its secret nobody could tell a signature that everybody can make."""
    with pytest.raises(RuntimeError, match="refresh"):
        Links(store).sign(PATH, START)
