"""Plays the client's side of a recording against the built-in engine, and notes what it answers.

Before each thing the client does, the replay waits until the engine has come as far as the real
server had: prompts that had ended have ended, samplers that had begun have begun. So it compares
what is said, and in which order, but not when.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from yarl import URL

from tests.engine_words import Heard, recorded_picture

RECORDINGS = Path(__file__).parent / "traces" / "recordings"
PATIENCE = 20.0
RECORDED_CHECKPOINT = "tiny_random_sd15.safetensors"
WAITED = ("a normal prompt after it ends", "client-b got its end message within")
"""How notes begin where the recorded client waited for an end, whether it came or not."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request, how the real server answered (None: not at all), and how the engine did."""

    id: int
    note: str
    request: dict[str, Any]
    recorded: dict[str, Any] | None
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(slots=True)
class Replayed:
    """A recording beside its replay."""

    exchanges: list[Exchange] = field(default_factory=list)
    recorded: dict[str, Heard] = field(default_factory=dict)
    heard: dict[str, Heard] = field(default_factory=dict)
    prompts: dict[str, str] = field(default_factory=dict)
    """Recorded prompt ids, and what the engine calls the same prompts. Refused ones are not in."""


def read(name: str) -> list[dict[str, Any]]:
    """The lines of a recording."""
    text = (RECORDINGS / f"{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


async def replay(
    name: str,
    url: str,
    checkpoint: str,
    *,
    rename_prompts: bool = True,
    at_note: Callable[[str], None] = lambda note: None,
) -> Replayed:
    """Do what the client of recording *name* did, to the engine at *url*.

    *at_note* is called with each note of the recording, for what the client did beside the wire.
    """
    lines = read(name)
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE))
        )
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        player = _Player(lines, URL(url), session, tasks, checkpoint, rename_prompts)
        try:
            for index, line in enumerate(lines):
                if line["kind"] == "note":
                    at_note(line["text"])
                await player.take(index, line)
            await player.catch_up()
        finally:
            await player.close()
    return player.result


class _Player:
    def __init__(
        self,
        lines: list[dict[str, Any]],
        url: URL,
        session: aiohttp.ClientSession,
        tasks: asyncio.TaskGroup,
        checkpoint: str,
        rename_prompts: bool,
    ) -> None:
        self.answers = {line["id"]: line for line in lines if line["kind"] == "http-response"}
        self.url = url
        self.session = session
        self.tasks = tasks
        self.checkpoint = checkpoint
        self.rename_prompts = rename_prompts
        self.result = Replayed()
        self.sockets: dict[str, aiohttp.ClientWebSocketResponse] = {}
        self.readers: dict[str, asyncio.Task[None]] = {}
        self.headers: dict[str, str] = {}
        self.note = ""
        self.idle = False
        self.pongs = 0

    async def take(self, index: int, line: dict[str, Any]) -> None:
        """Do what the client did, or take note of what the server said."""
        match line["from"], line["kind"]:
            case _, "note":
                self.note = line["text"]
                self.idle = self.idle or self.note.startswith(WAITED)
            case "client", "ws-open":
                await self.catch_up()
                await self._open(line["ws"], line["path"])
            case "client", "ws-close":
                await self.catch_up()
                await self._close(line["ws"])
            case "client", "ws-ping":
                await self.sockets[line["ws"]].ping(line["text"].encode())
            case "client", "ws-text":
                text = json.dumps(line["json"]) if "json" in line else line["text"]
                await self.sockets[line["ws"]].send_str(text)
            case "client", "http-request":
                await self.catch_up()
                await self._ask(line)
            case "server", "ws-text" if "json" in line:
                self._note_recorded(line)
            case "server", "ws-binary":
                recorded = self.result.recorded[line["ws"]]
                recorded.words.append((recorded.about, recorded_picture(line["decoded"])))
            case "server", "ws-pong":
                await self._until(lambda: self.pongs > 0)

    async def catch_up(self) -> None:
        """Wait until the engine is as far as the recorded server was."""
        await self._until(self._caught_up)
        while self.idle:
            async with self.session.get(self.url / "prompt") as answer:
                if (await answer.json())["exec_info"]["queue_remaining"] == 0:
                    break
            await asyncio.sleep(0.01)

    async def close(self) -> None:
        for name in list(self.sockets):
            await self._close(name)

    def _caught_up(self) -> bool:
        for name, recorded in self.result.recorded.items():
            heard = self.result.heard[name]
            if name not in self.readers:
                continue
            if not {self._ours(each) for each in recorded.ended} - {None} <= heard.ended:
                return False
            if not {self._ours(each) for each in recorded.stepping} - {None} <= heard.stepping:
                return False
        return True

    def _ours(self, recorded: str) -> str | None:
        return self.result.prompts.get(recorded)

    def _note_recorded(self, line: dict[str, Any]) -> None:
        message = line["json"]
        if message["type"] == "status":
            self.idle = message["data"]["status"]["exec_info"]["queue_remaining"] == 0
        self.result.recorded[line["ws"]].note(json.dumps(message))

    async def _until(self, reached: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not reached():
            if time.monotonic() > deadline:
                raise TimeoutError(f"the engine did not get as far as the recording: {self.note}")
            await asyncio.sleep(0.005)

    async def _open(self, name: str, path: str) -> None:
        self.result.recorded[name] = Heard()
        self.result.heard[name] = Heard()
        socket = await self.session.ws_connect(
            self.url.join(URL(path, encoded=True)), autoping=False, max_msg_size=2**26
        )
        self.sockets[name] = socket
        if name != "slow":
            self.readers[name] = self.tasks.create_task(self._read(name, socket))

    async def _read(self, name: str, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for message in socket:
            if message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                self.result.heard[name].note(message.data)
            elif message.type is aiohttp.WSMsgType.PONG:
                self.pongs += 1

    async def _close(self, name: str) -> None:
        await self.sockets.pop(name).close()
        reader = self.readers.pop(name, None)
        if reader is not None:
            await reader

    async def _ask(self, line: dict[str, Any]) -> None:
        recorded = self.answers.get(line["id"])
        path = self._rewritten(line["path"])
        if line["method"] == "POST" and line["path"] == "/prompt":
            self.idle = False
        if path.startswith("/history/") and recorded and recorded.get("json"):
            await self._wait_for_history(path)
        content, headers = self._content(line)
        async with self.session.request(
            line["method"],
            self.url.join(URL(path, encoded=True)),
            data=content,
            headers=headers,
            skip_auto_headers=[] if "multipart" in line else ["Content-Type"],
        ) as answer:
            body = await answer.read()
        exchange = Exchange(
            line["id"], self.note, line, recorded, answer.status, dict(answer.headers), body
        )
        self.result.exchanges.append(exchange)
        self._learn(exchange)

    async def _wait_for_history(self, path: str) -> None:
        if path.removeprefix("/history/") not in self.result.prompts.values():
            return
        deadline = time.monotonic() + PATIENCE
        while True:
            async with self.session.get(self.url.join(URL(path))) as answer:
                if await answer.json():
                    return
            if time.monotonic() > deadline:
                raise TimeoutError(f"{path} stays empty: {self.note}")
            await asyncio.sleep(0.01)

    def _learn(self, exchange: Exchange) -> None:
        """Remember what the engine calls what the recorded server had another name for."""
        recorded = exchange.recorded
        if recorded is None:
            return
        for name in ("Etag", "Last-Modified"):
            if name in recorded.get("headers", {}) and name in exchange.headers:
                self.headers[recorded["headers"][name]] = exchange.headers[name]
        told = recorded.get("json")
        is_prompt = exchange.request["path"] == "/prompt" and exchange.request["method"] == "POST"
        if is_prompt and exchange.status == 200 and isinstance(told, dict) and "prompt_id" in told:
            self.result.prompts[told["prompt_id"]] = exchange.json["prompt_id"]

    def _content(self, line: dict[str, Any]) -> tuple[Any, dict[str, str]]:
        headers = {
            name: self.headers.get(value, value.replace(":8188", f":{self.url.port}"))
            for name, value in line.get("headers", {}).items()
            if name in ("Content-Type", "Origin", "Host", "Range") or name.startswith("If-")
        }
        if "multipart" in line:
            headers.pop("Content-Type")
            return _form(line["multipart"]), headers
        if "json" in line:
            body = line["json"]
            if isinstance(body, dict) and "elided" in body:
                body = {"prompt": {"1": {"class_type": "x" * 2_000_000, "inputs": {}}}}
            return io.BytesIO(self._rewritten(json.dumps(body)).encode()), headers
        if "text" in line:
            return self._rewritten(line["text"]).encode(), headers
        return None, headers

    def _rewritten(self, text: str) -> str:
        """*text* with the engine's names in place of the recorded ones."""
        text = text.replace(RECORDED_CHECKPOINT, self.checkpoint)
        for recorded, ours in self.result.prompts.items():
            if len(recorded) >= 8:
                text = text.replace(recorded, ours)
        if text.startswith("/view?"):
            for recorded, ours in self._saved_files():
                text = text.replace(f"filename={recorded}", f"filename={ours}")
        if self.rename_prompts and '"prompt_id": "' in text:
            text = re.sub(r'"prompt_id": "([^"]{1,15})"', _canonical, text)
        return text

    def _saved_files(self) -> Iterator[tuple[str, str]]:
        """Recorded names of saved files, and the names the engine gave them."""
        for socket, recorded in self.result.recorded.items():
            for (prompt, node), names in recorded.files.items():
                ours = self.result.prompts.get(prompt, "")
                saved = self.result.heard[socket].files.get((ours, node), [])
                yield from zip(names, saved, strict=False)


def same_sort(name: str) -> str:
    """A UUID that sorts as *name* does."""
    return str(uuid.UUID(bytes=name.encode()[:16].ljust(16, b"\0")))


def _canonical(match: re.Match[str]) -> str:
    return f'"prompt_id": "{same_sort(match[1])}"'


def _form(parts: list[dict[str, Any]]) -> aiohttp.FormData:
    form = aiohttp.FormData(quote_fields=False, default_to_multipart=True)
    for part in parts:
        if "filename" in part:
            content = b"\0" * part["size"] if part.get("elided") else b""
            form.add_field(
                part["name"],
                io.BytesIO(base64.b64decode(part.get("base64", "")) or content),
                filename=part["filename"],
                content_type=part["content_type"],
            )
        else:
            form.add_field(part["name"], part["value"])
    return form
