"""The lines of a recording: what a recorded client and its server did, one after the other."""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import parse_qs, urlsplit

from tests.traces import made_files

Object: TypeAlias = dict[str, Any]
"""A JSON object as ComfyUI wrote it."""


@dataclass(frozen=True, slots=True)
class Note:
    """What the recorder had to say, or traffic that is not played (pings)."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Opened:
    """A recorded client opened a socket. `client_id` is empty if it named none."""

    at: float
    socket: str
    client_id: str


@dataclass(frozen=True, slots=True)
class Closed:
    """A recorded socket ended: closed by its client, or lost with its server."""

    at: float
    socket: str
    by_server: bool


@dataclass(frozen=True, slots=True)
class Said:
    """A recorded client wrote a text message."""

    at: float
    socket: str
    text: str


@dataclass(frozen=True, slots=True)
class Sent:
    """The server sent a message: either `message` (text) or `frame` (binary) holds it.

    `greeting`: sent because the socket opened or said its flags, whatever runs.
    """

    at: float
    socket: str
    message: Object
    frame: bytes | None = None
    greeting: bool = False

    @property
    def type(self) -> str:
        """The message's type, `binary` for a frame."""
        return "binary" if self.frame is not None else str(self.message.get("type"))

    @property
    def data(self) -> Object:
        """The message's data, empty for a frame or a message without."""
        data = self.message.get("data")
        return data if isinstance(data, dict) else {}

    @property
    def prompt_id(self) -> str | None:
        """The job this message is about, if the message tells."""
        if self.frame is not None and self.frame[:4] == b"\0\0\0\4":
            length = int.from_bytes(self.frame[4:8], "big")
            return str(json.loads(self.frame[8 : 8 + length])["prompt_id"])
        found = self.data.get("prompt_id")
        return found if isinstance(found, str) else None

    @property
    def is_end(self) -> bool:
        """Is this `executing` with no node: the job is over."""
        return self.type == "executing" and self.data.get("node", "") is None


@dataclass(frozen=True, slots=True)
class Request:
    """A recorded client's request. `path` keeps its query, percent-encoded as sent."""

    at: float
    id: int
    method: str
    path: str
    json: Any = None
    filename: str = ""
    """Name of the uploaded file, if one was."""

    @property
    def posts_prompt(self) -> bool:
        """Does this submit a graph?"""
        return self.method == "POST" and self.path in ("/prompt", "/api/prompt")


@dataclass(frozen=True, slots=True)
class Response:
    """The server's answer to the request of the same id; `body` None: too big to be kept."""

    at: float
    id: int
    status: int
    content_type: str
    body: bytes | None
    json: Any = None


Line: TypeAlias = Note | Opened | Closed | Said | Sent | Request | Response


def read_line(raw: Object) -> Line:
    """Read one JSON object of a recording; the README of the recordings tells their form."""
    at = float(raw["t"])
    match raw["kind"]:
        case "ws-open":
            query = parse_qs(urlsplit(raw["path"]).query)
            return Opened(at, raw["ws"], query.get("clientId", [""])[0])
        case "ws-close":
            return Closed(at, raw["ws"], raw["from"] == "server")
        case "ws-text" if raw["from"] == "client":
            return Said(at, raw["ws"], raw.get("text", json.dumps(raw.get("json"))))
        case "ws-text":
            sent = Sent(at, raw["ws"], raw["json"])
            return dataclasses.replace(sent, greeting=_is_greeting(sent))
        case "ws-binary":
            return Sent(at, raw["ws"], {}, frame=_frame(raw))
        case "http-request":
            parts = raw.get("multipart", [])
            filename = next((part["filename"] for part in parts if "filename" in part), "")
            return Request(at, raw["id"], raw["method"], raw["path"], _json(raw), filename)
        case "http-response":
            return _response(at, raw)
        case _:
            return Note(at, str(raw.get("text", "")))


def _json(raw: Object) -> Any:
    """The JSON of a body; a text with a bare NaN is JSON to ComfyUI and Python alone."""
    text = raw.get("text", "")
    return json.loads(text) if text.startswith("{") else raw.get("json")


def _response(at: float, raw: Object) -> Response:
    headers: Mapping[str, str] = raw.get("headers") or {}
    found = _json(raw)
    if "json" in raw:
        body = json.dumps(found).encode()
    elif "base64" in raw:
        body = base64.b64decode(raw["base64"])
    else:
        body = str(raw.get("text", "")).encode()
    whole = None if "truncated" in raw else body
    content_type = headers.get("Content-Type", "application/octet-stream")
    return Response(at, raw["id"], raw["status"], content_type, whole, found)


def _frame(raw: Object) -> bytes:
    frame = base64.b64decode(raw["base64"])
    if "truncated" not in raw:
        return frame
    # only event 1 frames were cut; a whole picture of the same type takes the lost one's place
    kind = "image/png" if frame[7] == 2 else "image/jpeg"
    return frame[:8] + made_files.picture(kind, frame)


def _is_greeting(line: Sent) -> bool:
    names_no_job = line.type == "executing" and "prompt_id" not in line.data
    return "sid" in line.data or names_no_job or line.type == "feature_flags"
