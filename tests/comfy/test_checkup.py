"""A checkup against real servers, each with a trouble of its own."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from comfyserve.comfy import checks
from comfyserve.comfy.checkup import Checkup, examine
from comfyserve.comfy.diagnosis import silence
from comfyserve.comfy.findings import Finding, any_problem
from comfyserve.comfy.http import Http, Timeouts
from tests.comfy.tiny_server import Handler, TinyServer, hang, tiny_server

QUICK = Timeouts(connect=2.0, answer=2.0)
CERTIFICATE = Path(__file__).with_name("loopback.pem")
STATS: dict[str, Any] = {
    "system": {
        "comfyui_version": "0.3.64",
        "ram_free": 8 << 30,
        "ram_total": 16 << 30,
        "argv": ["main.py", "--preview-method", "auto"],
    },
    "devices": [
        {"name": "cuda:0 Card", "type": "cuda", "vram_free": 20 << 30, "vram_total": 24 << 30}
    ],
}
REFUSED_GRAPH = {"error": {"type": "prompt_no_outputs", "message": "no"}, "node_errors": {}}
DICE = {"Dice": {"input": {"required": {}}, "output_node": True}}


def comfyui(prefix: str = "") -> dict[str, Handler | web.Response]:
    """The answers of a healthy server whose routes begin at *prefix*."""
    return {
        f"GET {prefix}/system_stats": web.json_response(STATS),
        f"GET {prefix}/api/jobs": web.json_response({"jobs": [], "pagination": {}}),
        f"GET {prefix}/queue": web.json_response({"queue_running": [], "queue_pending": []}),
        f"GET {prefix}/object_info": web.json_response(DICE),
        f"GET {prefix}/features": web.json_response({"max_upload_size": 100 << 20}),
        f"POST {prefix}/prompt": web.json_response(REFUSED_GRAPH, status=400),
    }


@pytest.fixture
async def server() -> AsyncIterator[TinyServer]:
    async with tiny_server() as server:
        server.on.update(comfyui())
        yield server


@asynccontextmanager
async def http_to(
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    token: str | None = None,
    timeouts: Timeouts = QUICK,
) -> AsyncIterator[Http]:
    http = Http(url, headers=headers or {}, token=token, verify_tls=True, timeouts=timeouts)
    await http.open()
    try:
        yield http
    finally:
        await http.close()


async def checkup_of(
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    token: str | None = None,
    timeouts: Timeouts = QUICK,
) -> Checkup:
    async with http_to(url, headers=headers, token=token, timeouts=timeouts) as http:
        return await examine(http)


async def only_finding(
    url: str, *, headers: Mapping[str, str] | None = None, token: str | None = None
) -> Finding:
    """The one finding about a server that answers, but not as ComfyUI does."""
    checkup = await checkup_of(url, headers=headers, token=token)
    assert checkup.answers
    assert checkup.catalog is None
    (finding,) = checkup.findings
    assert finding.mark == "problem"
    return finding


def about(checkup: Checkup, topic: str) -> Finding:
    """The finding about that topic which is not well, or the first that is."""
    found = [finding for finding in checkup.findings if finding.topic == topic]
    return next((finding for finding in found if finding.mark != "ok"), found[0])


async def test_a_healthy_server_is_well_in_everything(server: TinyServer) -> None:
    """Each thing that jobs need is told as well, and the catalogue comes along."""
    checkup = await checkup_of(server.url)

    assert {finding.mark for finding in checkup.findings} == {"ok"}
    assert checkup.catalog is not None
    assert "Dice" in checkup.catalog
    assert "0.3.64" in about(checkup, "version").message
    assert "/api/jobs" in about(checkup, "jobs_api").message
    assert "100 MiB" in about(checkup, "uploads").message
    assert not any_problem(checkup.findings)


async def test_nothing_is_queued(server: TinyServer) -> None:
    """The only graph that is sent is an empty one, and the only file a small one of ours."""
    await checkup_of(server.url)

    (sent,) = server.asked("POST /prompt")
    assert sent.json == {"prompt": {}}
    assert list(server.files) == [("input", "comfyserve", checks.PROBE)]


async def test_an_older_server_is_as_good(server: TinyServer) -> None:
    """Without the jobs API and without features a server is well; that is said."""
    del server.on["GET /api/jobs"], server.on["GET /features"]

    checkup = await checkup_of(server.url)

    assert "no jobs API" in about(checkup, "jobs_api").message
    assert {finding.mark for finding in checkup.findings} == {"ok"}


@pytest.mark.parametrize("status", [401, 407])
async def test_a_locked_door_asks_for_a_key(server: TinyServer, status: int) -> None:
    """Without credentials the advice is to give some; with wrong ones, to check them."""
    server.on["GET /system_stats"] = web.Response(
        status=status, headers={"WWW-Authenticate": 'Basic realm="comfy"'}
    )

    without = await only_finding(server.url)
    wrong = await only_finding(server.url, token="t-secret")

    assert without.topic == wrong.topic == "admission"
    assert "--token" in without.advice
    assert "Basic" in without.message
    assert "does not accept" in wrong.message
    assert "t-secret" not in f"{wrong}"


async def test_a_host_name_that_is_not_allowed(server: TinyServer) -> None:
    """Where only another host name opens the door, the name is what is told."""

    async def picky(request: web.Request) -> web.Response:
        known = request.headers["Host"] == "localhost"
        return web.json_response(STATS) if known else web.Response(status=403)

    server.on["GET /system_stats"] = picky

    finding = await only_finding(server.url)

    assert finding.topic == "admission"
    assert "'127.0.0.1'" in finding.message
    assert "host name" in finding.advice


async def test_an_origin_that_is_not_allowed(server: TinyServer) -> None:
    """A header Origin of ours that closes the door is named as the cause."""

    async def picky(request: web.Request) -> web.Response:
        foreign = "Origin" in request.headers
        return web.Response(status=403) if foreign else web.json_response(STATS)

    server.on["GET /system_stats"] = picky

    finding = await only_finding(server.url, headers={"Origin": "http://elsewhere.example"})

    assert "Origin" in finding.message
    assert "--enable-cors-header" in finding.advice


async def test_an_origin_that_is_wanted(server: TinyServer) -> None:
    """A door that opens to the server's own pages alone tells which header to give."""

    async def picky(request: web.Request) -> web.Response:
        own = request.headers.get("Origin") == server.url
        return web.json_response(STATS) if own else web.Response(status=403)

    server.on["GET /system_stats"] = picky

    finding = await only_finding(server.url)

    assert f"Origin:{server.url}" in finding.advice


async def test_a_proxy_that_forbids_everything_is_named(server: TinyServer) -> None:
    """Where no header helps, whoever says no is named by its own word."""
    server.on["GET /system_stats"] = web.Response(status=403, headers={"Server": "cloudwall"})

    finding = await only_finding(server.url)

    assert finding.topic == "admission"
    assert "'cloudwall'" in finding.message


async def test_a_redirect_names_the_address_to_use(server: TinyServer) -> None:
    """A redirect of the same question is an address to use instead, without what is secret."""
    server.on["GET /system_stats"] = web.Response(
        status=301, headers={"Location": "https://u:p@gpu.example/comfy/system_stats?key=s3cret"}
    )

    finding = await only_finding(server.url)

    assert finding.advice == "Use https://gpu.example/comfy as the address."
    assert "s3cret" not in f"{finding}"
    assert "u:p" not in f"{finding}"


async def test_a_redirect_to_a_page_to_sign_in(server: TinyServer) -> None:
    """A redirect to anything else is taken for a page to sign in at."""
    server.on["GET /system_stats"] = web.Response(status=302, headers={"Location": "/login"})

    finding = await only_finding(server.url)

    assert finding.topic == "admission"
    assert f"{server.url}/login" in finding.message
    assert "--token" in finding.advice


@pytest.mark.parametrize(
    ("given", "prefix"), [("", "/comfy"), ("/comfy/ui/index", "/comfy"), ("/some/path", "")]
)
async def test_a_path_that_is_missing_or_too_much(given: str, prefix: str) -> None:
    """Where ComfyUI's routes begin elsewhere on the same server, that address is told."""
    async with tiny_server() as server:
        server.on.update(comfyui(prefix))

        finding = await only_finding(f"{server.url}{given}")

        right = f"{server.url}{prefix or '/'}"
        assert finding.topic == "address"
        assert finding.advice == f"Use {right} as the address."


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (web.Response(text="<html><title>My &amp; Router</title>"), "the page 'My & Router'"),
        (web.Response(text="<p>hello"), "with a page"),
        (web.json_response({"models": []}), "other JSON, about models"),
        (web.Response(text="OK"), "'OK'"),
        (web.Response(status=404), "nothing at /system_stats"),
        (web.Response(status=502, text="<title>502"), "no ComfyUI behind it"),
        (web.Response(status=429), "too often"),
    ],
)
async def test_something_else_is_told_by_what_it_says(
    server: TinyServer, answer: web.Response, said: str
) -> None:
    """What is no ComfyUI is told in the words that it uses itself."""
    server.on["GET /system_stats"] = answer

    finding = await only_finding(server.url)

    assert said in finding.message
    assert finding.advice


async def test_a_proxy_that_does_not_pass_the_socket_on(server: TinyServer) -> None:
    """Without WebSocket jobs still run, so it is a warning, with what to do at the proxy."""
    server.on["GET /ws"] = web.Response(status=400)

    checkup = await checkup_of(server.url)

    finding = about(checkup, "socket")
    assert finding.mark == "warn"
    assert "status 400" in finding.message
    assert "Upgrade" in finding.advice
    assert not any_problem(checkup.findings)


async def test_a_socket_that_stays_silent(server: TinyServer) -> None:
    """A socket that opens and never greets is as good as none."""

    async def mute(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        server.sockets.append(socket)
        async for _ in socket:
            pass
        return socket

    server.on["GET /ws"] = mute
    async with http_to(server.url) as http:
        finding = await checks.socket(http, opens_within=0.3)

    assert finding.mark == "warn"
    assert "silent" in finding.message


@pytest.mark.parametrize(
    ("what", "answer", "said", "advice"),
    [
        ("POST /upload/image", web.Response(status=413), "413", "limit"),
        ("POST /upload/image", web.Response(status=500), "status 500", "disk"),
        ("GET /view", web.Response(text="other"), "not as ComfyUI would", "disk"),
    ],
)
async def test_uploads_that_fail(
    server: TinyServer, what: str, answer: web.Response, said: str, advice: str
) -> None:
    """A file that cannot be sent or read again is a problem with a cause to look at."""
    server.on[what] = answer

    finding = about(await checkup_of(server.url), "uploads")

    assert finding.mark == "problem"
    assert said in finding.message
    assert advice in finding.advice


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (web.Response(status=403), "forbidden"),
        (web.Response(status=401), "credentials of its own"),
        (web.Response(text="<html>"), "not as ComfyUI would"),
        (web.Response(status=500), "status 500"),
    ],
)
async def test_a_server_that_only_lets_us_look(
    server: TinyServer, answer: web.Response, said: str
) -> None:
    """A graph that does not get through is a problem, whatever else is answered."""
    server.on["POST /prompt"] = answer

    finding = about(await checkup_of(server.url), "submit")

    assert finding.mark == "problem"
    assert said in finding.message


@pytest.mark.parametrize("what", ["GET /queue", "GET /object_info"])
async def test_a_part_that_is_broken_does_not_hide_the_rest(server: TinyServer, what: str) -> None:
    """One question that fails is one problem; the others are still asked."""
    server.on[what] = web.Response(status=500)

    checkup = await checkup_of(server.url)

    assert [f.mark for f in checkup.findings].count("problem") == 1
    assert about(checkup, "uploads").mark == "ok"


async def test_little_memory_is_a_warning(server: TinyServer) -> None:
    """Free memory below a gigabyte is worth a word; so is how previews are set."""
    card = {**STATS["devices"][0], "vram_free": 300 << 20}
    system = {**STATS["system"], "argv": ["main.py"]}
    server.on["GET /system_stats"] = web.json_response({"system": system, "devices": [card]})

    checkup = await checkup_of(server.url)

    finding = about(checkup, "memory")
    assert finding.mark == "warn"
    assert "cuda:0 Card has 0.3 of 24.0 GiB" in finding.message
    assert "--preview-method auto" in about(checkup, "previews").advice


@pytest.mark.parametrize("stats", [{"devices": None}, {"devices": [7, {}]}, {"system": {"a": 1}}])
async def test_odd_facts_are_passed_over(server: TinyServer, stats: dict[str, Any]) -> None:
    """A server that tells little or strange things of itself is examined all the same."""
    server.on["GET /system_stats"] = web.json_response({"system": {"os": "x"}, **stats})

    checkup = await checkup_of(server.url)

    assert "unknown version" in about(checkup, "version").message
    assert not any_problem(checkup.findings)


async def test_nobody_there() -> None:
    """A port where nothing listens is told as such, with how to start something."""
    async with tiny_server() as server:
        url = server.url

    checkup = await checkup_of(url)

    assert not checkup.answers
    assert "refused" in checkup.findings[0].message
    assert "comfyserve engine" in checkup.findings[0].advice


async def test_somebody_who_never_answers(server: TinyServer) -> None:
    """A server that takes the connection and stays silent is told apart from one that is away."""
    server.on["GET /system_stats"] = hang

    checkup = await checkup_of(server.url, timeouts=Timeouts(connect=2.0, answer=0.3))

    assert not checkup.answers
    assert "says nothing" in checkup.findings[0].message


async def test_tls_where_there_is_none(server: TinyServer) -> None:
    """https:// to a plain server says to use http://."""
    checkup = await checkup_of(server.url.replace("http://", "https://"))

    assert not checkup.answers
    assert f"use {server.url}" in checkup.findings[0].advice


async def test_a_certificate_nobody_vouches_for() -> None:
    """An unknown certificate is told as one, with both ways out."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(CERTIFICATE)
    async with tiny_server(tls) as server:
        checkup = await checkup_of(server.url)

    assert not checkup.answers
    assert "certificate" in checkup.findings[0].message
    assert "--insecure-tls" in checkup.findings[0].advice


@pytest.mark.parametrize(
    ("words", "said"), [(b"SSH-2.0-sshd\r\n", "does not speak HTTP"), (b"", "hangs up")]
)
async def test_something_that_is_no_web_server(words: bytes, said: str) -> None:
    """A port of another kind of program is told from what it does."""

    async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(words)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    listening = await asyncio.start_server(other, "127.0.0.1", 0)
    async with listening:
        port = listening.sockets[0].getsockname()[1]
        checkup = await checkup_of(f"http://127.0.0.1:{port}")

    assert not checkup.answers
    assert said in checkup.findings[0].message


def test_a_name_that_nobody_has() -> None:
    """A machine that cannot be found by its name is told by that name."""
    key = aiohttp.client_reqrep.ConnectionKey("gpu-box", 80, False, True, None, None, None)
    error = aiohttp.ClientConnectorDNSError(key, OSError("no such name"))

    finding = silence(URL("http://gpu-box"), error)

    assert "'gpu-box'" in finding.message
    assert "spelling" in finding.advice


async def test_files_that_are_not_there(server: TinyServer) -> None:
    """Files are looked for where their names say: folders and kinds included."""
    server.files[("input", "sub", "a b.png")] = b"x"
    server.files[("output", "", "c.png")] = b"x"

    async with http_to(server.url) as http:
        missing = await checks.missing_files(
            http, ["sub/a b.png", "sub\\a b.png", "c.png [output]", "c.png", "ü.png"]
        )

    assert missing == {"c.png", "ü.png"}
