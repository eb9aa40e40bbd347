"""What is known of bytes: their type, told from the content, and names that are safe."""

from __future__ import annotations

import base64
import io
import json
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from comfyserve.assets import (
    HEAD_SIZE,
    Upload,
    content_hash,
    content_type,
    media_kind,
    safe_folder,
    safe_name,
)
from tests.traces.recording import FOLDER, Recording

WINDOWS_DEVICES = {
    *("CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"),
    *(f"COM{n}" for n in "123456789¹²³"),
    *(f"LPT{n}" for n in "123456789¹²³"),
}


def test_every_recorded_file_has_the_right_type() -> None:
    """The type told from the bytes of each file a real server served is the type of its ending."""
    told = {(name, content_type(body, name)) for name, body in _served_files()}

    assert {(PurePosixPath(name).suffix, mime) for name, mime in told} == {
        (".png", "image/png"),
        (".webp", "image/webp"),
        (".jpeg", "image/jpeg"),
        (".flac", "audio/flac"),
        (".mp3", "audio/mpeg"),
        (".opus", "audio/ogg"),
        (".latent", "application/x-comfyui-latent"),
        (".webm", "video/webm"),
        (".mp4", "video/mp4"),
        (".html", "text/plain"),
        (".txt", "text/plain"),
    }
    assert len(told) >= 25


def test_the_beginning_of_a_recorded_file_is_enough() -> None:
    """The type told from the first kilobyte is the type told from the whole file."""
    for name, body in _served_files():
        assert content_type(body[:1024]) == content_type(body), name


def test_a_type_needs_no_name() -> None:
    """Media are told without their name, and a wrong name changes nothing."""
    for name, body in _served_files():
        if not name.endswith((".html", ".txt")):
            assert content_type(body) == content_type(body, "liar.json") == content_type(body, name)


@pytest.mark.parametrize(
    ("format_name", "mime"),
    [
        ("PNG", "image/png"),
        ("JPEG", "image/jpeg"),
        ("GIF", "image/gif"),
        ("WEBP", "image/webp"),
        ("TIFF", "image/tiff"),
    ],
)
def test_pictures_as_a_library_writes_them(format_name: str, mime: str) -> None:
    """Pictures written by Pillow are known by their bytes, and are images."""
    file = io.BytesIO()
    Image.new("RGB", (2, 2)).save(file, format=format_name)

    assert content_type(file.getvalue()) == mime
    assert media_kind(mime) == "image"


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + kind + content


def ebml(doc_type: bytes) -> bytes:
    inner = b"\x42\x86\x81\x01\x42\xf7\x81\x01\x42\x82" + bytes([0x80 | len(doc_type)]) + doc_type
    return (
        b"\x1a\x45\xdf\xa3" + bytes([0x80 | len(inner)]) + inner + b"\x18\x53\x80\x67" + b"\0" * 9
    )


def glb() -> bytes:
    scene = json.dumps({"asset": {"version": "2.0"}}).encode()
    scene += b" " * (-len(scene) % 4)
    chunk = struct.pack("<I4s", len(scene), b"JSON") + scene
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunk)) + chunk


def safetensors(**tensors: Any) -> bytes:
    header = json.dumps(tensors).encode()
    return struct.pack("<Q", len(header)) + header + b"\0" * 64


def packed(name: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, "content")
    return file.getvalue()


TENSOR = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
SVG = '<svg xmlns="http://www.w3.org/2000/svg"><path d="M0 0"/></svg>'
DOCTYPE = (
    '<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "http://www.w3.org/Graphics/SVG/1.1/svg.dtd">'
)

HANDMADE = [
    ("3d.glb", glb(), "model/gltf-binary", "file"),
    ("a.svg", SVG.encode(), "image/svg+xml", "image"),
    ("xml.svg", f'<?xml version="1.0"?>\n{SVG}'.encode(), "image/svg+xml", "image"),
    ("bom.svg", b"\xef\xbb\xbf" + SVG.encode(), "image/svg+xml", "image"),
    ("note.svg", f"<?xml?>\n<!-- made by hand -->\n{SVG}".encode(), "image/svg+xml", "image"),
    ("old.svg", f'<?xml version="1.0"?>\n{DOCTYPE}\n{SVG}'.encode(), "image/svg+xml", "image"),
    ("a.avif", box(b"ftyp", b"avif\0\0\0\0avifmif1"), "image/avif", "image"),
    ("moves.avif", box(b"ftyp", b"avis\0\0\0\0avis"), "image/avif", "image"),
    ("a.heic", box(b"ftyp", b"heic\0\0\0\0mif1heic"), "image/heic", "image"),
    ("a.mov", box(b"ftyp", b"qt  \0\0\x02\0qt  "), "video/quicktime", "video"),
    ("a.mp4", box(b"ftyp", b"isom\0\0\x02\0isomiso2avc1mp41"), "video/mp4", "video"),
    ("a.m4a", box(b"ftyp", b"M4A \0\0\x02\0isom"), "audio/mp4", "audio"),
    ("a.mkv", ebml(b"matroska"), "video/x-matroska", "video"),
    ("a.webm", ebml(b"webm"), "video/webm", "video"),
    ("a.avi", b"RIFF\x10\0\0\0AVI LIST", "video/x-msvideo", "video"),
    ("a.wav", b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0", "audio/wav", "audio"),
    ("id3.mp3", b"ID3\x04\0\0\0\0\0\0", "audio/mpeg", "audio"),
    ("bare.mp3", b"\xff\xfb\x90\x64" + b"\0" * 32, "audio/mpeg", "audio"),
    ("a.exr", b"v/1\x01\x02\0\0\0", "image/x-exr", "image"),
    ("a.ply", b"ply\nformat ascii 1.0\n", "model/x-ply", "file"),
    ("a.pdf", b"%PDF-1.7\n", "application/pdf", "file"),
    ("a.zip", packed("a.txt"), "application/zip", "file"),
    ("a.latent", safetensors(latent_tensor=TENSOR), "application/x-comfyui-latent", "latent"),
    ("b.safetensors", safetensors(weight=TENSOR), "application/x-safetensors", "file"),
    ("a.json", b'{"a": 1}', "application/json", "text"),
    ("A.JSON", b"[1, 2]", "application/json", "text"),
    ("a.csv", b"a,b\n1,2\n", "text/csv", "text"),
    ("a.md", b"# Title", "text/markdown", "text"),
    ("a.srt", b"1\n00:00:00,000 --> 00:00:01,000\nHi\n", "application/x-subrip", "file"),
    ("a.vtt", b"WEBVTT\n", "text/vtt", "text"),
    ("a.obj", b"v 0 0 0\n", "model/obj", "file"),
    ("a.gltf", b'{"asset": {"version": "2.0"}}', "model/gltf+json", "file"),
    ("a.txt", "grüße, 猫".encode(), "text/plain", "text"),
    ("a", b"just words", "text/plain", "text"),
    ("a.txt", b"", "text/plain", "text"),
    ("a.png", b"not a picture", "text/plain", "text"),
    ("a.txt", b"words\x00and a null", "application/octet-stream", "file"),
    ("a.bin", bytes(range(256)), "application/octet-stream", "file"),
    ("latin.txt", "grüße".encode("latin-1"), "application/octet-stream", "file"),
]


@pytest.mark.parametrize(
    ("name", "body", "mime", "kind"), HANDMADE, ids=[f"{n}-{m}" for n, _, m, _ in HANDMADE]
)
def test_a_type_is_told_from_the_content(name: str, body: bytes, mime: str, kind: str) -> None:
    """Bytes have the type their content shows, and the contract's kind that goes with it."""
    assert content_type(body, name) == mime
    assert media_kind(mime) == kind


def test_text_cut_inside_a_character_is_still_text() -> None:
    """A head that ends in the middle of a letter is text; one broken before its end is not."""
    head = ("a" * (HEAD_SIZE - 1) + "猫").encode()[:HEAD_SIZE]

    assert content_type(head) == "text/plain"
    assert content_type(head[:-1] + b"\xff") == "text/plain"
    assert content_type(b"\xff" + head[1:]) == "application/octet-stream"
    assert content_type("猫".encode()[:2]) == "application/octet-stream"


@given(st.binary(max_size=HEAD_SIZE), st.text(max_size=40))
def test_any_bytes_have_a_type(body: bytes, name: str) -> None:
    """Whatever the bytes and the name, there is an answer of the form family/kind."""
    family, slash, kind = content_type(body, name).partition("/")

    assert (bool(family), slash, bool(kind)) == (True, "/", True)
    assert media_kind(f"{family}/{kind}") in ("image", "video", "audio", "text", "file", "latent")


def test_a_hash_names_its_algorithm() -> None:
    """A digest is written with the name of what made it."""
    assert content_hash("00ff") == "blake3:00ff"


def test_an_upload_has_exactly_one_source() -> None:
    """An upload without bytes, or with two sources of them, is refused."""
    with pytest.raises(ValueError, match="either a path or content"):
        Upload("a.png")
    with pytest.raises(ValueError, match="either a path or content"):
        Upload("a.png", path=Path("a.png"), content=b"")
    assert Upload("a.png", content=b"").content == b""


HOSTILE = [
    ("../../etc/pass:wd", "pass_wd"),
    ("..\\..\\boot.ini", "boot.ini"),
    ("C:\\Windows\\a.png", "a.png"),
    ("/etc/passwd", "passwd"),
    ("a/b/", "file"),
    ("", "file"),
    (".", "file"),
    ("..", "file"),
    (" . . ", "file"),
    ("...", "file"),
    ("a.png. . ", "a.png"),
    ("CON", "CON_"),
    ("con.png", "con_.png"),
    ("Con .png", "Con_.png"),
    ("COM¹.txt", "COM¹_.txt"),
    ("conin$", "conin$_"),
    ("console.png", "console.png"),
    ("a\x00b\x1f\x7f.png", "a_b__.png"),
    ('<a>:"b"|?*.png', "_a___b____.png"),
    ("stream.png:hidden", "stream.png_hidden"),
    ("\ud800.png", "_.png"),
    ("grüße 猫.png", "grüße 猫.png"),
    (".bashrc", ".bashrc"),
    ("ComfyUI_00001_.png", "ComfyUI_00001_.png"),
]


@pytest.mark.parametrize(("name", "safe"), HOSTILE, ids=[repr(name) for name, _ in HOSTILE])
def test_a_hostile_name_becomes_a_plain_one(name: str, safe: str) -> None:
    """A name that means more than a name loses that meaning; a plain one stays as it is."""
    assert safe_name(name) == safe


def test_a_long_name_keeps_its_ending() -> None:
    """A name too long for a disk is cut, but for its ending."""
    assert safe_name("a" * 300 + ".png") == "a" * 196 + ".png"
    assert safe_name("猫" * 300 + ".webp").endswith("猫.webp")
    assert len(safe_name("a" * 300).encode()) == 200


awkward = st.text(
    st.sampled_from(
        './\\ :*?"<>|~$%\x00\x1f\x7f\u202e\ud800\udfffconCONauxprnCOM1¹3lpt9AéÅ猫🦊\u0301\n\t-_'
    ),
    max_size=320,
)
devices = st.builds(
    str.__add__,
    st.sampled_from(sorted(WINDOWS_DEVICES | {"con", "Aux", "nul"})),
    st.text(st.sampled_from(" .ax猫"), max_size=260),
)
names = st.one_of(st.text(), awkward, devices)


@given(names)
@example("CON" + " " * 300 + "x")
@example("CON." + "a" * 300)
@example("a." + "b" * 18 + " c" * 200)
@example("a" * 196 + ". . . . .")
def test_a_safe_name_is_only_a_name(name: str) -> None:
    """Whatever comes in, what comes out is one plain file name on every system."""
    safe = safe_name(name)

    assert safe
    assert not set(safe) & set('/\\:*?"<>|')
    assert safe not in (".", "..")
    assert safe == safe.rstrip(" .")
    assert safe.partition(".")[0].rstrip().upper() not in WINDOWS_DEVICES
    assert len(safe.encode()) <= 255
    assert not any(ord(letter) < 32 or ord(letter) == 127 for letter in safe)
    assert PurePosixPath("d", safe).parts == ("d", safe)
    assert PureWindowsPath("d", safe).parts == ("d", safe)


@given(names)
@example("CON" + " " * 300 + "x")
@example("CON." + "a" * 300)
def test_a_safe_name_stays_as_it_is(name: str) -> None:
    """Making a name safe twice is making it safe once."""
    assert safe_name(safe_name(name)) == safe_name(name)


@pytest.mark.parametrize(
    ("folder", "safe"),
    [
        ("", "."),
        ("video", "video"),
        ("a/b", "a/b"),
        ("a\\b", "a/b"),
        ("/etc", "etc"),
        ("../../x", "x"),
        ("a/../../b", "a/b"),
        ("C:\\x", "C_/x"),
        ("con/a", "con_/a"),
        (". ./ ..", "file/file"),
        ("a//b/./", "a/b"),
    ],
)
def test_a_hostile_folder_stays_below(folder: str, safe: str) -> None:
    """A folder a server names leads down, never up or elsewhere."""
    assert safe_folder(folder) == PurePosixPath(safe)


@given(st.lists(names, max_size=4), st.sampled_from("/\\"))
def test_a_safe_folder_leads_only_down(parts: list[str], separator: str) -> None:
    """Whatever comes in is a relative path of safe names, the same when made safe again."""
    folder = safe_folder(separator.join(parts))

    assert not folder.is_absolute()
    assert all(part == safe_name(part) for part in folder.parts)
    assert safe_folder(str(folder)) == folder


def _served_files() -> Iterator[tuple[str, bytes]]:
    """What GET /view answered in any recording, with the name that tells its real type."""
    for name in Recording.names():
        asked: dict[int, str] = {}
        for line in (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
            raw = json.loads(line)
            if raw["kind"] == "http-request" and raw["method"] == "GET":
                asked[raw["id"]] = raw["path"]
            elif raw["kind"] == "http-response" and raw["status"] == 200:
                yield from _served_file(asked.get(raw["id"], ""), raw)


def _served_file(path: str, raw: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    address = urlsplit(path)
    if address.path.removeprefix("/api") != "/view" or not ("base64" in raw or "text" in raw):
        return
    query = parse_qs(address.query)
    filename = query["filename"][0].partition(" [")[0]
    # A preview is made on the spot; its header is the only one who knows its format.
    if "preview" in query:
        filename = f"preview.{raw['headers']['Content-Type'].partition('/')[2]}"
    yield filename, base64.b64decode(raw["base64"]) if "base64" in raw else raw["text"].encode()
