"""Assets over HTTP: bytes brought in any order of the form, read in part, never run as a page."""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Iterator, Sequence

import pytest
from blake3 import blake3

from comfyserve.server.v2.content import Part, Unsatisfiable, wanted_part
from tests.server.serving import Served, serving
from tests.server_calls import Answer, wait_until

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
BOUNDARY = "a-line-between"
CAP = 3_000_000


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("assets"), upload_cap=CAP) as running:
        yield running


def form(*parts: tuple[str, bytes]) -> bytes:
    """A multipart body of these parts, in this order."""
    lines = []
    for name, value in parts:
        file = '; filename="a.bin"' if name == "file" else ""
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
        lines.append(head.encode() + value + b"\r\n")
    return b"".join(lines) + f"--{BOUNDARY}--\r\n".encode()


def post(served: Served, *parts: tuple[str, bytes], key: str | None = None) -> Answer:
    """The answer to an upload of this form."""
    # A line that stays open is not cut while what is too much still comes.
    headers = {
        "Content-Type": f"multipart/form-data; boundary={BOUNDARY}",
        "Connection": "keep-alive",
    }
    headers |= {} if key is None else {"Idempotency-Key": key}
    return served.calls.ask("POST", "/api/v2/assets", form(*parts), headers)


def uploaded(served: Served, content: bytes, name: str = "a.png", kind: str = "image/png") -> str:
    """The id of a new asset."""
    answer = served.calls.upload(content, name, kind)
    assert answer.status in (200, 201), answer
    return str(answer.json()["id"])


def content(served: Served, id: str, method: str = "GET", **headers: str) -> Answer:
    """The answer to a question for an asset's bytes."""
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    return served.calls.ask(method, f"/api/v2/assets/{id}/content", headers=told)


def test_the_parts_of_a_form_may_come_in_any_order(served: Served) -> None:
    """What is said of a file counts, whether it comes before or after the file."""
    fields = [("content_type", b"image/png"), ("file_path", "bild-ü.png".encode()), ("tags", b"a")]
    fields += [("tags", b"b"), ("expires_in", b"3600")]
    for place in range(len(fields) + 1):
        parts = [*fields[:place], ("file", PNG), *fields[place:]]
        answer = post(served, *parts)
        asset = answer.json()
        assert answer.status in (200, 201), answer
        assert (asset["file_path"], asset["tags"]) == ("bild-ü.png", ["a", "b"])
        assert asset["hash"] == f"blake3:{blake3(PNG).hexdigest()}"
        assert asset["size_bytes"] == len(PNG)


def test_bytes_are_new_only_once(served: Served) -> None:
    """The first upload of bytes is 201 and created_new, the second 200 and another asset."""
    fields = [("content_type", b"text/plain"), ("file_path", b"n.txt")]
    first = post(served, *fields, ("file", b"these bytes are new"))
    second = post(served, *fields, ("file", b"these bytes are new"))
    assert (first.status, first.json()["created_new"]) == (201, True)
    assert (second.status, second.json()["created_new"]) == (200, False)
    assert first.json()["id"] != second.json()["id"]
    assert first.headers["location"] == f"/api/v2/assets/{first.json()['id']}"


def test_the_empty_file_is_a_file(served: Served) -> None:
    """No bytes at all make an asset, whose content is empty; no range of it can be had."""
    id = uploaded(served, b"", "empty.bin", "application/x-thing")
    assert (content(served, id).status, content(served, id).body) == (200, b"")
    assert content(served, id, Range="bytes=0-").status == 416


@pytest.mark.parametrize(
    ("parts", "status", "code"),
    [
        ([("content_type", b"a/b"), ("file_path", b"x")], 422, "invalid_request"),
        ([("file", b"x"), ("file_path", b"x")], 422, "invalid_request"),
        ([("file", b"x"), ("content_type", b"a/b")], 422, "invalid_request"),
        ([("file", b"x"), ("file", b"x")], 422, "invalid_request"),
        ([("fil", b"x")], 422, "invalid_request"),
        ([("file_path", b"x"), ("file_path", b"y"), ("file", b"x")], 422, "invalid_request"),
        ([("file_path", b"\xff"), ("content_type", b"a/b"), ("file", b"")], 422, "invalid_request"),
        ([("file_path", b"x" * 9000)], 422, "invalid_request"),
        ([("tags", b"t")] * 65, 422, "invalid_request"),
        ([("file", b"x" * (CAP + 1))], 413, "payload_too_large"),
        ([("file", b"x" * CAP * 2)], 413, "payload_too_large"),
    ],
)
def test_a_form_that_does_not_fit_is_refused(
    served: Served, parts: Sequence[tuple[str, bytes]], status: int, code: str
) -> None:
    """Missing, repeated, unknown and too large parts are refused with the reason."""
    answer = post(served, *parts)
    assert (answer.status, answer.code) == (status, code)


@pytest.mark.parametrize("seconds", [b"59", b"604801", b"1e3", b"-5", b"many"])
def test_an_asset_is_kept_a_minute_to_a_week(served: Served, seconds: bytes) -> None:
    """expires_in outside of its bounds, and what is no whole number, is refused."""
    fields = [("content_type", b"a/b"), ("file_path", b"x"), ("expires_in", seconds)]
    assert post(served, ("file", b"x"), *fields).status == 422


def test_bytes_that_are_not_the_announced_ones_are_not_kept(served: Served) -> None:
    """A wrong expected_hash is 409 and mints nothing, wherever in the form it stands."""
    wrong = ("expected_hash", b"blake3:" + b"0" * 64)
    fields = [("content_type", b"a/b"), ("file_path", b"x")]
    for parts in ([wrong, *fields, ("file", b"other")], [*fields, ("file", b"other"), wrong]):
        answer = post(served, *parts)
        assert (answer.status, answer.code) == (409, "hash_mismatch")
    hash = f"blake3:{blake3(b'other').hexdigest()}"
    assert served.calls.ask("HEAD", f"/api/v2/assets/by-hash/{hash}").status == 404


def test_a_key_is_good_for_one_upload_and_again_after_a_failure(served: Served) -> None:
    """A refused upload gives its key back, one that succeeded uses it up."""
    fields = [("content_type", b"a/b"), ("file_path", b"x")]
    wrong = ("expected_hash", b"blake3:" + b"0" * 64)
    assert post(served, *fields, ("file", b"k"), wrong, key="one").status == 409
    assert post(served, *fields, ("file", b"k"), key="one").status == 201
    again = post(served, *fields, ("file", b"k"), key="one")
    assert (again.status, again.code) == (422, "idempotency_key_reuse")


@pytest.mark.parametrize("key", ["", "k" * 256])
def test_a_key_has_its_length(served: Served, key: str) -> None:
    """An empty key and one of more than 255 characters are refused."""
    answer = post(served, ("file", b"x"), key=key)
    assert (answer.status, answer.code) == (422, "invalid_request")


@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data", "application/json"])
def test_an_upload_has_to_be_a_form(served: Served, kind: str) -> None:
    """Anything but a multipart form with a boundary is refused."""
    answer = served.calls.ask("POST", "/api/v2/assets", b"hello", {"Content-Type": kind})
    assert (answer.status, answer.code) == (422, "invalid_request")


def test_a_form_that_breaks_off_is_refused(served: Served) -> None:
    """A body that ends before its last boundary keeps nothing."""
    body = form(("content_type", b"a/b"), ("file_path", b"x"), ("file", b"broken off here"))
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    answer = served.calls.ask("POST", "/api/v2/assets", body[:-20], headers)
    assert (answer.status, answer.code) == (422, "invalid_request")


def test_a_client_that_hangs_up_leaves_nothing(served: Served) -> None:
    """When the connection is lost within the file, no part of it stays on the disk."""
    address = served.calls.url.removeprefix("http://").split(":")
    incoming = next(served.settings.data.rglob("incoming"))
    body = form(("content_type", b"a/b"), ("file_path", b"x"), ("file", b"z" * 2_500_000))
    head = (
        f"POST /api/v2/assets HTTP/1.1\r\nHost: {':'.join(address)}\r\n"
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode()
    with socket.create_connection((address[0], int(address[1]))) as line:
        line.sendall(head + body[:2_000_000])
        wait_until(lambda: any(incoming.iterdir()), lambda: "nothing arrived")
    wait_until(lambda: not any(incoming.iterdir()), lambda: str(list(incoming.iterdir())))
    hash = f"blake3:{blake3(b'z' * 2_500_000).hexdigest()}"
    assert served.calls.ask("HEAD", f"/api/v2/assets/by-hash/{hash}").status == 404


def test_bytes_may_be_sent_in_any_pieces(served: Served) -> None:
    """Wherever the network cuts a form, the file is the same."""
    address = served.calls.url.removeprefix("http://").split(":")
    sent = b"\r\n--" + BOUNDARY[:-1].encode() + b"\r\n" + PNG
    body = form(("file", sent), ("content_type", b"a/b"), ("file_path", b"x"))
    for size in (1, 7, 61):
        pieces = [body[at : at + size] for at in range(0, len(body), size)]
        head = (
            f"POST /api/v2/assets HTTP/1.1\r\nHost: {':'.join(address)}\r\nConnection: close\r\n"
            f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n"
            "Transfer-Encoding: chunked\r\n\r\n"
        ).encode()
        with socket.create_connection((address[0], int(address[1]))) as line:
            line.sendall(head)
            for piece in pieces:
                line.sendall(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            line.sendall(b"0\r\n\r\n")
            answer = b"".join(iter(lambda: line.recv(65536), b""))
        assert blake3(sent).hexdigest().encode() in answer, answer


def test_an_asset_over_bytes_that_are_there(served: Served) -> None:
    """from-hash mints over kept bytes, gives the same reference again, and knows no others."""
    uploaded(served, b"from the hash", "h.txt", "text/plain")
    hash = f"blake3:{blake3(b'from the hash').hexdigest()}"
    asked = {"hash": hash, "file_path": "other.txt", "tags": ["input"], "expires_in": 3600}
    first = served.calls.ask("POST", "/api/v2/assets/from-hash", asked)
    second = served.calls.ask("POST", "/api/v2/assets/from-hash", asked)
    assert (first.status, second.status) == (201, 200)
    assert first.json()["id"] == second.json()["id"]
    assert first.json()["created_new"] is False
    unknown = served.calls.ask("POST", "/api/v2/assets/from-hash", {"hash": "blake3:" + "0" * 64})
    assert (unknown.status, unknown.code) == (404, "blob_not_found")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"hash": 7},
        {"hash": "blake3:00", "tags": "a"},
        {"hash": "blake3:00", "file_path": 7},
        {"hash": "blake3:00", "expires_in": "60"},
        {"hash": "blake3:00", "expires_in": 59},
        {"hash": "blake3:00", "filepath": "x"},
    ],
)
def test_a_hash_reference_that_does_not_fit_is_refused(
    served: Served, body: dict[str, object]
) -> None:
    """Wrong types, limits and unknown fields are refused before the hash is looked up."""
    answer = served.calls.ask("POST", "/api/v2/assets/from-hash", body)
    assert (answer.status, answer.code) == (422, "invalid_request")


def test_an_asset_is_deleted_once(served: Served) -> None:
    """A second delete, and every question after the first, is 404 not_found."""
    id = uploaded(served, b"to be deleted")
    assert served.calls.get(f"/api/v2/assets/{id}")["id"] == id
    deleted = served.calls.ask("DELETE", f"/api/v2/assets/{id}")
    assert (deleted.status, deleted.body) == (204, b"")
    for method, path in (("DELETE", ""), ("GET", ""), ("GET", "/content")):
        answer = served.calls.ask(method, f"/api/v2/assets/{id}{path}")
        assert (answer.status, answer.code) == (404, "not_found")


def test_the_bytes_come_whole_and_in_part(served: Served) -> None:
    """A range gives just that range, and says of how much."""
    id = uploaded(served, PNG)
    whole = content(served, id)
    assert (whole.status, whole.body) == (200, PNG)
    assert whole.headers["content-type"] == "image/png"
    assert whole.headers["accept-ranges"] == "bytes"
    part = content(served, id, Range="bytes=3-9")
    assert (part.status, part.body) == (206, PNG[3:10])
    assert part.headers["content-range"] == f"bytes 3-9/{len(PNG)}"
    assert part.headers["content-length"] == "7"
    tail = content(served, id, Range="bytes=-5")
    assert (tail.status, tail.body) == (206, PNG[-5:])
    beyond = content(served, id, Range=f"bytes={len(PNG)}-")
    assert (beyond.status, beyond.code) == (416, "range_not_satisfiable")
    assert beyond.headers["content-range"] == f"bytes */{len(PNG)}"


def test_bytes_that_the_caller_has_are_not_sent_again(served: Served) -> None:
    """If-None-Match with the tag is 304, and If-Range with another tag gives the whole."""
    id = uploaded(served, PNG)
    tag = content(served, id).headers["etag"]
    same = content(served, id, If_None_Match=f'"other", W/{tag}')
    assert (same.status, same.body, same.headers["etag"]) == (304, b"", tag)
    assert content(served, id, If_None_Match='"other"').status == 200
    assert content(served, id, Range="bytes=0-1", If_Range=tag).status == 206
    assert content(served, id, Range="bytes=0-1", If_Range='"other"').status == 200


def test_head_says_what_get_would(served: Served) -> None:
    """HEAD has the headers of GET and no body."""
    id = uploaded(served, PNG)
    head, got = content(served, id, "HEAD"), content(served, id)
    assert head.body == b""
    varying = {"date", "x-comfy-request-id"}
    assert {n: v for n, v in head.headers.items() if n not in varying} == {
        n: v for n, v in got.headers.items() if n not in varying
    }


@pytest.mark.parametrize(
    ("sent", "name", "kind"),
    [
        (b"<html><script>alert(1)</script>", "page.html", "text/html"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'><script/></svg>", "x.svg", "image/svg+xml"),
    ],
)
def test_what_could_be_a_page_never_acts_as_ours(
    served: Served, sent: bytes, name: str, kind: str
) -> None:
    """Uploaded pages and drawings are saved rather than shown, and could run nothing."""
    answer = content(served, uploaded(served, sent, name, kind))
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"].split("; ")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    is_shown_as_text = answer.headers["content-type"].startswith("text/plain")
    assert answer.headers["content-disposition"].startswith("attachment") or is_shown_as_text


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ('a"b\\c;d.png', "filename*=UTF-8''c_d.png"),
        ("folder/bild ü.png", "filename*=UTF-8''bild%20%C3%BC.png"),
        ("a\u2028b.png", "filename*=UTF-8''a%E2%80%A8b.png"),
    ],
)
def test_a_name_never_leaves_its_header(served: Served, path: str, told: str) -> None:
    """Quotes, line ends and letters of any script in a name stay within the name."""
    fields = [("content_type", b"image/png"), ("file_path", path.encode())]
    asset = post(served, *fields, ("file", PNG)).json()
    disposition = content(served, asset["id"]).headers["content-disposition"]
    assert disposition.isascii()
    assert disposition.count('"') == 2
    assert "filename*=UTF-8''" in disposition
    assert told.split("''")[1].split(".")[0][-3:] in disposition


def test_answers_of_large_assets_can_be_left(served: Served) -> None:
    """A client that leaves amid the bytes does not keep the server from answering others."""
    id = uploaded(served, b"y" * 2_500_000)
    address = served.calls.url.removeprefix("http://").split(":")
    for _ in range(5):
        with socket.create_connection((address[0], int(address[1]))) as line:
            asked = f"GET /api/v2/assets/{id}/content HTTP/1.1\r\nHost: {':'.join(address)}"
            line.sendall(f"{asked}\r\n\r\n".encode())
            line.recv(100)
    begun = time.monotonic()
    assert content(served, id).body == b"y" * 2_500_000
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize(
    ("told", "part"),
    [
        (None, None),
        ("bytes=0-", Part(0, 10)),
        ("bytes=0-0", Part(0, 1)),
        ("bytes=2-100", Part(2, 10)),
        ("bytes = 2 - 3", Part(2, 4)),
        ("bytes=-100", Part(0, 10)),
        ("bytes=5-2", None),
        ("bytes=0-1,4-5", None),
        ("bytes=-", None),
        ("lines=0-1", None),
        ("bytes=a-b", None),
        ("bytes=\u0663-", None),
        ("bytes=" + "9" * 30 + "-", None),
    ],
)
def test_a_range_is_read(told: str | None, part: Part | None) -> None:
    """Single ranges of bytes are understood, and whatever else means all of them."""
    assert wanted_part(told, 10) == part


@pytest.mark.parametrize("told", ["bytes=10-", "bytes=10-20", "bytes=-0"])
def test_a_range_beyond_the_end_cannot_be_had(told: str) -> None:
    """A range that begins after the last byte is unsatisfiable, not empty."""
    with pytest.raises(Unsatisfiable):
        wanted_part(told, 10)


def test_any_range_is_within_the_bytes() -> None:
    """Whatever a range says, its part is never empty and never outside."""
    numbers = ["", "0", "1", "9", "10", "11"]
    for first, last in itertools.product(numbers, numbers):
        try:
            part = wanted_part(f"bytes={first}-{last}", 10)
        except Unsatisfiable:
            continue
        assert part is None or 0 <= part.start < part.end <= 10
