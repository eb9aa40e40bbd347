"""What is fetched from addresses that callers name, and what never is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from yarl import URL

from comfyserve.url_inputs import MOST_REDIRECTS, NotFetched, UrlInputs, is_public, redirected

PICTURE = b"\x89PNG\r\n\x1a\n" + b"p" * 1000
LOOPBACK = "127.0.0.1"

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Origin:
    """A web server of a test: what it answers by path, and every request that it got."""

    port: int = 0
    answers: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    stalls_after: int | None = None
    is_deaf: bool = False

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    def redirect(self, path: str, target: str) -> None:
        self.answers[path] = _http(b"", "302 Found", {"Location": target})


def _http(body: bytes, status: str = "200 OK", headers: Mapping[str, str] | None = None) -> bytes:
    told = {"Content-Length": str(len(body)), "Connection": "close", **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in told.items())
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body


@asynccontextmanager
async def origin(**answers: bytes) -> AsyncIterator[Origin]:
    """A server on this machine that answers with ``/<name>`` what it is given."""
    serving = Origin(answers={f"/{name}": answer for name, answer in answers.items()})

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if serving.is_deaf:
            writer.close()
            return
        try:
            request = (await reader.readuntil(b"\r\n\r\n")).decode()
            serving.requests.append(request)
            path = request.split()[1].partition("?")[0]
            answer = serving.answers.get(path, _http(b"", "404 Not Found"))
            if serving.stalls_after is None:
                writer.write(answer)
            else:
                writer.write(answer[: serving.stalls_after])
                await writer.drain()
                await reader.read()  # until the caller has had enough
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, LOOPBACK, 0)
    serving.port = server.sockets[0].getsockname()[1]
    async with server:
        yield serving


def resolving(**hosts: Sequence[str]) -> Callable[[str, int], Awaitable[Sequence[str]]]:
    """Knows these hosts, dots written as underscores, and numbers; counts nothing else."""
    known = {name.replace("_", "."): list(found) for name, found in hosts.items()}

    async def resolve(host: str, port: int) -> Sequence[str]:
        if host == LOOPBACK or ":" in host:
            return [host]
        return known.get(host, ())

    return resolve


async def keep(chunks: AsyncIterator[bytes]) -> bytes:
    """All bytes that come."""
    return b"".join([chunk async for chunk in chunks])


async def refused(urls: UrlInputs, url: str) -> str:
    """The sentence with which an address is refused."""
    with pytest.raises(NotFetched) as caught:
        await urls.fetch(url, keep)
    return str(caught.value)


async def test_an_allowed_host_is_fetched() -> None:
    """What there is at the address of an allowed host comes whole, asked for without secrets."""
    async with origin(picture=_http(PICTURE)) as there:
        urls = UrlInputs(hosts=[LOOPBACK])
        assert await urls.fetch(f"{there.url}/picture?x=1#y", keep) == PICTURE
    (request,) = there.requests
    assert request.startswith("GET /picture?x=1 HTTP/1.1\r\n")
    assert "cookie" not in request.lower()
    assert "authorization" not in request.lower()


async def test_this_machine_is_refused_without_a_connection() -> None:
    """A server on this machine is not even connected to, however its address is written."""
    async with origin(picture=_http(PICTURE)) as there:
        urls = UrlInputs()
        for host in ("127.0.0.1", "localhost", "127.1", "2130706433", "0x7f.1", "[::1]"):
            message = await refused(urls, f"http://{host}:{there.port}/picture")
            assert message.endswith(".")
        assert "127.0.0.1" not in await refused(urls, f"http://localhost:{there.port}/picture")
    assert there.requests == []


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.9.9.9"),
        *("168.63.129.16", "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.1"),
        *("192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1", "203.0.113.1", "224.0.0.1"),
        *("239.255.255.250", "240.0.0.1", "255.255.255.255", "::", "::1", "::ffff:127.0.0.1"),
        *("::ffff:8.8.8.8", "::127.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b::a9fe:a9fe"),
        *("64:ff9b:1::1", "100::1", "2001::1", "2001:db8::1", "2002:7f00:1::", "2002:808:808::"),
        *("3fff::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fec0::1", "ff02::1"),
    ],
)
def test_addresses_inside_are_not_public(address: str) -> None:
    """Private, local, shared, documentation, multicast and wrapped addresses are not public."""
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "8.8.8.8", "172.32.0.1", "2606:4700::1111", "64:ff9b::8.8.8.8"]
)
def test_addresses_of_the_internet_are_public(address: str) -> None:
    """Addresses that anybody can mean are public, also where an IPv6 network wraps them."""
    assert is_public(address)


async def test_a_name_with_one_address_inside_is_refused() -> None:
    """A name that leads both to the internet and to this machine is refused, in either order."""
    async with origin(picture=_http(PICTURE)) as there:
        for addresses in ((LOOPBACK, "8.8.8.8"), ("8.8.8.8", LOOPBACK)):
            urls = UrlInputs(resolve=resolving(both_example=addresses))
            message = await refused(urls, f"http://both.example:{there.port}/picture")
            assert "both.example is not public" in message
            assert LOOPBACK not in message
    assert there.requests == []


async def test_a_name_is_looked_up_once() -> None:
    """The connection goes to the address that was checked, whatever the name means later."""
    answers = [[LOOPBACK], ["8.8.8.8"]]

    async def resolve(host: str, port: int) -> Sequence[str]:
        return answers.pop(0)

    async with origin(picture=_http(PICTURE)) as there:
        urls = UrlInputs(hosts=["127.0.0.0/8"], resolve=resolve)
        url = f"http://moving.example:{there.port}/picture"
        assert await urls.fetch(url, keep) == PICTURE
    assert answers == [["8.8.8.8"]]
    assert f"Host: moving.example:{there.port}" in there.requests[0]


async def test_names_and_networks_widen() -> None:
    """The setting takes a name, all names below one, and a network; nothing besides is opened."""
    resolve = resolving(files_example=[LOOPBACK], a_lan_example=[LOOPBACK], other=[LOOPBACK])
    async with origin(picture=_http(PICTURE)) as there:
        for hosts, host in (
            (["files.example"], "files.example"),
            (["*.lan.example"], "a.lan.example"),
            (["127.0.0.0/8"], "other"),
        ):
            urls = UrlInputs(hosts=hosts, resolve=resolve)
            assert await urls.fetch(f"http://{host}:{there.port}/picture", keep) == PICTURE
        urls = UrlInputs(hosts=["files.example", "*.lan.example", "10.0.0.0/8"], resolve=resolve)
        assert "not public" in await refused(urls, f"http://other:{there.port}/picture")


async def test_a_redirect_is_held_against_the_rules() -> None:
    """An allowed host that sends us on to a forbidden one is followed no further."""
    resolve = resolving(allowed_example=[LOOPBACK], inside_example=[LOOPBACK])
    async with origin(picture=_http(PICTURE)) as there:
        there.redirect("/in", f"http://inside.example:{there.port}/picture")
        there.redirect("/near", "/picture")
        urls = UrlInputs(hosts=["allowed.example"], resolve=resolve)
        base = f"http://allowed.example:{there.port}"
        assert await urls.fetch(f"{base}/near", keep) == PICTURE
        assert "inside.example is not public" in await refused(urls, f"{base}/in")
    assert [request.split()[1] for request in there.requests] == ["/near", "/picture", "/in"]


@pytest.mark.parametrize(
    "target",
    ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://me:secret@127.0.0.1/", "http://[::1", ""],
)
async def test_a_redirect_to_no_web_address_is_refused(target: str) -> None:
    """A redirect leads to a plain web address or nowhere."""
    async with origin() as there:
        there.redirect("/on", target)
        message = await refused(UrlInputs(hosts=[LOOPBACK]), f"{there.url}/on")
        assert "secret" not in message
    assert len(there.requests) == 1


async def test_redirects_end() -> None:
    """A few redirects are followed, a circle is not."""
    async with origin(picture=_http(PICTURE)) as there:
        for number in range(MOST_REDIRECTS):
            there.redirect(f"/{number}", f"/{number + 1}")
        there.answers[f"/{MOST_REDIRECTS}"] = _http(PICTURE)
        there.redirect("/round", "/round")
        urls = UrlInputs(hosts=[LOOPBACK])
        assert await urls.fetch(f"{there.url}/0", keep) == PICTURE
        there.requests.clear()
        assert "more than 5 times" in await refused(urls, f"{there.url}/round")
    assert len(there.requests) == MOST_REDIRECTS + 1


async def test_a_slow_answer_is_cut() -> None:
    """A body that does not come to its end is given up in time, though bytes of it came."""
    async with origin(picture=_http(PICTURE)) as there:
        there.stalls_after = len(there.answers["/picture"]) - 10
        began = time.monotonic()
        message = await refused(UrlInputs(hosts=[LOOPBACK], seconds=0.3), f"{there.url}/picture")
    assert "did not send it within 0.3 s" in message
    assert time.monotonic() - began < 5


async def test_a_slow_name_is_cut() -> None:
    """Looking a name up counts as well."""

    async def resolve(host: str, port: int) -> Sequence[str]:
        await asyncio.sleep(60)
        return ()

    urls = UrlInputs(seconds=0.1, resolve=resolve)
    assert "within 0.1 s" in await refused(urls, "http://slow.example/")


async def test_what_is_too_large_is_cut() -> None:
    """A file may be as large as an upload, whether it says its size or not."""
    unsaid = _http(PICTURE).replace(b"Content-Length: 1008\r\n", b"")
    async with origin(said=_http(PICTURE), unsaid=unsaid) as there:
        small, fitting = (
            UrlInputs(hosts=[LOOPBACK], most=1007),
            UrlInputs(hosts=[LOOPBACK], most=1008),
        )
        for path in ("said", "unsaid"):
            assert await fitting.fetch(f"{there.url}/{path}", keep) == PICTURE
            message = await refused(small, f"{there.url}/{path}")
            assert "more than 1,007 bytes" in message


async def test_a_packed_answer_is_refused() -> None:
    """No answer can unpack to more than it has bytes."""
    packed = _http(PICTURE, headers={"Content-Encoding": "gzip"})
    async with origin(picture=packed) as there:
        message = await refused(UrlInputs(hosts=[LOOPBACK]), f"{there.url}/picture")
    assert "packed" in message


async def test_what_breaks_off_is_refused() -> None:
    """A file that ends too early is none."""
    broken = _http(PICTURE)[:-1]
    async with origin(
        picture=broken, empty=_http(b""), missing=_http(b"", "404 Not Found")
    ) as there:
        urls = UrlInputs(hosts=[LOOPBACK])
        assert "broke off" in await refused(urls, f"{there.url}/picture")
        assert "sent nothing" in await refused(urls, f"{there.url}/empty")
        assert "answered 404" in await refused(urls, f"{there.url}/missing")


@pytest.mark.parametrize(
    "url",
    [
        *(
            "ftp://example.org/a",
            "http://",
            "http:///a",
            "http://user:pw@example.org/",
            "http://a b/",
        ),
        *("http://example.org:0/", "http://example.org:99999/", "http://[fe80::1%25eth0]/"),
        *(
            "http://exa\\mple.org/",
            "https://" + "a" * 9000,
            "http://example.org/\r\nX: y",
            "http://1.2.3/",
        ),
    ],
)
async def test_odd_addresses_are_refused(url: str) -> None:
    """An address that could be read in two ways, or holds a password, is never asked."""

    async def resolve(host: str, port: int) -> Sequence[str]:
        raise AssertionError(f"{host} was looked up")

    message = await refused(UrlInputs(hosts=["0.0.0.0/0"], resolve=resolve), url)
    assert "pw" not in message


async def test_no_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that the environment names would connect for us where we must not."""
    async with origin() as proxy, origin(picture=_http(PICTURE)) as there:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        urls = UrlInputs(hosts=[LOOPBACK])
        assert await urls.fetch(f"{there.url}/picture", keep) == PICTURE
    assert proxy.requests == []


async def test_it_can_be_switched_off() -> None:
    """A server that takes no inputs by address asks nobody."""
    async with origin(picture=_http(PICTURE)) as there:
        urls = UrlInputs(is_on=False, hosts=[LOOPBACK])
        assert "takes no inputs by address" in await refused(urls, f"{there.url}/picture")
    assert there.requests == []


async def test_nobody_there_names_no_address() -> None:
    """A host that does not answer, or has no certificate, is named as the caller named it."""
    resolve = resolving(gone_example=[LOOPBACK], plain_example=[LOOPBACK])
    async with origin(picture=_http(PICTURE)) as there:
        urls = UrlInputs(hosts=["gone.example", "plain.example"], resolve=resolve)
        there.is_deaf = True
        plain = await refused(urls, f"https://plain.example:{there.port}/picture")
    gone = await refused(urls, f"http://gone.example:{there.port}/picture")
    assert gone == "gone.example does not answer."
    assert plain.startswith("plain.example ")
    assert LOOPBACK not in gone + plain
    assert "There is no host" in await refused(urls, "http://nowhere.example/")


def test_https_is_not_left_for_http() -> None:
    """A redirect from https to http is refused, the other way round it is not."""
    with pytest.raises(NotFetched, match="from https to http"):
        redirected(URL("https://a.example/x"), "http://a.example/x")
    secured = redirected(URL("http://a.example/x"), "https://a.example/y")
    assert str(secured) == "https://a.example/y"
