"""Answers HTTP requests as the played server would at this point of the recording."""

from __future__ import annotations

import json
import mimetypes
from typing import Any

from aiohttp import web

from tests.traces import made_files
from tests.traces.ledger import Ledger
from tests.traces.lines import Object, Request, Response
from tests.traces.player import Player
from tests.traces.recording import FOLDER, Recording
from tests.traces.seen import SeenRequest

_SEVERAL_ENDPOINTS = "misc_endpoints"


class Desk:
    """Reads come from the recording where it holds them, else from the state of the replay.

    `/queue` and `/history` are always told from the state, as it is the truth: a recorded answer
    would be true at one moment only. A recorded history entry is used as soon as its job ended.
    """

    def __init__(
        self, recording: Recording, ledger: Ledger, player: Player, empty_reads: int
    ) -> None:
        self._recording = recording
        self._ledger = ledger
        self._player = player
        self._empty_reads = empty_reads
        self._read: dict[str, int] = {}
        self._uploads: dict[tuple[str, str, str], bytes] = {}
        self._named: dict[str, int] = {}

    async def answer(self, request: web.Request, seen: SeenRequest) -> web.StreamResponse:
        """Answer one request, whatever it is."""
        match seen.method, seen.path:
            case "POST", "/prompt":
                return await self._post_prompt(request, seen)
            case "GET", "/prompt":
                return web.json_response({"exec_info": {"queue_remaining": self._ledger.remaining}})
            case "GET", "/queue":
                return web.json_response(self._ledger.queue())
            case "POST", "/queue":
                await self._change_queue(seen.json)
                return web.Response()
            case "GET", path if path == "/history" or path.startswith("/history/"):
                return web.json_response(self._history(path.removeprefix("/history"), seen))
            case "POST", "/history":
                self._change_history(seen.json)
                return web.Response()
            case "POST", "/interrupt":
                named = seen.json.get("prompt_id") if isinstance(seen.json, dict) else None
                self._player.interrupt(named)
                return web.Response()
            case "POST", "/free":
                return web.Response()
            case "POST", "/upload/image" | "/upload/mask":
                return self._upload(seen)
            case "GET" | "HEAD", "/view":
                return self._view(seen)
            case "GET", path if path == "/object_info" or path.startswith("/object_info/"):
                return _object_info(path.removeprefix("/object_info").removeprefix("/"))
        return self._recorded(seen) or web.Response(status=404)

    async def _post_prompt(self, request: web.Request, seen: SeenRequest) -> web.StreamResponse:
        posted = self._player.submit(seen)
        try:
            reply = await posted.reply
            if reply is None:
                if request.transport is not None:
                    request.transport.abort()
                return web.Response(status=500)
            response = _response(self._ledger.rewrite_answer(reply))
            await response.prepare(request)
            await response.write_eof()
            return response
        finally:
            posted.written.set()

    async def _change_queue(self, body: Any) -> None:
        if not isinstance(body, dict):
            return
        for job in list(self._ledger.jobs):
            named = job.prompt_id in (body.get("delete") or ())
            if (named or body.get("clear")) and job.active and job is not self._ledger.running:
                await self._player.vanish(job)

    def _history(self, path: str, seen: SeenRequest) -> Object:
        if path:
            job = self._ledger.job(path.removeprefix("/"))
            if job is None or not job.ended:
                return {}
            self._read[job.prompt_id] = self._read.get(job.prompt_id, 0) + 1
            late = self._read[job.prompt_id] <= self._empty_reads
            return {} if late else self._ledger.history(job)
        ended = [job for job in self._ledger.jobs if job.ended]
        newest = int(seen.query.get("max_items", len(ended)))
        kept = ended[-newest:] if newest > 0 else []
        return {key: entry for job in kept for key, entry in self._ledger.history(job).items()}

    def _change_history(self, body: Any) -> None:
        if not isinstance(body, dict):
            return
        for job in self._ledger.jobs:
            if job.ended and (body.get("clear") or job.prompt_id in (body.get("delete") or ())):
                self._ledger.forget(job)

    def _upload(self, seen: SeenRequest) -> web.Response:
        part = next((part for part in seen.form if part.filename), None)
        if part is None or part.filename is None:
            return web.Response(status=400)
        name = part.filename
        told: Object = {
            "name": name,
            "subfolder": seen.text("subfolder"),
            "type": seen.text("type", "input"),
        }
        answers = self._recorded_uploads(seen.path, name)
        if answers:
            nth = self._named.get(name, 0)
            self._named[name] = nth + 1
            answer = answers[min(nth, len(answers) - 1)]
            if answer.status != 200:
                return _response(answer)
            told = answer.json
        self._uploads[told["name"], told["subfolder"], told["type"]] = part.content
        return web.json_response(told)

    def _recorded_uploads(self, path: str, filename: str) -> list[Response]:
        return [
            answer
            for line, answer in self._recording.exchanges("POST", path)
            if isinstance(request := self._recording.lines[line], Request)
            and request.filename == filename
        ]

    def _view(self, seen: SeenRequest) -> web.Response:
        name, subfolder = seen.query.get("filename", ""), seen.query.get("subfolder", "")
        kind = seen.query.get("type", "output")
        uploaded = self._uploads.get((name, subfolder, kind))
        if uploaded is not None:
            return _file(name, uploaded)
        recorded = self._timely(self._recording.exchanges(seen.method, seen.raw_path))
        if recorded is not None and recorded.body is not None:
            return _response(recorded)
        if recorded is not None or self._recording.knows_file(name, subfolder, kind):
            return _file(name, made_files.file(f"{kind}/{subfolder}/{name}"))
        return web.Response(status=404)

    def _recorded(self, seen: SeenRequest) -> web.Response | None:
        for source in (self._recording, Recording.load(_SEVERAL_ENDPOINTS)):
            answer = self._timely(source.exchanges(seen.method, seen.raw_path))
            if answer is not None and answer.body is not None:
                return _response(self._ledger.rewrite_answer(answer))
        return None

    def _timely(self, found: list[tuple[int, Response]]) -> Response | None:
        """The answer recorded after the run our client posted last, else the nearest before."""
        run = self._player.latest
        following = [r.post for r in self._recording.runs[run.index + 1 : run.index + 2]]
        stop = following[0] if following else len(self._recording.lines)
        within = [answer for line, answer in found if run.post < line < stop]
        before = [answer for line, answer in found if line < run.post]
        after = [answer for line, answer in found if line > stop]
        return next(iter(within or before[-1:] or after), None)


def _response(answer: Response) -> web.Response:
    headers = {"Content-Type": answer.content_type}
    return web.Response(status=answer.status, body=answer.body, headers=headers)


def _file(name: str, content: bytes) -> web.Response:
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    headers = {"Content-Type": kind, "Content-Disposition": f'filename="{name}"'}
    return web.Response(body=content, headers=headers)


def _object_info(class_type: str) -> web.Response:
    content = (FOLDER / "object_info.json").read_bytes()
    if class_type:
        nodes: Object = json.loads(content)
        return web.json_response({k: v for k, v in nodes.items() if k == class_type})
    return web.Response(body=content, content_type="application/json")
