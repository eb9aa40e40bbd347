"""FLAC, Ogg (Opus, Vorbis, FLAC) and MP3."""

from __future__ import annotations

from collections.abc import Iterator

from comfyserve.workflows.containers.source import MAX_TEXT, WANTED, Broken, Source, Texts, text


def flac_texts(source: Source) -> Texts:
    """The Vorbis comments of a FLAC file."""
    at, is_last = 4, False
    while not is_last:
        kind = source.number(at, 1)
        size = source.number(at + 1, 3)
        if kind & 127 == _FLAC_COMMENTS:
            yield from _vorbis_comments(source, source.read(at + 4, size))
        is_last = kind > 127
        at += 4 + size


def ogg_texts(source: Source) -> Texts:
    """The Vorbis comments in the headers of an Ogg file's streams."""
    is_flac = False
    for packet in _header_packets(source):
        is_flac = is_flac or packet.startswith(b"\x7fFLAC")
        for start in (b"OpusTags", b"\x03vorbis"):
            if packet.startswith(start):
                yield from _vorbis_comments(source, packet[len(start) :])
        if is_flac and packet[:1] in (b"\x04", b"\x84"):
            yield from _vorbis_comments(source, packet[4:])


def mp3_texts(source: Source) -> Texts:
    """The user's texts and the comments of an ID3 tag of version 2.3 or 2.4."""
    head = source.peek(0, 10)
    if len(head) < 10 or head[:3] != b"ID3" or head[3] not in (3, 4):
        return
    version, flags = head[3], head[5]
    frames: Source | _Unescaped = source
    start, end = 10, 10 + _seven_bits(head[6:10])
    if version == 3 and flags & 0x80:
        frames = _Unescaped(source.read(start, end - start))
        start, end = 0, frames.size
    if flags & 0x40:
        length = frames.read(start, 4)  # only version 2.4 counts these four themselves
        start += 4 + int.from_bytes(length, "big") if version == 3 else _seven_bits(length)
    yield from _id3_frames(source, frames, version, start, end)


_FLAC_COMMENTS = 4


def _vorbis_comments(source: Source, data: bytes) -> Texts:
    at = 4 + _little(data, 0)
    count, at = _little(data, at), at + 4
    for _ in range(count):
        source.count()
        size, at = _little(data, at), at + 4
        if at + size > len(data):
            raise Broken("its comments end too early")
        name, equals, _ = data[at : at + min(size, 40)].partition(b"=")
        lower = name.decode("latin-1").lower()
        if equals and lower in WANTED:
            yield lower, text(data[at + len(name) + 1 : at + size])
        at += size


def _little(data: bytes, at: int) -> int:
    if at + 4 > len(data):
        raise Broken("its comments end too early")
    return int.from_bytes(data[at : at + 4], "little")


def _header_packets(source: Source) -> Iterator[bytes]:
    """The packets before any sound, of all streams, put together from their pages."""
    started: dict[bytes, bytearray] = {}
    at = 0
    while at < source.size:
        head = source.read(at, 27)
        if head[:4] != b"OggS":
            raise Broken("one of its pages is damaged")
        # Headers end at the sample 0; pages on which no packet ends say -1.
        if head[6:14] not in (b"\x00" * 8, b"\xff" * 8):
            return
        lacing = source.read(at + 27, head[26])
        at += 27 + head[26]
        page = source.read(at, sum(lacing))
        at += len(page)
        packet = started.setdefault(head[14:18], bytearray())
        taken = 0
        for size in lacing:
            packet += page[taken : taken + size]
            taken += size
            if size < 255:
                yield bytes(packet)
                packet.clear()
        if len(packet) > MAX_TEXT:
            raise Broken("one of its packets is too large")


class _Unescaped:
    """An ID3 tag whose zeros after 0xFF, put there for old players, were taken out again."""

    def __init__(self, data: bytes) -> None:
        self._data = data.replace(b"\xff\x00", b"\xff")
        self.size = len(self._data)

    def read(self, at: int, size: int) -> bytes:
        if at + size > self.size:
            raise Broken("its ID3 tag ends too early")
        return self._data[at : at + size]


def _id3_frames(
    source: Source, frames: Source | _Unescaped, version: int, start: int, end: int
) -> Texts:
    at = start
    while at + 10 <= end:
        source.count()
        head = frames.read(at, 10)
        if head[:1] == b"\x00":  # padding
            return
        size = int.from_bytes(head[4:8], "big") if version == 3 else _seven_bits(head[4:8])
        if head[:4] in (b"TXXX", b"COMM"):
            content = _frame_content(source, frames.read(at + 10, size), version, head[9])
            yield from _frame_text(content, is_comment=head[:4] == b"COMM")
        at += 10 + size


def _frame_content(source: Source, content: bytes, version: int, flags: int) -> bytes:
    is_packed = flags & (0x80 if version == 3 else 0x08)
    if version == 4 and flags & 0x02:
        content = content.replace(b"\xff\x00", b"\xff")
    if is_packed or (version == 4 and flags & 0x01):
        content = content[4:]  # the length of what was packed
    return source.inflate(content) if is_packed else content


def _frame_text(content: bytes, *, is_comment: bool) -> Texts:
    encoding = _ID3_ENCODINGS.get(content[:1])
    if encoding is None:
        return
    # Three bytes name a comment's language.
    decoded = content[4 if is_comment else 1 :].decode(encoding, "replace")
    name, _, value = decoded.partition("\x00")
    lower = name.lstrip("\ufeff").lower()
    if is_comment and lower not in WANTED:
        lower = "comment"
    if lower in WANTED:
        # In UTF-16 each of the two strings has a byte order mark of its own.
        yield lower, value.lstrip("\ufeff")


_ID3_ENCODINGS = {b"\x00": "latin-1", b"\x01": "utf-16", b"\x02": "utf-16-be", b"\x03": "utf-8"}


def _seven_bits(data: bytes) -> int:
    number = 0
    for byte in data:
        number = number << 7 | byte & 127
    return number
