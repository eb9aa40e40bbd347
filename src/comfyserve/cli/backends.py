"""`comfyserve backends`: the ComfyUIs behind a running server, and changes of them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal

from comfyserve.cli.job_table import age
from comfyserve.cli.progress_words import printable
from comfyserve.cli.target import Target, say
from comfyserve.client.api import Api
from comfyserve.client.hosted import Hosted
from comfyserve.client.servers import open_server
from comfyserve.comfy.http import Timeouts
from comfyserve.denials import BackendNotFound
from comfyserve.errors import NoComfyserve

Change = Literal["drain", "resume", "remove"]

_HEADS: Final = ("BACKEND", "STATE", "SINCE", "RUNNING", "WAITING", "NODES", "ADDRESS")


@dataclass(frozen=True, slots=True)
class NewBackend:
    """A backend to add: its address, what opens its door, and whether it must answer at once."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    token: str | None = None
    verify_tls: bool = True
    must_answer: bool = False


async def list_backends(target: Target, *, as_json: bool = False) -> None:
    """Print a line for every backend of the server, and why those are down that are."""
    async with _api(target) as api:
        document = await api.backends()
        if as_json:
            print(json.dumps(document, indent=2))
            return
        with api.reading("the question for the backends"):
            lines = list(backend_lines(document["backends"], datetime.now(UTC)))
    if len(lines) == 1:
        say("No backends. 'comfyserve backends add URL' adds one.")
        return
    for line in lines:
        print(line)


async def add_backend(target: Target, new: NewBackend, *, as_json: bool = False) -> None:
    """Add a backend and print how it was found."""
    body: dict[str, Any] = {"url": new.url, "verify_tls": new.verify_tls}
    if new.headers:
        body["headers"] = dict(new.headers)
    if new.token:
        body["token"] = new.token
    async with _api(target) as api:
        document = await api.add_backend(body, check=new.must_answer)
        with api.reading("the new backend"):
            _tell(document, as_json=as_json)
            if not document["answers"]:
                say(f"It is used once it answers. {printable(str(document['reason'] or ''))}")


async def change_backends(
    target: Target, change: Change, names: Sequence[str], *, as_json: bool = False
) -> None:
    """Drain, resume or remove backends, named by id, number or address, and print each."""
    async with _api(target) as api:
        known = await api.backends()
        with api.reading("the question for the backends"):
            ids = [_id_of(name, known["backends"]) for name in names]
        for backend_id in dict.fromkeys(ids):
            if change == "remove":
                document = await api.remove_backend(backend_id)
            else:
                document = await api.change_backend(backend_id, change)
            with api.reading("the change"):
                _tell(document, as_json=as_json)


def backend_lines(backends: Sequence[Mapping[str, Any]], now: datetime) -> Iterator[str]:
    """A line for every backend, under a line of heads; under it, why it is down."""
    rows = [_HEADS, *(_row(backend, now) for backend in backends)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    reasons = ["", *(str(backend.get("reason") or "") for backend in backends)]
    for row, reason in zip(rows, reasons, strict=True):
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        if reason:
            yield f"{'':{widths[0]}}  {printable(reason)}"


def _row(backend: Mapping[str, Any], now: datetime) -> tuple[str, ...]:
    counts = (backend.get(name) for name in ("running", "waiting", "nodes"))
    return (
        printable(str(backend["id"])),
        printable(str(backend["state"])),
        age(backend["since"], now),
        *("-" if count is None else str(count) for count in counts),
        printable(str(backend["url"])),
    )


def _id_of(name: str, backends: Sequence[Mapping[str, Any]]) -> str:
    for number, backend in enumerate(backends, start=1):
        if name in (backend["id"], str(number)) or _plain(name) == _plain(str(backend["url"])):
            return str(backend["id"])
    raise BackendNotFound(name)


def _plain(address: str) -> str:
    """An address as people leave parts of it out."""
    return address.removeprefix("http://").rstrip("/").lower()


def _tell(document: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(document, indent=2))
        return
    state = document.get("state", "removed")
    print(printable(f"{document['id']} {state} {document['url']}"), flush=True)
    if document.get("message"):
        say(printable(str(document["message"])))


@asynccontextmanager
async def _api(target: Target) -> AsyncIterator[Api]:
    async with open_server(target.address(Timeouts()), expected="comfyserve") as server:
        if not isinstance(server, Hosted) or server.api.is_official:
            raise NoComfyserve(target.url, "has no backends of its own")
        yield server.api
