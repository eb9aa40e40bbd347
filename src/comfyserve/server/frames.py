"""Events as the frames of a stream, and as the messages of a socket."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final, Generic, TypeVar

from comfyserve.events import Event, PreviewDrawn, ProgressMade
from comfyserve.jobs import JobRecord
from comfyserve.server import documents
from comfyserve.server.links import Links

Made = TypeVar("Made", str, bytes)

_MOST_KEPT: Final = 64


class Frames:
    """Events as frames and messages; each is made once, however many listeners of a kind it has."""

    def __init__(self) -> None:
        self._frames: _Latest[bytes] = _Latest()
        self._messages: _Latest[str] = _Latest()
        self._pictures: _Latest[bytes] = _Latest()

    def frame(self, event: Event, links: Links, record: JobRecord, numbered: bool) -> bytes:
        """The frame of the event, with its number where one is wanted and it has one."""
        key = id(event), links, numbered
        if (made := self._frames.get(key)) is not None:
            return made
        name, document = documents.event_frame(event, links, record.expires_at)
        data = documents.encoded(document)
        number = _number_of(event)
        mark = f"id: {number}\n" if numbered and number is not None else ""
        frame = b"event: %b\n%bdata: %b\n\n" % (name.encode(), mark.encode(), data)
        return self._frames.keep(key, event, frame)

    def message(self, event: Event, links: Links, record: JobRecord) -> str:
        """The event as a message of a socket, which may tell of many jobs."""
        key = id(event), links
        if (made := self._messages.get(key)) is not None:
            return made
        name, document = documents.event_frame(event, links, record.expires_at)
        message = documents.encoded(
            {
                "type": "event",
                "job_id": event.job_id,
                "seq": _number_of(event),
                "event": name,
                "data": document,
            }
        )
        return self._messages.keep(key, event, message.decode("ascii"))

    def picture(self, event: PreviewDrawn) -> bytes:
        """A preview as a binary message: how long its head is, its head as JSON, its bytes."""
        key = id(event)
        if (made := self._pictures.get(key)) is not None:
            return made
        preview = event.preview
        head = documents.encoded(
            {
                "type": "preview",
                "job_id": event.job_id,
                "node_id": preview.node_id or "",
                "content_type": preview.content_type,
            }
        )
        message = b"".join((len(head).to_bytes(4, "big"), head, preview.data))
        return self._pictures.keep(key, event, message)


def _number_of(event: Event) -> int | None:
    return None if isinstance(event, ProgressMade | PreviewDrawn) else event.seq


class _Latest(Generic[Made]):
    """What was made of the latest events."""

    def __init__(self) -> None:
        self._made: OrderedDict[Hashable, tuple[Event, Made]] = OrderedDict()

    def get(self, key: Hashable) -> Made | None:
        found = self._made.get(key)
        return None if found is None else found[1]

    def keep(self, key: Hashable, event: Event, made: Made) -> Made:
        # The event is kept beside it, so that no other gets its identity meanwhile.
        self._made[key] = event, made
        if len(self._made) > _MOST_KEPT:
            self._made.popitem(last=False)
        return made
