"""A checkup of one ComfyUI server: what works there, what does not, and what to do about it.

Nothing is queued. One small file is sent to the server's input folder, always the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from yarl import URL

from comfyserve.comfy import checks
from comfyserve.comfy.answers import SILENT, Answer, ask
from comfyserve.comfy.diagnosis import FIRST_QUESTION, diagnose, silence
from comfyserve.comfy.findings import Finding
from comfyserve.comfy.http import Http, Timeouts
from comfyserve.workflows.node_catalog import NodeCatalog

PATIENCE: Final = Timeouts(connect=5.0, answer=15.0)
"""How long a checkup waits; a server with many nodes takes seconds to list them."""


@dataclass(frozen=True, slots=True)
class Checkup:
    """What was found at *url*; *answers* is False when nobody answers there at all.

    *catalog* is the server's node catalogue, if it could be had.
    """

    url: str
    answers: bool
    findings: tuple[Finding, ...]
    catalog: NodeCatalog | None = None


async def examine(http: Http) -> Checkup:
    """Check the server behind an open session; every question has its deadline."""
    url = URL(http.url)
    try:
        first = await ask(http, "GET", http.at(FIRST_QUESTION))
    except SILENT as error:
        return Checkup(http.url, False, (silence(url, error),))
    wrong = diagnose(url, first, gave_credentials=bool(http.headers))
    if wrong is not None:
        return Checkup(http.url, True, (await _looked_into(http, first, wrong),))
    return await _of_comfyui(http, first)


async def _of_comfyui(http: Http, first: Answer) -> Checkup:
    stats = first.document or {}
    jobs_api, queue = await checks.jobs_api(http), await checks.queue(http)
    catalog, nodes = await checks.nodes(http)
    findings = (
        checks.version(http.url, stats, first.seconds),
        jobs_api,
        queue,
        nodes,
        await checks.submit(http),
        await checks.socket(http),
        await checks.uploads(http),
        *checks.previews(stats),
        *checks.memory(stats),
    )
    return Checkup(http.url, True, findings, catalog)


async def _looked_into(http: Http, first: Answer, wrong: Finding) -> Finding:
    """A better finding than *wrong*, where another question can tell the cause."""
    if first.status == 403:
        return await _host_or_origin(http) or wrong
    is_elsewhere = wrong.topic == "address" and not 300 <= first.status < 400
    if not is_elsewhere or first.status >= 500:
        return wrong
    for base in _other_bases(URL(http.url)):
        try:
            answer = await ask(http, "GET", str(base).rstrip("/") + FIRST_QUESTION)
        except SILENT:
            return wrong
        if answer.is_comfyui:
            message = f"ComfyUI does not begin at {http.url}, but at {base}."
            return Finding("problem", "address", message, f"Use {base} as the address.")
    return wrong


def _other_bases(url: URL) -> Iterator[URL]:
    """Where the routes may begin instead: above the path that was given, or below it."""
    parts = [part for part in url.path.split("/") if part]
    for count in range(len(parts) - 1, max(-1, len(parts) - 4), -1):
        yield url.with_path("/" + "/".join(parts[:count]))
    for below in ("comfy", "comfyui"):
        yield url / below


async def _host_or_origin(http: Http) -> Finding | None:
    """Whether the name we call the server by, or the page we claim to come from, is in the way."""
    for header, value, message, advice in _admissions(URL(http.url)):
        try:
            answer = await ask(http, "GET", http.at(FIRST_QUESTION), headers={header: value})
        except SILENT:
            return None
        if answer.is_comfyui:
            return Finding("problem", "admission", message, advice)
    return None


def _admissions(url: URL) -> Iterator[tuple[str, str | None, str, str]]:
    """Headers that may open a closed door; what it means if they do; and what to do then."""
    yield (
        "Origin",
        None,
        f"{url} refuses the Origin header that goes along (status 403).",
        "Leave it out, or start ComfyUI with --enable-cors-header ORIGIN.",
    )
    yield (
        "Host",
        "localhost",
        f"{url} refuses callers that name it {url.host!r}; it would answer to 'localhost'.",
        f"Allow the host name {url.host!r} there, or use the name that it allows.",
    )
    origin = str(url.origin())
    yield (
        "Origin",
        origin,
        f"{url} lets only callers in that say which page they come from (status 403).",
        f"Give --header 'Origin:{origin}'.",
    )
