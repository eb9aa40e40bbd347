"""The recordings as they lie on disk, and as our own reader understands them."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

from comfyserve.comfy.protocol import Ended, Message, read_binary_frame, read_text_frame
from tests.traces.lines import Sent
from tests.traces.recording import FOLDER, Recording, Run


def raw_lines(name: str) -> Iterator[dict[str, Any]]:
    """The lines of one recording, as plain JSON."""
    for line in (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
        yield json.loads(line)


def every_raw_line() -> Iterator[dict[str, Any]]:
    """The lines of all recordings."""
    for name in Recording.names():
        yield from raw_lines(name)


def text_of(raw: dict[str, Any]) -> str:
    """What a text frame held."""
    return raw["text"] if "text" in raw else json.dumps(raw["json"])


def bytes_of(raw: dict[str, Any]) -> bytes:
    """What a binary frame held; of a long picture only its beginning was recorded."""
    return base64.b64decode(raw["base64"])


def answers(path_begins: str) -> Iterator[tuple[str, Any]]:
    """Every recorded JSON answer to a GET of such a path, with the path asked."""
    for name in Recording.names():
        asked: dict[int, str] = {}
        for raw in raw_lines(name):
            if raw["kind"] == "http-request" and raw["method"] == "GET":
                asked[raw["id"]] = raw["path"].removeprefix("/api")
            elif raw["kind"] == "http-response" and raw["status"] == 200 and "json" in raw:
                path = asked.get(raw["id"], "")
                if path.startswith(path_begins):
                    yield path, raw["json"]


def heard(name: str, run: Run) -> list[tuple[float, Message]]:
    """What the owner of a recorded run heard from its post to its end, each with its second."""
    recording = Recording.load(name)
    sockets = recording.sockets(run.client_id)
    told: list[tuple[float, Message]] = []
    for line in recording.lines[run.post :]:
        if not isinstance(line, Sent) or line.socket not in sockets:
            continue
        message = read(line)
        if message.prompt_id in (None, run.prompt_id):
            told.append((line.at, message))
        if message == Ended(run.prompt_id):
            break
    return told


def read(line: Sent) -> Message:
    """A recorded message, read."""
    if line.frame is not None:
        return read_binary_frame(line.frame)
    return read_text_frame(json.dumps(line.message))
