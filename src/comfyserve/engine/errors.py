"""Why the engine did not start.

* EngineError
  - MissingParts
  - AddressInUse
  - AddressUnusable
  - BadFolder
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class EngineError(Exception):
    """The engine cannot run; the sentence says what to do."""


class MissingParts(EngineError):
    """Packages that the engine draws with are not installed."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        super().__init__(
            f"The built-in engine needs {', '.join(self.names)}. "
            'Install with: pip install "comfyserve[engine]"'
        )


class AddressInUse(EngineError):
    """Another program listens at the address."""

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port
        super().__init__(
            f"The built-in engine cannot listen on {host} port {port}: the port is in use. "
            "Stop the other program, or choose another port (0 takes a free one)."
        )


class AddressUnusable(EngineError):
    """The address is none of this machine's, or not one that we may use."""

    def __init__(self, host: str, port: int, reason: str) -> None:
        self.host = host
        self.port = port
        super().__init__(
            f"The built-in engine cannot listen on {host} port {port}: {reason}. "
            "Choose an address of this machine, such as 127.0.0.1, and a port that you may use."
        )


class BadFolder(EngineError):
    """The engine's files cannot be kept where they should."""

    def __init__(self, folder: Path, reason: str) -> None:
        self.folder = folder
        super().__init__(
            f"The built-in engine cannot keep its files in {folder}: {reason}. "
            "Choose a folder that can be written to."
        )
