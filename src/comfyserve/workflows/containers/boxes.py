"""MP4, MOV and M4A, and the pictures built like them (AVIF, HEIC): boxes inside boxes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from comfyserve.workflows.containers.exif import exif_texts
from comfyserve.workflows.containers.source import WANTED, Broken, Source, Texts, text


def film_texts(source: Source) -> Texts:
    """The texts of an MP4, MOV or M4A file: its own names, and its comment.

    The frames are stepped over, so a film of any length costs a few reads.
    """
    for outer in _boxes(source, 0, source.size):
        if outer.kind == b"moov":
            for box in _boxes(source, outer.start, outer.end):
                if box.kind == b"udta":
                    yield from _user_texts(source, box)
                elif box.kind == b"meta":
                    yield from _meta_texts(source, box)


def heif_texts(source: Source) -> Texts:
    """The EXIF items of an AVIF or HEIC picture."""
    for box in _boxes(source, 0, source.size):
        if box.kind == b"meta":
            yield from _item_texts(source, box)


@dataclass(frozen=True, slots=True)
class _Box:
    """What kind of box it is, and from where to where its content lies."""

    kind: bytes
    start: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.start


def _boxes(source: Source, start: int, end: int) -> Iterator[_Box]:
    at = start
    # QuickTime may end a list of boxes with four zero bytes.
    while at + 8 <= end:
        head = source.read(at, 8)
        size, kind, content = int.from_bytes(head[:4], "big"), head[4:], at + 8
        if size == 1:
            size, content = source.number(content, 8), content + 8
        elif size == 0:
            size = end - at
        if at + size < content or at + size > end:
            raise Broken("it ends too early, or one of its boxes is damaged")
        yield _Box(kind, content, at + size)
        at += size


def _user_texts(source: Source, udta: _Box) -> Texts:
    for box in _boxes(source, udta.start, udta.end):
        if box.kind == b"meta":
            yield from _meta_texts(source, box)
        elif box.kind in _COMMENTS and box.size > 4:
            # QuickTime's way: two bytes of length, which overflow, and two of language.
            yield "comment", text(source.read(box.start + 4, box.size - 4))


# What ffmpeg makes of a comment, in MP4 and in MOV.
_COMMENTS = (b"\xa9cmt", b"\xa9des")


def _meta_texts(source: Source, meta: _Box) -> Texts:
    names: dict[bytes, str] = dict.fromkeys(_COMMENTS, "comment")
    for box in _meta_boxes(source, meta):
        if box.kind == b"keys":
            names |= _keys(source, box)
        elif box.kind == b"ilst":
            for item in _boxes(source, box.start, box.end):
                yield from _list_item(source, item, names)


def _meta_boxes(source: Source, meta: _Box) -> Iterator[_Box]:
    # In MP4 a version comes first, in QuickTime it does not.
    is_plain = meta.size >= 8 and source.read(meta.start + 4, 4) == b"hdlr"
    return _boxes(source, meta.start + (0 if is_plain else 4), meta.end)


def _keys(source: Source, keys: _Box) -> dict[bytes, str]:
    """Which text each numbered item of the list is, where it is worth reading."""
    names = {}
    entries = _boxes(source, keys.start + 8, keys.end)
    for number, entry in enumerate(entries, start=1):
        # The longest is "com.apple.quicktime.comment".
        name = text(source.read(entry.start, min(entry.size, 40))).rpartition(".")[2].lower()
        if name in WANTED:
            names[number.to_bytes(4, "big")] = name
    return names


def _list_item(source: Source, item: _Box, names: dict[bytes, str]) -> Texts:
    name = names.get(item.kind, "")
    if not name and item.kind != b"----":
        return
    for box in _boxes(source, item.start, item.end):
        if box.kind == b"name" and box.size < 40:
            own_name = text(source.read(box.start, box.size)[4:]).lower()
            name = own_name if own_name in WANTED else ""
        elif box.kind == b"data" and name and box.size >= 8:
            yield name, text(source.read(box.start + 8, box.size - 8))


def _item_texts(source: Source, meta: _Box) -> Texts:
    boxes = {box.kind: box for box in _boxes(source, meta.start + 4, meta.end)}
    if b"iinf" not in boxes or b"iloc" not in boxes:
        return
    exif = set(_exif_items(source, boxes[b"iinf"]))
    data = boxes.get(b"idat")
    for item, is_inside, parts in _places(source, boxes[b"iloc"]):
        if item in exif:
            base = data.start if data and is_inside else 0
            block = b"".join(source.read(base + at, size) for at, size in parts)
            # Four bytes say how far into the block the EXIF begins.
            yield from exif_texts(source, block[4 + int.from_bytes(block[:4], "big") :])


def _exif_items(source: Source, iinf: _Box) -> Iterator[int]:
    entries = iinf.start + (6 if source.number(iinf.start, 1) == 0 else 8)
    for box in _boxes(source, entries, iinf.end):
        if box.kind == b"infe" and box.size >= 12:
            head = source.read(box.start, min(box.size, 14))
            width = 2 if head[0] < 3 else 4
            if head[0] >= 2 and head[6 + width : 10 + width] == b"Exif":
                yield int.from_bytes(head[4 : 4 + width], "big")


def _places(source: Source, iloc: _Box) -> Iterator[tuple[int, bool, list[tuple[int, int]]]]:
    """Where every item lies: its id, whether in the ``idat`` box, and its parts."""
    numbers = _Numbers(source, source.read(iloc.start, iloc.size))
    version = numbers.take(4) >> 24
    widths = numbers.take(2)
    offset_width, size_width, base_width = widths >> 12, widths >> 8 & 15, widths >> 4 & 15
    index_width = widths & 15 if version in (1, 2) else 0
    id_width = 2 if version < 2 else 4
    for _ in range(numbers.take(id_width)):
        item = numbers.take(id_width)
        is_inside = version in (1, 2) and numbers.take(2) & 15 == 1
        numbers.take(2)
        base = numbers.take(base_width)
        parts = []
        for _ in range(numbers.take(2)):
            numbers.take(index_width)
            parts.append((base + numbers.take(offset_width), numbers.take(size_width)))
        yield item, is_inside, parts


class _Numbers:
    """Bytes that are taken apart into numbers, one after the other."""

    def __init__(self, source: Source, data: bytes) -> None:
        self._source = source
        self._data = data
        self._at = 0

    def take(self, width: int) -> int:
        self._source.count()
        part = self._data[self._at : self._at + width]
        if len(part) < width:
            raise Broken("its list of items ends too early")
        self._at += width
        return int.from_bytes(part, "big")
