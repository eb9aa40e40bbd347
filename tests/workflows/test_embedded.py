"""Reading the workflow inside the media that ComfyUI saved."""

from __future__ import annotations

import base64
import io
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from comfyserve.errors import WorkflowUnreadable
from comfyserve.workflows.embedded import Embedded, find_embedded
from comfyserve.workflows.graph import parse_graph
from comfyserve.workflows.workflow import Workflow

MEDIA = Path(__file__).parent / "media"
RECORDED = Path(__file__).parents[1] / "traces" / "recordings" / "other_outputs.jsonl"

PROMPT: dict[str, Any] = {
    "1": {
        "class_type": "EmptyImage",
        "inputs": {"width": 16, "height": 16, "color": float("nan")},
        "_meta": {"title": "café 猫"},
    },
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
}
WORKFLOW: dict[str, Any] = {
    "nodes": [{"id": 1, "type": "EmptyImage"}],
    "links": [],
    "version": 0.4,
}
TEXTS = {"prompt": json.dumps(PROMPT), "workflow": json.dumps(WORKFLOW)}


def holds_both(embedded: Embedded | None) -> bool:
    """Both texts are there, and say what was put in; NaN is no obstacle."""
    if embedded is None or embedded.prompt is None or embedded.workflow is None:
        return False
    read = (json.loads(embedded.prompt), json.loads(embedded.workflow))
    return json.dumps(read) == json.dumps((PROMPT, WORKFLOW))


FILES = sorted(file for file in MEDIA.iterdir() if file.suffix != ".md")


@pytest.mark.parametrize("file", FILES, ids=[file.name for file in FILES])
def test_reads_every_container(file: Path) -> None:
    """Both texts are read from every container, from its bytes as from the opened file."""
    from_bytes = find_embedded(file.read_bytes(), file.name)
    with file.open("rb") as opened:
        from_file = find_embedded(opened, file.name)

    assert holds_both(from_bytes)
    assert from_file == from_bytes


def recorded_outputs() -> Iterator[tuple[str, bytes, dict[str, Any]]]:
    """The name and bytes of each file a real ComfyUI saved, and the graph it had been sent."""
    graph: dict[str, Any] = {}
    with RECORDED.open(encoding="utf-8") as lines:
        for line in lines:
            said = json.loads(line)
            if said["from"] == "client" and said.get("path") == "/prompt":
                graph = said["json"]["prompt"]
            elif "base64" in said:
                name = said["headers"]["Content-Disposition"].split('"')[1]
                yield name, base64.b64decode(said["base64"]), graph


OUTPUTS = list(recorded_outputs())


@pytest.mark.parametrize(("name", "data", "graph"), OUTPUTS, ids=[name for name, *_ in OUTPUTS])
def test_reads_what_a_real_server_saved(name: str, data: bytes, graph: dict[str, Any]) -> None:
    """From each file that a real ComfyUI saved comes the graph it was sent, ready to run."""
    embedded = find_embedded(data, name)

    assert embedded is not None and embedded.prompt is not None
    assert parse_graph(embedded.prompt) == graph


def test_recording_has_every_kind_of_output() -> None:
    """The recorded outputs are of all kinds, so that none of them goes untested."""
    endings = {Path(name).suffix for name, *_ in OUTPUTS}
    assert endings == {".webp", ".png", ".flac", ".mp3", ".opus", ".latent", ".webm", ".mp4"}


def test_reads_a_drawing() -> None:
    """An SVG's metadata is read though its texts hold what would end it for a plain reader."""
    odd = PROMPT | {"3": {"class_type": "Note", "inputs": {"text": "]]></metadata>"}}}
    content = json.dumps({"prompt": odd, "workflow": WORKFLOW}, indent=2)
    head = '<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg" width="1">\n'
    drawing = f"{head}<metadata>\n<![CDATA[\n{content}\n]]>\n</metadata>\n<path/></svg>"

    embedded = find_embedded(drawing.encode())

    assert embedded is not None and embedded.prompt is not None
    assert json.loads(embedded.prompt)["3"] == odd["3"]
    assert json.loads(embedded.workflow or "") == WORKFLOW


def test_reads_a_drawing_that_was_written_again() -> None:
    """A program may save the SVG with entities in place of the marked section."""
    content = json.dumps({"prompt": PROMPT, "workflow": WORKFLOW}).replace('"', "&quot;")
    assert holds_both(
        find_embedded(f"<svg><g/><metadata id='m'>{content}</metadata></svg>".encode())
    )


def glb(document: object) -> bytes:
    content = json.dumps(document).encode()
    size = len(content)
    return struct.pack("<4sIIII", b"glTF", 2, 20 + size, size, 0x4E4F534A) + content


@pytest.mark.parametrize(
    "document",
    [
        {"asset": {"version": "2.0", "extras": TEXTS}},
        {"asset": {"version": "2.0"}, "extras": {"prompt": PROMPT, "workflow": WORKFLOW}},
    ],
)
def test_reads_a_model(document: object) -> None:
    """A GLB model's extras are read, at its asset or at its root, as text or as JSON."""
    assert holds_both(find_embedded(glb(document)))


def safetensors(metadata: dict[str, str]) -> bytes:
    header = json.dumps({"__metadata__": metadata, "latent_tensor": {"shape": [0]}}).encode()
    return struct.pack("<Q", len(header)) + header


def test_reads_a_latent() -> None:
    """A latent's metadata is read; with metadata switched off there is nothing in it."""
    assert holds_both(find_embedded(safetensors(TEXTS)))
    with pytest.raises(WorkflowUnreadable, match="safetensors file without a ComfyUI workflow"):
        find_embedded(safetensors({"prompt": ""}))


def comments(texts: dict[str, str]) -> bytes:
    entries = [f"{name}={text}".encode() for name, text in texts.items()]
    packed = b"".join(struct.pack("<I", len(entry)) + entry for entry in entries)
    return struct.pack("<I", 3) + b"abc" + struct.pack("<I", len(entries)) + packed


def ogg_page(serial: int, packet: bytes, *, has_end: bool = True) -> bytes:
    sizes = [255] * (len(packet) // 255) + ([len(packet) % 255] if has_end else [])
    head = struct.pack("<4sBBqIIIB", b"OggS", 0, 0, 0 if has_end else -1, serial, 0, 0, len(sizes))
    return head + bytes(sizes) + packet


def test_reads_comments_that_span_pages() -> None:
    """An Ogg header of several pages is put together, though another stream comes between."""
    header = b"\x03vorbis" + comments({"LYRICS": "la " * 10_000} | TEXTS)
    cut = 255 * 100
    data = ogg_page(1, b"\x01vorbis") + ogg_page(2, b"\x80theora")
    data += ogg_page(1, header[:cut], has_end=False) + ogg_page(2, b"\x81theora")
    assert holds_both(find_embedded(data + ogg_page(1, header[cut:])))


def id3(version: int, frames: bytes, flags: int = 0) -> bytes:
    return b"ID3" + bytes([version, 0, flags]) + seven_bits(len(frames)) + frames


def seven_bits(number: int) -> bytes:
    return bytes(number >> shift & 127 for shift in (21, 14, 7, 0))


def frame(version: int, content: bytes, flags: int = 0) -> bytes:
    size = struct.pack(">I", len(content)) if version == 3 else seven_bits(len(content))
    return b"TXXX" + size + bytes([0, flags]) + content


@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize(
    ("number", "encoding"), [(0, "latin-1"), (1, "utf-16"), (2, "utf-16-be"), (3, "utf-8")]
)
def test_reads_every_encoding_of_id3(version: int, number: int, encoding: str) -> None:
    """An ID3 tag is read in each of its versions and encodings."""
    contents = [
        bytes([number]) + f"{name}\0".encode(encoding) + text.encode(encoding)
        for name, text in TEXTS.items()
    ]
    data = id3(version, b"".join(frame(version, content) for content in contents) + bytes(50))
    assert holds_both(find_embedded(data))


def test_reads_id3_as_old_players_wanted_it() -> None:
    """Zeros put after 0xFF are taken out again, and an extended header is stepped over."""
    contents = [b"\x01" + f"{name}\0{text}".encode("utf-16") for name, text in TEXTS.items()]
    frames = b"".join(frame(3, content) for content in contents)
    escaped = (struct.pack(">IHI", 6, 0, 0) + frames).replace(b"\xff", b"\xff\x00")
    assert holds_both(find_embedded(id3(3, escaped, flags=0xC0)))

    escaped_each = [content.replace(b"\xff", b"\xff\x00") for content in contents]
    frames = b"".join(frame(4, content, flags=2) for content in escaped_each)
    assert holds_both(find_embedded(id3(4, seven_bits(6) + b"\x01\x00" + frames, flags=0xC0)))


def element(kind: str, *content: bytes) -> bytes:
    data = b"".join(content)
    return bytes.fromhex(kind) + (1 << 28 | len(data)).to_bytes(4, "big") + data


def test_reads_tags_behind_a_live_recording() -> None:
    """In a recording of unknown length, tags are found behind frames."""
    unknown = b"\x01" + b"\xff" * 7
    simple_tags = [
        element("67C8", element("45A3", name.upper().encode()), element("4487", text.encode()))
        for name, text in TEXTS.items()
    ]
    cluster = bytes.fromhex("1F43B675") + unknown + element("A3", bytes(300)) * 3
    tags = element("1254C367", element("7373", element("63C0"), *simple_tags))
    data = element("1A45DFA3", b"\x42\x82\x84webm")
    assert holds_both(find_embedded(data + bytes.fromhex("18538067") + unknown + cluster + tags))


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    packed = (struct.pack(">I", len(data)) + kind + data + bytes(4) for kind, data in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


@pytest.mark.parametrize("name", ["text.png", "tags.mp4", "tags.mkv", "opus.ogg", "id3_v24.mp3"])
def test_a_prompt_is_enough(name: str) -> None:
    """A file with only one of the texts is read, and the graph comes from the one it has."""
    data = (MEDIA / name).read_bytes()
    without_workflow = data.replace(b"workflow", b"wxrkflow").replace(b"WORKFLOW", b"WXRKFLOW")
    without_prompt = data.replace(b"prompt", b"prxmpt").replace(b"PROMPT", b"PRXMPT")

    only_prompt, only_workflow = find_embedded(without_workflow), find_embedded(without_prompt)

    assert only_prompt is not None and only_workflow is not None
    assert (only_prompt.workflow, only_workflow.prompt) == (None, None)
    assert only_prompt.document == only_prompt.prompt
    assert only_workflow.document == only_workflow.workflow


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (png((b"IEND", b"")), "x.png is a PNG picture without a ComfyUI workflow inside. Files"),
        (png((b"tEXt", b"prompt\0a cat"), (b"IEND", b"")), "PNG picture without a ComfyUI"),
        (png((b"tEXt", b"prompt\0null"), (b"IEND", b"")), "PNG picture without a ComfyUI"),
        (png((b"tEXt", b'comment\0{"prompt": "a cat"}'), (b"IEND", b"")), "without a ComfyUI"),
        (b"\xff\xd8\xff\xd9", "is a JPEG picture without"),
        (b"RIFF\0\0\0\0WEBPVP8 \0\0\0\0", "is a WebP picture without"),
        (b"\x00\x00\x00\x10ftypavif" + bytes(4), "is an AVIF picture without"),
        (b"<svg><metadata><rdf:RDF/></metadata></svg>", "is an SVG drawing without"),
        (b"\x00\x00\x00\x0cftypisom", "is an MP4 video without"),
        (b"\x1aE\xdf\xa3\x80", "is a Matroska video without"),
        (b"fLaC\x80\x00\x00\x00", "is a FLAC sound file without"),
        (b"\xff\xfb\x90\x00" + bytes(100), "is an MP3 sound file without"),
        (glb({"asset": {}}), "is a GLB model without"),
    ],
)
def test_says_that_the_workflow_is_not_there(data: bytes, said: str) -> None:
    """A medium without a workflow is named for what it is, and how it may have lost it."""
    with pytest.raises(WorkflowUnreadable) as error:
        find_embedded(data, "x.png")
    assert said in str(error.value)
    assert "use the one that ComfyUI saved." in str(error.value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        json.dumps(PROMPT).encode(),
        json.dumps(PROMPT).encode("utf-16"),
        b"GIF89a",
        b"\0",
    ],
)
def test_leaves_alone_what_carries_nothing(data: bytes) -> None:
    """What is no medium that ComfyUI writes texts into is left to other readers."""
    assert find_embedded(data) is None


def test_a_medium_is_a_workflow_file(tmp_path: Path) -> None:
    """A picture loads like an export, by the graph in it and under its own name."""
    data = next(data for name, data, _ in OUTPUTS if name.endswith(".webp"))
    picture = tmp_path / "ma photo é.webp"
    picture.write_bytes(data)

    loaded, read = Workflow.load(picture), Workflow.from_bytes(data, "ma photo é")

    assert loaded == read
    assert loaded.name == "ma photo é"
    assert [parameter.name for parameter in loaded.parameters] == ["width", "height", "batch_size"]


def test_a_film_is_read_without_its_frames() -> None:
    """Of a film of sixteen gigabytes, little more than its texts is read, wherever they are."""
    film = (MEDIA / "tags.mp4").read_bytes()
    start = film.index(b"mdat") - 4
    end = start + struct.unpack_from(">I", film, start)[0]
    hole = 16 * 2**30
    long_box = struct.pack(">I4sQ", 1, b"mdat", 16 + hole)

    with Holed(film[:start] + long_box, hole, film[end:]) as opened:
        embedded = find_embedded(io.BufferedReader(opened, 16))
        assert holds_both(embedded)
        assert opened.bytes_read < 20_000


class Holed(io.RawIOBase):
    """A file with a hole of zeros in it, which counts the bytes that are read."""

    def __init__(self, before: bytes, hole: int, after: bytes) -> None:
        self._before, self._hole, self._after = before, hole, after
        self._at = self.bytes_read = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        size = len(self._before) + self._hole + len(self._after)
        self._at = offset + (0, self._at, size)[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        behind = self._at - len(self._before) - self._hole
        if behind >= 0:
            part = self._after[behind:][:size]
        else:
            part = (self._before[self._at :] + bytes(size))[:size]
        self._at += len(part)
        self.bytes_read += len(part)
        return part

    def readinto(self, buffer: Any) -> int:
        part = self.read(len(buffer))
        buffer[: len(part)] = part
        return len(part)
