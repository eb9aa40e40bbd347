"""What the server says on its sockets: JSON messages and binary frames, ready to send."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any


class Weight(IntEnum):
    """How much a message matters to a listener who cannot keep up."""

    PREVIEW = 0
    PROGRESS = 1
    NEEDED = 2


@dataclass(frozen=True, slots=True)
class Message:
    """One WebSocket frame, encoded once however many listeners it has."""

    frame: str | bytes
    weight: Weight = Weight.NEEDED

    @property
    def size(self) -> int:
        """Bytes on the wire; the JSON is all ASCII."""
        return len(self.frame)


@dataclass(frozen=True, slots=True)
class Picture:
    """An encoded picture that a node sends, in both forms: with its node's name and without."""

    plain: Message
    named: Message

    @classmethod
    def of(
        cls, encoded: bytes, mime: str, about: Mapping[str, Any], weight: Weight = Weight.PREVIEW
    ) -> Picture:
        """*about* is the metadata of the named form: node and prompt ids."""
        metadata = json.dumps({**about, "image_type": mime}).encode()
        return cls(
            plain=Message(struct.pack(">II", 1, _IMAGE_TYPES.get(mime, 2)) + encoded, weight),
            named=Message(struct.pack(">II", 4, len(metadata)) + metadata + encoded, weight),
        )


_IMAGE_TYPES = {"image/jpeg": 1, "image/png": 2}


def event(kind: str, data: Mapping[str, Any], weight: Weight = Weight.NEEDED) -> Message:
    """A JSON message ``{"type", "data"}``."""
    return Message(json.dumps({"type": kind, "data": data}), weight)


def text_frame(node_id: str, text: str) -> Message:
    """A text that a node shows while it runs (event 3)."""
    name = node_id.encode("utf-8", "replace")
    head = struct.pack(">II", 3, len(name))
    return Message(head + name + text.encode("utf-8", "replace"))


def status(queue_remaining: int, sid: str | None = None) -> Message:
    """How many prompts run or wait; the first one on a socket also tells it its id."""
    data: dict[str, Any] = {"status": {"exec_info": {"queue_remaining": queue_remaining}}}
    if sid is not None:
        data["sid"] = sid
    return event("status", data)
