"""The HTTP of one comfyserve: questions as functions, errors as our errors, bytes that resume."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Any, Final, NoReturn
from urllib.parse import quote

import aiohttp

from comfyserve.assets import Upload
from comfyserve.client.outage import Outage
from comfyserve.client.wire import Frame, Frames, error_of
from comfyserve.comfy.http import CHUNK, Http, Timeouts
from comfyserve.comfy.uploads import opened
from comfyserve.errors import BackendAnswerInvalid, BackendUnreachable, ComfyServeError
from comfyserve.refusals import BlobNotFound

SILENCE: Final = 45.0
"""Seconds without a word after which an event stream counts as cut; it says something every 15."""

_SLOWEST: Final = 1 << 16
"""Bytes a second that an upload must manage, or it counts as stuck."""


class Later(Exception):
    """The server does not take a request right now; *error* says why, *seconds* until when."""

    def __init__(self, error: ComfyServeError, seconds: float) -> None:
        super().__init__(error, seconds)
        self.error = error
        self.seconds = seconds


class Api:
    """What can be asked of the comfyserve behind an open session.

    *is_official* marks a server that speaks the official API alone, without what comfyserve adds:
    it has no node catalogue and no events to resume, and gives jobs ids of its own.
    """

    def __init__(self, http: Http, timeouts: Timeouts, *, is_official: bool) -> None:
        self.timeouts = timeouts
        self.is_official = is_official
        self._http = http

    @property
    def url(self) -> str:
        """The server's address, without credentials."""
        return self._http.url

    async def health(self) -> Mapping[str, Any]:
        """What the server says of itself."""
        return await self._json("GET", "/api/v2/health")

    async def object_info(self, *, refresh: bool = False) -> Mapping[str, Any]:
        """The catalogue of nodes of the ComfyUIs behind the server, asked anew with *refresh*."""
        also = {"Cache-Control": "no-cache"} if refresh else None
        return await self._json("GET", "/api/object_info", also=also)

    async def workflows(self) -> Mapping[str, Any]:
        """What the server hosts, as ``workflows``."""
        return await self._json("GET", "/api/workflows")

    async def hosted_workflow(self, name: str) -> Mapping[str, Any]:
        """All that a caller has to know of a workflow that the server hosts.

        Raises `WorkflowNotFound`.
        """
        return await self._json("GET", _hosted(name), asked_for=("workflow", name))

    def hosted_url(self, name: str) -> str:
        """The address of a workflow that the server hosts."""
        return f"{self.url}{_hosted(name)}"

    async def validate(self, name: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """What would come of a call of a hosted workflow. Raises `WorkflowNotFound`."""
        return await self._json(
            "POST", f"{_hosted(name)}/validate", asked_for=("workflow", name), json=body
        )

    async def publish(self, name: str, file: Upload, sidecar: str | None) -> Mapping[str, Any]:
        """Host a workflow's file under this name; all that a caller has to know of it then."""
        with opened(file) as content:
            form = aiohttp.FormData(quote_fields=False)
            form.add_field("file", content, filename=file.name)
            if sidecar is not None:
                form.add_field("sidecar", sidecar)
            return await self._json(
                "PUT",
                _hosted(name),
                asked_for=("workflow", name),
                data=form,
                timeout=self._patience(file),
            )

    async def withdraw(self, name: str) -> None:
        """Host what was published under this name no longer. Raises `WorkflowNotFound`."""
        await self._answer("DELETE", _hosted(name), asked_for=("workflow", name))

    async def submit(
        self, body: Mapping[str, Any], key: str, workflow: str | None = None
    ) -> Mapping[str, Any]:
        """Hand in a job that the *key* lets happen once, of a hosted *workflow* or of the graph in
        the body; its document.

        Raises `Later` where the server takes no jobs just now, and `WorkflowNotFound`.
        """
        return await self._json(
            "POST",
            "/api/v2/jobs" if workflow is None else f"{_hosted(workflow)}/jobs",
            asked_for=("job", key) if workflow is None else ("workflow", workflow),
            may_wait=True,
            json=body,
            also={"Idempotency-Key": key},
        )

    async def job(self, job_id: str) -> Mapping[str, Any]:
        """A job's document. Raises `NotFound`."""
        return await self._json("GET", _job(job_id), asked_for=("job", job_id))

    async def workflow(self, job_id: str) -> Mapping[str, Any]:
        """The graph that a job runs, as ``workflow``. Raises `NotFound`."""
        return await self._json("GET", f"{_job(job_id)}/workflow", asked_for=("job", job_id))

    async def jobs(self, **query: str) -> Mapping[str, Any]:
        """A page of jobs, the newest first: ``jobs`` and ``next_cursor``."""
        return await self._json("GET", "/api/v2/jobs", params=query)

    async def cancel(self, job_id: str) -> Mapping[str, Any]:
        """Ask for a job's end; its document. Raises `NotFound`."""
        return await self._json("POST", f"{_job(job_id)}/cancel", asked_for=("job", job_id))

    async def backends(self) -> Mapping[str, Any]:
        """The ComfyUIs behind the server, as ``backends``; for admin keys."""
        return await self._json("GET", "/api/backends")

    async def add_backend(self, body: Mapping[str, Any], *, check: bool) -> Mapping[str, Any]:
        """Add a ComfyUI, with *check* only if it answers now; its document."""
        query = {"check": "true"} if check else {}
        return await self._json("POST", "/api/backends", params=query, json=body)

    async def change_backend(self, backend_id: str, change: str) -> Mapping[str, Any]:
        """Do ``drain`` or ``resume`` with a backend; its document."""
        return await self._json("POST", f"/api/backends/{quote(backend_id, safe='')}/{change}")

    async def remove_backend(self, backend_id: str) -> Mapping[str, Any]:
        """Remove a backend; what is to be said about that."""
        return await self._json("DELETE", f"/api/backends/{quote(backend_id, safe='')}")

    async def readiness(self) -> tuple[bool, Mapping[str, Any]]:
        """Whether the server could run a job right now, and what it says about that."""
        status, text = await self._http.ask("GET", "/readyz")
        try:
            document = json.loads(text)
        except ValueError:
            document = None
        return status == 200, document if isinstance(document, dict) else {}

    async def asset_by_hash(self, hash: str, file_path: str) -> Mapping[str, Any] | None:
        """A new asset over bytes that the server has already, or None where it has not."""
        body = {"hash": hash, "file_path": file_path}
        try:
            return await self._json("POST", "/api/v2/assets/from-hash", json=body)
        except BlobNotFound:
            return None

    async def asset(self, asset_id: str) -> Mapping[str, Any]:
        """An asset's document. Raises `NotFound`."""
        path = f"/api/v2/assets/{quote(asset_id, safe='')}"
        return await self._json("GET", path, asked_for=("asset", asset_id))

    async def upload(
        self, upload: Upload, *, file_path: str, content_type: str, hash: str
    ) -> Mapping[str, Any]:
        """A new asset with these bytes, which the server compares with their *hash*."""
        with opened(upload) as content:
            form = aiohttp.FormData(quote_fields=False)
            # First what is said of the bytes, so that they can be judged while they arrive.
            form.add_field("content_type", content_type)
            form.add_field("file_path", file_path)
            form.add_field("expected_hash", hash)
            form.add_field("file", content, filename=file_path, content_type=content_type)
            patience = self._patience(upload)
            return await self._json("POST", "/api/v2/assets", data=form, timeout=patience)

    async def content(self, asset_id: str, size: int) -> AsyncGenerator[bytes]:
        """The *size* bytes of an asset; where the connection breaks off it is taken up again.

        Raises `NotFound` where they are gone, and `BackendLost` where the server is.
        """
        outage, got = Outage(self.url, self.timeouts.away), 0
        while True:
            try:
                async with self._content(asset_id, got) as pieces:
                    async for piece in pieces:
                        outage.over()
                        got += len(piece)
                        yield piece
                if got >= size:
                    return
                trouble: ComfyServeError = BackendUnreachable(self.url, "the bytes broke off")
            except (BackendUnreachable, BackendAnswerInvalid) as error:
                trouble = error
            except Later as later:
                trouble = later.error
            await outage.wait(trouble)

    @asynccontextmanager
    async def _content(self, asset_id: str, start: int) -> AsyncIterator[AsyncIterator[bytes]]:
        patience = aiohttp.ClientTimeout(
            sock_connect=self.timeouts.connect, sock_read=self.timeouts.stall
        )
        path = f"/api/v2/assets/{quote(asset_id, safe='')}/content"
        ranged = {"Range": f"bytes={start}-"} if start else None
        async with self._http.request(
            "GET", path, also=ranged, timeout=patience, read_bufsize=CHUNK
        ) as response:
            if response.status not in (200, 206):
                text = await self._http.text(response)
                self._refuse(f"GET {path}", response, text, ("asset", asset_id), may_wait=True)
            pieces = self._http.pieces(response)
            async with aclosing(pieces):
                # A server that knows no ranges begins anew.
                yield pieces if response.status == 206 else _without_first(pieces, start)

    async def events(self, job_id: str, after: int) -> AsyncGenerator[Frame]:
        """The frames of a job's event stream, those after number *after* where they have numbers.

        Ends with the stream, which may be early. Raises `NotFound`, and `Later` where as many
        streams are open as may be.
        """
        path = f"{_job(job_id)}/events" if self.is_official else f"/api/jobs/{job_id}/events"
        headers = {"Accept": "text/event-stream"}
        if after:
            headers["Last-Event-ID"] = str(after)
        patience = aiohttp.ClientTimeout(sock_connect=self.timeouts.connect, sock_read=SILENCE)
        async with self._http.request(
            "GET", path, also=headers, timeout=patience, read_bufsize=CHUNK
        ) as response:
            if response.status != 200:
                text = await self._http.text(response)
                self._refuse(f"GET {path}", response, text, ("job", job_id), may_wait=True)
            frames = Frames()
            async with aclosing(self._http.pieces(response)) as pieces:
                async for piece in pieces:
                    with self.reading(f"GET {path}"):
                        complete = list(frames.feed(piece))
                    for frame in complete:
                        yield frame

    @contextmanager
    def reading(self, question: str) -> Iterator[None]:
        """Where the answer to *question* cannot be read, it is a `BackendAnswerInvalid`."""
        try:
            yield
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            what = f"{type(error).__name__}: {error}"[:200]
            raise BackendAnswerInvalid(
                self.url, f"the answer to {question} cannot be read ({what})"
            ) from error

    def _patience(self, upload: Upload) -> aiohttp.ClientTimeout:
        """How long it may take to send that much, and to be answered."""
        size = upload.path.stat().st_size if upload.path else len(upload.content or b"")
        return aiohttp.ClientTimeout(
            total=self.timeouts.answer + size / _SLOWEST, sock_connect=self.timeouts.connect
        )

    async def _json(self, method: str, path: str, **options: Any) -> Mapping[str, Any]:
        text = await self._answer(method, path, **options)
        return self._http.parsed(f"{method} {path}", 200, text)

    async def _answer(
        self,
        method: str,
        path: str,
        *,
        asked_for: tuple[str, str] = ("page", ""),
        may_wait: bool = False,
        **options: Any,
    ) -> str:
        """What the server answers, where that is no error."""
        async with self._http.request(method, path, **options) as response:
            text = await self._http.text(response)
            if response.status not in (200, 201, 202, 204):
                self._refuse(f"{method} {path}", response, text, asked_for, may_wait=may_wait)
            return text

    def _refuse(
        self,
        question: str,
        response: aiohttp.ClientResponse,
        text: str,
        asked_for: tuple[str, str],
        *,
        may_wait: bool = False,
    ) -> NoReturn:
        try:
            error = error_of(self.url, text, asked_for)
        except (ValueError, KeyError, TypeError, RecursionError):
            raise self._http.unexpected(question, response.status, text) from None
        if may_wait and response.status in (429, 503):
            raise Later(error, _seconds(response))
        raise error


def _job(job_id: str) -> str:
    return f"/api/v2/jobs/{quote(job_id, safe='')}"


def _hosted(name: str) -> str:
    return f"/api/workflows/{quote(name, safe='')}"


def _seconds(response: aiohttp.ClientResponse) -> float:
    """How long the server asks to wait, which is not always in seconds."""
    told = response.headers.get("Retry-After", "")
    return float(told) if told.isascii() and told.isdigit() else 2.0


async def _without_first(pieces: AsyncIterator[bytes], count: int) -> AsyncIterator[bytes]:
    async for piece in pieces:
        if count < len(piece):
            yield piece[count:]
        count = max(0, count - len(piece))
