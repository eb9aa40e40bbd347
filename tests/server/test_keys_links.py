"""Signed links: who has one sees that asset for a while, without a key."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from comfyserve.access import Access
from comfyserve.server.links import Links, Signer
from comfyserve.store import Store
from tests.server.asked import Asked, asked, refusal, uploaded

LIFETIME = 600.0


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Asked]:
    """A server whose links open for ten minutes."""
    async with asked(tmp_path, link_lifetime=LIFETIME) as running:
        yield running


async def test_a_link_opens_its_asset_without_a_key(server: Asked) -> None:
    """The `url` of an asset works as it is, whole, in part and for its headers alone."""
    asset = await uploaded(await server.with_key("a"), b"0123456789")
    nobody = await server.by()

    whole, head = await nobody.get(asset["url"]), await nobody.head(asset["url"])
    part = await nobody.get(asset["url"], headers={"Range": "bytes=2-4"})

    assert whole.content == b"0123456789"
    assert (head.status_code, head.headers["Content-Length"]) == (200, "10")
    assert (part.status_code, part.content) == (206, b"234")
    assert "private" in whole.headers["Cache-Control"]
    assert whole.headers["Referrer-Policy"] == "no-referrer"


async def test_without_keys_links_are_not_signed(server: Asked) -> None:
    """Where nobody is asked for a key, addresses stay as they are."""
    asset = await uploaded(await server.by())

    assert asset["url"].endswith(f"/api/v2/assets/{asset['id']}/content")
    assert asset["url_expires_at"] == asset["expires_at"]


async def test_no_link_holds_a_key(server: Asked) -> None:
    """A link says nothing of the key it was made for."""
    secret = await server.secret("a")
    client = await server.by(x_api_key=secret)

    asset = await uploaded(client)

    assert secret not in asset["url"]
    assert list(parse_qs(urlsplit(asset["url"]).query)) == ["sig"]


async def test_a_link_says_until_when_it_opens(server: Asked) -> None:
    """`url_expires_at` is the link's own end: in its lifetime and a quarter, and as signed."""
    asset = await uploaded(await server.with_key("a"))

    told = datetime.fromisoformat(asset["url_expires_at"]).timestamp()
    signed = float(asset["url"].partition("sig=")[2].partition(".")[0])

    assert LIFETIME - 5 < told - time.time() <= LIFETIME * 1.25
    assert signed == told


async def test_a_link_ends_with_its_asset(server: Asked) -> None:
    """What is kept for a minute has a link for no longer."""
    asset = await uploaded(await server.with_key("a"), expires_in="60")

    assert asset["url_expires_at"] == asset["expires_at"]


async def test_the_same_link_comes_for_a_while(server: Asked) -> None:
    """Who asks again gets the same address, so that a browser need not fetch it again."""
    client = await server.with_key("a")
    asset = await uploaded(client)

    again = [(await client.get(f"/api/v2/assets/{asset['id']}")).json() for _ in range(2)]

    # The quarter may end between the two questions.
    assert asset["url"] in [each["url"] for each in again] or again[0]["url"] == again[1]["url"]


async def test_a_link_opens_nothing_else(server: Asked) -> None:
    """Another asset, another address, another method: for all of that it takes a key."""
    client = await server.with_key("a")
    asset, other = await uploaded(client), await uploaded(client, b"bear")
    nobody, sig = await server.by(), asset["url"].partition("?")[2]
    of_asset = f"/api/v2/assets/{asset['id']}"

    refused = [
        await nobody.get(f"/api/v2/assets/{other['id']}/content?{sig}"),
        await nobody.get(f"{of_asset}?{sig}"),
        await nobody.delete(f"{of_asset}?{sig}"),
        await nobody.post(f"{of_asset}/content?{sig}"),
        await nobody.get(f"/api/v2/jobs?{sig}"),
    ]

    assert [answer.status_code for answer in refused] == [403, 401, 401, 401, 401]


@pytest.mark.parametrize("sig", ["", "1", "1.0.abc", "x" * 5000, "%00", "9999999999.0.", "é"])
async def test_a_bad_link_is_refused(server: Asked, sig: str) -> None:
    """What is no signature is 403, and no riddle for the server."""
    asset = await uploaded(await server.with_key("a"))
    plain = asset["url"].partition("?")[0]

    answer = await (await server.by()).get(f"{plain}?sig={sig}")

    assert refusal(answer) == (403, "forbidden")


async def test_a_link_that_is_over_says_so(server: Asked) -> None:
    """After its time a link is 403, with a code of its own."""
    asset = await uploaded(await server.with_key("a"))
    path = f"/api/v2/assets/{asset['id']}/content"
    over = server.host.access.links.sign(path, time.time() - 1)

    answer = await (await server.by()).get(f"{path}?sig={over}")

    assert refusal(answer) == (403, "link_expired")


async def test_who_shows_a_key_sees_ones_own_alone(server: Asked) -> None:
    """A link does not widen what a key may see; the owner's key sees it with a bad link, too."""
    owner, other = await server.with_key("a"), await server.with_key("b")
    asset = await uploaded(owner)
    plain = asset["url"].partition("?")[0]

    assert (await other.get(asset["url"])).status_code == 404
    assert (await owner.get(asset["url"])).status_code == 200
    assert (await owner.get(f"{plain}?sig=bad")).status_code == 200


async def test_links_end_when_their_secret_does(server: Asked) -> None:
    """After the secret was changed no link opens anything any more."""
    asset = await uploaded(await server.with_key("a"))

    await server.host.access.links.rotate()

    assert refusal(await (await server.by()).get(asset["url"])) == (403, "forbidden")


async def test_a_link_leads_through_a_proxys_prefix(tmp_path: Path) -> None:
    """Behind a proxy that takes off a prefix, what is signed is what comes to the server."""
    public = "https://pictures.example/studio"
    async with asked(tmp_path, public_url=public) as server:
        asset = await uploaded(await server.with_key("a"))
        assert asset["url"].startswith(f"{public}/api/v2/assets/")

        inside = asset["url"].removeprefix(public)

        assert (await (await server.by()).get(inside)).content == b"fox"


async def test_links_of_one_server_are_one_value(tmp_path: Path) -> None:
    """Links of the same address and signer are equal and hash alike, whatever the time; those
    without a signer are others."""
    async with Store.open(tmp_path) as store:
        access = await Access.open(store)
        signer = Signer(access.links, LIFETIME)

        signed, again = Links.of("http://a", signer), Links.of("http://a/", signer)

        assert {signed, again} == {signed}
        assert signed != Links.of("http://a")


async def test_a_link_is_rounded_up(tmp_path: Path) -> None:
    """All links of a quarter of the lifetime end together, none before the whole of it."""
    times = iter((1000.0, 1000.5, 1024.9, 1025.1))
    async with Store.open(tmp_path) as store:
        access = await Access.open(store)
        links = Links.of("http://a", Signer(access.links, 100.0, lambda: next(times)))
        seen = [links.content("x", float("inf")) for _ in range(4)]

    assert [ends_at for _, ends_at in seen] == [1100.0, 1125.0, 1125.0, 1150.0]
    assert seen[1] == seen[2]
