"""Media that are cut off, damaged, or made to harm: one clear error, in bounded time and memory."""

from __future__ import annotations

import io
import json
import struct
import time
import tracemalloc
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comfyserve.errors import WorkflowUnreadable
from comfyserve.workflows.embedded import Embedded, find_embedded

MEDIA = Path(__file__).parent / "media"
MIB = 2**20


def read_or_refused(data: bytes) -> Embedded | None:
    """What is found in *data*; None if it is refused in the one way that is allowed."""
    try:
        embedded = find_embedded(data, "x")
    except WorkflowUnreadable as error:
        assert str(error).startswith("x is a")
        return None
    if embedded is not None:
        assert embedded.document.startswith("{")
    return embedded


def box(kind: bytes, *content: bytes) -> bytes:
    data = b"".join(content)
    return struct.pack(">I", 8 + len(data)) + kind + data


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + bytes(4)


def glb(content: bytes) -> bytes:
    return b"glTF" + bytes(8) + struct.pack("<I", len(content)) + b"JSON" + content


PNG = b"\x89PNG\r\n\x1a\n"
TEXT = b'prompt={"1": {"class_type": "A"}}'
SEEDS = [file.read_bytes() for file in sorted(MEDIA.iterdir()) if file.suffix != ".md"]
SEEDS += [
    glb(b'{"asset": {"extras": {"prompt": "{}"}}}'),
    struct.pack("<Q", 32) + b'{"__metadata__":{"prompt":"{}"}}' + bytes(8),
    b'<svg><metadata><![CDATA[{"prompt": {}}]]></metadata></svg>',
    b"fLaC\x84\x00\x00\x2d" + bytes(4) + struct.pack("<II", 1, len(TEXT)) + TEXT,
]


@pytest.mark.parametrize("data", SEEDS)
def test_every_cut_is_read_or_refused(data: bytes) -> None:
    """A file cut off anywhere gives what stood before the cut, or one clear error."""
    whole = find_embedded(data)
    assert whole is not None
    for size in range(0, len(data), max(1, len(data) // 400)):
        cut = read_or_refused(data[:size])
        assert cut is None or cut.prompt in (None, whole.prompt)


@settings(max_examples=200, deadline=2000)
@given(st.data())
def test_damage_is_read_or_refused(data: st.DataObject) -> None:
    """Bytes changed, put in or left out anywhere raise nothing but the one error."""
    damaged = bytearray(data.draw(st.sampled_from(SEEDS)))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(damaged)))
        length = data.draw(st.integers(0, 8))
        damaged[at : at + length] = data.draw(
            st.one_of(
                st.binary(max_size=8),
                st.sampled_from(
                    [b"\xff" * 4, b"\x00" * 4, b"\x7f\xff\xff\xff", b"\x00\x00\x00\x01"]
                ),
            )
        )
    read_or_refused(bytes(damaged))


STARTS = [
    PNG,
    b"RIFF\0\0\0\0WEBPEXIF\x40\0\0\0II*\0\x08\0\0\0",
    b"\xff\xd8\xff\xe1",
    b"\0\0\0\x0cftypavif\0\0\1\0meta",
    b"\0\0\0\x0cftypisom\0\0\1\0moov\0\0\0\xf8udta\0\0\0\xf0meta",
    b"\x1aE\xdf\xa3\x80\x18S\x80g\x80\x12T\xc3g\xff",
    b"fLaC\x84\0\0\x40",
    b"OggS",
    b"ID3\x03\0\xc0\0\0\1\0",
    b"ID3\x04\0\x40\0\0\1\0",
    b"glTF\2\0\0\0\0\1\0\0\x40\0\0\0JSON{",
    b'\x40\0\0\0\0\0\0\0{"__metadata__":{',
    b"<svg><metadata><![CDATA[{",
]


@settings(max_examples=200, deadline=2000)
@given(st.sampled_from(STARTS), st.binary(max_size=300))
def test_any_bytes_behind_a_beginning_are_refused(start: bytes, rest: bytes) -> None:
    """Whatever follows the beginning of a medium raises nothing but the one error."""
    read_or_refused(start + rest)


def test_damage_behind_the_texts_does_no_harm() -> None:
    """A picture that was cut off behind its texts still gives them."""
    data = (MEDIA / "text.png").read_bytes()
    assert find_embedded(data[:-30]) == find_embedded(data)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ((MEDIA / "text.png").read_bytes()[:40], "is a PNG picture, but a damaged one: it ends"),
        ((MEDIA / "tags.mp4").read_bytes()[:600], "is an MP4 video, but a damaged one: it ends"),
        ((MEDIA / "tags.webm").read_bytes()[:250], "is a WebM video, but a damaged one: it ends"),
        ((MEDIA / "opus.ogg").read_bytes()[:90], "is an Ogg sound file, but a damaged one: it"),
        (PNG + b"\xff\xff\xff\xfftEXtprompt\0{}", "it ends too early"),
        (glb(b"[]"), "its header is not a JSON object"),
    ],
)
def test_says_that_the_file_is_damaged(data: bytes, said: str) -> None:
    """A file too damaged to tell is called so, not one without a workflow."""
    with pytest.raises(WorkflowUnreadable) as error:
        find_embedded(data, "x")
    assert said in str(error.value)
    assert str(error.value).endswith("Copy or download it again.")


def packed_bomb(size: int) -> bytes:
    packer = zlib.compressobj(9)
    blank = bytes(MIB)
    return b"".join(packer.compress(blank) for _ in range(size // MIB)) + packer.flush()


@pytest.mark.parametrize(
    "start", [b"zTXtprompt\0\0", b"iTXtprompt\0\1\0\0\0"], ids=["zTXt", "iTXt"]
)
def test_a_packed_bomb_is_not_unpacked(start: bytes) -> None:
    """Of a text packed a thousandfold no more is unpacked than any workflow may have."""
    data = PNG + chunk(start[:4], start[4:] + packed_bomb(96 * MIB))
    tracemalloc.start()
    try:
        with pytest.raises(WorkflowUnreadable, match="a packed text holds more than 64 MiB"):
            find_embedded(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 160 * MIB


def exif_with_shared_text(entries: int, size: int) -> bytes:
    at = 8 + 2 + 12 * entries
    entry = struct.pack("<HHII", 0x0110, 2, size, at)
    folder = struct.pack("<4sIH", b"II*\0", 8, entries) + entry * entries
    exif = folder + b"prompt:".ljust(size, b"x")
    return b"RIFF\0\0\0\0WEBPEXIF" + struct.pack("<I", len(exif)) + exif


ENDLESS = {
    "chunks": PNG + chunk(b"abcd", b"") * 250_000,
    "one text, many names": exif_with_shared_text(60_000, 4 * MIB),
    "boxes": box(b"ftyp", b"isom") + box(b"moov", box(b"udta", box(b"abcd") * 250_000)),
    "keys": box(b"ftyp", b"isom")
    + box(b"moov", box(b"meta", bytes(4), box(b"keys", bytes(8), box(b"mdta") * 250_000))),
    "item parts of no bytes": box(b"ftyp", b"avif")
    + box(
        b"meta",
        bytes(4),
        box(b"iinf", bytes(6)),
        box(b"iloc", bytes(6) + b"\xff\xff" + b"\0\1\0\0\xff\xff" * 65535),
    ),
    "elements": b"\x1aE\xdf\xa3\x80" + b"\xec\x80" * 250_000,
    "comments": b"fLaC\x84\x20\x00\x00" + bytes(4) + b"\xff\xff\xff\xff" + bytes(2 * MIB),
    "pages": (b"OggS" + bytes(23)) * 250_000,
    "frames": b"ID3\4\0\0\x7f\x7f\x7f\x7f" + b"TABC\0\0\0\0\0\0" * 250_000,
}


@pytest.mark.parametrize("name", ENDLESS)
def test_no_file_takes_long(name: str) -> None:
    """A file of countless parts is given up on soon."""
    started = time.monotonic()
    with pytest.raises(WorkflowUnreadable, match="it has more than"):
        find_embedded(ENDLESS[name])
    assert time.monotonic() - started < 10


def test_deep_json_is_refused() -> None:
    """JSON nested without end in a header, a comment or a drawing is no workflow."""
    deep = b'{"prompt":' * 50_000
    drawing = b"<svg><metadata><![CDATA[" + deep
    for data in (glb(deep), PNG + chunk(b"tEXt", b"comment\0" + deep), drawing):
        assert read_or_refused(data) is None


def test_a_box_of_its_own_length_ends() -> None:
    """Boxes whose length is zero or shorter than their head do not go round in a circle."""
    for size in (0, 1, 4, 7):
        film = box(b"ftyp", b"isom") + struct.pack(">I4s", size, b"free") + bytes(64)
        assert read_or_refused(film) is None


def test_a_file_that_shrinks_is_refused() -> None:
    """A file that gets shorter while it is read is called damaged."""

    class Shrinking(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(size)[:20]

    with pytest.raises(WorkflowUnreadable):
        find_embedded(Shrinking((MEDIA / "text.png").read_bytes()))


def test_odd_numbers_and_characters_pass_through() -> None:
    """Lone surrogates and numbers without end in a text are left for the reader of graphs."""
    odd = json.dumps({"prompt": {"1": "\ud800", "2": float("inf")}}).encode()
    embedded = find_embedded(PNG + chunk(b"tEXt", b"comment\0" + odd) + chunk(b"IEND", b""))
    assert embedded is not None and embedded.prompt == '{"1": "\\ud800", "2": Infinity}'
