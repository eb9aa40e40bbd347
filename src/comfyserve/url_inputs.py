"""Files from addresses that callers name: fetched only where a stranger may send us.

A caller's address must not open what only this machine reaches. So a host's addresses are looked
up once, all of them have to be public or allowed, and the connection goes to these and no others;
each redirect is held against the same rules. No proxy, cookie or password of ours goes along.

>>> is_public("8.8.8.8"), is_public("::ffff:8.8.8.8"), is_public("169.254.169.254")
(True, False, False)
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Final, TypeVar

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

Kept = TypeVar("Kept")

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""The IP addresses of a host, for connections to a port. Raises OSError where it has none."""

MOST_REDIRECTS: Final = 5
_LONGEST: Final = 8192
_CHUNK: Final = 1 << 18
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_HEADERS: Final = {"User-Agent": "comfyserve", "Accept": "*/*", "Accept-Encoding": "identity"}

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class NotFetched(ValueError):
    """What there is at an address could not be had; a sentence that names no address inside."""


class UrlInputs:
    """Fetches what callers name by its address.

    With *is_on* false nothing is fetched. *hosts* are names, names below one (``*.example.org``),
    IP addresses and networks that may be asked though they are not public. One file, with all its
    redirects, may take *seconds* and have *most* bytes. *resolve* looks names up.
    """

    def __init__(
        self,
        *,
        is_on: bool = True,
        hosts: Iterable[str] = (),
        seconds: float = 30.0,
        most: int = 100 * 2**20,
        resolve: Resolve | None = None,
    ) -> None:
        self._is_on = is_on
        self._networks, self._names = _places(hosts)
        self._seconds = seconds
        self._most = most
        self._resolve = resolve or _looked_up

    def check(self, url: str) -> None:
        """Raise `NotFetched` for an address that would be refused by how it is written."""
        if not self._is_on:
            raise NotFetched("This server takes no inputs by address. Send the file itself.")
        _parsed(url)

    async def fetch(
        self, url: str, keep: Callable[[AsyncIterator[bytes]], Awaitable[Kept]]
    ) -> Kept:
        """What *keep* makes of the bytes at *url*, which it takes as they come.

        Raises `NotFetched`, and what *keep* raises.
        """
        self.check(url)
        try:
            async with asyncio.timeout(self._seconds) as turn:
                return await self._follow(_parsed(url), keep)
        except TimeoutError:
            if not turn.expired():
                raise
            problem = f"did not send it within {self._seconds:g} s"
            raise NotFetched(f"{_host(url)} {problem}.") from None

    async def _follow(
        self, url: URL, keep: Callable[[AsyncIterator[bytes]], Awaitable[Kept]]
    ) -> Kept:
        for _ in range(MOST_REDIRECTS + 1):
            addresses = await self._checked(url)
            async with aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    resolver=_Pinned(url.raw_host or "", addresses), use_dns_cache=False
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
                auto_decompress=False,
                trust_env=False,
                headers=_HEADERS,
            ) as session:
                try:
                    async with session.get(url, allow_redirects=False) as answer:
                        if answer.status not in _REDIRECTS:
                            return await keep(self._content(url, answer))
                        url = redirected(url, answer.headers.get("Location"))
                except (aiohttp.ClientError, OSError) as error:
                    if isinstance(error, TimeoutError):
                        raise
                    raise NotFetched(f"{url.host} {_reason(error)}.") from None
        raise NotFetched(f"{url.host} sent us on more than {MOST_REDIRECTS} times.")

    async def _checked(self, url: URL) -> Sequence[str]:
        """The addresses of its host, all of which we may connect to."""
        host = (url.raw_host or "").rstrip(".")
        try:
            found = await self._resolve(host, url.port or 0)
        except (OSError, UnicodeError):
            found = ()
        if not found:
            raise NotFetched(f"There is no host {url.host!r}.")
        if not self._is_allowed(host) and not all(map(self._may_reach, found)):
            raise NotFetched(
                f"{url.host} is not public, and this server fetches nothing from there. Send the "
                "file itself, or add the host to the server's setting url_hosts."
            )
        return found

    def _is_allowed(self, host: str) -> bool:
        name = host.lower()
        return any(
            name.endswith(one[1:]) if one.startswith("*.") else name == one for one in self._names
        )

    def _may_reach(self, address: str) -> bool:
        return is_public(address) or any(
            ipaddress.ip_address(address) in network for network in self._networks
        )

    async def _content(self, url: URL, answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        if answer.status != 200:
            raise NotFetched(f"{url.host} answered {answer.status} instead of the file.")
        if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise NotFetched(f"{url.host} sent the file packed, which nobody asked for.")
        size = answer.content_length or 0
        too_large = NotFetched(f"{url.host} has a file of more than {self._most:,} bytes.")
        if size > self._most:
            raise too_large
        come = 0
        async for chunk in answer.content.iter_chunked(_CHUNK):
            come += len(chunk)
            if come > self._most:
                raise too_large
            yield chunk
        if not come:
            raise NotFetched(f"{url.host} sent nothing.")


def is_public(address: str) -> bool:
    """Whether anybody on the internet may mean this IP address, and nobody something inside."""
    found = ipaddress.ip_address(address)
    if isinstance(found, ipaddress.IPv6Address):
        if found in _NAT64:
            return is_public(str(ipaddress.IPv4Address(int(found) & 0xFFFF_FFFF)))
        return found in _GLOBAL and not any(found in network for network in _NOT_GLOBAL)
    return found.is_global and not found.is_multicast and not any(found in one for one in _INSIDE)


# What is written in one of these stands for an IPv4 address, or for nobody.
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_GLOBAL: Final = ipaddress.IPv6Network("2000::/3")
_NOT_GLOBAL: Final = tuple(
    ipaddress.IPv6Network(one) for one in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
)

# Assigned for protocols, for relays, and the address at which Azure answers its own machines.
_INSIDE: Final = tuple(
    ipaddress.IPv4Network(one) for one in ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32")
)


class _Pinned(AbstractResolver):
    """Knows the addresses of one host, which were checked, and of no other."""

    def __init__(self, host: str, addresses: Sequence[str]) -> None:
        self._host = host
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        if host.rstrip(".") != self._host.rstrip("."):
            raise OSError("no other host was checked")
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in self._addresses
        ]

    async def close(self) -> None:
        """There is nothing to close."""


async def _looked_up(host: str, port: int) -> Sequence[str]:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def _parsed(url: str) -> URL:
    """The address, which has nothing in it that could be read in two ways."""
    if len(url) > _LONGEST or any(ord(letter) <= 32 or ord(letter) == 127 for letter in url):
        raise NotFetched("The address holds spaces or is too long.")
    try:
        parsed = URL(url)
        host, port = parsed.raw_host, parsed.port
    except ValueError:
        raise NotFetched("The address cannot be read. It looks like https://host/file.") from None
    if parsed.scheme not in ("http", "https"):
        raise NotFetched("Only http:// and https:// addresses are fetched.")
    if parsed.raw_user is not None or parsed.raw_password is not None:
        raise NotFetched("The address holds a name or password, which is never sent on.")
    if not host or not port or "%" in host or "\\" in url.partition("?")[0]:
        raise NotFetched("The address names no host that can be asked.")
    if (":" in host or host.replace(".", "").isdigit()) and not _is_ip(host):
        raise NotFetched("The address writes its host's number in a way that is not taken.")
    return parsed.with_fragment(None)


def redirected(url: URL, location: str | None) -> URL:
    """Where an answer from *url* sends us on. Raises `NotFetched` where we do not go."""
    if not location:
        raise NotFetched(f"{url.host} sent us on, and did not say where to.")
    try:
        target = _parsed(str(url.join(URL(location))))
    except NotFetched:
        raise
    except ValueError:
        raise NotFetched(f"{url.host} sent us on to what is no address.") from None
    if url.scheme == "https" and target.scheme == "http":
        raise NotFetched(f"{url.host} sent us on from https to http, which is not safe.")
    return target


def _places(hosts: Iterable[str]) -> tuple[tuple[_Network, ...], tuple[str, ...]]:
    """Networks and names, told apart."""
    networks: list[_Network] = []
    names: list[str] = []
    for one in hosts:
        try:
            networks.append(ipaddress.ip_network(one))
        except ValueError:
            names.append(one.lower())
    return tuple(networks), tuple(names)


def _host(url: str) -> str:
    return _parsed(url).host or ""


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _reason(error: Exception) -> str:
    """What went wrong with a connection, without the address that it went to."""
    match error:
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientConnectorSSLError():
            return "has no certificate that can be trusted"
        case aiohttp.ClientConnectorError():
            return "does not answer"
        case aiohttp.ClientPayloadError():
            return "broke off before the end of the file"
        case _:
            return "does not answer as a web server should"
