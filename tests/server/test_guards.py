"""Who may ask: by which name, from a page of which site, with how large a body."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from starlette.middleware import Middleware

from comfyserve.access import Access
from comfyserve.denials import AddressUnsafe
from comfyserve.server import guards
from comfyserve.server.problems import Answered
from comfyserve.settings import Settings
from comfyserve.store import Store

OURS = "http://127.0.0.1:8189"


def client_of(settings: Settings, peer: str = "127.0.0.1", root: str = OURS) -> httpx.AsyncClient:
    """A client of a small app behind the guards, which is asked by *peer*."""
    app = FastAPI(middleware=[Middleware(Answered)])

    @app.get("/base")
    async def base(request: Request) -> dict[str, str]:
        return {"base": guards.base_url(request)}

    @app.post("/body")
    async def body(request: Request) -> dict[str, int]:
        return {"bytes": len(await request.body())}

    guarded = Answered(guards.around(app, settings))
    transport = httpx.ASGITransport(guarded, client=(peer, 1234))
    return httpx.AsyncClient(transport=transport, base_url=root)


async def answer(settings: Settings, headers: dict[str, str], **options: Any) -> httpx.Response:
    """The answer to a plain GET with these headers."""
    async with client_of(settings, **options) as client:
        return await client.get("/base", headers=headers)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8189", 200),
        ("LOCALHOST", 200),
        ("[::1]:8189", 200),
        ("gpu.example.org.", 200),
        ("a.b.example.net", 200),
        ("public.example.com:443", 200),
        ("example.net", 403),
        ("evil-example.net", 403),
        ("evil.org", 403),
        ("127.0.0.1.evil.org", 403),
        ("10.0.0.7", 403),
        ("", 403),
        ("evil.org/@127.0.0.1", 403),
        ("127.0.0.1:x", 403),
    ],
)
async def test_only_our_own_names_are_answered(host: str, status: int) -> None:
    """A name that anybody could point at this machine opens nothing."""
    settings = Settings(
        allow_hosts=("gpu.example.org", "*.example.net"), public_url="https://public.example.com"
    )

    got = await answer(settings, {"Host": host})

    assert got.status_code == status
    if status == 403:
        assert got.json()["error"]["code"] == "forbidden"


async def test_every_address_is_ours_where_we_listen_on_all() -> None:
    """Who opened the server to others is asked by addresses; names still have to be told."""
    settings = Settings(host="0.0.0.0", insecure=True)

    assert (await answer(settings, {"Host": "10.0.0.7:8189"})).status_code == 200
    assert (await answer(settings, {"Host": "evil.org"})).status_code == 403


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://127.0.0.1:8189"}, 200),
        ({"Origin": "https://127.0.0.1:8189"}, 200),
        ({"Origin": "https://app.example.org"}, 200),
        ({"Origin": "http://127.0.0.1:3000"}, 403),
        ({"Origin": "https://app.example.org.evil.org"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 200),
        ({"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "no-cors"}, 200),
        (
            {
                "Sec-Fetch-Site": "cross-site",
                "Sec-Fetch-Mode": "no-cors",
                "Referer": "https://app.example.org/",
            },
            200,
        ),
    ],
)
async def test_pages_of_other_sites_are_refused(headers: dict[str, str], status: int) -> None:
    """A page may ask where it is ours or on the list; a program always may."""
    got = await answer(Settings(allow_origins=("https://app.example.org",)), headers)

    assert got.status_code == status
    if status == 403:
        assert got.json()["error"]["code"] == "forbidden_origin"


async def test_a_listed_page_may_read_answers() -> None:
    """CORS names that origin alone, what it may send and read, and for how long that holds."""
    origin = {"Origin": "https://app.example.org"}
    async with client_of(Settings(allow_origins=("https://app.example.org",))) as client:
        asked = await client.options(
            "/body",
            headers={
                **origin,
                "Access-Control-Request-Method": "DELETE",
                "Access-Control-Request-Headers": "authorization, idempotency-key",
            },
        )
        got = await client.get("/base", headers=origin)
        failed = await client.post("/body", headers={**origin, "Content-Length": "99999999999"})

    assert asked.status_code == 200
    assert asked.headers["Access-Control-Max-Age"] == "600"
    assert "DELETE" in asked.headers["Access-Control-Allow-Methods"]
    for response in (asked, got, failed):
        assert response.headers["Access-Control-Allow-Origin"] == "https://app.example.org"
    exposed = got.headers["Access-Control-Expose-Headers"]
    assert {"Retry-After", "Content-Range", "Accept-Ranges"} <= set(exposed.split(", "))
    assert failed.status_code == 413


@pytest.mark.parametrize("allowed", [(), ("https://app.example.org",)])
async def test_a_page_that_is_not_listed_may_not_even_ask(allowed: tuple[str, ...]) -> None:
    """A preflight of another site is refused in our words, and nothing is allowed to it."""
    async with client_of(Settings(allow_origins=allowed)) as client:
        got = await client.options(
            "/body",
            headers={"Origin": "https://evil.org", "Access-Control-Request-Method": "POST"},
        )

    assert got.status_code == 403
    assert got.json()["error"]["code"] == "forbidden_origin"
    assert "Access-Control-Allow-Origin" not in got.headers


async def test_a_body_over_the_cap_is_refused() -> None:
    """Whether its length was announced or it just keeps coming."""

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(11):
            yield b"x" * 1000

    async with client_of(Settings(body_cap=10_000)) as client:
        fits = await client.post("/body", content=b"x" * 10_000)
        announced = await client.post("/body", content=b"x" * 10_001)
        chunked = await client.post("/body", content=pieces())

    assert fits.json() == {"bytes": 10_000}
    for refused in (announced, chunked):
        assert refused.status_code == 413
        error = refused.json()["error"]
        assert (error["code"], error["details"]) == ("payload_too_large", {"most_bytes": 10_000})


FORWARDED = {
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "evil.org, pictures.example.org",
    "X-Forwarded-Prefix": "/studio/",
}


@pytest.mark.parametrize(
    ("headers", "peer", "base"),
    [
        ({}, "10.0.0.7", OURS),
        (FORWARDED, "10.0.0.7", "https://pictures.example.org/studio"),
        (FORWARDED, "::ffff:10.0.0.7", "https://pictures.example.org/studio"),
        (FORWARDED, "192.0.2.1", OURS),
        (FORWARDED, "unix", OURS),
        (
            {"Forwarded": 'for=1.2.3.4, for=5.6.7.8;proto=https;host="a.example.org:8443"'},
            "10.0.0.7",
            "https://a.example.org:8443",
        ),
        ({"X-Forwarded-Host": "a b"}, "10.0.0.7", OURS),
        ({"X-Forwarded-Proto": "javascript"}, "10.0.0.7", OURS),
        ({"X-Forwarded-Prefix": "//evil.org"}, "10.0.0.7", OURS),
        ({"X-Forwarded-Prefix": '/a"b'}, "10.0.0.7", f"{OURS}/a%22b"),
    ],
)
async def test_only_trusted_proxies_say_where_we_are(
    headers: dict[str, str], peer: str, base: str
) -> None:
    """Forwarded headers count from trusted addresses alone; what makes no sense never does."""
    settings = Settings(trusted_proxies=("10.0.0.0/8",))

    assert (await answer(settings, headers, peer=peer)).json() == {"base": base}


async def test_the_public_address_is_above_all() -> None:
    """Where it is set, nothing that a request says changes it."""
    settings = Settings(public_url="https://me.example.org/p", trusted_proxies=("127.0.0.1/32",))

    assert (await answer(settings, FORWARDED)).json() == {"base": "https://me.example.org/p"}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "gpu.example.org"])
async def test_an_address_that_others_reach_has_to_be_meant(host: str, tmp_path: Path) -> None:
    """Without keys, listening for others needs a clear word; nothing is made by asking."""
    folder = tmp_path / "data"

    with pytest.raises(AddressUnsafe, match=r"keys create NAME.*--insecure"):
        await guards.refuse_unsafe(Settings(host=host, data=folder))
    await guards.refuse_unsafe(Settings(host=host, data=folder, insecure=True))
    assert not folder.exists()


async def test_with_keys_any_address_is_safe(tmp_path: Path) -> None:
    """A server that asks for keys may listen anywhere, also while another has its folder open."""
    settings = Settings(host="0.0.0.0", data=tmp_path)

    async with Store.open(tmp_path) as store:
        with pytest.raises(AddressUnsafe):
            await guards.refuse_unsafe(settings)
        await (await Access.open(store)).create("app")
        await guards.refuse_unsafe(settings)
    await guards.refuse_unsafe(settings)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
async def test_this_machines_own_addresses_are_safe(host: str, tmp_path: Path) -> None:
    """Only who is on this machine reaches them."""
    await guards.refuse_unsafe(Settings(host=host, data=tmp_path))
