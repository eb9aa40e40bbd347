"""Health, readiness and the docs page, as those who watch and read a server see them."""

from __future__ import annotations

import hashlib
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.message import Message
from pathlib import Path

import pytest

from comfyserve.server import docs_page
from tests.engines import running_engine
from tests.server.serving import NOWHERE, serving


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server without any backend that answers."""
    with serving(tmp_path_factory.mktemp("data")) as served:
        yield served.calls.url


def ask(url: str, method: str = "GET", **headers: str) -> tuple[int, bytes, Message]:
    request = urllib.request.Request(url, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return response.status, response.read(), response.headers
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read(), refused.headers


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_it_lives_without_a_backend(url: str, method: str) -> None:
    """Health is about the process alone."""
    for path in ("/healthz", "/api/v2/health"):
        status, body, headers = ask(url + path, method)

        assert (status, headers["Cache-Control"]) == (200, "no-store")
        assert body == b"" if method == "HEAD" else json.loads(body)["status"] == "healthy"


def test_it_is_not_ready_without_a_backend(url: str) -> None:
    """Readiness says which backend does not answer by its number, and keeps its address."""
    status, body, _ = ask(f"{url}/readyz")

    assert status == 503
    (reason,) = json.loads(body)["reasons"]
    assert reason.startswith("Backend 1 of 1: It does not answer")
    assert NOWHERE not in reason
    assert ask(f"{url}/readyz", "HEAD")[:2] == (503, b"")
    assert json.loads(ask(f"{url}/api/v2/health")[1])["upstream"]["backends_up"] == 0


def test_it_is_ready_with_a_backend_that_answers(tmp_path: Path) -> None:
    """One backend is enough, and it is asked anew each time."""
    with running_engine() as engine, serving(tmp_path, engine.url) as served:
        assert ask(f"{served.calls.url}/readyz")[0] == 200
        engine.kill()
        assert ask(f"{served.calls.url}/readyz")[0] == 503


def test_the_docs_are_whole_without_a_network(url: str) -> None:
    """All that the page names comes from this server, and its policy allows nothing else."""
    status, page, headers = ask(f"{url}/docs")
    policy = headers["Content-Security-Policy"]

    assert status == 200
    assert b"http" not in page
    assert "default-src 'none'" in policy
    assert "http" not in policy
    for part in ("docs.js", "swagger-ui-bundle.js", "swagger-ui.css"):
        assert f'"docs/{part}"'.encode() in page
        assert ask(f"{url}/docs/{part}")[0] == 200
    assert ask(f"{url}/docs/..%2fdocs_page.py")[0] == 404
    assert ask(f"{url}/docs/VENDOR.txt")[0] == 404


def test_the_description_names_this_server(url: str) -> None:
    """The OpenAPI document has the routes, and the address its reader asked."""
    document = json.loads(ask(f"{url}/openapi.json")[1])

    assert document["servers"] == [{"url": url}]
    assert {"/api/v2/jobs", "/api/v2/assets", "/api/jobs/{id}/events"} <= set(document["paths"])


def test_vendored_parts_are_those_that_were_published() -> None:
    """The files have the hashes that stand beside their licence."""
    static = Path(docs_page.__file__).with_name("static")
    told = (static / "VENDOR.txt").read_text(encoding="utf-8").partition("sha256\n")[2]

    for line in told.splitlines():
        expected, name = line.split()
        assert hashlib.sha256((static / name).read_bytes()).hexdigest() == expected
