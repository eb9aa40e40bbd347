"""The workflows that a comfyserve hosts, by name: what they take, and jobs of them.

async with AsyncClient("http://127.0.0.1:8189") as client:
    job = await client.workflows["portrait"](prompt="a fox", image="fox.png")
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from comfyserve.assets import Upload
from comfyserve.client.hosted import Hosted
from comfyserve.client.output_files import OutputFile
from comfyserve.client.submission import CallWish
from comfyserve.client.uploads import Readable, as_upload, check_content
from comfyserve.errors import InputProblem, InvalidInputs
from comfyserve.jobs import Metadata
from comfyserve.workflows.parameter_kinds import KINDS
from comfyserve.workflows.parameters import Media

if TYPE_CHECKING:
    from comfyserve.client.job_handle import AsyncJobHandle, FinishedJob

OutputDir = str | os.PathLike[str] | None

Content = str | os.PathLike[str] | bytes
"""A file's path, or what is in it."""

_MEDIA: Final = frozenset(kind for kind, made in KINDS.items() if issubclass(made, Media))

Submit = Callable[..., Awaitable["AsyncJobHandle"]]
"""Hands in a `CallWish`; the client's own."""

Finish = Callable[["AsyncJobHandle", float | None], Awaitable["FinishedJob"]]


class AsyncHostedWorkflows:
    """All workflows that the server hosts; `AsyncClient.workflows`.

    A ComfyUI hosts none: all that asks it raises `NoComfyserve`.
    """

    def __init__(
        self, server: Callable[[], Awaitable[Hosted]], submit: Submit, finish: Finish
    ) -> None:
        self._server = server
        self._submit = submit
        self._finish = finish

    def __getitem__(self, name: str) -> AsyncHostedWorkflow:
        """The workflow of that name; nobody is asked yet whether there is one."""
        return AsyncHostedWorkflow(name, self._server, self._submit, self._finish)

    async def list(self) -> list[dict[str, Any]]:
        """What is hosted, by name: the documents of ``GET /api/workflows``."""
        server = await self._server()
        document = await server.api.workflows()
        with server.api.reading("GET /api/workflows"):
            return [dict(item) for item in document["workflows"]]

    async def publish(
        self, name: str, file: Content, sidecar: Content | None = None
    ) -> dict[str, Any]:
        """Host a workflow's file under this name, also instead of what was published so before.

        *file* is whatever holds a workflow. A path brings the sidecar beside it along, unless
        *sidecar* is another one; ``b""`` is none. Returns what `AsyncHostedWorkflow.describe`
        would. Raises `InvalidInputs` for a file that is not there, or why the server does not
        take it.
        """
        upload, text = await asyncio.to_thread(to_publish, name, file, sidecar)
        return dict(await (await self._server()).api.publish(name, upload, text))

    async def withdraw(self, name: str) -> None:
        """Host what was published under this name no longer; its jobs go on.

        Raises `WorkflowNotFound`, or why the server keeps it: files of its folder stay.
        """
        await (await self._server()).api.withdraw(name)


class AsyncHostedWorkflow:
    """One hosted workflow. Call it to run it: ``await workflow(prompt="a fox")``."""

    def __init__(
        self,
        name: str,
        server: Callable[[], Awaitable[Hosted]],
        submit: Submit,
        finish: Finish,
    ) -> None:
        self.name = name
        self._server = server
        self._submit = submit
        self._finish = finish

    async def describe(self) -> dict[str, Any]:
        """All that the server tells of it: title, inputs, outputs, what is wrong with it.

        Raises `WorkflowNotFound`.
        """
        return dict(await (await self._server()).api.hosted_workflow(self.name))

    async def schema(self) -> dict[str, Any]:
        """What it takes, as the JSON Schema of an object. Raises `WorkflowNotFound`."""
        server = await self._server()
        document = await server.api.hosted_workflow(self.name)
        with server.api.reading(f"the workflow {self.name}"):
            return dict(document["inputs"])

    async def __call__(
        self,
        inputs: Mapping[str, Any] | None = None,
        *,
        output_dir: OutputDir = None,
        keep_temp: bool = False,
        timeout: float | None = None,  # noqa: ASYNC109 - the sync client's too
        **named: Any,
    ) -> FinishedJob:
        """Run it and return what it made; see `submit`, and `AsyncClient.run` for *timeout*."""
        handle = await self.submit(inputs, output_dir=output_dir, keep_temp=keep_temp, **named)
        return await self._finish(handle, timeout)

    async def submit(
        self,
        inputs: Mapping[str, Any] | None = None,
        *,
        output_dir: OutputDir = None,
        keep_temp: bool = False,
        metadata: Metadata | None = None,
        priority: int | None = None,
        **named: Any,
    ) -> AsyncJobHandle:
        """Start a job with *inputs* (or *named* ones) and return its handle once the server has it.

        A file input is a path, bytes, an open binary file, or an output of an earlier job, which
        are brought to the server; or what it can get itself: an asset's id, or an address. An
        input that is named like an argument of this method goes into *inputs*. *metadata* are
        noted on the job; a higher *priority* goes first.

        Raises `WorkflowNotFound`, `InvalidInputs`, `OutputUnwritable`, or why else the server
        does not take it.
        """
        given = {**(inputs or {}), **named}
        besides: dict[str, Any] = {}
        if metadata is not None:
            besides["metadata"] = metadata if isinstance(metadata, str) else dict(metadata)
        if priority is not None:
            besides["priority"] = priority
        wish = CallWish(str(uuid.uuid4()), self.name, await self._ready(given), besides)
        return await self._submit(wish, given, output_dir, keep_temp)

    async def validate(
        self, inputs: Mapping[str, Any] | None = None, **named: Any
    ) -> dict[str, Any]:
        """What would come of a call with these inputs: ``valid``, and all that is wrong.

        Nothing is queued, and no file is sent. Raises `WorkflowNotFound`, and `InvalidInputs` for
        a file that is not there.
        """
        ready = await self._ready({**(inputs or {}), **named})
        files = [name for name, value in ready.items() if isinstance(value, Upload)]
        told = {name: value for name, value in ready.items() if name not in files}
        api = (await self._server()).api
        return dict(await api.validate(self.name, {"inputs": told, "files": files}))

    async def _ready(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The inputs as they are sent: what has to be brought there is an upload."""
        return await asyncio.to_thread(_ready, given, await self._media(given))

    async def _media(self, given: Mapping[str, Any]) -> Mapping[str, str]:
        """The kinds of those inputs that take files, where that has to be known."""
        if not any(isinstance(value, str) or _is_file(value) for value in given.values()):
            return {}
        properties = (await self.schema()).get("properties", {})
        kinds = {name: str(told.get("x-kind")) for name, told in properties.items()}
        return {name: kind for name, kind in kinds.items() if kind in _MEDIA}


def _ready(given: Mapping[str, Any], media: Mapping[str, str]) -> dict[str, Any]:
    ready: dict[str, Any] = {}
    problems: list[InputProblem] = []
    for name, value in given.items():
        try:
            ready[name] = _brought(name, value, media.get(name))
        except InvalidInputs as error:
            problems.extend(error.problems)
    if problems:
        raise InvalidInputs(problems)
    return ready


def _brought(name: str, value: Any, kind: str | None) -> object:
    is_path = kind is not None and isinstance(value, str) and not _is_for_server(value)
    if not is_path and not _is_file(value):
        return value
    upload = as_upload(name, value)
    check_content(name, kind or "", upload)
    return upload


def _is_file(value: object) -> bool:
    files = (Upload, OutputFile, bytes, bytearray, memoryview, os.PathLike, Readable)
    return isinstance(value, files)


def _is_for_server(text: str) -> bool:
    """Whether the server gets the file itself: from an address, or among its assets."""
    if text.lower().startswith(("http://", "https://", "data:")):
        return True
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False


def to_publish(name: str, file: Content, sidecar: Content | None) -> tuple[Upload, str | None]:
    """The file to send, and the text of its sidecar. Raises `InvalidInputs`."""
    upload = as_upload("file", file)
    if isinstance(file, bytes):
        upload = Upload(name, content=file)
    elif sidecar is None and (beside := Path(file).expanduser().with_suffix(".toml")).is_file():
        sidecar = beside
    if not sidecar:
        return upload, None
    try:
        content = sidecar if isinstance(sidecar, bytes) else Path(sidecar).expanduser().read_bytes()
        return upload, content.decode()
    except OSError as error:
        why = f"cannot be {sidecar!s}: {error.strerror or error}."
    except UnicodeDecodeError:
        why = "is no UTF-8 text."
    raise InvalidInputs([InputProblem("sidecar", f"sidecar {why}")])
