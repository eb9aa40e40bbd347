"""A workflow's file as a request brings it: as the body itself, or in a form beside its sidecar."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Final

from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from comfyserve.denials import InvalidRequest, PayloadTooLarge
from comfyserve.server.requests import refuse_unknown, settings_of

MOST_BYTES: Final = 32 * 2**20
"""The most bytes of a workflow's file that comes over HTTP."""

_MOST_AROUND: Final = 128 * 1024
"""Bytes that a form may have besides: boundaries, headers."""

_MOST_SIDECAR: Final = 2**20
_FIELDS: Final = ("file", "sidecar")


@dataclass(frozen=True, slots=True)
class WorkflowFile:
    """What was brought; *stem* is the file's name without its ending, empty if nobody said it."""

    content: bytes = field(repr=False)
    sidecar: str = field(default="", repr=False)
    stem: str = ""


async def read_workflow_file(request: Request) -> WorkflowFile:
    """The file in the request, whatever it turns out to be.

    Raises `InvalidRequest` where there is none, and `PayloadTooLarge`.
    """
    kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _from_form(request)
    most = min(MOST_BYTES, settings_of(request).body_cap)
    body = b"".join([chunk async for chunk in _arriving(request, most)])
    if not body:
        raise InvalidRequest("The body is empty, but a workflow's file is needed.")
    return WorkflowFile(body)


async def _from_form(request: Request) -> WorkflowFile:
    most = min(MOST_BYTES, settings_of(request).upload_cap)
    arriving = _arriving(request, most + _MOST_SIDECAR + _MOST_AROUND)
    parser = MultiPartParser(
        request.headers, arriving, max_files=2, max_fields=2, max_part_size=_MOST_SIDECAR
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        problem = f"The form cannot be read: {error.message.rstrip('.')}."
        raise InvalidRequest(problem) from None
    try:
        return await _read_form(form, most)
    finally:
        await form.close()


async def _read_form(form: FormData, most: int) -> WorkflowFile:
    names = [name for name, _ in form.multi_items()]
    refuse_unknown(names, _FIELDS, "The form")
    if len(names) > len(set(names)):
        raise InvalidRequest("The form has a field twice.")
    file, sidecar = form.get("file"), form.get("sidecar", "")
    if not isinstance(file, UploadFile):
        raise InvalidRequest("The form needs 'file': a workflow's file (with curl: -F file=@..).")
    if (file.size or 0) > most:
        raise PayloadTooLarge("A workflow's file", most)
    content = await _content(file)
    if not content:
        raise InvalidRequest("The form's 'file' is empty.")
    stem = os.path.splitext((file.filename or "").replace("\\", "/").rpartition("/")[2])[0]
    return WorkflowFile(content, await _text(sidecar), stem)


async def _text(sidecar: UploadFile | str) -> str:
    """A sidecar comes as a text or as a file."""
    if isinstance(sidecar, str):
        return sidecar
    if (sidecar.size or 0) > _MOST_SIDECAR:
        raise PayloadTooLarge("A sidecar", _MOST_SIDECAR)
    try:
        return (await _content(sidecar)).decode()
    except UnicodeDecodeError:
        raise InvalidRequest("The form's 'sidecar' is no UTF-8 text.") from None


async def _content(file: UploadFile) -> bytes:
    # What is large lies on the disk by now.
    return await asyncio.to_thread(file.file.read)


async def _arriving(request: Request, most: int) -> AsyncGenerator[bytes]:
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > most:
                raise PayloadTooLarge("A workflow's file", most)
            yield chunk
    except ClientDisconnect:
        raise InvalidRequest("The request broke off.") from None
