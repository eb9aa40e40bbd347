"""`/upload/image` and `/upload/mask`: files from callers, streamed to disk."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import BodyPartReader, web
from aiohttp.http import HttpProcessingError

from comfyserve.engine.answers import Refused
from comfyserve.engine.files import BadName, FileName, with_alpha_of
from comfyserve.engine.folders import Folders

CHUNK = 1 << 18


@dataclass(slots=True)
class Upload:
    """A form that has arrived: its file, still without a name, and its texts."""

    spool: Path
    filename: str | None = None
    fields: dict[str, str] = field(default_factory=dict)
    received: int = 0

    @property
    def place(self) -> FileName:
        """Where the caller wants the file."""
        assert self.filename is not None
        kind = self.fields.get("type") or "input"
        return FileName(self.filename, self.fields.get("subfolder", ""), kind)

    @property
    def overwrites(self) -> bool:
        return self.fields.get("overwrite") in ("true", "1")


class UploadRoutes:
    """Takes files up to *largest* bytes a request."""

    def __init__(self, folders: Folders, largest: int) -> None:
        self.folders = folders
        self.largest = largest
        self._naming = asyncio.Lock()  # so that two uploads never take the same free name

    def all(self) -> list[web.RouteDef]:
        return [
            web.post("/upload/image", self.upload_image),
            web.post("/upload/mask", self.upload_mask),
        ]

    async def upload_image(self, request: web.Request) -> web.Response:
        async with self._received(request) as upload:
            return await self._store(upload)

    async def upload_mask(self, request: web.Request) -> web.Response:
        """Store the picture that ``original_ref`` names, with the uploaded one's transparency."""
        async with self._received(request) as upload:
            original = _original(upload).existing(self.folders)
            try:
                masked = await asyncio.to_thread(with_alpha_of, original, upload.spool)
            except Exception as error:  # Pillow raises its own kinds, and more
                raise Refused("invalid_upload", f"The mask cannot be used: {error}") from error
            await asyncio.to_thread(upload.spool.write_bytes, masked)
            return await self._store(upload)

    @asynccontextmanager
    async def _received(self, request: web.Request) -> AsyncIterator[Upload]:
        """The form, once all of it is here; its file is gone afterwards unless it was stored."""
        if not request.content_type.startswith("multipart/"):
            raise Refused("invalid_upload", "An upload must be multipart/form-data")
        if (request.content_length or 0) > self.largest:
            raise self._too_large()
        number, name = await asyncio.to_thread(
            tempfile.mkstemp, prefix=".upload-", dir=self.folders.root
        )
        os.close(number)
        upload = Upload(Path(name))
        try:
            await self._read(request, upload)
            if upload.filename is None:
                raise Refused("invalid_upload", "The form has no file in the field image")
            yield upload
        except BadName as error:
            raise Refused("invalid_upload", str(error)) from error
        finally:
            upload.spool.unlink(missing_ok=True)

    async def _read(self, request: web.Request, upload: Upload) -> None:
        try:
            async for part in await request.multipart():
                if not isinstance(part, BodyPartReader) or not part.name:
                    continue
                if part.name == "image" and part.filename is not None:
                    upload.filename = part.filename
                    with await asyncio.to_thread(upload.spool.open, "wb") as file:
                        async for chunk in self._chunks(part, upload):
                            await asyncio.to_thread(file.write, chunk)
                else:
                    text = b"".join([chunk async for chunk in self._chunks(part, upload)])
                    upload.fields[part.name] = text.decode("utf-8", "replace")
        except (ValueError, RuntimeError, AssertionError, HttpProcessingError) as error:
            raise Refused("invalid_upload", "The form cannot be read", str(error)) from error

    async def _chunks(self, part: BodyPartReader, upload: Upload) -> AsyncIterator[bytes]:
        while chunk := await part.read_chunk(CHUNK):
            upload.received += len(chunk)
            if upload.received > self.largest:
                raise self._too_large()
            yield chunk

    async def _store(self, upload: Upload) -> web.Response:
        place = upload.place
        wanted = place.writable(self.folders)
        async with self._naming:
            path = wanted
            if not upload.overwrites:
                path = await asyncio.to_thread(_free_or_same, upload.spool, wanted)
            try:
                os.replace(upload.spool, path)
            except OSError as error:  # a folder has that name, or someone reads the old file
                raise Refused("invalid_upload", f"{path.name!r}: {error.strerror}") from error
        return web.json_response(
            {"name": path.name, "subfolder": place.subfolder, "type": place.kind}
        )

    def _too_large(self) -> web.HTTPRequestEntityTooLarge:
        return web.HTTPRequestEntityTooLarge(
            self.largest, text=f"Maximum request body size {self.largest} exceeded."
        )


def _original(upload: Upload) -> FileName:
    try:
        ref = json.loads(upload.fields["original_ref"])
        return FileName.annotated(
            str(ref["filename"]), str(ref.get("subfolder", "")), str(ref.get("type", "output"))
        )
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise Refused(
            "invalid_upload",
            "original_ref must be JSON that names the picture to mask",
            'For example {"filename": "a.png", "subfolder": "", "type": "input"}.',
        ) from error


def _free_or_same(spool: Path, wanted: Path) -> Path:
    """*wanted*, or the first "name (1).png".. that is free or already holds the same bytes."""
    digest = _digest(spool)
    path, number = wanted, 0
    while path.exists() and not (path.is_file() and _digest(path) == digest):
        number += 1
        path = wanted.with_name(f"{wanted.stem} ({number}){wanted.suffix}")
    return path


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
