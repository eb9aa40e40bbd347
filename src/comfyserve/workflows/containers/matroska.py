"""Matroska and WebM: elements whose ids and lengths are numbers of varying width."""

from __future__ import annotations

from collections.abc import Iterator

from comfyserve.workflows.containers.source import WANTED, Broken, Source, Texts, text

_SEGMENT, _CLUSTER = 0x18538067, 0x1F43B675
_TAGS, _TAG, _SIMPLE_TAG, _TAG_NAME, _TAG_STRING = 0x1254C367, 0x7373, 0x67C8, 0x45A3, 0x4487


def matroska_texts(source: Source) -> Texts:
    """The tags of a Matroska or WebM file.

    Clusters, which hold the frames, are stepped over. In a live recording their length is not
    known, so there the step goes from frame to frame.
    """
    for kind, start, end in _elements(source, 0, source.size):
        if kind == _TAGS:
            for tag in _inside(source, start, end, _TAG):
                for simple_tag in _inside(source, *tag, _SIMPLE_TAG):
                    yield from _simple_tag(source, *simple_tag)


def _simple_tag(source: Source, start: int, end: int) -> Texts:
    # Writers put names in capitals, and may end texts with zeros.
    for at, name_end in _inside(source, start, end, _TAG_NAME):
        name = text(source.read(at, min(name_end - at, 40))).strip("\x00").lower()
        if name in WANTED:
            for value, value_end in _inside(source, start, end, _TAG_STRING):
                yield name, text(source.read(value, value_end - value))


def _inside(source: Source, start: int, end: int, wanted: int) -> Iterator[tuple[int, int]]:
    for kind, inner_start, inner_end in _elements(source, start, end):
        if kind == wanted:
            yield inner_start, inner_end


def _elements(source: Source, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The elements from *start* to *end*, and those in segments as if they were not inside."""
    at = start
    while at < end:
        head = source.peek(at, 12)
        kind, width = _number(head, keeps_mark=True, widest=4)
        size, more = _number(head[width:], keeps_mark=False, widest=8)
        at += width + more
        if kind == _SEGMENT or (kind == _CLUSTER and size is None):
            continue
        if kind is None or size is None or at + size > end:
            raise Broken("it ends too early, or one of its elements is damaged")
        yield kind, at, at + size
        at += size


def _number(data: bytes, *, keeps_mark: bool, widest: int) -> tuple[int | None, int]:
    """The number that *data* begins with and its width; None for a length that is not known."""
    width = 9 - data[0].bit_length() if data else 9
    if width > min(widest, len(data)):
        raise Broken("it ends too early, or one of its elements is damaged")
    number = int.from_bytes(data[:width], "big")
    if keeps_mark:
        return number, width
    mark = 1 << 7 * width
    value = number & mark - 1
    return (None if value == mark - 1 else value), width
