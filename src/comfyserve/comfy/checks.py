"""One check each of what jobs need from a ComfyUI that answers."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import aiohttp

from comfyserve.comfy.answers import SILENT, Answer, ask
from comfyserve.comfy.backend import UPLOAD_FOLDER
from comfyserve.comfy.findings import Finding, Topic
from comfyserve.comfy.http import Http
from comfyserve.comfy.records import read_queue
from comfyserve.workflows.node_catalog import NodeCatalog

SLOW: Final = 1.0
"""Seconds that a small answer may take."""

SLOW_NODES: Final = 8.0
"""Seconds that the list of all nodes may take."""

OPENS_WITHIN: Final = 5.0
"""Seconds until its WebSocket has to be open and greet us."""

LITTLE_MEMORY: Final = 1 << 30
"""Free bytes below which a model is not likely to fit."""

PROBE: Final = "comfyserve-doctor.txt"
_CLOSES_WITHIN: Final = aiohttp.ClientWSTimeout(ws_close=1.0)
_PROBE_CONTENT: Final = b"comfyserve doctor sends this file to see whether uploads work.\n"


def version(url: str, stats: Mapping[str, Any], seconds: float) -> Finding:
    """Who answers, and how quickly."""
    system = _mapping(stats.get("system"))
    engine = _words(system.get("engine"))
    number = _words(system.get("comfyui_version")) or "of an unknown version"
    who = f"ComfyUI {number}" + (f" ({engine})" if engine else "")
    message = f"{who} answers at {url} in {seconds * 1000:.0f} ms."
    if seconds > SLOW:
        advice = "Is it busy, or the way to it long? Jobs work, progress will lag."
        return Finding("warn", "speed", message, advice)
    return Finding("ok", "version", message)


async def jobs_api(http: Http) -> Finding:
    """Whether it has the jobs API of newer servers; comfyserve does with or without it."""
    answer = await _asked(http, "GET", "/api/jobs", params={"limit": "1"})
    document = answer.document if isinstance(answer, Answer) else None
    if isinstance(answer, Answer) and answer.status == 200 and "jobs" in (document or {}):
        return Finding("ok", "jobs_api", "It has the jobs API (/api/jobs).")
    message = "It has no jobs API (/api/jobs); its queue and history are used instead."
    return Finding("ok", "jobs_api", message)


async def queue(http: Http) -> Finding:
    """Whether its queue can be read, and how long it is."""
    answer = await _asked(http, "GET", "/queue")
    if isinstance(answer, Finding):
        return answer
    state = read_queue(answer.document) if answer.status == 200 else None
    if state is None:
        return _broken("queue", "GET /queue", answer)
    counts = f"{len(state.running)} running, {len(state.pending)} waiting"
    return Finding("ok", "queue", f"Its queue can be read: {counts}.")


async def nodes(http: Http) -> tuple[NodeCatalog | None, Finding]:
    """Its node catalogue, and whether it came in time."""
    answer = await _asked(http, "GET", "/object_info")
    if isinstance(answer, Finding):
        return None, answer
    document = answer.document if answer.status == 200 else None
    if not document:
        return None, _broken("nodes", "GET /object_info", answer)
    catalog = NodeCatalog.from_json(document)
    size = f"{len(answer.text) / 2**20:.2g} MiB"
    message = (
        f"It has {len(catalog.classes)} kinds of nodes, {size} told in {answer.seconds:.2f} s."
    )
    if answer.seconds > SLOW_NODES:
        advice = "Jobs wait for it once: fewer packs of nodes, or a faster way, would help."
        return catalog, Finding("warn", "speed", message, advice)
    return catalog, Finding("ok", "nodes", message)


async def submit(http: Http) -> Finding:
    """Whether a graph gets through to it: an empty one, which it must refuse."""
    answer = await _asked(http, "POST", "/prompt", json={"prompt": {}})
    if isinstance(answer, Finding):
        return answer
    if answer.status == 400 and "error" in (answer.document or {}):
        return Finding("ok", "submit", "It takes graphs (an empty one came back refused).")
    return _broken("submit", "POST /prompt", answer)


async def socket(http: Http, *, opens_within: float = OPENS_WITHIN) -> Finding:
    """Whether its WebSocket opens and greets us."""
    address = f"{http.at('/ws')}?clientId={uuid.uuid4().hex}"
    try:
        async with (
            asyncio.timeout(opens_within),
            http.session.ws_connect(
                address, headers=http.headers, timeout=_CLOSES_WITHIN
            ) as opened,
        ):
            greeting = await opened.receive()
    except aiohttp.WSServerHandshakeError as error:
        return _no_socket(f"the upgrade is answered with status {error.status}")
    except TimeoutError:
        return _no_socket("it opens, or seems to, and then stays silent")
    except SILENT as error:
        return _no_socket(str(error) or type(error).__name__)
    if greeting.type is not aiohttp.WSMsgType.TEXT:
        return _no_socket("it is closed as soon as it opens")
    return Finding("ok", "socket", "Its WebSocket opens: progress and previews arrive live.")


async def uploads(http: Http) -> Finding:
    """Whether a file can be sent there and read again."""
    form = aiohttp.FormData(quote_fields=False)
    form.add_field("image", _PROBE_CONTENT, filename=PROBE, content_type="text/plain")
    for name, value in (("subfolder", UPLOAD_FOLDER), ("type", "input"), ("overwrite", "true")):
        form.add_field(name, value)
    answer = await _asked(http, "POST", "/upload/image", data=form)
    if isinstance(answer, Finding):
        return answer
    if answer.status == 413:
        message = "A proxy in front of it takes no uploads (status 413)."
        return Finding("problem", "uploads", message, "Raise its limit on the size of requests.")
    if answer.status != 200 or (answer.document or {}).get("name") != PROBE:
        return _broken("uploads", "POST /upload/image", answer, _FULL_DISK)
    place = {"filename": PROBE, "subfolder": UPLOAD_FOLDER, "type": "input"}
    back = await _asked(http, "GET", "/view", params=place)
    if isinstance(back, Finding):
        return back
    if back.status != 200 or back.text.encode() != _PROBE_CONTENT:
        return _broken("uploads", "GET /view", back, _FULL_DISK)
    limit = await _upload_limit(http)
    return Finding("ok", "uploads", f"Files can be sent there and read again{limit}.")


async def missing_files(http: Http, names: Iterable[str]) -> frozenset[str]:
    """Which of these files, named as nodes name them, the server does not have."""
    missing: list[str] = []
    for name in dict.fromkeys(names):
        match = re.fullmatch(r"(.*?)\s*\[(input|output|temp)\]", name, re.S)
        path, folder = (match[1], match[2]) if match else (name, "input")
        subfolder, _, filename = path.replace("\\", "/").rpartition("/")
        place = {"filename": filename, "subfolder": subfolder, "type": folder}
        answer = await _asked(http, "HEAD", "/view", params=place)
        if isinstance(answer, Finding):
            break
        if answer.status != 200:
            missing.append(name)
    return frozenset(missing)


def previews(stats: Mapping[str, Any]) -> Iterator[Finding]:
    """Whether it was started with pictures of each step; it tells only how it was started."""
    argv = _mapping(stats.get("system")).get("argv")
    words = [word for word in argv if isinstance(word, str)] if isinstance(argv, list) else []
    if words and not any(word.startswith("--preview-method") for word in words):
        message = "It was started without --preview-method, so it may show no previews."
        yield Finding("ok", "previews", message, "Start it with --preview-method auto to see them.")


def memory(stats: Mapping[str, Any]) -> Iterator[Finding]:
    """How much memory is free, of the machine and of each device that computes."""
    system = _mapping(stats.get("system"))
    yield from _memory_of("The machine", system.get("ram_free"), system.get("ram_total"))
    devices = stats.get("devices")
    for device in devices if isinstance(devices, list) else []:
        told = _mapping(device)
        name = _words(told.get("name")) or "a device without a name"
        if told.get("type") == "cpu":
            yield Finding("ok", "memory", f"It computes on the processor ({name}).")
        else:
            yield from _memory_of(name, told.get("vram_free"), told.get("vram_total"))


def _memory_of(whose: str, free: object, total: object) -> Iterator[Finding]:
    if not isinstance(free, int | float) or not isinstance(total, int | float) or total <= 0:
        return
    message = f"{whose} has {free / 2**30:.1f} of {total / 2**30:.1f} GiB memory free."
    if free < LITTLE_MEMORY:
        advice = "Large models may not fit: end what else uses it, or let ComfyUI free its own."
        yield Finding("warn", "memory", message, advice)
    else:
        yield Finding("ok", "memory", message)


async def _asked(http: Http, method: str, path: str, **options: Any) -> Answer | Finding:
    """The answer, or the finding that there is none."""
    try:
        return await ask(http, method, http.at(path), **options)
    except SILENT as error:
        reason = "no answer in time" if isinstance(error, TimeoutError) else str(error)
        message = f"{method} {path} fails: {reason or type(error).__name__}."
        return Finding("problem", _TOPICS.get(path, "address"), message, _LOOK_AT_CONSOLE)


_TOPICS: Final[Mapping[str, Topic]] = {
    "/api/jobs": "jobs_api",
    "/queue": "queue",
    "/object_info": "nodes",
    "/prompt": "submit",
    "/upload/image": "uploads",
    "/view": "uploads",
}
_LOOK_AT_CONSOLE: Final = "Look at what ComfyUI and the proxy in front of it print."
_FULL_DISK: Final = "Is its disk full, or its input folder not writable? ComfyUI's console tells."


def _broken(topic: Topic, question: str, answer: Answer, advice: str = _LOOK_AT_CONSOLE) -> Finding:
    """The server answers, but not as ComfyUI would."""
    if answer.status == 403:
        message = f"{question} is forbidden (status 403), though other questions are answered."
        advice = "A proxy, or ComfyUI's check of Host and Origin, is in the way: let it pass there."
        return Finding("problem", topic, message, advice)
    if answer.status in (401, 407):
        message = f"{question} wants credentials of its own (status {answer.status})."
        return Finding("problem", topic, message, "Let the proxy pass it with the same ones.")
    if answer.status == 200:
        message = f"{question} is answered, but not as ComfyUI would."
    else:
        message = f"{question} is answered with status {answer.status}."
    return Finding("problem", topic, message, advice)


def _no_socket(reason: str) -> Finding:
    message = f"Its WebSocket (/ws) cannot be used: {reason.rstrip('.')}."
    advice = (
        "Jobs still end right, but without live progress and previews. Let the proxy pass "
        "the upgrade on: in nginx proxy_http_version 1.1, and the headers Upgrade and Connection."
    )
    return Finding("warn", "socket", message, advice)


async def _upload_limit(http: Http) -> str:
    answer = await _asked(http, "GET", "/features")
    document = answer.document if isinstance(answer, Answer) else None
    limit = (document or {}).get("max_upload_size")
    return f", up to {limit / 2**20:.0f} MiB each" if isinstance(limit, int) else ""


def _mapping(value: object) -> Mapping[Any, Any]:
    return value if isinstance(value, Mapping) else {}


def _words(value: object) -> str:
    return value if isinstance(value, str) else ""
