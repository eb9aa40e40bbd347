"""Events as the frames of a stream."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from comfyserve.events import Event, PreviewDrawn, ProgressMade
from comfyserve.jobs import JobRecord
from comfyserve.server import documents
from comfyserve.server.links import Links

_MOST_KEPT: Final = 64


class Frames:
    """Events as frames; each is made once, however many streams of a kind send it."""

    def __init__(self) -> None:
        self._made: OrderedDict[tuple[int, Links, bool], tuple[Event, bytes]] = OrderedDict()

    def frame(self, event: Event, links: Links, record: JobRecord, numbered: bool) -> bytes:
        """The frame of the event, with its number where one is wanted and it has one."""
        key = id(event), links, numbered
        if (made := self._made.get(key)) is not None:
            return made[1]
        name, document = documents.event_frame(event, links, record.expires_at)
        data = documents.encoded(document)
        number = None if isinstance(event, ProgressMade | PreviewDrawn) else event.seq
        mark = f"id: {number}\n" if numbered and number is not None else ""
        frame = b"event: %b\n%bdata: %b\n\n" % (name.encode(), mark.encode(), data)
        # The event is kept beside its frame, so that no other gets its identity meanwhile.
        self._made[key] = event, frame
        if len(self._made) > _MOST_KEPT:
            self._made.popitem(last=False)
        return frame
