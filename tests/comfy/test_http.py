"""Questions to a real server, and what becomes of its answers, good and bad."""

from __future__ import annotations

import asyncio
import ssl
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from comfyserve.comfy.http import Http, Timeouts
from comfyserve.errors import (
    BackendAnswerInvalid,
    BackendError,
    BackendRefused,
    BackendUnreachable,
    ComfyServeError,
    InvalidAddress,
)
from tests.comfy.tiny_server import Handler, TinyServer, cut, hang, stall, tiny_server

QUICK = Timeouts(connect=2.0, answer=0.3, stall=0.3)
SECRETS = ["u-secret", "p-secret", "t-secret", "h-secret"]
CERTIFICATE = Path(__file__).with_name("loopback.pem")


@asynccontextmanager
async def http_to(
    url: str,
    *,
    headers: dict[str, str] | None = None,
    token: str | None = None,
    verify_tls: bool = True,
    timeouts: Timeouts = QUICK,
) -> AsyncIterator[Http]:
    http = Http(url, headers=headers or {}, token=token, verify_tls=verify_tls, timeouts=timeouts)
    await http.open()
    try:
        yield http
    finally:
        await http.close()


@pytest.fixture
async def server() -> AsyncIterator[TinyServer]:
    async with tiny_server() as server:
        yield server


async def test_a_json_object_is_an_answer(server: TinyServer) -> None:
    """A JSON object comes back as it was sent, whatever type and encoding its header claims."""
    body = '{"name": "grüße 猫"}'.encode()
    for claimed in ("application/json", "text/html; charset=latin-1", "text/x; charset=hex"):
        server.on["GET /queue"] = web.Response(body=body, headers={"Content-Type": claimed})
        async with http_to(server.url) as http:
            assert await http.json("GET", "/queue") == {"name": "grüße 猫"}


@pytest.mark.parametrize(
    ("status", "body", "quoted"),
    [
        (200, b"<html>\n  <title>Login</title>", "200 and '<html> <title>Login</title>'"),
        (200, b"[1, 2]", "200 and '[1, 2]'"),
        (200, b"null", "200 and 'null'"),
        (200, b"", "200 and nothing else"),
        (200, b'{"a": ', "200 and"),
        (200, b"[" * 100_000, "200 and '[[["),
        (500, b"500 Internal Server Error", "500 and '500 Internal Server Error'"),
        (502, b"\xff\xfe bad gateway", "502 and"),
        (404, b"", "404 and nothing else"),
        (413, b"too large", "413 and 'too large'"),
        (500, b"x" * 5000, "500 and 'xxx"),
    ],
)
async def test_what_is_no_answer_is_quoted(
    server: TinyServer, status: int, body: bytes, quoted: str
) -> None:
    """An answer that makes no sense is an error that says what was asked and what came back."""
    server.on["GET /queue"] = web.Response(status=status, body=body)

    async with http_to(server.url) as http:
        with pytest.raises(BackendAnswerInvalid) as caught:
            await http.json("GET", "/queue")

    sentence = str(caught.value)
    assert f"GET /queue was answered with {quoted}" in sentence
    assert server.url in sentence
    assert len(sentence) < 500


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (401, "it answers 401; give a token"),
        (407, "it answers 407; give"),
        (403, "it answers 403;"),
    ],
)
async def test_a_closed_door_says_what_opens_it(
    server: TinyServer, status: int, advice: str
) -> None:
    """A server that wants credentials is told apart from one that is broken, with advice."""
    server.on["GET /queue"] = web.Response(status=status, text="go away")

    async with http_to(server.url) as http:
        with pytest.raises(BackendRefused) as caught:
            await http.json("GET", "/queue")

    assert f"will not let us in: {advice}" in str(caught.value)


async def test_a_forbidden_file_is_no_closed_door(server: TinyServer) -> None:
    """`/view` answers 403 for a folder outside, which says nothing of us."""
    server.on["GET /view"] = web.Response(status=403)

    async with http_to(server.url) as http:
        assert await http.ask("GET", "/view") == (403, "")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_told_and_not_followed(server: TinyServer, status: int) -> None:
    """Nothing is sent to where a server points; the error names that address without secrets."""
    async with tiny_server() as other:
        where = f"{other.url}/comfy?key=hidden"
        server.on["POST /prompt"] = web.Response(status=status, headers={"Location": where})
        async with http_to(server.url, headers={"X-Key": "h-secret"}) as http:
            with pytest.raises(BackendRefused) as caught:
                await http.ask("POST", "/prompt", json={})

    assert other.requests == []
    assert f"it sends us on to {other.url}/comfy; use that address" in str(caught.value)
    assert "hidden" not in str(caught.value)


async def test_a_port_where_nobody_listens_refuses() -> None:
    """A refused connection is told as such: the machine is there, the server is not."""
    async with tiny_server() as gone:
        url = gone.url

    async with http_to(url) as http:
        with pytest.raises(BackendUnreachable) as caught:
            await http.json("GET", "/queue")

    assert caught.value.refused
    assert str(caught.value).startswith(
        f"No ComfyUI answers at {url} (the connection was refused). Start it, or name another"
    )


@pytest.mark.parametrize(("handler", "reason"), [(hang, "no answer in time"), (stall, "no answer")])
async def test_a_server_that_hangs_is_left(
    server: TinyServer, handler: Handler, reason: str
) -> None:
    """An answer that never comes, or never ends, is an error when the time is over."""
    server.on["GET /queue"] = handler

    async with asyncio.timeout(5), http_to(server.url) as http:
        with pytest.raises(BackendUnreachable) as caught:
            await http.json("GET", "/queue")

    assert reason in str(caught.value)
    assert not caught.value.refused


async def test_an_answer_that_breaks_off_is_no_answer(server: TinyServer) -> None:
    """Half an answer is an error of the connection, never a short answer."""
    server.on["GET /queue"] = cut

    async with http_to(server.url) as http:
        with pytest.raises(BackendUnreachable):
            await http.ask("GET", "/queue")


@pytest.mark.parametrize(
    "said", [b"", b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 abc\r\n\r\n", b"\0" * 99]
)
async def test_a_server_of_another_kind_is_unreachable(said: bytes) -> None:
    """Whatever does not speak HTTP is told as no ComfyUI, and nothing else leaks out."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(said)
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(speak, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        async with http_to(f"http://127.0.0.1:{port}") as http:
            with pytest.raises(BackendUnreachable):
                await http.json("GET", "/queue")


async def test_being_canceled_is_no_error_of_the_server(server: TinyServer) -> None:
    """Who cancels a question gets the cancellation, not a sentence about the server."""
    arrived = asyncio.Event()

    async def arrive(request: web.Request) -> web.Response:
        arrived.set()
        return await hang(request)

    server.on["GET /queue"] = arrive
    async with http_to(server.url, timeouts=Timeouts()) as http:
        question = asyncio.create_task(http.ask("GET", "/queue"))
        async with asyncio.timeout(5):
            await arrived.wait()

        question.cancel()

        with pytest.raises(asyncio.CancelledError):
            await question


@pytest.mark.parametrize(
    ("written", "prefix"),
    [
        ("", ""),
        ("/", ""),
        ("//", ""),
        ("/comfy", "/comfy"),
        ("/a/b%20c/", "/a/b%20c"),
        ("/my comfy", "/my%20comfy"),
        ("/comfy?key=1#top", "/comfy"),
    ],
)
async def test_a_path_prefix_is_kept(server: TinyServer, written: str, prefix: str) -> None:
    """Every question goes below the path of the address; its query and fragment are dropped."""
    async with http_to(server.url + written) as http:
        await http.ask("GET", "/view", params={"filename": "a b&c+é.png"})

        assert http.url == f"{server.url}{prefix}"
        assert http.at("/ws") == f"{server.url}{prefix}/ws"
    assert server.requests[-1].raw_path.startswith(f"{prefix}/view?")
    assert server.requests[-1].query == {"filename": "a b&c+é.png"}


async def test_an_address_may_leave_out_http(server: TinyServer) -> None:
    """`host:port` is as good as `http://host:port`."""
    async with http_to(server.url.removeprefix("http://")) as http:
        assert http.url == server.url
        assert (await http.ask("GET", "/"))[0] == 404


@pytest.mark.parametrize(
    "url",
    ["", "ftp://host", "http://", "http://h:99999", "http://[::1", "file:///etc", "://"],
)
def test_an_address_that_is_none_is_told_at_once(url: str) -> None:
    """What can never be asked is an error before anything is opened."""
    with pytest.raises(InvalidAddress, match="cannot be used as a server's address"):
        Http(url, headers={}, token=None, verify_tls=True, timeouts=QUICK)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://u-secret:p-secret@host",
        "http://u-secret:p-secret@host:99999/?key=h-secret",
        "u-secret:p-secret@host:99999",
        "ftp://host/?key=t-secret",
    ],
)
def test_a_wrong_address_is_told_without_its_secrets(url: str) -> None:
    """An address that cannot be used is quoted without user, password, query and fragment."""
    with pytest.raises(InvalidAddress) as caught:
        Http(url, headers={}, token=None, verify_tls=True, timeouts=QUICK)

    assert_no_secret(caught.value)


@pytest.mark.parametrize(
    ("user", "headers", "token", "sent"),
    [
        ("", {}, None, None),
        ("", {}, "abc", "Bearer abc"),
        ("", {}, "abc\n", "Bearer abc"),
        ("u:p%40w@", {}, None, "Basic dTpwQHc="),
        ("u@", {}, None, "Basic dTo="),
        (":p@", {}, None, "Basic OnA="),
        ("u:猫@", {}, None, "Basic dTrnjKs="),
        ("u:p@", {}, "abc", "Bearer abc"),
        ("u:p@", {"authorization": "Mine x"}, None, "Mine x"),
        ("", {"AUTHORIZATION": "Mine x"}, "abc", "Bearer abc"),
    ],
)
async def test_credentials_are_sent_once(
    server: TinyServer, user: str, headers: dict[str, str], token: str | None, sent: str | None
) -> None:
    """A token goes before a header of one's own, and that before a user in the address."""
    url = server.url.replace("://", f"://{user}")

    async with http_to(url, headers={**headers, "X-Own": "ä"}, token=token) as http:
        await http.ask("GET", "/queue")
        assert http.url == server.url

    [seen] = server.requests
    assert seen.headers.get("Authorization") == sent
    assert seen.headers["X-Own"] == "ä"


@pytest.mark.parametrize("headers", [{"X-Key": "a\r\nb"}, {"X\n": "a"}, {"": "a"}, {"X": "\0"}])
def test_a_header_that_cannot_be_sent_is_told_at_once(headers: dict[str, str]) -> None:
    """A header with a line end is an error of ours that names it, but not what it holds."""
    with pytest.raises(InvalidAddress, match="holds a character that no header may hold"):
        Http("http://host", headers=headers, token=None, verify_tls=True, timeouts=QUICK)


async def echo(request: web.Request) -> web.Response:
    """Repeat all that was sent, as a debugging proxy does."""
    return web.Response(status=500, text=f"{request.url} {dict(request.headers)}")


FAILURES: dict[str, Handler | web.Response] = {
    "text": web.Response(text="hello"),
    "500": web.Response(status=500, text="oops"),
    "401": web.Response(status=401),
    "403": web.Response(status=403),
    "redirect": web.Response(status=302, headers={"Location": "//u-secret:p-secret@h/?k=t-secret"}),
    "echo": echo,
    "hang": hang,
    "stall": stall,
    "cut": cut,
}


@pytest.mark.parametrize("failure", [*FAILURES, "refused"])
async def test_credentials_appear_in_no_error(failure: str) -> None:
    """Whatever goes wrong, no user, password, token or header is in any text that comes of it."""
    async with tiny_server() as server:
        if failure != "refused":
            server.on["GET /queue"] = FAILURES[failure]
            await complain(server.url)
    if failure == "refused":
        await complain(server.url)


async def complain(url: str) -> None:
    """Ask with every kind of credential, and look for them in the error that comes back."""
    for user, token in (("", "t-secret"), ("u-secret:p-secret@", None)):
        address = url.replace("://", f"://{user}")
        async with http_to(address, headers={"X-Key": "h-secret"}, token=token) as http:
            with pytest.raises(BackendError) as caught:
                await http.json("GET", "/queue")

            assert_no_secret(caught.value)
            assert not any(secret in repr(http) + http.url for secret in SECRETS)


def assert_no_secret(error: ComfyServeError) -> None:
    texts = [str(error), repr(error), repr(vars(error)), *traceback.format_exception(error)]
    # The frames show this test's own lines, which name the secrets.
    told = [text for text in texts if not text.lstrip().startswith("File ")]
    assert not any(secret in text for text in told for secret in [*SECRETS, "dS1zZWNyZXQ"])


async def test_a_certificate_is_checked_unless_told_not_to() -> None:
    """A certificate nobody vouches for closes the door; `verify_tls=False` opens it."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(CERTIFICATE)
    async with tiny_server(tls) as server:
        server.on["GET /queue"] = web.json_response({"ok": True})
        async with http_to(server.url, verify_tls=False) as http:
            assert await http.json("GET", "/queue") == {"ok": True}
        async with http_to(server.url) as http:
            with pytest.raises(BackendUnreachable, match="certificate"):
                await http.json("GET", "/queue")
