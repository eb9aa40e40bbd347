"""A proxy between a server and its ComfyUI that can get stuck, as proxies do."""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

_PIECE = 1 << 16
_TURN = 0.05
_STOP_SECONDS = 10.0


class Wire:
    """Passes bytes on between whoever connects to *url* and a target, unless it is stuck.

    While stuck it accepts connections and takes nothing from them, and what was sent stays on
    the way; when it is free again all of it arrives. One thread does everything.
    """

    def __init__(self, target: str) -> None:
        address = urlsplit(target)
        self._target = (address.hostname or "", address.port or 80)
        self._door = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._door.getsockname()[1]}"
        self._is_stuck = threading.Event()
        self._is_closed = threading.Event()
        self._other: dict[socket.socket, socket.socket] = {}
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stick(self) -> None:
        """Pass nothing on from now."""
        self._is_stuck.set()

    def free(self) -> None:
        """Pass everything on again."""
        self._is_stuck.clear()

    def close(self) -> None:
        """Cut every connection and take no more."""
        self._is_closed.set()
        self._thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector, self._door:
            selector.register(self._door, selectors.EVENT_READ)
            while not self._is_closed.is_set():
                ready = [key.fileobj for key, _ in selector.select(_TURN)]
                if self._is_stuck.is_set():
                    # The kernel goes on accepting for us, as it does for a stuck process.
                    self._is_closed.wait(_TURN)
                    continue
                for each in ready:
                    assert isinstance(each, socket.socket)
                    if each is self._door:
                        self._connect(selector)
                    elif each in self._other:
                        self._pass_on(selector, each)
            for each in list(self._other):
                each.close()

    def _connect(self, selector: selectors.BaseSelector) -> None:
        near, _ = self._door.accept()
        try:
            far = socket.create_connection(self._target, _STOP_SECONDS)
        except OSError:
            near.close()
            return
        for one, other in ((near, far), (far, near)):
            self._other[one] = other
            selector.register(one, selectors.EVENT_READ)

    def _pass_on(self, selector: selectors.BaseSelector, source: socket.socket) -> None:
        target = self._other[source]
        try:
            piece = source.recv(_PIECE)
            if piece:
                target.sendall(piece)
                return
        except OSError:
            pass
        for each in (source, target):
            selector.unregister(each)
            with suppress(OSError):
                each.close()
            del self._other[each]


@contextmanager
def wire(target: str) -> Iterator[Wire]:
    """A wire to *target*; cut when the context ends."""
    between = Wire(target)
    try:
        yield between
    finally:
        between.close()
