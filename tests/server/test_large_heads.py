"""Headers without end do not fill the server's memory."""

from __future__ import annotations

import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.server.serving import NOWHERE
from tests.server_calls import ServerCalls
from tests.servers import running_server

PIECE = b"a" * 65536
MOST_PIECES = 500


def test_a_head_has_an_end(tmp_path: Path) -> None:
    """Who sends header after header is hung up long before that is much, and others are served;
    a large body is none of that."""
    with running_server(tmp_path, backends=[NOWHERE]) as server:
        address = urlsplit(server.url)
        assert address.port is not None
        with socket.create_connection((str(address.hostname), address.port), 10) as sending:
            sending.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: ")
            with pytest.raises(OSError):
                for _ in range(MOST_PIECES):
                    sending.sendall(PIECE)

        calls = ServerCalls(server.url)
        assert calls.ask("GET", "/healthz").status == 200
        assert calls.upload(bytes(2**20), "a.bin").status == 201
