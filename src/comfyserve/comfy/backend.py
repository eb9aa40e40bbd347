"""One ComfyUI server: what can be asked of it over one HTTP session and one socket.

Its errors leave this room as ours (`comfyserve.errors.BackendError` and below). Credentials go
only to the server's own address and appear in no message.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import aiohttp

from comfyserve.assets import Upload
from comfyserve.comfy.http import CHUNK, Http
from comfyserve.comfy.http import Timeouts as Timeouts
from comfyserve.comfy.records import HistoryEntry, QueueState, ShownFile, read_history, read_queue
from comfyserve.comfy.socket import Socket
from comfyserve.comfy.uploads import UPLOAD_FOLDER as UPLOAD_FOLDER
from comfyserve.comfy.uploads import file_name, opened, prepare
from comfyserve.errors import (
    BackendAnswerInvalid,
    BackendError,
    BackendUnreachable,
    FileUnavailable,
    GraphRejected,
)
from comfyserve.workflows.node_catalog import NodeCatalog

_SLOWEST: Final = 1 << 16
"""Bytes a second that an upload must manage, or it counts as stuck."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """The prompt is in the server's queue; *position* counts from 1."""

    position: int


@dataclass(frozen=True, slots=True)
class Running:
    """The prompt is being executed."""


@dataclass(frozen=True, slots=True)
class Gone:
    """The server knows nothing of the prompt: never accepted, removed, or forgotten."""


Whereabouts = Waiting | Running | Gone | HistoryEntry


@dataclass(frozen=True, slots=True)
class Accepted:
    """The server took the graph under *prompt_id*, maybe without some of its outputs."""

    prompt_id: str
    node_errors: Mapping[str, Mapping[str, Any]]


class Backend:
    """One ComfyUI server at *url*, which may hold a path prefix.

    Use it as an async context manager: it owns an HTTP session and a socket. *headers* and
    *token* (sent as ``Authorization: Bearer``) are for a proxy in front of the server. To be told
    of prompts of an earlier connection, give its *client_id*; no two may have the same at once.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        token: str | None = None,
        verify_tls: bool = True,
        timeouts: Timeouts | None = None,
        client_id: str | None = None,
    ) -> None:
        self.timeouts = timeouts or Timeouts()
        self.client_id = client_id or uuid.uuid4().hex
        self._http = Http(
            url,
            headers=headers or {},
            token=token,
            verify_tls=verify_tls,
            timeouts=self.timeouts,
        )
        self._patience = aiohttp.ClientTimeout(
            total=self.timeouts.truth, sock_connect=self.timeouts.connect
        )
        self._upload_locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._object_info: Mapping[str, Any] | None = None
        self._catalog: NodeCatalog | None = None

    @property
    def url(self) -> str:
        """The server's address, without credentials."""
        return self._http.url

    async def __aenter__(self) -> Self:
        self.socket = Socket(
            await self._http.open(),
            self._http.at("/ws"),
            self.client_id,
            headers=self._http.headers,
            connect_timeout=self.timeouts.connect,
        )
        self._listening = asyncio.create_task(self.socket.run(), name=f"socket of {self.url}")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._listening.cancel()
        try:
            await asyncio.gather(self._listening, return_exceptions=True)
        finally:
            await self._http.close()

    async def system_stats(self) -> Mapping[str, Any]:
        """The server's version, memory and devices."""
        return await self._http.json("GET", "/system_stats")

    async def features(self) -> Mapping[str, Any]:
        """What the server says it can do; empty where it does not say."""
        try:
            return await self._http.json("GET", "/features")
        except BackendAnswerInvalid:
            return {}

    async def object_info(self, *, refresh: bool = False) -> Mapping[str, Any]:
        """The server's catalogue of nodes, asked once unless told to *refresh*."""
        if self._object_info is None or refresh:
            document = await self._http.json("GET", "/object_info")
            if not any(isinstance(node, dict) and "input" in node for node in document.values()):
                raise BackendAnswerInvalid(self.url, "GET /object_info names no node")
            self._object_info, self._catalog = document, None
        return self._object_info

    async def node_catalog(self, *, refresh: bool = False) -> NodeCatalog:
        """`object_info`, read."""
        if self._catalog is None or refresh:
            document = await self.object_info(refresh=refresh)
            self._catalog = NodeCatalog.from_json(document)
        return self._catalog

    async def raw_object_info(self) -> bytes:
        """The bytes of the server's catalogue of nodes as it is now; `know` what was read there."""
        async with self._http.request("GET", "/object_info") as response:
            body = await self._http.body(response)
            if response.status != 200:
                raise self._http.unexpected(
                    "GET /object_info", response.status, body[:1000].decode(errors="replace")
                )
        return body

    def know(self, catalog: NodeCatalog) -> None:
        """Take this for the server's nodes from now on: somebody has read it."""
        self._catalog = catalog

    @property
    def known_catalog(self) -> NodeCatalog | None:
        """The node catalogue if somebody asked for it before; costs nothing."""
        return self._catalog

    @property
    def known_object_info(self) -> Mapping[str, Any] | None:
        """The same as the server told it."""
        return self._object_info

    async def submit(
        self,
        graph: Mapping[str, Any],
        prompt_id: str,
        *,
        extra_data: Mapping[str, Any] | None = None,
    ) -> Accepted:
        """Queue a graph under our own id.

        Raises `GraphRejected` with the node errors when the server will not run it. When the
        answer is lost on the way, the server is asked whether it has the prompt. A
        `BackendUnreachable` that is *refused* tells that it certainly never got there.
        """
        body = {"prompt": graph, "client_id": self.client_id, "prompt_id": prompt_id}
        if extra_data:
            body["extra_data"] = extra_data
        try:
            status, text = await self._http.ask("POST", "/prompt", json=body)
        except BackendUnreachable as error:
            if error.refused or not await self._has(prompt_id, error):
                raise
            return Accepted(prompt_id, {})
        answer = self._http.parsed("POST /prompt", status, text, also=(400,))
        if status == 400:
            raise self._rejection(answer)
        taken = answer.get("prompt_id")
        if not isinstance(taken, str):
            raise self._http.unexpected("POST /prompt", status, text)
        return Accepted(taken, _node_errors(answer.get("node_errors")))

    async def _has(self, prompt_id: str, error: BackendUnreachable) -> bool:
        """Whether a prompt arrived whose answer was lost; raises *error* where nobody can tell."""
        try:
            if not isinstance(await self.whereabouts(prompt_id), Gone):
                return True
        except BackendError as silence:
            raise error from silence
        with suppress(BackendError):  # it may still be on its way there
            await self.cancel(prompt_id)
        return False

    async def whereabouts(self, prompt_id: str) -> Whereabouts:
        """Where a prompt is: the truth, whatever the socket said or did not say."""
        entry = await self.history(prompt_id)
        if entry is not None:
            return entry
        queue = await self.queue()
        if prompt_id in queue.running:
            return Running()
        if prompt_id in queue.pending:
            return Waiting(queue.pending.index(prompt_id) + 1)
        # It may have ended between the two questions.
        return await self.history(prompt_id) or Gone()

    async def history(self, prompt_id: str) -> HistoryEntry | None:
        """What the server remembers of an ended prompt, or None."""
        document = await self._http.json("GET", f"/history/{prompt_id}", timeout=self._patience)
        return read_history(document, prompt_id)

    async def queue(self) -> QueueState:
        """Who runs and who waits."""
        state = read_queue(await self._http.json("GET", "/queue", timeout=self._patience))
        if state is None:
            raise BackendAnswerInvalid(self.url, "GET /queue lists no running and waiting prompts")
        return state

    async def cancel(self, prompt_id: str) -> None:
        """Take exactly this prompt out of the queue, or interrupt it if it runs.

        Returns once the server was told; a running node may go on until its next step.
        """
        with suppress(BackendAnswerInvalid):
            status, _ = await self._http.ask("POST", f"/api/jobs/{prompt_id}/cancel")
            if status == 200:
                return
        await self._http.ask("POST", "/queue", json={"delete": [prompt_id]})
        # An interrupt that an old server takes for all would hit whoever runs: look first.
        if prompt_id in (await self.queue()).running:
            await self._http.ask("POST", "/interrupt", json={"prompt_id": prompt_id})

    async def free(self, *, unload_models: bool = False) -> None:
        """Drop the server's cached results, and its models if told to."""
        wish = {"free_memory": True, "unload_models": unload_models}
        status, text = await self._http.ask("POST", "/free", json=wish)
        if status != 200:
            raise self._http.unexpected("POST /free", status, text)

    async def upload(self, upload: Upload, *, mask_of: str | None = None) -> str:
        """Bring a file to the server's input folder and return the name a node takes for it.

        The file is named by its hash, so the same bytes are not sent twice. With *mask_of*, the
        name of an uploaded picture, the file's transparency becomes the mask of a copy of it.
        """
        digest, content_type = await asyncio.to_thread(prepare, upload)
        name = file_name(upload, digest, content_type, mask_of)
        async with self._upload_locks[name]:
            if not await self._has_input(name, None if mask_of else upload):
                name = await self._send(upload, name, content_type, mask_of)
        return f"{UPLOAD_FOLDER}/{name}"

    @asynccontextmanager
    async def open_file(self, file: ShownFile) -> AsyncIterator[AsyncIterator[bytes]]:
        """Stream a file that a node showed, in pieces as they arrive.

        Raises `FileUnavailable` when the server no longer has it, and `BackendUnreachable` when
        the connection breaks off before its end.
        """
        place = {"filename": file.filename, "subfolder": file.subfolder, "type": file.folder}
        patience = aiohttp.ClientTimeout(
            sock_connect=self.timeouts.connect, sock_read=self.timeouts.stall
        )
        async with self._http.request(
            "GET", "/view", params=place, timeout=patience, read_bufsize=CHUNK
        ) as response:
            if response.status in (403, 404):
                raise FileUnavailable(self.url, file.filename)
            if response.status != 200:
                raise self._http.unexpected(
                    "GET /view", response.status, await self._http.text(response)
                )
            yield self._http.pieces(response)

    async def _has_input(self, name: str, upload: Upload | None) -> bool:
        """Whether an input of that name is there, and as long as *upload* if that is given."""
        place = {"filename": name, "subfolder": UPLOAD_FOLDER, "type": "input"}
        async with self._http.request("HEAD", "/view", params=place) as response:
            there, size = response.status == 200, response.content_length
        return there and (upload is None or size == await asyncio.to_thread(_size, upload))

    async def _send(self, upload: Upload, name: str, content_type: str, mask_of: str | None) -> str:
        path = "/upload/image" if mask_of is None else "/upload/mask"
        with opened(upload) as content:
            form = aiohttp.FormData(quote_fields=False)
            form.add_field("image", content, filename=name, content_type=content_type)
            form.add_field("subfolder", UPLOAD_FOLDER)
            form.add_field("type", "input")
            # A file of that name with other bytes is a broken one: the name is the bytes' hash.
            form.add_field("overwrite", "true")
            if mask_of is not None:
                folder, _, original = mask_of.rpartition("/")
                reference = {"filename": original, "subfolder": folder, "type": "input"}
                form.add_field("original_ref", json.dumps(reference))
            longest = self.timeouts.answer + await asyncio.to_thread(_size, upload) / _SLOWEST
            patience = aiohttp.ClientTimeout(total=longest, sock_connect=self.timeouts.connect)
            answer = self._http.parsed(
                f"POST {path}", *await self._http.ask("POST", path, data=form, timeout=patience)
            )
        taken = answer.get("name")
        if not isinstance(taken, str):
            raise BackendAnswerInvalid(self.url, f"POST {path} names no file")
        # A mask over a picture that is not there is answered like a success.
        if mask_of is not None and not await self._has_input(taken, None):
            raise BackendError(self.url, f"the mask was not laid over {mask_of!r}")
        return taken

    def _rejection(self, answer: Mapping[str, Any]) -> GraphRejected:
        errors = _node_errors(answer.get("node_errors"))
        error = answer.get("error")
        said = error if isinstance(error, dict) else {"message": str(error)}
        reason = str(said.get("message") or said.get("type") or "it does not say why")
        if said.get("details"):
            reason = f"{reason}: {said['details']}"
        return GraphRejected(self.url, "; ".join([reason, *_told(errors)]), errors)


def _size(upload: Upload) -> int:
    return upload.path.stat().st_size if upload.path else len(upload.content or b"")


def _node_errors(document: object) -> dict[str, Mapping[str, Any]]:
    if not isinstance(document, dict):
        return {}
    return {str(node): told for node, told in document.items() if isinstance(told, dict)}


def _told(node_errors: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One sentence for each thing the server says of a node."""
    return [
        f"node {node} ({told.get('class_type', 'unknown')}): {error.get('message', 'error')}"
        + (f" ({error['details']})" if error.get("details") else "")
        for node, told in node_errors.items()
        for error in (told["errors"] if isinstance(told.get("errors"), list) else ())
        if isinstance(error, dict)
    ]
