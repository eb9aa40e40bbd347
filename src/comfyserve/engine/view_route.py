"""`/view`: the files, whole and streamed, or pictures made smaller on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from aiohttp import web

from comfyserve.engine.files import (
    BadName,
    FileName,
    content_type,
    only_alpha,
    smaller,
    without_alpha,
)
from comfyserve.engine.folders import Folders

CHUNK = 1 << 20


class ViewRoute:
    """Serves what is in the engine's folders."""

    def __init__(self, folders: Folders) -> None:
        self.folders = folders

    def all(self) -> list[web.RouteDef]:
        return [web.get("/view", self.view)]

    async def view(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        if "filename" not in query:
            raise web.HTTPNotFound(text="a filename is needed")
        wanted = FileName.annotated(
            query["filename"], query.get("subfolder", ""), query.get("type", "output")
        )
        try:
            path = wanted.existing(self.folders)
        except BadName as error:
            return web.Response(status=error.status, text=str(error))
        disposition = {"Content-Disposition": f'filename="{_quotable(path.name)}"'}
        changed = _changed_picture(query.get("preview"), query.get("channel", ""))
        if changed is None:
            headers = disposition | {"Content-Type": content_type(path)}
            return web.FileResponse(path, chunk_size=CHUNK, headers=headers)
        try:
            picture, mime = await asyncio.to_thread(changed, path)
        except Exception as error:  # Pillow raises its own kinds, and more, for a broken file
            return web.Response(status=400, text=f"{path.name} cannot be shown: {error}")
        return web.Response(body=picture, content_type=mime, headers=disposition)


def _changed_picture(
    preview: str | None, channel: str
) -> Callable[[Path], tuple[bytes, str]] | None:
    """What makes the picture that was asked for, or None for the file as it is."""
    if preview is not None:  # a channel that has alpha needs a format that has it
        kind = "webp" if "a" in channel else preview.split(";")[0]
        asked = ";".join([kind, *preview.split(";")[1:]])
        return lambda path: smaller(path, asked)
    if channel == "rgb":
        return lambda path: (without_alpha(path), "image/png")
    if channel == "a":
        return lambda path: (only_alpha(path), "image/png")
    return None


def _quotable(name: str) -> str:
    return "".join("_" if each in '"\\' or not each.isprintable() else each for each in name)
